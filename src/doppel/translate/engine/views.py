"""Which TLB arrays serve the current mode and address space, and forgetting what they hold.

A hart keeps translations of several address spaces, each known by the whole value of satp, so no other root
or mode is ever taken for it. Writing satp chooses among them; the one that was left longest ago gives way to
a new one. Emptying an array costs what has been filled of it.
"""

from __future__ import annotations

from doppel.isa.primitives import Hart
from doppel.isa.privileged.constants import Mode, SatpMode, Status
from doppel.isa.privileged.translation import data_mode
from doppel.isa.words import Word, ctz
from doppel.translate.layout import CONTEXTS, ITLB, SECOND_TLB, TLB, TLB_GROUPS
from doppel.translate.pointers import Pointer, address_of, offset, read, write

__all__ = [
    "flush_address",
    "flush_all",
    "flush_space",
    "flush_space_address",
    "note_code_filled",
    "note_filled",
    "note_superpage",
    "request_attention",
    "second_entry",
    "select_views",
]

NO_TAG = (1 << 64) - 1
MAXIMUM = (1 << 63) - 1
TLB_BYTES = TLB.view_size
ITLB_BYTES = ITLB.view_size
TLB_GROUP = TLB.entries // TLB_GROUPS
ITLB_GROUP = ITLB.entries // TLB_GROUPS
TLB_GROUP_SHIFT = TLB_GROUP.bit_length() - 1
ITLB_GROUP_SHIFT = ITLB_GROUP.bit_length() - 1
# The same addresses of different arrays are to be in different places.
SPREAD = 1031
ASID_MASK = 0xFFFF
ASID_SHIFT = 44


def request_attention(h: Hart) -> None:
    """Make the next block end go to attend()."""
    h.limit = MAXIMUM


def select_views(h: Hart) -> None:
    """Point the hart at the arrays for its address space and mode.

    Data is seen as U, S, S with SUM, or bare M; code as U, S or M.
    """
    satp = h.satp
    if satp >> 60 == SatpMode.BARE:
        # The other fields mean nothing then (12.1.11).
        satp = Word(0)
    if h.context_satp[h.context] != satp:
        select_context(h, satp)
    mode = data_mode(h)
    data = Word(0)
    if mode != Mode.M:
        data = h.context * TLB.views + 1 + mode
        if mode == Mode.S and h.mstatus & Status.SUM != 0:
            data = data + 1
    h.tlb_array = data
    h.tlb_view = offset(address_of(h, "tlb"), data * TLB_BYTES)
    code = Word(0)
    if h.mode != Mode.M:
        code = h.context * ITLB.views + 1 + h.mode
    h.itlb_array = code
    h.itlb_view = offset(address_of(h, "itlb"), code * ITLB_BYTES)


def select_context(h: Hart, satp: Word) -> None:
    """Take up the address space, from here on: the instruction behind is looked up there."""
    h.context_clock = h.context_clock + 1
    h.context_used[h.context] = h.context_clock
    h.context = find_context(h, satp)
    request_attention(h)


def find_context(h: Hart, satp: Word) -> Word:
    """The number of an address space, an empty one if it is not known."""
    index = Word(0)
    oldest = Word(0)
    while index < h.contexts:
        if h.context_satp[index] == satp:
            return index
        if h.context_used[index] < h.context_used[oldest]:
            oldest = index
        index = index + 1
    if index < CONTEXTS:
        h.contexts = index + 1
        oldest = index
    empty_context(h, oldest)
    h.context_satp[oldest] = satp
    return oldest


def flush_all(h: Hart) -> None:
    """Empty every array of the hart."""
    empty_data(h, Word(0))
    empty_code(h, Word(0))
    context = Word(0)
    while context < h.contexts:
        empty_context(h, context)
        context = context + 1
    request_attention(h)


def flush_space(h: Hart, asid: Word) -> None:
    """Empty the arrays of every address space with this ASID."""
    context = Word(0)
    while context < h.contexts:
        if has_asid(h, context, asid):
            empty_context(h, context)
        context = context + 1
    request_attention(h)


def flush_address(h: Hart, address: Word) -> None:
    """Forget one page's translations in every address space."""
    context = Word(0)
    while context < h.contexts:
        empty_address(h, context, address)
        context = context + 1
    request_attention(h)


def flush_space_address(h: Hart, address: Word, asid: Word) -> None:
    """Forget one page's translations in every address space with this ASID."""
    context = Word(0)
    while context < h.contexts:
        if has_asid(h, context, asid):
            empty_address(h, context, address)
        context = context + 1
    request_attention(h)


def has_asid(h: Hart, context: Word, asid: Word) -> bool:
    """Whether an address space has an ASID, of which only 16 bits count (12.2.1)."""
    return (h.context_satp[context] >> ASID_SHIFT ^ asid) & ASID_MASK == 0


