"""Which TLB arrays serve the current mode, and forgetting what they hold."""

from __future__ import annotations

from doppel.isa.primitives import Hart
from doppel.isa.privileged.constants import Mode, Status
from doppel.isa.privileged.translation import data_mode
from doppel.isa.words import Word
from doppel.translate.layout import ITLB, TLB
from doppel.translate.pointers import address_of, offset, write

__all__ = ["flush_address", "flush_all", "note_superpage", "request_attention", "select_views"]

NO_TAG = (1 << 64) - 1
MAXIMUM = (1 << 63) - 1
TLB_BYTES = TLB.view_size
ITLB_BYTES = ITLB.view_size


def request_attention(h: Hart) -> None:
    """Make the next block end go to attend()."""
    h.limit = MAXIMUM


def select_views(h: Hart) -> None:
    """Point the hart at the arrays for its mode: data as U, S, S with SUM, or bare M; code as U, S or M."""
    mode = data_mode(h)
    view = mode
    if mode == Mode.S and h.mstatus & Status.SUM != 0:
        view = Word(2)
    h.tlb_view = offset(address_of(h, "tlb"), view * TLB_BYTES)
    code_view = h.mode
    if code_view == Mode.M:
        code_view = Word(2)
    h.itlb_view = offset(address_of(h, "itlb"), code_view * ITLB_BYTES)


def flush_all(h: Hart) -> None:
    """Empty every array of the hart."""
    index = Word(0)
    tlb = address_of(h, "tlb")
    while index < TLB.views * TLB.entries:
        write(tlb, index * TLB.entry_size + TLB.load_tag, 8, NO_TAG)
        write(tlb, index * TLB.entry_size + TLB.store_tag, 8, NO_TAG)
        index = index + 1
    index = Word(0)
    itlb = address_of(h, "itlb")
    while index < ITLB.views * ITLB.entries:
        write(itlb, index * ITLB.entry_size + ITLB.tag, 8, NO_TAG)
        index = index + 1
    h.superpages = 0
    request_attention(h)


def note_superpage(h: Hart, address: Word, level: Word) -> None:
    """Remember in which gigabytes, modulo 64, superpages have been cached page by page."""
    if level > 2:
        h.superpages = Word(NO_TAG)
    else:
        h.superpages = h.superpages | Word(1) << (address >> 30 & 63)


def flush_address(h: Hart, address: Word) -> None:
    """Forget one page's translations; all there are if the page may be part of a superpage."""
    if h.superpages >> (address >> 30 & 63) & 1 != 0:
        flush_all(h)
        return
    page = address >> 12
    view = Word(0)
    tlb = address_of(h, "tlb")
    while view < TLB.views:
        at = view * TLB_BYTES + (page & (TLB.entries - 1)) * TLB.entry_size
        write(tlb, at + TLB.load_tag, 8, NO_TAG)
        write(tlb, at + TLB.store_tag, 8, NO_TAG)
        view = view + 1
    view = Word(0)
    itlb = address_of(h, "itlb")
    while view < ITLB.views:
        write(itlb, view * ITLB_BYTES + (page & (ITLB.entries - 1)) * ITLB.entry_size, 8, NO_TAG)
        view = view + 1
    request_attention(h)
