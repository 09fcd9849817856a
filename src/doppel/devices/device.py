"""What a device is, what it is given, and how it declares its registers.

A device knows its registers and the few things handed to its constructor: interrupt lines, a view of guest
memory, a clock, backends. It is called with the bus lock held and never raises for anything a guest does.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, Protocol

from doppel.devices.devicetree import DeviceTreeNode
from doppel.errors import DoppelError

__all__ = [
    "Alarm",
    "Clock",
    "Device",
    "GuestMemory",
    "HartInterrupts",
    "InterruptLine",
    "Register",
    "RegisterTable",
]


class InterruptLine(Protocol):
    """A level-triggered interrupt wire from a device to an interrupt controller."""

    def set(self, level: bool) -> None:
        """Drive the wire; setting the level it already has changes nothing."""

    def on_taken(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called whenever a hart takes the interrupt (claims it), before it is served."""

    def describe(self, node: DeviceTreeNode) -> None:
        """Add the properties (``interrupts`` and its parent) that say where this wire ends."""


class HartInterrupts(Protocol):
    """The interrupt inputs of the harts: the bits of ``mip`` (Privileged ISA 3.1.9) that wires set, and
    timers.
    """

    def set_msip(self, hart: int, level: bool) -> None:
        """Machine software interrupt."""

    def set_mtimecmp(self, hart: int, value: int) -> None:
        """The time, in ticks, from which the machine timer interrupt is pending; the hart itself compares."""

    def set_meip(self, hart: int, level: bool) -> None:
        """Machine external interrupt."""

    def set_seip(self, hart: int, level: bool) -> None:
        """Supervisor external interrupt."""


class GuestMemory(Protocol):
    """Guest-physical memory. Addresses outside RAM raise ``doppel.memory.view.GuestAddressError``."""

    def read(self, address: int, length: int) -> bytes:
        """Copy ``length`` bytes out."""

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Copy ``data`` in."""

    def segments(self, address: int, length: int, *, write: bool) -> list[memoryview]:
        """The host memory behind the range, in order; ``write`` if it is going to be written."""

    def read_u16(self, address: int) -> int:
        """A little-endian 16-bit value."""

    def read_u32(self, address: int) -> int:
        """A little-endian 32-bit value."""

    def read_u64(self, address: int) -> int:
        """A little-endian 64-bit value."""

    def write_u16(self, address: int, value: int) -> None:
        """Store a little-endian 16-bit value."""

    def write_u32(self, address: int, value: int) -> None:
        """Store a little-endian 32-bit value."""

    def write_u64(self, address: int, value: int) -> None:
        """Store a little-endian 64-bit value."""


class Clock(Protocol):
    """The machine's clock: devices know no other."""

    frequency: int
    """Ticks per second of the timebase."""

    def now(self) -> int:
        """Ticks since the machine started."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, for real-time clocks."""


class Alarm(Protocol):
    """Calls back at a time of day of the machine's clock."""

    def set(self, wall_ns: int | None, ring: Callable[[], None]) -> None:
        """Call ``ring`` once, with the bus lock held, when ``Clock.wall_ns`` reaches ``wall_ns``.

        Replaces the time set before; None takes it back.
        """


