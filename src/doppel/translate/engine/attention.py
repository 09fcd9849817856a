"""What happens between blocks: requests, the budget, the clock, interrupts, waiting; and traps."""

from __future__ import annotations

from doppel.isa.primitives import Hart, read_host_flags, ticks
from doppel.isa.privileged.constants import EnvironmentConfig, Interrupt
from doppel.isa.privileged.trap import (
    delegated,
    interrupts_pending,
    pending_interrupt,
    take_trap,
    update_timers,
)
from doppel.isa.words import Word, div_unsigned, rem_unsigned, signed_lt
from doppel.translate.engine.views import flush_all, request_attention, select_views
from doppel.translate.exits import PENDING_EXIT, ExitReason, Reply, Request
from doppel.translate.host import SYS_FUTEX, SYS_SCHED_YIELD
from doppel.translate.layout import CODE_PAGE, ITLB, MAX_REGION, SAMPLES
from doppel.translate.pointers import (
    address_of,
    call_native,
    exchange,
    fetch_add32,
    fetch_and,
    fetch_or,
    machine,
    memory_barrier,
    offset,
    read,
    read_pointer,
    write,
)

__all__ = [
    "attend",
    "begin_run",
    "end_run",
    "host_ticks",
    "instructions_retired",
    "post_request",
    "trap",
    "wait_for_others",
]

NEVER = (1 << 64) - 1
# Between two looks at the budget come no more instructions than a page has halfwords, and a region.
LONGEST_BLOCK = CODE_PAGE.records + MAX_REGION
CLOCK_MONOTONIC = 1
FUTEX_WAIT_PRIVATE = 128
FUTEX_WAKE_PRIVATE = 129
MAXIMUM = (1 << 63) - 1
LONGEST_WAIT_NS = 1_000_000_000
NS_PER_TICK = 100
AGAIN = 2
# A hart in a loop of PAUSE leaves its host processor to other threads once in so many times round: a fair
# price for a lock that is free again soon, and much sooner than the end of a host's time slice.
PAUSES = 16


def spent_now(h: Hart) -> Word:
    """Budget spent since reset."""
    return h.spent + (h.slice - h.budget)


def instructions_retired(h: Hart) -> Word:
    """Instructions retired since reset."""
    return spent_now(h) - h.traps


def host_ticks(h: Hart) -> Word:
    """The machine's time: the host's monotonic clock, or the instructions executed."""
    if machine(h, "clock_kind") != 0:
        return div_unsigned(spent_now(h), machine(h, "instructions_per_tick")) + h.icount_skew
    timespec = address_of(h, "timespec")
    call_native(machine(h, "clock_gettime"), CLOCK_MONOTONIC, timespec)
    nanoseconds = read(timespec, 0, 8) * 1_000_000_000 + read(timespec, 8, 8)
    return div_unsigned(nanoseconds - machine(h, "clock_offset"), NS_PER_TICK)


def settle(h: Hart) -> None:
    """Book what the slice has used."""
    h.spent = h.spent + (h.slice - h.budget)
    h.slice = 0
    h.budget = 0


def leave(h: Hart, reason: int) -> Word:
    """Make attend() end the run."""
    h.exit_reason = Word(reason)
    return Word(1)


def attend(h: Hart) -> Word:
    """Look around between two blocks; ``h.pc`` and ``h.budget`` are current.

    Returns 1 to leave for Python, else 0 with a new slice begun.
    """
    while True:
        outcome = look_around(h)
        if outcome != AGAIN:
            return outcome


