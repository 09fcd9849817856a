"""Goldfish real-time clock: the time of day in nanoseconds, and an alarm.

Source: the Goldfish virtual platform's device description ("goldfish_rtc"), and Linux's rtc-goldfish driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from doppel.devices.device import Alarm, Clock, Device, InterruptLine, Register, RegisterTable
from doppel.devices.devicetree import DeviceTreeNode

__all__ = ["GoldfishRtc"]

_LOW = 0xFFFF_FFFF
_ALL = (1 << 64) - 1


class GoldfishRtc(Device):
    """Follows ``clock.wall_ns``; a guest that sets the time changes only its own difference to it."""

    registers: ClassVar[RegisterTable] = RegisterTable(
        (
            Register(0x00, "TimeLow", "rw", 4, "low half of the time in ns; reading latches the high half"),
            Register(0x04, "TimeHigh", "rw", 4, "high half of the time as of the last read of TimeLow"),
            Register(0x08, "AlarmLow", "rw", 4, "low half of the alarm time in ns; writing arms the alarm"),
            Register(0x0C, "AlarmHigh", "rw", 4, "high half of the alarm time in ns"),
            Register(0x10, "IrqEnabled", "rw", 4, "bit 0: an expired alarm interrupts"),
            Register(0x14, "ClearAlarm", "w", 4, "any value takes the alarm back"),
            Register(0x18, "AlarmStatus", "r", 4, "1 while the alarm is armed"),
            Register(0x1C, "ClearInterrupt", "w", 4, "any value takes the interrupt back"),
        )
    )
    saved = ("_offset", "_high", "_alarm_ns", "_armed", "_enabled", "_expired")

    def __init__(self, line: InterruptLine, clock: Clock, alarm: Alarm, *, name: str = "rtc") -> None:
        self._line = line
        self._clock = clock
        self._alarm = alarm
        self._clear()
        super().__init__(name)

    def _clear(self) -> None:
        # Guest time minus wall time, modulo 2^64.
        self._offset = 0
        self._high = 0
        self._alarm_ns = 0
        self._armed = False
        self._enabled = False
        self._expired = False

    def _now(self) -> int:
        return (self._clock.wall_ns() + self._offset) & _ALL

    def _set_now(self, value: int) -> None:
        self._offset = (value - self._clock.wall_ns()) & _ALL
        self._arm()

    def _arm(self) -> None:
        """Tell the alarm, or expire at once if its time has passed."""
        if not self._armed:
            self._alarm.set(None, self._ring)
        elif self._alarm_ns <= self._now():
            self._expire()
        else:
            self._alarm.set(self._clock.wall_ns() + self._alarm_ns - self._now(), self._ring)

    def _ring(self) -> None:
        if self._armed:
            self._arm()

    def _expire(self) -> None:
        self._armed = False
        self._expired = True
        self._alarm.set(None, self._ring)
        self._drive()

    def _drive(self) -> None:
        self._line.set(self._expired and self._enabled)

    def read_time_low(self) -> int:
        """Nanoseconds since 1970, low half."""
        now = self._now()
        self._high = now >> 32
        return now & _LOW

    def write_time_low(self, value: int) -> None:
        """Sets the low half of the time."""
        self._set_now(self._now() & ~_LOW | value)

    def read_time_high(self) -> int:
        """The high half that belongs to the last low half."""
        return self._high

    def write_time_high(self, value: int) -> None:
        """Sets the high half of the time."""
        self._set_now(self._now() & _LOW | value << 32)

    def read_alarm_low(self) -> int:
        """Alarm time, low half."""
        return self._alarm_ns & _LOW

    def write_alarm_low(self, value: int) -> None:
        """Completes the alarm time and arms the alarm."""
        self._alarm_ns = self._alarm_ns & ~_LOW | value
        self._armed = True
        self._arm()

    def read_alarm_high(self) -> int:
        """Alarm time, high half."""
        return self._alarm_ns >> 32

    def write_alarm_high(self, value: int) -> None:
        """Prepares the alarm time; the low half arms it."""
        self._alarm_ns = self._alarm_ns & _LOW | value << 32

    def read_irq_enabled(self) -> int:
        """0 or 1."""
        return int(self._enabled)

    def write_irq_enabled(self, value: int) -> None:
        """Bit 0."""
        self._enabled = bool(value & 1)
        self._drive()

    def write_clear_alarm(self, value: int) -> None:
        """Disarms the alarm."""
        self._armed = False
        self._arm()

    def read_alarm_status(self) -> int:
        """Whether the alarm is armed."""
        return int(self._armed)

    def write_clear_interrupt(self, value: int) -> None:
        """Takes the interrupt back."""
        self._expired = False
        self._drive()

    def reset(self) -> None:
        """The wall clock's time again, no alarm, no interrupt."""
        self._clear()
        self._arm()
        self._drive()

    def load(self, state: Mapping[str, object]) -> None:
        """An alarm whose time has passed since the state was saved expires now."""
        super().load(state)
        self._arm()
        self._drive()

    def describe(self, node: DeviceTreeNode) -> None:
        """As in the binding ``google,goldfish-rtc``."""
        node.set_strings("compatible", "google,goldfish-rtc")
        self._line.describe(node)
