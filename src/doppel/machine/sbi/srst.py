"""System reset. Source: SBI 2.0, chapter 10."""

from __future__ import annotations

from collections.abc import Sequence

from doppel.machine.sbi.extension import Call, Extension, Function, SbiError, SbiFailure

__all__ = ["SystemReset"]

SHUTDOWN, COLD_REBOOT, WARM_REBOOT = 0, 1, 2
NO_REASON, SYSTEM_FAILURE = 0, 1
# Numbers that platforms and vendors may give a meaning to.
PLATFORM = range(0xE000_0000, 0x1_0000_0000)


class SystemReset(Extension):
    """Power off or start anew."""

    identifier = 0x53525354

    def functions(self) -> Sequence[Function]:
        """In the order of their numbers."""
        return (self.system_reset,)

    def system_reset(self, call: Call) -> None:
        """Does not return; a failure as the reason of a shutdown becomes the machine's exit status 1."""
        kind, reason = (argument & 0xFFFF_FFFF for argument in call.arguments[:2])
        if kind in PLATFORM:
            raise SbiFailure(SbiError.NOT_SUPPORTED)
        if kind > WARM_REBOOT or (reason > SYSTEM_FAILURE and reason not in PLATFORM):
            raise SbiFailure(SbiError.INVALID_PARAM)
        if kind == SHUTDOWN:
            self.platform.poweroff(int(reason != NO_REASON))
        else:
            self.platform.reboot()