def look_around(h: Hart) -> Word:
    """One look of attend(); AGAIN if something came up while the hart waited."""
    write(address_of(h, "limit"), 0, 8, 0)
    memory_barrier()
    epoch = machine(h, "flush_epoch")
    requests = exchange(address_of(h, "requests"), 0, 0)
    if requests != 0:
        if requests & Request.FLUSH != 0:
            flush_all(h)
            h.flush_seen = epoch
        if requests & Request.SOFTWARE != 0:
            h.mip = h.mip | 1 << Interrupt.SSI
        h.acknowledged = h.acknowledged + 1
    # What asks for attention by itself says nothing of where time goes. No time has gone by either: the slice
    # goes on, and the clock is looked at when it is over.
    remaining = h.budget
    over = requests != 0 or h.waiting != 0 or not signed_lt(0, remaining)
    if requests == 0 and h.slice != 0 and over:
        take_sample(h)
    settle(h)
    if requests & Request.STOP != 0:
        return leave(h, ExitReason.STOPPED)
    if requests & Request.CODE != 0:
        return leave(h, ExitReason.CODE_FULL)
    left = h.run_end - h.spent
    if not signed_lt(0, left):
        return leave(h, ExitReason.BUDGET)
    if machine(h, "clock_kind") != 0:
        left = before_timer(h, left)
    h.slice = machine(h, "slice_length")
    if machine(h, "clock_kind") == 0 and not over and remaining < h.slice:
        h.slice = remaining
    h.stepping = 0
    if h.soft_end != 0:
        if left < h.slice:
            h.slice = left
    elif left < h.slice + LONGEST_BLOCK:
        h.slice = left - LONGEST_BLOCK
        if signed_lt(left, LONGEST_BLOCK + 1):
            # Too few are left to let a block run to its end: one by one.
            h.slice = left
            h.stepping = 1
            request_attention(h)
    h.budget = h.slice
    select_views(h)
    if over or machine(h, "clock_kind") != 0:
        update_timers(h)
    cause = pending_interrupt(h)
    if h.reply != Reply.NONE:
        # The access that it is for comes first, but a guest that polls a device has interrupts all the same.
        if cause != 0:
            request_attention(h)
        return Word(0)
    if cause != 0:
        if h.waiting != 0:
            # While it waits, nobody waits for this hart to serve a request: look for those first.
            h.waiting = 0
            return Word(AGAIN)
        h.interrupts = h.interrupts + 1
        take_trap(h, cause, Word(0))
        return Word(0)
    if h.waiting != 0:
        return wait(h)
    return Word(0)


def take_sample(h: Hart) -> None:
    """Note where a slice has come to its end: a point that is met often is worth compiling."""
    pc = h.pc
    slot = offset(h.itlb_view, (pc >> 12 & (ITLB.entries - 1)) * ITLB.entry_size)
    if read(slot, ITLB.tag, 8) == pc & ~0xFFF:
        number = read(read_pointer(slot, ITLB.records), CODE_PAGE.guest_page, 8)
        count = h.sample_count
        write(address_of(h, "samples"), (count & (SAMPLES - 1)) * 8, 8, number << 12 | pc & 0xFFF)
        h.sample_count = count + 1


def next_deadline(h: Hart) -> Word:
    """The time of the next timer comparison that can end a wait, or all ones: it must be enabled for that."""
    deadline = Word(NEVER)
    if h.mie & 1 << Interrupt.MTI != 0:
        deadline = h.mtimecmp
    if h.mie & 1 << Interrupt.STI != 0 and h.menvcfg & EnvironmentConfig.STCE != 0 and h.stimecmp < deadline:
        deadline = h.stimecmp
    return deadline


def before_timer(h: Hart, left: Word) -> Word:
    """``left``, or what is left until the next timer interrupt (instruction-count clock), if that is less.

    So an interrupt comes at the same instruction however a run is divided into slices.
    """
    now = ticks(h)
    horizon = machine(h, "slice_length") + LONGEST_BLOCK
    if h.mie & 1 << Interrupt.MTI != 0 and h.mtimecmp > now and h.mtimecmp - now < horizon:
        left = earlier(h, left, h.mtimecmp)
    if h.mie & 1 << Interrupt.STI != 0 and h.stimecmp > now and h.stimecmp - now < horizon:
        left = earlier(h, left, h.stimecmp)
    return left


def earlier(h: Hart, left: Word, deadline: Word) -> Word:
    """``left``, or what may be spent until the time ``deadline``, if that is less."""
    until = (deadline - h.icount_skew) * machine(h, "instructions_per_tick") - h.spent
    return until if until < left else left


