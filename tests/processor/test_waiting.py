"""WFI: what wakes a hart that waits in native code, and what waiting costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from doppel.isa.privileged.constants import EnvironmentConfig, Interrupt, Status
from doppel.processor.exits import Exit, ExitReason
from doppel.processor.processor import TIMEBASE_HZ
from doppel.translate.exits import Request

from ..translate.support import RAM_BASE, Board

SSI, MTI, STI, MEI = (1 << number for number in (Interrupt.SSI, Interrupt.MTI, Interrupt.STI, Interrupt.MEI))
# What a test waits for at most, in seconds, on a busy machine.
PATIENCE = 20


class Running:
    """A hart on a thread of its own."""

    def __init__(self, board: Board, budget: int = 1 << 40) -> None:
        self.exit: Exit | None = None
        self.processor_time = 0.0
        self.board = board
        self._thread = threading.Thread(target=self._run, args=(budget,), daemon=True)
        self._thread.start()

    def _run(self, budget: int) -> None:
        self.exit = self.board.run(budget)
        self.processor_time = time.thread_time()

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, "nothing happened"
            time.sleep(0.001)

    def join(self) -> Exit:
        self._thread.join(PATIENCE)
        assert self.exit is not None, "it still runs"
        return self.exit


def board(text: str, clock: str = "host") -> Board:
    made = Board(size=0x1_0000, clock=clock, devices=True)
    made.load(text)
    return made


STOPS = "\n sd x0, (x0)"


def test_a_line_wakes_the_hart() -> None:
    made = board("wfi; li a0, 1" + STOPS)
    made.hart.state.mie = MEI
    running = Running(made)
    running.until(lambda: made.hart.waiting and made.hart.running)
    made.hart.set_lines(MEI, True)
    assert running.join().reason is ExitReason.DEVICE
    assert (made.hart.state.x[10], made.hart.waiting, made.hart.running) == (1, False, False)


def test_a_line_that_is_not_enabled_does_not() -> None:
    made = board("wfi; li a0, 1" + STOPS)
    made.hart.state.mie = STI
    running = Running(made)
    running.until(lambda: made.hart.waiting)
    made.hart.set_lines(MEI, True)
    time.sleep(0.05)
    assert made.hart.waiting
    made.hart.stop()
    assert running.join().reason is ExitReason.STOPPED
    assert made.hart.waiting and made.hart.state.pc == RAM_BASE + 4
    # It waits on where it was.
    made.hart.set_lines(MEI, False)
    running = Running(made)
    made.hart.set_lines(STI, True)
    assert running.join().reason is ExitReason.DEVICE


def test_an_interrupt_is_taken_and_the_handler_runs() -> None:
    made = board(
        "la t0, 1f; csrw mtvec, t0; csrsi mstatus, 8; wfi; ebreak; .balign 4; 1: csrr a0, mepc" + STOPS
    )
    made.hart.state.mie = SSI
    running = Running(made)
    running.until(lambda: made.hart.waiting)
    made.hart.request(Request.SOFTWARE)
    assert running.join().reason is ExitReason.DEVICE
    # It returns behind the WFI.
    assert made.memory.read_u32(made.hart.state.x[10]) == 0x00100073


def test_many_wake_ups_from_another_thread() -> None:
    """None is lost, whichever of the two is first."""
    made = board("again: wfi; addi a0, a0, 1; sd x0, (x0); j again")
    made.hart.state.mie = MEI
    count = 300
    served = threading.Semaphore(0)

    def serve() -> None:
        for _ in range(count):
            exit = made.run(1 << 40)
            assert exit.reason is ExitReason.DEVICE
            made.hart.set_lines(MEI, False)
            made.hart.answer(0)
            served.release()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    for _ in range(count):
        made.hart.set_lines(MEI, True)
        assert served.acquire(timeout=PATIENCE), "a wake-up was lost"
    thread.join(PATIENCE)
    assert made.hart.state.x[10] == count


@pytest.mark.parametrize("timer", ["stimecmp", "mtimecmp"])
def test_a_timer_wakes_the_hart(timer: str) -> None:
    made = board("wfi; csrr a0, time" + STOPS)
    state = made.hart.state
    state.menvcfg = EnvironmentConfig.STCE
    state.mie = STI if timer == "stimecmp" else MTI
    due = made.processor.ticks() + TIMEBASE_HZ // 20
    setattr(state, timer, due)
    begin = time.monotonic()
    assert Running(made).join().reason is ExitReason.DEVICE
    assert time.monotonic() - begin > 0.03
    assert state.x[10] >= due
    assert made.processor.ticks() >= state.x[10]


@pytest.mark.parametrize("armed", ["nothing", "not enabled", "far"])
def test_waiting_takes_no_processor_time(armed: str) -> None:
    """Also with a timer that is due but not enabled, which cannot end the wait."""
    made = board("wfi" + STOPS)
    state = made.hart.state
    state.menvcfg = EnvironmentConfig.STCE
    if armed == "not enabled":
        state.stimecmp = state.mtimecmp = 0
        state.mie = MEI
    if armed == "far":
        state.mtimecmp, state.mie = 1 << 62, MTI
    running = Running(made)
    time.sleep(0.4)
    made.hart.stop()
    assert running.join().reason is ExitReason.STOPPED
    assert running.processor_time < 0.2


def test_stop_before_the_run_and_during_a_loop() -> None:
    made = board("again: j again")
    made.hart.stop()
    assert made.run(1 << 40).reason is ExitReason.STOPPED
    assert made.hart.state.spent == 0
    running = Running(made)
    running.until(lambda: made.hart.running)
    made.hart.stop()
    assert running.join().reason is ExitReason.STOPPED


def test_waiting_with_nothing_to_come_is_an_exit_by_the_instruction_clock() -> None:
    made = board("wfi; li a0, 1" + STOPS, clock="icount")
    for _ in range(2):
        assert made.run(1000).reason is ExitReason.WAIT
        assert made.hart.waiting and made.hart.state.spent == 1
    made.hart.state.mie = MEI
    assert made.run(1000).reason is ExitReason.WAIT
    made.hart.set_lines(MEI, True)
    assert made.run(1000).reason is ExitReason.DEVICE


def test_the_instruction_clock_jumps_to_the_next_timer() -> None:
    made = board("csrr a0, time; wfi; csrr a1, time; wfi; csrr a2, time" + STOPS, clock="icount")
    state = made.hart.state
    # The nearer one is not enabled and does not count.
    state.stimecmp, state.mtimecmp, state.mie = 1_000, 1_000_000, MTI
    state.menvcfg = EnvironmentConfig.STCE
    assert made.run(1000).reason is ExitReason.DEVICE
    assert list(state.x[10:13]) == [0, 1_000_000, 1_000_000]
    assert made.processor.ticks() == 1_000_000
    assert state.spent == 5


def test_an_interrupt_that_is_pending_but_masked_lets_wfi_go_on() -> None:
    """mstatus.MIE does not matter to WFI (privileged manual 3.3.3)."""
    made = board("wfi; li a0, 1" + STOPS, clock="icount")
    made.hart.state.mie = MEI
    made.hart.set_lines(MEI, True)
    assert made.hart.state.mstatus & Status.MIE == 0
    assert made.run(100).reason is ExitReason.DEVICE
    assert made.hart.state.x[10] == 1
