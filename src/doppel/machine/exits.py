"""What an exit from native code leads to: the device, the pager or the firmware that the hart needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from doppel.devices.bus import Bus, BusError
from doppel.isa.privileged.constants import Access, Cause
from doppel.memory.entry import PAGE_SHIFT
from doppel.memory.pager import Pager
from doppel.processor.exits import Exit, ExitReason
from doppel.processor.processor import Hart

__all__ = ["ExitHandler", "GuestFailure", "Next"]

_STORE = int(Access.STORE)
_MASKS = {size: (1 << 8 * size) - 1 for size in (1, 2, 4, 8)}


class GuestFailure(Exception):
    """The machine cannot go on; the message says why."""


class Next(Enum):
    """What the hart does now."""

    RUN = "run"
    STOPPED = "stopped"  # another thread wants something
    IDLE = "idle"  # it waits for an interrupt, and nothing in the machine is going to cause one by itself
    DISCARD = "discard"  # it needs room for decoded code


class ExitHandler:
    """Serves the exits of all harts of a machine.

    :attr:`supervisor_call` serves an ECALL from S mode where doppel is the firmware. :attr:`counts` has
    the number of exits by hart and reason.
    """

    def __init__(self, bus: Bus, pager: Pager, harts: Sequence[Hart]) -> None:
        self._bus = bus
        self._pager = pager
        self.supervisor_call: Callable[[Hart], None] | None = None
        self.counts = [[0] * len(ExitReason) for _ in harts]

    def device(self, hart: Hart, exit: Exit) -> None:
        """A load or store outside memory. An AMO there never gets here: it faults in native code."""
        _, address, size, access, value = exit
        try:
            if access == _STORE:
                # The exit carries the whole register.
                self._bus.write(address, size, value & _MASKS[size])
                hart.answer(0)
            else:
                hart.answer(self._bus.read(address, size))
        except BusError:
            hart.fault()
        except Exception as error:
            raise GuestFailure(f"{self._name(address)} failed: {error!r}") from error

    def _name(self, address: int) -> str:
        for region in self._bus:
            if region.base <= address < region.end:
                return f"the device {region.device.name}"
        return "the bus"

    def other(self, hart: Hart, exit: Exit) -> Next:
        """Any exit but DEVICE."""
        match exit.reason:
            case ExitReason.VM_FAULT:
                self._fault(exit.address)
            case ExitReason.TRAP:
                self._trap(hart, exit)
            case ExitReason.STOPPED:
                return Next.STOPPED
            case ExitReason.WAIT:
                return Next.IDLE
            case ExitReason.CODE_FULL:
                return Next.DISCARD
        return Next.RUN

    def _fault(self, address: int) -> None:
        try:
            self._pager.fault(address >> PAGE_SHIFT)
        except MemoryError as error:
            raise GuestFailure(
                f"there is no frame left for the guest's memory at {address:#x} ({error})"
            ) from error

    def _trap(self, hart: Hart, exit: Exit) -> None:
        if exit.value != Cause.ECALL_FROM_S or self.supervisor_call is None:
            raise GuestFailure(
                f"hart {hart.index} took a trap with cause {exit.value:#x} at {hart.state.pc:#x}, "
                "which nobody handles"
            )
        try:
            self.supervisor_call(hart)
        except Exception as error:
            raise GuestFailure(f"the SBI call at {hart.state.pc:#x} failed: {error!r}") from error
