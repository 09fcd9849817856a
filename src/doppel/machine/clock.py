"""The machine's clocks: one that follows the host's time, one that counts instructions.

Devices see the time only through these. Both count ticks of the 10 MHz timebase that the ``time`` CSR shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from doppel.processor.processor import TIMEBASE_HZ, Hart, Processor

__all__ = ["DEFAULT_EPOCH_NS", "NS_PER_TICK", "HostClock", "InstructionAlarm", "InstructionClock"]

NS_PER_TICK = 1_000_000_000 // TIMEBASE_HZ
# 2026-01-01 00:00:00 UTC: a machine that counts instructions knows no date of its own.
DEFAULT_EPOCH_NS = 1_767_225_600 * 1_000_000_000


class HostClock:
    """Follows the host: ticks since the machine was made, and the host's time of day."""

    frequency = TIMEBASE_HZ

    def __init__(self, processor: Processor) -> None:
        self._processor = processor

    def now(self) -> int:
        """Ticks."""
        return self._processor.ticks()

    def wall_ns(self) -> int:
        """Nanoseconds since 1970."""
        return time.time_ns()


class InstructionClock:
    """A tick every ``instructions_per_tick`` instructions, and jumps ahead while all harts wait.

    It shows the time of the hart that runs, which is :attr:`current`; the time of day is ``epoch_ns`` and the
    ticks since.
    """

    frequency = TIMEBASE_HZ

    def __init__(self, harts: Sequence[Hart], instructions_per_tick: int, epoch_ns: int) -> None:
        self._per_tick = instructions_per_tick
        self._epoch_ns = epoch_ns
        self.current = harts[0]

    def now(self) -> int:
        """Ticks."""
        return self.of(self.current)

    def of(self, hart: Hart) -> int:
        """The time of a hart that is not in native code, in ticks."""
        return int(hart.state.spent) // self._per_tick + int(hart.state.icount_skew)

    def advance(self, hart: Hart, ticks: int) -> None:
        """Make it ``ticks`` for a hart, if it is earlier there."""
        if self.of(hart) < ticks:
            hart.state.icount_skew = ticks - int(hart.state.spent) // self._per_tick

    def wall_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self._epoch_ns + self.now() * NS_PER_TICK

    def ticks_at(self, wall_ns: int) -> int:
        """The time, in ticks, at which it is ``wall_ns`` nanoseconds since 1970, or just after."""
        return -(-(wall_ns - self._epoch_ns) // NS_PER_TICK)


class InstructionAlarm:
    """The alarm of a real-time clock on a machine that counts instructions: whoever runs the harts looks
    at it.
    """

    def __init__(self, clock: InstructionClock) -> None:
        self._clock = clock
        self._ring: Callable[[], None] | None = None
        self.due: int | None = None
        """Ticks, None if it is not set."""

    def set(self, wall_ns: int | None, ring: Callable[[], None]) -> None:
        """Ring once when the time of day is ``wall_ns``; None takes the alarm back."""
        self.due = None if wall_ns is None else self._clock.ticks_at(wall_ns)
        self._ring = ring

    def ring_if_due(self) -> None:
        """Call back if the time has come; the caller holds the bus lock."""
        if self.due is not None and self._ring is not None and self._clock.now() >= self.due:
            self.due = None
            self._ring()