def empty_context(h: Hart, context: Word) -> None:
    """Empty the arrays of an address space."""
    view = Word(0)
    while view < TLB.views:
        empty_data(h, context * TLB.views + 1 + view)
        view = view + 1
    view = Word(0)
    while view < ITLB.views:
        empty_code(h, context * ITLB.views + 1 + view)
        view = view + 1
    h.superpages[context] = Word(0)
    h.generations = h.generations + 1
    h.generation[context] = h.generations


def empty_data(h: Hart, number: Word) -> None:
    """Empty an array of the TLB."""
    filled = h.tlb_filled[number]
    h.tlb_filled[number] = Word(0)
    view = offset(address_of(h, "tlb"), number * TLB_BYTES)
    while filled != 0:
        entry = offset(view, ctz(filled) * (TLB_GROUP * TLB.entry_size))
        index = Word(0)
        while index < TLB_GROUP:
            forget_data(entry, index)
            index = index + 1
        filled = filled & (filled - 1)


def empty_code(h: Hart, number: Word) -> None:
    """Empty an array of the instruction TLB."""
    filled = h.itlb_filled[number]
    h.itlb_filled[number] = Word(0)
    view = offset(address_of(h, "itlb"), number * ITLB_BYTES)
    while filled != 0:
        entry = offset(view, ctz(filled) * (ITLB_GROUP * ITLB.entry_size))
        index = Word(0)
        while index < ITLB_GROUP:
            write(entry, index * ITLB.entry_size + ITLB.tag, 8, NO_TAG)
            index = index + 1
        filled = filled & (filled - 1)


def forget_data(view: Pointer, index: Word) -> None:
    """Empty an entry of an array."""
    write(view, index * TLB.entry_size + TLB.load_tag, 8, NO_TAG)
    write(view, index * TLB.entry_size + TLB.store_tag, 8, NO_TAG)


def empty_address(h: Hart, context: Word, address: Word) -> None:
    """Forget one page's translations in an address space; all there are if it may be part of a superpage."""
    if h.superpages[context] >> gigabyte(address) & 1 != 0:
        empty_context(h, context)
        return
    tag = address & ~0xFFF
    index = address >> 12 & (TLB.entries - 1)
    entry = offset(address_of(h, "tlb"), (context * TLB.views + 1) * TLB_BYTES + index * TLB.entry_size)
    view = Word(0)
    while view < TLB.views:
        if read(entry, TLB.load_tag, 8) == tag or read(entry, TLB.store_tag, 8) == tag:
            forget_data(entry, Word(0))
        number = context * TLB.views + 1 + view
        second = second_entry(h, address, number)
        if read(second, SECOND_TLB.key, 8) == tag | number:
            write(second, SECOND_TLB.key, 8, 0)
        entry = offset(entry, TLB_BYTES)
        view = view + 1
    index = address >> 12 & (ITLB.entries - 1)
    entry = offset(address_of(h, "itlb"), (context * ITLB.views + 1) * ITLB_BYTES + index * ITLB.entry_size)
    view = Word(0)
    while view < ITLB.views:
        if read(entry, ITLB.tag, 8) == tag:
            write(entry, ITLB.tag, 8, NO_TAG)
        entry = offset(entry, ITLB_BYTES)
        view = view + 1


def second_entry(h: Hart, address: Word, number: Word) -> Pointer:
    """Where the second TLB has the translation of an address in an array, if it has it."""
    index = (address >> 12) + number * SPREAD & (SECOND_TLB.entries - 1)
    return offset(address_of(h, "second_tlb"), index * SECOND_TLB.entry_size)


def note_filled(h: Hart, address: Word) -> None:
    """Remember which entry of the current TLB array is not empty any more."""
    index = address >> 12 & (TLB.entries - 1)
    h.tlb_filled[h.tlb_array] = h.tlb_filled[h.tlb_array] | Word(1) << (index >> TLB_GROUP_SHIFT)


def note_code_filled(h: Hart, address: Word) -> None:
    """Remember which entry of the current instruction TLB array is not empty any more."""
    index = address >> 12 & (ITLB.entries - 1)
    h.itlb_filled[h.itlb_array] = h.itlb_filled[h.itlb_array] | Word(1) << (index >> ITLB_GROUP_SHIFT)


def note_superpage(h: Hart, address: Word, level: Word) -> None:
    """Remember where superpages have been cached page by page."""
    if level > 2:
        h.superpages[h.context] = Word(NO_TAG)
    else:
        h.superpages[h.context] = h.superpages[h.context] | Word(1) << gigabyte(address)


def gigabyte(address: Word) -> Word:
    """The bit in ``superpages`` for an address: kernels use the upper half, programs the lower."""
    return address >> 30 & 31 | address >> 63 << 5
