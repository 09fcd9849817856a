"""The slow path of loads and stores: walk the φ-map, then the f-map, fill the TLB, reach the memory.

What the f-map does not have is a VM-fault; what is no memory is the bus's. Both leave for Python and the
instruction runs again, a device's answer then waiting in ``reply``.
"""

from __future__ import annotations

from doppel.isa.primitives import Hart
from doppel.isa.privileged.constants import Access, Cause, Pte
from doppel.isa.privileged.pmp import pmp_allows
from doppel.isa.privileged.translation import access_fault, data_mode, translate
from doppel.isa.words import Trap, Word
from doppel.memory.entry import FRAME_MASK, Entry
from doppel.translate.engine.code import code_written
from doppel.translate.engine.views import note_filled, note_superpage, second_entry
from doppel.translate.exits import ExitReason, Reply
from doppel.translate.layout import SECOND_TLB, TLB
from doppel.translate.pointers import (
    Pointer,
    compare_exchange,
    fill_zero,
    machine,
    offset,
    raise_exit,
    read,
    read_pointer,
    write,
    write_pointer,
)

__all__ = [
    "BLOCK",
    "atomic_slow",
    "find_page",
    "load_slow",
    "physical_compare_exchange",
    "physical_load",
    "reserve_slow",
    "store_slow",
    "zero_block_slow",
]

NO_TAG = (1 << 64) - 1
BLOCK = 64


def frame_pointer(h: Hart, physical: Word, size: Word, access: Word) -> Pointer:
    """The host address of guest-physical memory that is known to be memory; VM-fault if its page is out."""
    entry = read(machine(h, "fmap"), physical >> 12 << 3, 8)
    if entry & Entry.PRESENT == 0 or (access == Access.STORE and entry & Entry.WRITABLE == 0):
        raise_exit(h, ExitReason.VM_FAULT, physical, size, access, 0)
    return offset(machine(h, "arena"), (entry & FRAME_MASK) + (physical & 0xFFF))


def is_memory(h: Hart, physical: Word) -> bool:
    """Whether a guest-physical address is memory, present or not."""
    page = physical >> 12
    return page < machine(h, "fmap_pages") and read(machine(h, "fmap"), page << 3, 8) & Entry.MEMORY != 0


def physical_load(h: Hart, address: Word, cause: Word, value: Word) -> Word:
    """8 bytes of a page table; 12.3.2: a table outside memory is an access fault."""
    if not is_memory(h, address):
        raise Trap(cause, value)
    return read(frame_pointer(h, address, Word(8), Word(Access.LOAD)), 0, 8)


def physical_compare_exchange(h: Hart, address: Word, expected: Word, value: Word) -> bool:
    """Set A and D bits if the entry is still what the walk read."""
    stored = compare_exchange(frame_pointer(h, address, Word(8), Word(Access.STORE)), 0, 8, expected, value)
    note_store(h, address, Word(8))
    return stored


def data_pointer(h: Hart, address: Word, access: Word, size: Word, value: Word, device: bool) -> Pointer:
    """The host address for an access that stays inside one page; fills the TLB.

    Outside memory it leaves for the bus if ``device`` permits, else raises an access fault.
    """
    h.tlb_misses = h.tlb_misses + 1
    second = second_entry(h, address, h.tlb_array)
    if (
        read(second, SECOND_TLB.key, 8) == (address & ~0xFFF | h.tlb_array)
        and read(second, SECOND_TLB.generation, 8) == h.generation[h.context]
    ):
        known = read(second, SECOND_TLB.physical, 8)
        may_load = known & SECOND_TLB.may_load != 0
        may_store = known & SECOND_TLB.may_store != 0
        if may_store if access == Access.STORE else may_load:
            bias = read_pointer(second, SECOND_TLB.bias)
            enter(h, address, may_load, may_store, bias)
            h.data_physical = known & ~0xFFF | address & 0xFFF
            return offset(bias, address)
    h.walks = h.walks + 1
    mode = data_mode(h)
    physical, entry, level = translate(h, address, access, mode)
    whole = pmp_allows(h, physical & ~0xFFF, Word(4096), access, mode)
    if not whole and not pmp_allows(h, physical, size, access, mode):
        raise Trap(access_fault(access), address)
    if not is_memory(h, physical):
        if not device or h.reply == Reply.FAULT:
            h.reply = Reply.NONE
            raise Trap(access_fault(access), address)
        raise_exit(h, ExitReason.DEVICE, physical, size, access, value)
    host = frame_pointer(h, physical, size, access)
    h.data_physical = physical
    if whole:
        fill(h, address, entry, physical, access, mode, host)
        if level != 0:
            note_superpage(h, address, level)
    return host


