"""Decoded pages: made on first execution, kept true to memory by watching stores.

The f-map entry of a page with decoded instructions has CODE set, and no TLB lets a store to it pass; so the
store takes the slow path and :func:`code_written` undoes what was decoded. With one hart the records
concerned go back to "not decoded". With more, another hart may be between reading a record's handler and its
operands, so the page is dropped as a whole and made anew; its memory is used again only when all harts have
stood still (ExitReason.CODE_FULL).
"""

from __future__ import annotations

from doppel.isa.primitives import Hart
from doppel.isa.words import Word
from doppel.memory.entry import Entry
from doppel.translate.engine.views import flush_all, request_attention
from doppel.translate.exits import ExitReason, Request
from doppel.translate.host import SYS_SCHED_YIELD
from doppel.translate.layout import CODE_PAGE, HART, NEW_PAGES, RECORD
from doppel.translate.pointers import (
    Pointer,
    add_machine,
    address_of,
    call_native,
    compare_exchange,
    exchange,
    fetch_and,
    fetch_or,
    is_null,
    machine,
    memory_barrier,
    null,
    offset,
    pointer_bits,
    raise_exit,
    read,
    read_pointer,
    set_machine,
    symbol,
    write,
    write_pointer,
)

__all__ = [
    "acquire",
    "code_overwritten",
    "code_page",
    "code_page_ready",
    "code_written",
    "cover",
    "enter_at",
    "post",
    "release",
]

# A page that is stored to this often is data by now.
STORES_UNTIL_DATA = 64
LIMIT = HART["limit"].offset
REQUESTS = HART["requests"].offset
FLUSH_SEEN = HART["flush_seen"].offset
RUNNING = HART["running"].offset
WAITING = HART["waiting"].offset
MAXIMUM = (1 << 63) - 1
LAST_RECORD = (CODE_PAGE.records - 1) * RECORD.size


def post(other: Pointer, request: Word) -> None:
    """Ask something of a hart; it sees it at its next block end."""
    fetch_or(other, REQUESTS, request)
    write(other, LIMIT, 8, MAXIMUM)


def post_others(h: Hart, request: Word) -> None:
    """Ask something of all other harts."""
    count = machine(h, "hart_count")
    index = Word(0)
    while index < count:
        if index != h.mhartid:
            post(read_pointer(machine(h, "harts"), index * 8), request)
        index = index + 1


def acquire(h: Hart) -> None:
    """Take the lock under which decoded pages are made and dropped, and with several harts decoded."""
    while not compare_exchange(machine(h, "code_lock"), 0, 8, Word(0), Word(1)):
        call_native(machine(h, "syscall"), SYS_SCHED_YIELD)


def release(h: Hart) -> None:
    """Give the lock back."""
    exchange(machine(h, "code_lock"), 0, Word(0))


def fill_records(page: Pointer, first: Word, end: Word, handler: Pointer) -> None:
    """Give records a handler, by byte offsets in the record array."""
    at = first
    while at < end:
        write_pointer(page, at, handler)
        at = at + RECORD.size


def allocate(h: Hart, physical: Word) -> Pointer:
    """Memory for a decoded page."""
    free = machine(h, "code_free")
    if not is_null(free):
        set_machine(h, "code_free", read_pointer(free, 0))
        return free
    used = add_machine(h, "code_used", 1)
    if used >= machine(h, "code_capacity"):
        raise_exit(h, ExitReason.CODE_FULL, physical, 0, 0, 0)
    return offset(machine(h, "code_arena"), used * CODE_PAGE.size)


def code_page(h: Hart, physical: Word, host: Pointer) -> Pointer:
    """The decoded page of a guest page; ``host`` is where its bytes are."""
    number = physical >> 12
    slot = offset(machine(h, "code_table"), number << 3)
    known = read_pointer(slot, 0)
    if not is_null(known):
        return known
    page = allocate(h, physical)
    fill_records(page, Word(0), Word(LAST_RECORD), symbol("decode"))
    write_pointer(page, LAST_RECORD, symbol("page_end"))
    write_pointer(page, CODE_PAGE.host, host)
    write(page, CODE_PAGE.guest_page, 8, number)
    write(page, CODE_PAGE.stores, 8, 0)
    write(page, CODE_PAGE.ready, 8, 0)
    write(page, CODE_PAGE.regions, 8, 0)
    acquire(h)
    known = read_pointer(slot, 0)
    if is_null(known):
        known = page
        fetch_or(machine(h, "fmap"), number << 3, Word(Entry.CODE))
        write(page, CODE_PAGE.epoch, 8, add_machine(h, "flush_epoch", 1) + 1)
        write_pointer(slot, 0, page)
        made = machine(h, "new_page_count")
        write(machine(h, "new_pages"), (made & (NEW_PAGES - 1)) * 8, 8, number)
        set_machine(h, "new_page_count", made + 1)
        post_others(h, Word(Request.FLUSH))
    release(h)
    flush_all(h)
    return known


