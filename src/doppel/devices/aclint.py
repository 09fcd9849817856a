"""Core-local interruptor: software interrupts and the timer, in the layout that SiFive's CLINT made common.

Source: RISC-V ACLINT Specification 1.0, chapters 2 (MTIMER) and 3 (MSWI); section 1 gives the CLINT's layout.
This device holds the registers; the comparison of the time with ``mtimecmp`` is done by the harts in native
code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from doppel.devices.device import Clock, Device, HartInterrupts, Register, RegisterTable
from doppel.devices.devicetree import DeviceTreeNode, Label, hart_controller

__all__ = ["Aclint"]

_NEVER = (1 << 64) - 1
_MACHINE_SOFTWARE, _MACHINE_TIMER = 3, 7


class Aclint(Device):
    """MSIP, MTIMECMP and MTIME for ``hart_count`` harts.

    ``mtime`` cannot be written: it is the machine's clock, which the ``time`` CSR of every hart shows as
    well.
    """

    size = 0x10000
    registers: ClassVar[RegisterTable] = RegisterTable(
        (
            Register(0x0, "MSIP", "rw", 4, "bit 0: machine software interrupt of a hart", "hart_count", 4),
            Register(0x4000, "MTIMECMP", "rw", 8, "time of a hart's timer interrupt, ticks", "hart_count", 8),
            Register(0xBFF8, "MTIME", "r", 8, "ticks since the machine started"),
        )
    )
    saved = ("_msip", "_mtimecmp")

    def __init__(self, harts: HartInterrupts, hart_count: int, clock: Clock, *, name: str = "clint") -> None:
        self._harts = harts
        self.hart_count = hart_count
        self._clock = clock
        self._msip = [0] * hart_count
        self._mtimecmp = [_NEVER] * hart_count
        super().__init__(name)

    def read_msip(self, hart: int) -> int:
        """0 or 1."""
        return self._msip[hart]

    def write_msip(self, hart: int, value: int) -> None:
        """Only bit 0 exists."""
        self._msip[hart] = value & 1
        self._harts.set_msip(hart, bool(value & 1))

    def read_mtimecmp(self, hart: int) -> int:
        """Ticks."""
        return self._mtimecmp[hart]

    def write_mtimecmp(self, hart: int, value: int) -> None:
        """Ticks."""
        self._mtimecmp[hart] = value
        self._harts.set_mtimecmp(hart, value)

    def read_mtime(self) -> int:
        """Ticks."""
        return self._clock.now() & _NEVER

    def _drive(self) -> None:
        for hart in range(self.hart_count):
            self._harts.set_msip(hart, bool(self._msip[hart]))
            self._harts.set_mtimecmp(hart, self._mtimecmp[hart])

    def reset(self) -> None:
        """No software interrupts, and no timer interrupt at any time."""
        self._msip = [0] * self.hart_count
        self._mtimecmp = [_NEVER] * self.hart_count
        self._drive()

    def load(self, state: Mapping[str, object]) -> None:
        """Also tells the harts."""
        super().load(state)
        self._drive()

    def describe(self, node: DeviceTreeNode) -> None:
        """As in the binding ``sifive,clint``."""
        node.set_strings("compatible", "sifive,clint0", "riscv,clint0")
        targets: list[int | Label] = []
        for hart in range(self.hart_count):
            controller = hart_controller(hart)
            targets += [controller, _MACHINE_SOFTWARE, controller, _MACHINE_TIMER]
        node.set_cells("interrupts-extended", *targets)