def fill(
    h: Hart, address: Word, entry: Word, physical: Word, access: Word, mode: Word, host: Pointer
) -> None:
    """Enter a translation; loads and stores each only as far as all levels permit them already."""
    mapping = read(machine(h, "fmap"), physical >> 12 << 3, 8)
    page = physical & ~0xFFF
    may_load = access == Access.LOAD or (
        entry & Pte.R != 0 and pmp_allows(h, page, Word(4096), Word(Access.LOAD), mode)
    )
    may_store = (
        entry & Pte.W != 0
        and entry & Pte.D != 0
        and mapping & (Entry.WRITABLE | Entry.CODE) == Entry.WRITABLE
        and (access == Access.STORE or pmp_allows(h, page, Word(4096), Word(Access.STORE), mode))
    )
    bias = offset(host, 0 - address)
    enter(h, address, may_load, may_store, bias)
    # What M sees needs no walk.
    if h.tlb_array != 0:
        rights = Word(0)
        if may_load:
            rights = rights | SECOND_TLB.may_load
        if may_store:
            rights = rights | SECOND_TLB.may_store
        second = second_entry(h, address, h.tlb_array)
        write(second, SECOND_TLB.key, 8, address & ~0xFFF | h.tlb_array)
        write(second, SECOND_TLB.generation, 8, h.generation[h.context])
        write_pointer(second, SECOND_TLB.bias, bias)
        write(second, SECOND_TLB.physical, 8, page | rights)


def enter(h: Hart, address: Word, may_load: bool, may_store: bool, bias: Pointer) -> None:
    """Enter a page of the current array."""
    tag = address & ~0xFFF
    slot = offset(h.tlb_view, (address >> 12 & (TLB.entries - 1)) * TLB.entry_size)
    write(slot, TLB.load_tag, 8, tag if may_load else Word(NO_TAG))
    write(slot, TLB.store_tag, 8, tag if may_store else Word(NO_TAG))
    write_pointer(slot, TLB.bias, bias)
    note_filled(h, address)


def crosses(address: Word, size: int) -> bool:
    """Whether an access reaches into the next page."""
    return (address & 0xFFF) + size > 4096


def load_slow(h: Hart, address: Word, size: int) -> Word:
    """A load that missed the TLB, is misaligned, or returns from a device."""
    if h.reply == Reply.DONE:
        h.reply = Reply.NONE
        return h.reply_value
    if crosses(address, size):
        first = 4096 - (address & 0xFFF)
        here = data_pointer(h, address, Word(Access.LOAD), first, Word(0), False)
        there = data_pointer(h, address + first, Word(Access.LOAD), size - first, Word(0), False)
        value = Word(0)
        index = Word(0)
        while index < first:
            value = value | read(here, index, 1) << (8 * index)
            index = index + 1
        while index < size:
            value = value | read(there, index - first, 1) << (8 * index)
            index = index + 1
        return value
    return read(data_pointer(h, address, Word(Access.LOAD), Word(size), Word(0), True), 0, size)


