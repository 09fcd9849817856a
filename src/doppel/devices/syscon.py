"""The test finisher: one register through which a guest powers the machine off or resets it.

As on QEMU's virt machine (SiFive's test device): the low half of the word says what to do, the high half is
the exit code of a failure. Linux uses it through its ``syscon-poweroff`` and ``syscon-reboot`` drivers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from doppel.devices.device import Device, Register, RegisterTable
from doppel.devices.devicetree import DeviceTreeNode, Label

__all__ = ["Syscon"]

PASS, FAIL, RESET = 0x5555, 0x3333, 0x7777


class Syscon(Device):
    """Calls ``on_poweroff(exit code)`` or ``on_reset()`` as the guest asks; neither may block."""

    registers: ClassVar[RegisterTable] = RegisterTable(
        (Register(0x0, "Finisher", "w", 4, "0x5555 pass, 0x3333 | code << 16 fail, 0x7777 reset"),)
    )

    def __init__(
        self, on_poweroff: Callable[[int], None], on_reset: Callable[[], None], *, name: str = "test"
    ) -> None:
        self._on_poweroff = on_poweroff
        self._on_reset = on_reset
        super().__init__(name)

    def write_finisher(self, value: int) -> None:
        """Other values are ignored."""
        command = value & 0xFFFF
        if command == PASS:
            self._on_poweroff(0)
        elif command == FAIL:
            self._on_poweroff(value >> 16)
        elif command == RESET:
            self._on_reset()

    def reset(self) -> None:
        """There is nothing to reset."""

    def describe(self, node: DeviceTreeNode) -> None:
        """The register as a syscon, and under the root the two nodes that use it."""
        node.label = self.name
        node.set_strings("compatible", "sifive,test1", "sifive,test0", "syscon")
        for name, value in (("poweroff", PASS), ("reboot", RESET)):
            user = node.root.add(name)
            user.set_strings("compatible", f"syscon-{name}")
            user.set_cells("regmap", Label(self.name))
            user.set_cells("offset", 0)
            user.set_cells("value", value)
