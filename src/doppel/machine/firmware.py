"""What the SBI's extensions find beneath them: the machine, as their platform."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from doppel.devices.backends.characters import CharacterBackend
from doppel.devices.device import GuestMemory
from doppel.machine.board import Board
from doppel.machine.boot import enter_supervisor
from doppel.machine.execution import Execution
from doppel.processor.processor import Hart

__all__ = ["Firmware"]


class Firmware:
    """Implements :class:`doppel.machine.sbi.extension.Platform`."""

    def __init__(
        self,
        harts: Sequence[Hart],
        memory: GuestMemory,
        board: Board,
        console: CharacterBackend,
        execution: Execution,
        on_poweroff: Callable[[int], None],
        on_reset: Callable[[], None],
    ) -> None:
        self.harts = harts
        self.memory = memory
        self.lock = board.bus.lock
        self.poweroff = on_poweroff
        self.reboot = on_reset
        self._uart = board.uart
        self._console = console
        self._execution = execution

    def started(self, hart: int) -> bool:
        """Whether the hart executes instructions, or could if it were not waiting."""
        return self._execution.started(hart)

    def start(self, hart: int, entry: int, argument: int) -> bool:
        """Let a stopped hart begin at ``entry`` in S mode; False if it is not stopped."""
        with self.lock:
            return self._execution.start(hart, lambda: enter_supervisor(self.harts[hart], entry, argument))

    def stop(self, hart: int) -> None:
        """Stop the hart that calls."""
        self._execution.stop(hart)

    def interrupt(self, harts: Iterable[int]) -> None:
        """Make the supervisor software interrupt pending."""
        self._execution.interrupt(harts)

    def fence(self, harts: Iterable[int], caller: int) -> None:
        """Have the harts forget cached translations and decoded code."""
        self._execution.fence(harts, caller)

    def console_write(self, data: bytes) -> None:
        """Behind what the guest wrote to the serial port before."""
        self._uart.flush()
        self._console.write(data)

    def console_read(self, limit: int) -> bytes:
        """Input that the serial port has not taken."""
        return self._console.read(limit)
