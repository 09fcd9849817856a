"""The board: which devices the machine has, where they are, and how they are wired.

Addresses and interrupt sources are those of QEMU's ``virt`` board, so that software built for that one runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import RLock

from doppel.devices.aclint import Aclint
from doppel.devices.backends.characters import CharacterBackend
from doppel.devices.bus import Bus, Region
from doppel.devices.device import Alarm, Clock, Device, GuestMemory
from doppel.devices.goldfish_rtc import GoldfishRtc
from doppel.devices.plic import Plic
from doppel.devices.syscon import Syscon
from doppel.devices.uart16550 import Uart16550
from doppel.devices.virtio.device import VirtioDevice
from doppel.devices.virtio.mmio import VirtioMmio
from doppel.errors import DoppelError
from doppel.isa.privileged.constants import Interrupt
from doppel.processor.processor import Hart
from doppel.translate.exits import Request

__all__ = ["RAM_BASE", "VIRTIO_SLOTS", "Board"]

TEST_BASE = 0x10_0000
RTC_BASE = 0x10_1000
CLINT_BASE = 0x200_0000
PLIC_BASE = 0xC00_0000
UART_BASE = 0x1000_0000
VIRTIO_BASE, VIRTIO_STRIDE, VIRTIO_SLOTS = 0x1000_1000, 0x1000, 8
RAM_BASE = 0x8000_0000

PLIC_SOURCES = 95
VIRTIO_SOURCE = 1
UART_SOURCE = 10
RTC_SOURCE = 11


class HartWires:
    """The interrupt inputs of the harts, as the interrupt controllers drive them.

    ``wake`` is called after every change, for whoever waits until a hart has something to do.
    """

    def __init__(self, harts: Sequence[Hart], wake: Callable[[], None]) -> None:
        self._harts = harts
        self._wake = wake

    def _drive(self, hart: int, interrupt: Interrupt, level: bool) -> None:
        self._harts[hart].set_lines(1 << interrupt, level)
        self._wake()

    def set_msip(self, hart: int, level: bool) -> None:
        """Machine software interrupt."""
        self._drive(hart, Interrupt.MSI, level)

    def set_mtimecmp(self, hart: int, value: int) -> None:
        """The hart itself compares, in native code."""
        self._harts[hart].state.mtimecmp = value
        self._harts[hart].request(Request.ATTEND)
        self._wake()

    def set_meip(self, hart: int, level: bool) -> None:
        """Machine external interrupt."""
        self._drive(hart, Interrupt.MEI, level)

    def set_seip(self, hart: int, level: bool) -> None:
        """Supervisor external interrupt."""
        self._drive(hart, Interrupt.SEI, level)


class Board:
    """The devices of one machine.

    ``pure`` boards have a CLINT, for software in M mode; on others SBI does its work. ``make_alarm``
    makes the real-time clock's alarm, given the bus lock. ``on_poweroff(status)`` and ``on_reset()`` are
    called with the bus lock held.
    """

    def __init__(
        self,
        harts: Sequence[Hart],
        memory: GuestMemory,
        clock: Clock,
        make_alarm: Callable[[RLock], Alarm],
        console: CharacterBackend,
        *,
        pure: bool,
        wake: Callable[[], None],
        on_poweroff: Callable[[int], None],
        on_reset: Callable[[], None],
    ) -> None:
        self.memory = memory
        self.bus = Bus()
        self._node_names: dict[str, str] = {}
        self._virtio_devices = 0
        wires = HartWires(harts, wake)
        lock = self.bus.lock
        self.plic = Plic(wires, len(harts), sources=PLIC_SOURCES)
        self.uart = Uart16550(self.plic.line(UART_SOURCE), console, lock)
        rtc = GoldfishRtc(self.plic.line(RTC_SOURCE), clock, make_alarm(lock))
        self.attach(TEST_BASE, Syscon(on_poweroff, on_reset))
        self.attach(RTC_BASE, rtc)
        if pure:
            self.attach(CLINT_BASE, Aclint(wires, len(harts), clock))
        self.attach(PLIC_BASE, self.plic)
        self.attach(UART_BASE, self.uart, node="serial")

    def attach(self, base: int, device: Device, *, node: str | None = None) -> Region:
        """Put a device on the bus; ``node`` is its name in the device tree, by default the device's own."""
        if base + device.size > RAM_BASE:
            raise DoppelError(
                f"{device.name} at {base:#x} reaches into the machine's memory",
                f"give it an address below {RAM_BASE:#x}",
            )
        region = self.bus.attach(base, device)
        self._node_names[device.name] = node or device.name
        return region

    def add_virtio(self, device: VirtioDevice) -> VirtioMmio:
        """Put a virtio device into the next slot; DoppelError if all are taken."""
        slot = self._virtio_devices
        if slot == VIRTIO_SLOTS:
            raise DoppelError(
                f"there are more than {VIRTIO_SLOTS} virtio devices", "leave out a disk, a network or a share"
            )
        self._virtio_devices += 1
        transport = VirtioMmio(
            device, self.memory, self.plic.line(VIRTIO_SOURCE + slot), self.bus.lock, name=f"virtio{slot}"
        )
        self.attach(VIRTIO_BASE + slot * VIRTIO_STRIDE, transport, node="virtio_mmio")
        return transport

    def node_name(self, region: Region) -> str:
        """The name of a device's node, with its unit address."""
        return f"{self._node_names[region.device.name]}@{region.base:x}"

    @property
    def console_path(self) -> str:
        """Where the console is in the device tree."""
        return f"/soc/serial@{UART_BASE:x}"