def wait(h: Hart) -> Word:
    """Stand still until an enabled interrupt is pending, whether or not it can be taken (3.3.3)."""
    while True:
        seen = h.wake
        memory_barrier()
        if read(address_of(h, "requests"), 0, 8) != 0:
            return Word(AGAIN)
        if interrupts_pending(h) & h.mie != 0:
            h.waiting = 0
            return Word(AGAIN)
        deadline = next_deadline(h)
        now = ticks(h)
        if machine(h, "clock_kind") != 0:
            if machine(h, "hart_count") != 1 or deadline == NEVER:
                settle(h)
                return leave(h, ExitReason.WAIT)
            if deadline > now:
                h.icount_skew = h.icount_skew + (deadline - now)
        elif deadline > now:
            nanoseconds = Word(LONGEST_WAIT_NS)
            if deadline - now < LONGEST_WAIT_NS // NS_PER_TICK:
                nanoseconds = (deadline - now) * NS_PER_TICK
            timespec = address_of(h, "timespec")
            write(timespec, 0, 8, div_unsigned(nanoseconds, 1_000_000_000))
            write(timespec, 8, 8, rem_unsigned(nanoseconds, 1_000_000_000))
            call_native(
                machine(h, "syscall"),
                SYS_FUTEX,
                address_of(h, "wake"),
                FUTEX_WAIT_PRIVATE,
                seen,
                timespec,
                0,
                0,
            )
        update_timers(h)


def wait_for_others(h: Hart) -> None:
    """PAUSE: what this hart waits for may be up to a hart that has no host processor at this moment."""
    if machine(h, "hart_count") == 1 or machine(h, "clock_kind") != 0:
        return
    h.pauses = h.pauses + 1
    if h.pauses & (PAUSES - 1) == 0:
        call_native(machine(h, "syscall"), SYS_SCHED_YIELD)
        # Others may have had milliseconds, which the slice does not count: look at the clock.
        update_timers(h)
        request_attention(h)


def trap(h: Hart) -> Word:
    """Deliver what was raised; ``h.pc`` is the instruction's address. Returns 1 to leave for Python."""
    cause = h.pending_cause
    if cause == PENDING_EXIT:
        return Word(1)
    # A trap costs one of the budget though it retires nothing, so that a guest that only traps comes to its
    # end.
    h.budget = h.budget - 1
    h.traps = h.traps + 1
    h.reply = Reply.NONE
    if machine(h, "supervisor_calls") != 0 and not delegated(h, cause):
        h.exit_value = cause
        h.exit_address = h.pending_value
        return leave(h, ExitReason.TRAP)
    take_trap(h, cause, h.pending_value)
    return Word(0)


def begin_run(h: Hart) -> Word:
    """Prepare to execute; 1 if there is a reason to leave at once."""
    h.running = 1
    h.slice = 0
    h.budget = 0
    return attend(h)


def end_run(h: Hart) -> None:
    """Book what was executed and collect the floating-point exceptions from the host's status register."""
    settle(h)
    h.fflags = h.fflags | read_host_flags(h)
    h.running = 0


def post_request(h: Hart, request: Word, set_lines: Word, clear_lines: Word) -> None:
    """From any thread: drive interrupt lines, ask something of the hart, and wake it if it waits.

    A hart that waits forgets translations when it wakes up for another reason.
    """
    fetch_or(address_of(h, "lines"), 0, set_lines)
    fetch_and(address_of(h, "lines"), 0, ~clear_lines)
    fetch_or(address_of(h, "requests"), 0, request)
    write(address_of(h, "limit"), 0, 8, MAXIMUM)
    fetch_add32(address_of(h, "wake"), 0, 1)
    if h.waiting != 0 and (request != Request.FLUSH or set_lines != 0):
        call_native(machine(h, "syscall"), SYS_FUTEX, address_of(h, "wake"), FUTEX_WAKE_PRIVATE, 1, 0, 0, 0)