@dataclass(frozen=True)
class Register:
    """One row of a device's register table.

    The row named ``QueueReady`` dispatches to the device's methods ``read_queue_ready()`` and
    ``write_queue_ready(value)``; those of an array also get the index, as their first argument.
    """

    offset: int
    name: str
    access: Literal["r", "w", "rw"]
    width: int
    """Bytes: 1, 2, 4 or 8. A register of 8 bytes can also be accessed as two halves."""
    summary: str
    count: int | str = 1
    """Number of elements of an array, or the name of the device's attribute that says it."""
    stride: int = 0
    """Bytes from one element to the next; 0 for registers that are not arrays."""

    @property
    def method(self) -> str:
        """The name as it stands in method names: ``QueueReady`` is ``queue_ready``."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.name).lower()


Reader = Callable[[], int]
Writer = Callable[[int], None]


class RegisterTable(tuple[Register, ...]):
    """The registers of a kind of device, declared once: dispatch and documentation both come from here."""

    __slots__ = ()

    def bind(self, device: Device) -> tuple[dict[int, Reader], dict[int, Writer]]:
        """The accessors of one device, under the key ``offset << 4 | size``."""
        readers: dict[int, Reader] = {}
        writers: dict[int, Writer] = {}
        for register in self:
            for index in range(self._count(register, device)):
                arguments = (index,) if register.stride else ()
                offset = register.offset + index * register.stride
                key = offset << 4 | register.width
                if "r" in register.access:
                    readers[key] = partial(getattr(device, "read_" + register.method), *arguments)
                if "w" in register.access:
                    writers[key] = partial(getattr(device, "write_" + register.method), *arguments)
                if register.width == 8:
                    _bind_halves(offset, readers, writers)
        return readers, writers

    @staticmethod
    def _count(register: Register, device: Device) -> int:
        count = register.count
        return getattr(device, count) if isinstance(count, str) else count


def _bind_halves(offset: int, readers: dict[int, Reader], writers: dict[int, Writer]) -> None:
    read, write = readers.get(offset << 4 | 8), writers.get(offset << 4 | 8)
    for half, shift in ((offset, 0), (offset + 4, 32)):
        if read is not None:
            readers[half << 4 | 4] = partial(_read_half, read, shift)
        if read is not None and write is not None:
            writers[half << 4 | 4] = partial(_write_half, read, write, shift)


def _read_half(read: Reader, shift: int) -> int:
    return read() >> shift & 0xFFFF_FFFF


def _write_half(read: Reader, write: Writer, shift: int, value: int) -> None:
    write(read() & ~(0xFFFF_FFFF << shift) | value << shift)


class Device(ABC):
    """A device on the bus.

    ``name`` is unique on its bus. ``size`` is the size of the register space in bytes. All calls happen with
    the bus lock held.
    """

    size: ClassVar[int] = 0x1000
    registers: ClassVar[RegisterTable] = RegisterTable()
    saved: ClassVar[tuple[str, ...]] = ()
    """Attributes that make up the state of the device: int, bool, bytes, bytearray or lists of int."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._readers, self._writers = self.registers.bind(self)

    def read(self, offset: int, size: int) -> int:
        """Load ``size`` (1, 2, 4 or 8) bytes; 0 where there is no readable register of that width."""
        reader = self._readers.get(offset << 4 | size)
        return reader() if reader is not None else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Store ``size`` bytes; ignored where there is no writable register of that width."""
        writer = self._writers.get(offset << 4 | size)
        if writer is not None:
            writer(value)

    @abstractmethod
    def reset(self) -> None:
        """Power-on state. Drives the device's interrupt lines low."""

    @abstractmethod
    def describe(self, node: DeviceTreeNode) -> None:
        """Add this device's properties to its node; the board has put ``reg`` there already."""

    def save(self) -> dict[str, object]:
        """The state of the device in plain types that msgspec can encode."""
        state: dict[str, object] = {}
        for attribute in self.saved:
            value = getattr(self, attribute)
            state[attribute.lstrip("_")] = (
                bytes(value)
                if isinstance(value, bytearray)
                else list(value)
                if isinstance(value, list)
                else value
            )
        return state

    def load(self, state: Mapping[str, object]) -> None:
        """Take over a state that :meth:`save` returned; DoppelError if it is not of this kind of device."""
        for attribute in self.saved:
            value = state.get(attribute.lstrip("_"))
            kept = getattr(self, attribute)
            if isinstance(kept, bytearray) and isinstance(value, bytes) and len(value) == len(kept):
                value = bytearray(value)
            elif isinstance(kept, list) and isinstance(value, list) and len(value) == len(kept):
                value = list(value)
            elif type(value) is not type(kept) or isinstance(value, (bytearray, list)):
                raise DoppelError(
                    f"the saved state of {self.name} does not fit this device ({attribute.lstrip('_')})",
                    "load it into a machine with the same configuration as the one that was saved",
                )
            setattr(self, attribute, value)
