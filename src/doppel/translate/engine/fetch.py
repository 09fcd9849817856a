"""Finding the record to execute for a pc, and instructions that have no place in a decoded page."""

from __future__ import annotations

from doppel.isa.primitives import Hart
from doppel.isa.privileged.constants import Access, Cause
from doppel.isa.privileged.pmp import pmp_allows
from doppel.isa.privileged.translation import translate
from doppel.isa.words import Trap, Word, div_unsigned
from doppel.translate.engine.access import frame_pointer, is_memory
from doppel.translate.engine.code import acquire, code_page, code_page_ready, release
from doppel.translate.engine.views import note_code_filled, note_superpage
from doppel.translate.exits import ExitReason
from doppel.translate.layout import CODE_PAGE, ITLB, RECORD
from doppel.translate.pointers import (
    Pointer,
    address_of,
    is_null,
    machine,
    offset,
    pointer_bits,
    raise_exit,
    read,
    read_pointer,
    symbol,
    write,
    write_pointer,
)
from doppel.translate.records import decode_record

__all__ = ["decode_in_page", "fetch", "fetch_out_of_page", "fetch_straddling", "instruction_bits"]

NOT_IN_PAGE = 1 << 20
# The scratch record behind the three that are executed.
LOOK_AHEAD = 3 * RECORD.size


def fetch(h: Hart) -> Pointer:
    """The record for ``h.pc``; fills the instruction TLB."""
    pc = h.pc
    h.itlb_misses = h.itlb_misses + 1
    if h.stepping != 0:
        return fetch_alone(h, pc)
    physical, _entry, level = translate(h, pc, Word(Access.FETCH), h.mode)
    if not pmp_allows(h, physical & ~0xFFF, Word(4096), Word(Access.FETCH), h.mode):
        return fetch_alone(h, pc)
    if not is_memory(h, physical):
        raise Trap(Cause.INSTRUCTION_ACCESS_FAULT, pc)
    host = frame_pointer(h, physical & ~0xFFF, Word(4), Word(Access.FETCH))
    page = code_page(h, physical, host)
    if machine(h, "hart_count") != 1 and not code_page_ready(h, page):
        return fetch_alone(h, pc)
    if level != 0:
        note_superpage(h, pc, level)
    slot = offset(h.itlb_view, (pc >> 12 & (ITLB.entries - 1)) * ITLB.entry_size)
    write(slot, ITLB.tag, 8, pc & ~0xFFF)
    write_pointer(slot, ITLB.records, page)
    note_code_filled(h, pc)
    h.pc_delta = (pc & ~0xFFF) - (pointer_bits(page) >> 3)
    return offset(page, (pc & 0xFFF) * RECORD.per_byte)


def fetch_out_of_page(h: Hart, pc: Word) -> Pointer:
    """As fetch_alone(), of an instruction that lies in a decoded page that is being executed.

    What follows is executed as if the record in the page had been, without a look at the budget.
    """
    slot = offset(h.itlb_view, (pc >> 12 & (ITLB.entries - 1)) * ITLB.entry_size)
    at = pc & 0xFFF
    bits = Word(0)
    if read(slot, ITLB.tag, 8) != pc - at or at > 4092:
        bits = fetch_bits(h, pc)
    else:
        bits = read(read_pointer(read_pointer(slot, ITLB.records), CODE_PAGE.host), at, 4)
        if bits & 3 != 3:
            bits = bits & 0xFFFF
    length = Word(4) if bits & 3 == 3 else Word(2)
    # Behind a page's last instruction is a place to look around, behind any other there is none.
    behind = symbol("page_end") if at + length >= 4096 else symbol("resume")
    return place_alone(h, pc, bits, behind)


def fetch_half(h: Hart, pc: Word) -> Word:
    """Two bytes of an instruction."""
    physical, _entry, _level = translate(h, pc, Word(Access.FETCH), h.mode)
    if not pmp_allows(h, physical, Word(2), Word(Access.FETCH), h.mode) or not is_memory(h, physical):
        raise Trap(Cause.INSTRUCTION_ACCESS_FAULT, pc)
    return read(frame_pointer(h, physical, Word(2), Word(Access.FETCH)), 0, 2)


def fetch_alone(h: Hart, pc: Word) -> Pointer:
    """A record outside the decoded pages for one instruction, from memory as it is, with a way back behind.

    For instructions that straddle two pages, for pages that are protected in parts, and for stepping.
    """
    return place_alone(h, pc, fetch_bits(h, pc), symbol("page_end"))


def fetch_bits(h: Hart, pc: Word) -> Word:
    """An instruction from memory."""
    bits = fetch_half(h, pc)
    if bits & 3 == 3:
        bits = bits | fetch_half(h, pc + 2) << 16
    return bits


