"""Hart state management. Source: SBI 2.0, chapter 9."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from doppel.machine.boot import enter_supervisor
from doppel.machine.sbi.extension import Call, Extension, Function, Platform, SbiError, SbiFailure
from doppel.memory.view import GuestAddressError

__all__ = ["HartState", "HartStateManagement"]

DEFAULT_RETENTIVE, DEFAULT_NON_RETENTIVE = 0, 0x8000_0000
# 9.4: below each platform's own kinds of suspension, numbers are reserved.
PLATFORM_RETENTIVE = range(0x1000_0000, 0x8000_0000)
PLATFORM_NON_RETENTIVE = range(0x9000_0000, 0x1_0000_0000)


class HartState(IntEnum):
    """States of a hart (table 28). Transitions take no time here, so there are no pending ones."""

    STARTED = 0
    STOPPED = 1
    SUSPENDED = 4


class HartStateManagement(Extension):
    """Starting, stopping and suspending harts."""

    identifier = 0x48534D

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        # Instructions that a hart had retired when it was suspended last: as long as there are no more,
        # it still is.
        self._suspended_at = [-1] * len(platform.harts)

    def functions(self) -> Sequence[Function]:
        """In the order of their numbers."""
        return (self.hart_start, self.hart_stop, self.hart_get_status, self.hart_suspend)

    def _hart(self, number: int) -> int:
        if number >= len(self.platform.harts):
            raise SbiFailure(SbiError.INVALID_PARAM)
        return number

    def _check_entry(self, address: int) -> None:
        """An entry point has to be in memory."""
        try:
            self.platform.memory.segments(address, 2, write=False)
        except GuestAddressError:
            raise SbiFailure(SbiError.INVALID_ADDRESS) from None

    def hart_start(self, call: Call) -> int:
        """Start a stopped hart at a physical address."""
        number, entry, argument = call.arguments[:3]
        hart = self._hart(number)
        self._check_entry(entry)
        if not self.platform.start(hart, entry, argument):
            raise SbiFailure(SbiError.ALREADY_AVAILABLE)
        return 0

    def hart_stop(self, call: Call) -> None:
        """Does not return: the caller is stopped."""
        self.platform.stop(call.hart.index)

    def hart_get_status(self, call: Call) -> int:
        """The state of a hart."""
        number = self._hart(call.arguments[0])
        if not self.platform.started(number):
            return HartState.STOPPED
        hart = self.platform.harts[number]
        if hart.waiting and hart.state.spent == self._suspended_at[number]:
            return HartState.SUSPENDED
        return HartState.STARTED

    def hart_suspend(self, call: Call) -> int | None:
        """Wait for an interrupt: like WFI, and then either return or begin anew at an address."""
        kind, entry, argument = call.arguments[:3]
        kind &= 0xFFFF_FFFF
        hart = call.hart
        if kind in PLATFORM_RETENTIVE or kind in PLATFORM_NON_RETENTIVE:
            raise SbiFailure(SbiError.NOT_SUPPORTED)
        if kind not in (DEFAULT_RETENTIVE, DEFAULT_NON_RETENTIVE):
            raise SbiFailure(SbiError.INVALID_PARAM)
        self._suspended_at[hart.index] = hart.state.spent
        if kind == DEFAULT_NON_RETENTIVE:
            self._check_entry(entry)
            enabled = hart.state.mie
            timer = hart.state.stimecmp
            pending = hart.state.mip
            with self.platform.lock:
                enter_supervisor(hart, entry, argument)
            # What may wake the hart outlives its suspension.
            hart.state.mie = enabled
            hart.state.mip = pending
            hart.state.stimecmp = timer
            hart.state.waiting = 1
            return None
        hart.state.waiting = 1
        return 0