def store_slow(h: Hart, address: Word, value: Word, size: int) -> None:
    """A store that missed the TLB, is misaligned, hits decoded code, or returns from a device."""
    if h.reply == Reply.DONE:
        h.reply = Reply.NONE
        return
    if crosses(address, size):
        # Both pages must be writable before anything is stored, so that a fault leaves memory as it was.
        first = 4096 - (address & 0xFFF)
        here = data_pointer(h, address, Word(Access.STORE), first, Word(0), False)
        here_physical = h.data_physical
        there = data_pointer(h, address + first, Word(Access.STORE), size - first, Word(0), False)
        index = Word(0)
        while index < first:
            write(here, index, 1, value >> (8 * index))
            index = index + 1
        while index < size:
            write(there, index - first, 1, value >> (8 * index))
            index = index + 1
        note_store(h, here_physical, first)
        note_store(h, h.data_physical, size - first)
        return
    write(data_pointer(h, address, Word(Access.STORE), Word(size), value, True), 0, size, value)
    note_store(h, h.data_physical, Word(size))


def note_store(h: Hart, physical: Word, size: Word) -> None:
    """Tell the code cache of a store."""
    if read(machine(h, "fmap"), physical >> 12 << 3, 8) & Entry.CODE != 0:
        code_written(h, physical, size)


def atomic_slow(h: Hart, address: Word, size: int) -> Pointer:
    """Where an AMO or SC may store; misaligned ones trap (Zaamo)."""
    if address & (size - 1) != 0:
        raise Trap(Cause.STORE_MISALIGNED, address)
    host = data_pointer(h, address, Word(Access.STORE), Word(size), Word(0), False)
    note_store(h, h.data_physical, Word(size))
    return host


def reserve_slow(h: Hart, address: Word, size: int) -> Pointer:
    """Where an LR may load."""
    if address & (size - 1) != 0:
        raise Trap(Cause.LOAD_MISALIGNED, address)
    return data_pointer(h, address, Word(Access.LOAD), Word(size), Word(0), False)


def find_page(h: Hart, address: Word, access: int, size: int) -> Pointer:
    """For a region that missed the TLB: the host address of guest-virtual address zero, as this page has it.

    Raises what may not mean a trap, but that the interpreter has to execute the access.
    """
    if h.reply != Reply.NONE or address & (size - 1) != 0:
        raise Trap(Cause.LOAD_MISALIGNED, address)
    host = data_pointer(h, address, Word(access), Word(size), Word(0), False)
    tag = TLB.store_tag if access == Access.STORE else TLB.load_tag
    slot = offset(h.tlb_view, (address >> 12 & (TLB.entries - 1)) * TLB.entry_size)
    if read(slot, tag, 8) != address & ~0xFFF:
        # A page that is protected in parts, of which the region may access another part, or decoded code.
        raise Trap(Cause.STORE_MISALIGNED, address)
    if h.limit != 0:
        # The walk may have set bits in what is executed next: the region is not entered again before that has
        # been looked at.
        raise Trap(Cause.LOAD_MISALIGNED, address)
    return offset(host, 0 - address)


def zero_block_slow(h: Hart, address: Word) -> None:
    """CBO.ZERO: zero the aligned block that holds the address, which is the value of a fault (Zicboz)."""
    mode = data_mode(h)
    physical, entry, level = translate(h, address, Word(Access.STORE), mode)
    block = physical & ~(BLOCK - 1)
    whole = pmp_allows(h, physical & ~0xFFF, Word(4096), Word(Access.STORE), mode)
    if not whole and not pmp_allows(h, block, Word(BLOCK), Word(Access.STORE), mode):
        raise Trap(Cause.STORE_ACCESS_FAULT, address)
    if not is_memory(h, block):
        raise Trap(Cause.STORE_ACCESS_FAULT, address)
    host = frame_pointer(h, block, Word(BLOCK), Word(Access.STORE))
    if whole:
        fill(h, address, entry, physical, Word(Access.STORE), mode, offset(host, physical - block))
        if level != 0:
            note_superpage(h, address, level)
    fill_zero(host, Word(BLOCK))
    note_store(h, block, Word(BLOCK))