def place_alone(h: Hart, pc: Word, bits: Word, behind: Pointer) -> Pointer:
    """The scratch record for an instruction, with the handler ``behind`` it.

    It is decoded again only if it is another one than last time.
    """
    scratch = address_of(h, "scratch")
    if bits != h.scratch_bits:
        h.scratch_bits = bits
        decode_record(h, scratch, bits, Word(NOT_IN_PAGE))
    write_pointer(scratch, RECORD.size, behind)
    write_pointer(scratch, RECORD.size * 2, behind)
    h.pc_delta = pc - (pointer_bits(scratch) >> 3)
    return scratch


def fetch_straddling(h: Hart, record: Pointer, pc: Word) -> Pointer:
    """A record for the instruction that begins in the last two bytes of the page that holds ``record``."""
    low = read(read_pointer(page_of(h, record), CODE_PAGE.host), 4094, 2)
    behind = pc + 2
    slot = offset(h.itlb_view, (behind >> 12 & (ITLB.entries - 1)) * ITLB.entry_size)
    if read(slot, ITLB.tag, 8) == behind:
        next_page = read_pointer(read_pointer(slot, ITLB.records), CODE_PAGE.host)
        return place_alone(h, pc, low | read(next_page, 0, 2) << 16, symbol("page_end"))
    return place_alone(h, pc, low | fetch_half(h, behind) << 16, symbol("page_end"))


def page_of(h: Hart, record: Pointer) -> Pointer:
    """The decoded page that holds a record."""
    arena = machine(h, "code_arena")
    number = div_unsigned(pointer_bits(record) - pointer_bits(arena), CODE_PAGE.size)
    return offset(arena, number * CODE_PAGE.size)


def decode_in_page(h: Hart, record: Pointer) -> bool:
    """Decode the instruction of a record in place; False if it straddles the end of its page.

    Of several harts one at a time does that: a handler must not meet the operands of another instruction,
    whatever the guest stores there meanwhile.
    """
    if machine(h, "compile_all") != 0:
        leave_to_compile(h, record)
    if machine(h, "hart_count") == 1:
        return decode_here(h, record)
    acquire(h)
    fits = True
    if read(record, 0, 8) == pointer_bits(symbol("decode")):
        fits = decode_here(h, record)
    release(h)
    return fits


def leave_to_compile(h: Hart, record: Pointer) -> None:
    """Leave so that what begins here can be compiled; the second time it is decoded."""
    page = page_of(h, record)
    address = read(page, CODE_PAGE.guest_page, 8) << 12 | (pointer_bits(record) - pointer_bits(page)) >> 3
    if h.compile_refused != address:
        h.compile_refused = address
        raise_exit(h, ExitReason.COMPILE, address, 0, 0, 0)


def decode_here(h: Hart, record: Pointer) -> bool:
    """See :func:`decode_in_page`."""
    page = page_of(h, record)
    at = (pointer_bits(record) - pointer_bits(page)) >> 3
    host = read_pointer(page, CODE_PAGE.host)
    bits = read(host, at, 2)
    if bits & 3 == 3:
        if at == 4094:
            return False
        bits = bits | read(host, at + 2, 2) << 16
    h.decoded = h.decoded + 1
    first = decode_record(h, record, bits, at) & 0xFF
    if first != 0:
        join(h, record, host, first, at, Word(4) if bits & 3 == 3 else Word(2))
    return True


def join(h: Hart, record: Pointer, host: Pointer, first: Word, at: Word, length: Word) -> None:
    """Give a record the handler of the pair that it makes with the instruction behind it, if there is one."""
    behind = at + length
    if behind + 4 > 4096:
        return
    bits = read(host, behind, 4)
    if bits & 3 != 3:
        bits = bits & 0xFFFF
    following = offset(record, length * RECORD.per_byte)
    second = Word(0)
    if read(following, 0, 8) == pointer_bits(symbol("decode")):
        second = decode_record(h, following, bits, behind) >> 8
    else:
        # A record that is decoded already may be a pair itself by now, so that is left alone. What it was
        # decoded from may be stored over at this moment: its operands must be those of what is there now.
        copy = offset(address_of(h, "scratch"), LOOK_AHEAD)
        second = decode_record(h, copy, bits, behind) >> 8
        if read(copy, RECORD.imm, 8) != read(following, RECORD.imm, 8):
            return
    handler = read_pointer(symbol("pair_handlers"), first * read(symbol("pair_row"), 0, 8) + second * 8)
    if not is_null(handler):
        write_pointer(record, 0, handler)


def instruction_bits(h: Hart, record: Pointer) -> Word:
    """The instruction of a record that is being executed, for the trap value (3.1.16)."""
    if pointer_bits(record) == pointer_bits(address_of(h, "scratch")):
        return h.scratch_bits
    page = page_of(h, record)
    at = (pointer_bits(record) - pointer_bits(page)) >> 3
    host = read_pointer(page, CODE_PAGE.host)
    bits = read(host, at, 2)
    # What stands at the end of the page may be stored over at this moment.
    if bits & 3 == 3 and at != 4094:
        bits = bits | read(host, at + 2, 2) << 16
    return bits
