"""Physical memory protection (privileged manual 3.7)."""

from __future__ import annotations

from doppel.isa.primitives import Hart
from doppel.isa.privileged.constants import Access, Mode
from doppel.isa.state import PMP_ENTRIES
from doppel.isa.words import Word

__all__ = ["ADDRESS_MASK", "LOCKED", "pmp_allows", "pmp_entry_locked"]

READ, WRITE, EXECUTE = 1, 2, 4
OFF, TOR, NA4, NAPOT = 0, 1, 2, 3
LOCKED = 0x80
ADDRESS_MASK = (1 << 54) - 1


def pmp_entry_locked(h: Hart, index: Word) -> bool:
    """Whether writes to pmpaddr[index] are ignored: it is locked, or the base of a locked range above it
    (3.7.1)."""
    if h.pmpcfg[index] & LOCKED != 0:
        return True
    if index + 1 < PMP_ENTRIES:
        above = h.pmpcfg[index + 1]
        return above & LOCKED != 0 and above >> 3 & 3 == TOR
    return False


def pmp_allows(h: Hart, address: Word, size: Word, access: Word, mode: Word) -> bool:
    """Whether all ``size`` bytes at a guest-physical address may be accessed in ``mode``.

    An access that an entry matches only in part fails, whatever the entry permits (3.7.1.3).
    """
    end = address + size
    previous = Word(0)
    index = Word(0)
    while index < PMP_ENTRIES:
        config = h.pmpcfg[index]
        register = h.pmpaddr[index]
        kind = config >> 3 & 3
        low_end = previous << 2
        high_end = register << 2
        if kind == NA4:
            low_end = register << 2
            high_end = low_end + 4
        elif kind == NAPOT:
            ones = register ^ (register + 1)
            low_end = (register & ~ones) << 2
            high_end = low_end + ((ones + 1) << 2)
        if kind != OFF and end > low_end and address < high_end:
            if address < low_end or end > high_end:
                return False
            if mode == Mode.M and config & LOCKED == 0:
                return True
            if access == Access.FETCH:
                return config & EXECUTE != 0
            if access == Access.LOAD:
                return config & READ != 0
            return config & WRITE != 0
        previous = register
        index = index + 1
    return mode == Mode.M
