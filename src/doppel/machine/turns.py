"""Running the harts in turn on one thread, for machines whose clock counts instructions.

Every hart gets a slice of the same number of instructions, in the same order, so that what happens
depends on nothing but the guest and its inputs. Harts agree on the time at the end of each round; when
all wait, it jumps to the next moment at which something happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import RLock

from doppel.isa.privileged.constants import EnvironmentConfig, Interrupt
from doppel.machine.clock import InstructionAlarm, InstructionClock
from doppel.machine.execution import Execution
from doppel.machine.exits import ExitHandler, Next
from doppel.processor.exits import ExitReason
from doppel.processor.processor import Hart
from doppel.translate.exits import Request

__all__ = ["Turns"]

# Instructions of a turn. A hart that waits for another one wastes up to a whole turn of its own.
SLICE = 10_000
SLICE_ALONE = 1_000_000
_STI, _MTI = 1 << Interrupt.STI, 1 << Interrupt.MTI


class Turns(Execution):
    """``lock`` is the bus lock, under which ``alarm`` rings."""

    def __init__(
        self,
        harts: Sequence[Hart],
        handler: ExitHandler,
        discard_code: Callable[[], None],
        clock: InstructionClock,
        alarm: InstructionAlarm,
        lock: RLock,
    ) -> None:
        super().__init__(harts, handler, discard_code)
        self._clock = clock
        self._alarm = alarm
        self._lock = lock
        self._slice = SLICE if len(harts) > 1 else SLICE_ALONE
        self._turn = 0
        self._slice_end: int | None = None
        self._idle = [False] * len(harts)
        self._woken = False

    def stop_all(self) -> None:
        """As after power-on, with the first hart's turn to come."""
        super().stop_all()
        self._turn = 0
        self._slice_end = None

    def run(self) -> None:
        """Turn after turn; halting in the middle of one does not change what the guest sees."""
        while not self.halting:
            if self._turn == len(self.harts):
                self._turn = 0
                self._end_round()
                continue
            hart = self.harts[self._turn]
            self._clock.current = hart
            if self._started[hart.index] and not self._run_slice(hart):
                return
            self._turn += 1

    def _run_slice(self, hart: Hart) -> bool:
        """Up to the end of the hart's slice; False if the machine is to halt before."""
        state, counts = hart.state, self.handler.counts[hart.index]
        if self._slice_end is None:
            self._slice_end = state.spent + self._slice
        self._idle[hart.index] = False
        while (left := self._slice_end - state.spent) > 0:
            # A few instructions more, up to the end of a block, are the same ones every time.
            exit = hart.run(left, exact=False)
            counts[exit.reason] += 1
            if exit.reason is ExitReason.DEVICE:
                self.handler.device(hart, exit)
                continue
            following = self.handler.other(hart, exit)
            if self.halting:
                return False
            if following is Next.DISCARD:
                self.discard_code()
            elif following is Next.IDLE:
                self._idle[hart.index] = True
                break
            if not self._started[hart.index]:
                break
        self._slice_end = None
        return True

    def _end_round(self) -> None:
        clock = self._clock
        now = max(clock.of(hart) for hart in self.harts)
        running = [hart for hart in self.harts if self._started[hart.index]]
        if all(self._idle[hart.index] for hart in running):
            with self.changed:
                self.changed.wait_for(lambda: self._woken or self.halting or self._next_event() is not None)
                woken, self._woken = self._woken, False
            event = self._next_event()
            if event is not None and not woken:
                now = max(now, event)
        for hart in self.harts:
            clock.advance(hart, now)
        if self._alarm.due is not None:
            with self._lock:
                self._alarm.ring_if_due()

    def _next_event(self) -> int | None:
        """The earliest time, in ticks, that a waiting hart or the alarm waits for."""
        times = [] if self._alarm.due is None else [self._alarm.due]
        for hart in self.harts:
            state = hart.state
            if self._started[hart.index]:
                if state.mie & _MTI:
                    times.append(state.mtimecmp)
                if state.mie & _STI and state.menvcfg & EnvironmentConfig.STCE:
                    times.append(state.stimecmp)
        return min((time for time in times if time < (1 << 64) - 1), default=None)

    def wake(self) -> None:
        """A wire into a hart has changed."""
        with self.changed:
            self._woken = True
            self.changed.notify_all()

    def fence(self, harts: Iterable[int], caller: int) -> None:
        """No hart is in native code, and each serves requests when it enters it."""
        for index in harts:
            self.harts[index].request(Request.FLUSH)
