"""An alarm that follows the host's time, for machines whose clock does."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock, Timer

from doppel.devices.device import Clock

__all__ = ["HostAlarm"]

_NS_PER_SECOND = 1_000_000_000
# Guests may set an alarm centuries ahead, further than a timer can wait; look again every hour.
_LONGEST_WAIT_SECONDS = 3600.0


class HostAlarm:
    """Implements :class:`doppel.devices.device.Alarm` with a timer thread; ``lock`` is the bus lock."""

    def __init__(self, clock: Clock, lock: RLock) -> None:
        self._clock = clock
        self._lock = lock
        self._timer: Timer | None = None

    def set(self, wall_ns: int | None, ring: Callable[[], None]) -> None:
        """Ring at ``wall_ns``; None takes the alarm back. Call with the bus lock held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wall_ns is None:
            return
        wait = min(max(0.0, (wall_ns - self._clock.wall_ns()) / _NS_PER_SECOND), _LONGEST_WAIT_SECONDS)
        timer = Timer(wait, lambda: self._timed_out(timer, wall_ns, ring))
        timer.daemon = True
        self._timer = timer
        timer.start()

    def _timed_out(self, timer: Timer, wall_ns: int, ring: Callable[[], None]) -> None:
        with self._lock:
            if self._timer is not timer:
                return
            self._timer = None
            if self._clock.wall_ns() < wall_ns:
                self.set(wall_ns, ring)
            else:
                ring()
