"""What the extensions have in common. Source: RISC-V Supervisor Binary Interface Specification 2.0,
chapter 3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from threading import RLock
from typing import ClassVar, Protocol

from doppel.devices.device import GuestMemory
from doppel.processor.processor import Hart

__all__ = ["MASK64", "Call", "Extension", "Function", "Platform", "SbiError", "SbiFailure", "hart_set"]

MASK64 = (1 << 64) - 1


class SbiError(IntEnum):
    """Error codes (table 1)."""

    SUCCESS = 0
    FAILED = -1
    NOT_SUPPORTED = -2
    INVALID_PARAM = -3
    DENIED = -4
    INVALID_ADDRESS = -5
    ALREADY_AVAILABLE = -6
    ALREADY_STARTED = -7
    ALREADY_STOPPED = -8


class SbiFailure(Exception):
    """The call ends with this error code."""

    def __init__(self, error: SbiError) -> None:
        super().__init__(error.name)
        self.error = error


class Platform(Protocol):
    """What the extensions ask of the machine."""

    harts: Sequence[Hart]
    memory: GuestMemory
    lock: RLock
    """The bus lock."""

    def started(self, hart: int) -> bool:
        """Whether the hart executes instructions, or could if it were not waiting."""

    def start(self, hart: int, entry: int, argument: int) -> bool:
        """Let a stopped hart begin at ``entry`` in S mode; False if it is not stopped."""

    def stop(self, hart: int) -> None:
        """Stop the hart that calls; it executes nothing until it is started."""

    def interrupt(self, harts: Iterable[int]) -> None:
        """Make the supervisor software interrupt pending."""

    def fence(self, harts: Iterable[int], caller: int) -> None:
        """Have the harts forget cached translations and decoded code; returns when all have."""

    def poweroff(self, status: int) -> None:
        """End the machine."""

    def reboot(self) -> None:
        """Start the machine anew."""

    def console_write(self, data: bytes) -> None:
        """Put bytes on the console."""

    def console_read(self, limit: int) -> bytes:
        """Take up to ``limit`` bytes of the console's input, without waiting."""


class Call:
    """One call: the hart that makes it and its registers from ``a0`` on."""

    __slots__ = ("arguments", "hart")

    def __init__(self, hart: Hart, arguments: list[int]) -> None:
        self.hart = hart
        self.arguments = arguments


Function = Callable[[Call], "int | None"]


class Extension(ABC):
    """A group of functions under one number.

    Functions return the value for ``a1``, or None if the registers are to stay as they are (the hart goes on
    somewhere else), and raise :class:`SbiFailure`.
    """

    identifier: ClassVar[int]
    legacy: ClassVar[bool] = False
    """Legacy extensions return their value in ``a0`` and keep ``a1`` (chapter 5)."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    @abstractmethod
    def functions(self) -> Sequence[Function]:
        """The functions, in the order of their numbers."""


def hart_set(mask: int, base: int, harts: int) -> list[int]:
    """The harts that a mask and the number of its lowest bit name (3.1); all of them if the base is -1."""
    if base == MASK64:
        return list(range(harts))
    if base >= harts or (mask << base).bit_length() > harts:
        raise SbiFailure(SbiError.INVALID_PARAM)
    return [base + bit for bit in range(mask.bit_length()) if mask >> bit & 1]