def code_page_ready(h: Hart, page: Pointer) -> bool:
    """Whether every store to a decoded page is noticed by now.

    Another hart's TLB may still let stores pass until it has flushed, as it does at its next block end and
    before it executes anything after it has waited or was outside native code.
    """
    if read(page, CODE_PAGE.ready, 8) != 0:
        return True
    epoch = read(page, CODE_PAGE.epoch, 8)
    count = machine(h, "hart_count")
    index = Word(0)
    while index < count:
        other = read_pointer(machine(h, "harts"), index * 8)
        if (
            index != h.mhartid
            and read(other, FLUSH_SEEN, 8) < epoch
            and read(other, RUNNING, 8) != 0
            and read(other, WAITING, 8) == 0
        ):
            return False
        index = index + 1
    write(page, CODE_PAGE.ready, 8, 1)
    return True


def drop(h: Hart, number: Word, page: Pointer) -> None:
    """Forget a decoded page; stores to it are ordinary again.

    This hart may be in the midst of it: whatever comes next there leads out of it.
    """
    acquire(h)
    slot = offset(machine(h, "code_table"), number << 3)
    mine = pointer_bits(read_pointer(slot, 0)) == pointer_bits(page)
    if mine:
        write_pointer(slot, 0, null())
        fetch_and(machine(h, "fmap"), number << 3, ~Entry.CODE)
    release(h)
    fill_records(page, Word(0), Word(LAST_RECORD), symbol("dropped"))
    flush_all(h)
    if machine(h, "hart_count") != 1:
        post_others(h, Word(Request.FLUSH))
    elif mine:
        write_pointer(page, 0, machine(h, "code_free"))
        set_machine(h, "code_free", page)


def code_overwritten(h: Hart, number: Word) -> None:
    """Somebody else than a hart writes to a guest page: forget what is decoded of it.

    Harts may be executing it meanwhile, so its memory is not used again before all have stood still.
    """
    acquire(h)
    write_pointer(offset(machine(h, "code_table"), number << 3), 0, null())
    fetch_and(machine(h, "fmap"), number << 3, ~Entry.CODE)
    release(h)
    post(offset(address_of(h, "x"), 0), Word(Request.FLUSH))
    post_others(h, Word(Request.FLUSH))


def code_written(h: Hart, physical: Word, size: Word) -> None:
    """A store of ``size`` bytes hit a page with decoded instructions."""
    number = physical >> 12
    page = read_pointer(machine(h, "code_table"), number << 3)
    if is_null(page):
        return
    stores = read(page, CODE_PAGE.stores, 8) + 1
    write(page, CODE_PAGE.stores, 8, stores)
    request_attention(h)
    memory_barrier()
    if machine(h, "hart_count") != 1 or stores >= STORES_UNTIL_DATA or read(page, CODE_PAGE.regions, 8) != 0:
        drop(h, number, page)
        return
    at = physical & 0xFFF
    # An instruction of four bytes that begins two bytes before is hit too, and the one before that may make a
    # pair with it.
    first = at - 6 if at >= 6 else Word(0)
    end = (at + size + 1) * RECORD.per_byte
    if end > LAST_RECORD:
        end = Word(LAST_RECORD)
    fill_records(page, (first & ~1) * RECORD.per_byte, end, symbol("decode"))


def is_current(h: Hart, number: Word, page: Pointer, epoch: Word) -> bool:
    """Whether a guest page still has this decoded page; pages in the same place have different epochs."""
    slot = offset(machine(h, "code_table"), number << 3)
    return (
        pointer_bits(read_pointer(slot, 0)) == pointer_bits(page) and read(page, CODE_PAGE.epoch, 8) == epoch
    )


def cover(h: Hart, number: Word, page: Pointer, epoch: Word, stores: Word) -> Word:
    """Announce that compiled code covers instructions of a decoded page, as they were after ``stores``.

    Returns 1 if they are still that; from then on a store to the page drops it.
    """
    acquire(h)
    outcome = Word(0)
    if is_current(h, number, page, epoch):
        write(page, CODE_PAGE.regions, 8, 1)
        # A store counts itself before it looks at ``regions``: one of the two sees the other.
        memory_barrier()
        if read(page, CODE_PAGE.stores, 8) == stores:
            outcome = Word(1)
    release(h)
    return outcome


def enter_at(h: Hart, number: Word, page: Pointer, epoch: Word, at: Word, code: Pointer) -> Word:
    """Let compiled code be what the record at ``at`` bytes in the guest page does, on a page that is covered.

    Returns 1 if that is so, 0 if the page is another one by now.
    """
    acquire(h)
    outcome = Word(is_current(h, number, page, epoch))
    if outcome != 0:
        write_pointer(page, at * RECORD.per_byte, code)
    release(h)
    return outcome
