"""The φ-map: virtual to guest-physical addresses by the guest's own page tables (privileged manual 12.3 to
12.5).

Svadu: accessed and dirty bits are set by the walk while menvcfg.ADUE is on; otherwise their absence is a
page fault.
"""

from __future__ import annotations

from doppel.isa.primitives import Hart, physical_compare_exchange, physical_load
from doppel.isa.privileged.constants import Access, Cause, EnvironmentConfig, Mode, Pte, SatpMode, Status
from doppel.isa.privileged.pmp import pmp_allows
from doppel.isa.words import Trap, Word, sra

__all__ = ["access_fault", "data_mode", "page_fault", "translate"]

ALL_PERMISSIONS = Pte.V | Pte.R | Pte.W | Pte.X | Pte.A | Pte.D
PPN_MASK = (1 << 44) - 1
RESERVED = -1 << 54 & (1 << 64) - 1


def page_fault(access: Word) -> Word:
    """The page-fault cause that fits an access."""
    if access == Access.FETCH:
        return Word(Cause.INSTRUCTION_PAGE_FAULT)
    if access == Access.LOAD:
        return Word(Cause.LOAD_PAGE_FAULT)
    return Word(Cause.STORE_PAGE_FAULT)


def access_fault(access: Word) -> Word:
    """The access-fault cause that fits an access."""
    if access == Access.FETCH:
        return Word(Cause.INSTRUCTION_ACCESS_FAULT)
    if access == Access.LOAD:
        return Word(Cause.LOAD_ACCESS_FAULT)
    return Word(Cause.STORE_ACCESS_FAULT)


def data_mode(h: Hart) -> Word:
    """The effective privilege mode of loads and stores (3.1.6.3)."""
    if h.mode == Mode.M and h.mstatus & Status.MPRV != 0:
        return h.mstatus >> 11 & 3
    return h.mode


def translate(h: Hart, address: Word, access: Word, mode: Word) -> tuple[Word, Word, Word]:
    """Walk the page tables.

    Returns the guest-physical address, the leaf entry (with what permits the access already set), and the
    level at which it was found (0 for a 4 KiB page).

    Raises:
        Trap: page fault, or access fault on a page-table entry.
    """
    scheme = h.satp >> 60
    if mode == Mode.M or scheme == SatpMode.BARE:
        return address, Word(ALL_PERMISSIONS), Word(0)
    levels = scheme - 5
    unused = 64 - (12 + 9 * levels)
    if sra(address << unused, unused) != address:
        raise Trap(page_fault(access), address)
    while True:
        table = (h.satp & PPN_MASK) << 12
        level = levels - 1
        while True:
            entry_address = table + ((address >> (12 + 9 * level) & 0x1FF) << 3)
            if not pmp_allows(h, entry_address, Word(8), Word(Access.LOAD), Word(Mode.S)):
                raise Trap(access_fault(access), address)
            entry = physical_load(h, entry_address, access_fault(access), address)
            if entry & Pte.V == 0 or entry & (Pte.R | Pte.W) == Pte.W or entry & RESERVED != 0:
                raise Trap(page_fault(access), address)
            if entry & (Pte.R | Pte.X) != 0:
                break
            if level == 0 or entry & (Pte.U | Pte.A | Pte.D) != 0:
                raise Trap(page_fault(access), address)
            level = level - 1
            table = (entry >> 10 & PPN_MASK) << 12
        if not _permits(h, entry, access, mode):
            raise Trap(page_fault(access), address)
        span = (Word(1) << (9 * level)) - 1
        if entry >> 10 & span != 0:
            raise Trap(page_fault(access), address)
        wanted = entry | Pte.A
        if access == Access.STORE:
            wanted = wanted | Pte.D
        if wanted != entry:
            if h.menvcfg & EnvironmentConfig.ADUE == 0:
                raise Trap(page_fault(access), address)
            if not pmp_allows(h, entry_address, Word(8), Word(Access.STORE), Word(Mode.S)):
                raise Trap(access_fault(access), address)
            if not physical_compare_exchange(h, entry_address, entry, wanted):
                continue
        page = (entry >> 10 & PPN_MASK) | (address >> 12 & span)
        return page << 12 | address & 0xFFF, wanted, level


def _permits(h: Hart, entry: Word, access: Word, mode: Word) -> bool:
    if mode == Mode.U:
        if entry & Pte.U == 0:
            return False
    elif entry & Pte.U != 0 and (access == Access.FETCH or h.mstatus & Status.SUM == 0):
        return False
    if access == Access.FETCH:
        return entry & Pte.X != 0
    if access == Access.STORE:
        return entry & Pte.W != 0
    return entry & Pte.R != 0 or (h.mstatus & Status.MXR != 0 and entry & Pte.X != 0)
