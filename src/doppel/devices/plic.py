"""Platform-level interrupt controller. Source: RISC-V PLIC Specification 1.0.0.

Laid out as on QEMU's virt machine: two contexts per hart, ``2 * hart`` for machine and ``2 * hart + 1`` for
supervisor mode, and priorities of three bits.

All sources are level triggered. The gateway of a source (section "Interrupt Gateways") forwards one request
when its wire goes high and no other before the completion message; if the wire is still high then, the source
is pending again. A request that was forwarded stays pending even if the wire goes low.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from doppel.devices.device import Device, HartInterrupts, Register, RegisterTable
from doppel.devices.devicetree import DeviceTreeNode, Label, hart_controller
from doppel.errors import DoppelError

__all__ = ["Plic", "PlicLine"]

_MAX_PRIORITY = 7
_WORDS_PER_CONTEXT = 32
_MACHINE_EXTERNAL, _SUPERVISOR_EXTERNAL = 11, 9


class PlicLine:
    """The wire into one interrupt source."""

    def __init__(self, plic: Plic, source: int) -> None:
        self._plic = plic
        self.source = source

    def set(self, level: bool) -> None:
        """Drive the wire."""
        self._plic.set_level(self.source, level)

    def on_taken(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called whenever the source is claimed."""
        self._plic.on_claim(self.source, callback)

    def describe(self, node: DeviceTreeNode) -> None:
        """``interrupts`` and ``interrupt-parent``."""
        node.set_cells("interrupts", self.source)
        node.set_cells("interrupt-parent", Label(self._plic.name))


class Plic(Device):
    """The PLIC of a machine with ``harts`` harts and sources 1 to ``sources``."""

    size = 0x600000
    registers: ClassVar[RegisterTable] = RegisterTable(
        (
            Register(
                0x0, "Priority", "rw", 4, "priority of a source, 0 never interrupts", "_source_slots", 4
            ),
            Register(0x1000, "Pending", "r", 4, "pending bits of 32 sources", "_pending_words", 4),
            Register(0x2000, "Enable", "rw", 4, "enable bits, 32 words per context", "_enable_words", 4),
            Register(0x200000, "Threshold", "rw", 4, "priority to exceed, per context", "contexts", 0x1000),
            Register(
                0x200004, "Claim", "rw", 4, "read: claim; write: complete, per context", "contexts", 0x1000
            ),
        )
    )
    saved = ("_priority", "_threshold")

    def __init__(
        self, harts: HartInterrupts, hart_count: int, *, sources: int = 95, name: str = "plic"
    ) -> None:
        self._harts = harts
        self.hart_count = hart_count
        self.sources = sources
        self.contexts = 2 * hart_count
        self._source_slots = sources + 1
        self._pending_words = sources // 32 + 1
        self._enable_words = self.contexts * _WORDS_PER_CONTEXT
        # Bit n of a mask is source n; bit 0 never exists.
        self._valid = (1 << self._source_slots) - 2
        self._lines: set[int] = set()
        self._claimed: dict[int, Callable[[], None]] = {}
        self._levels = 0
        self._clear()
        super().__init__(name)

    def _clear(self) -> None:
        self._pending = 0
        self._in_service = 0
        self._priority = [0] * self._source_slots
        self._enable = [0] * self.contexts
        self._threshold = [0] * self.contexts
        self._notified = [False] * self.contexts

    def line(self, source: int) -> PlicLine:
        """The wire into ``source``; DoppelError if there is no such source or its wire is taken."""
        if not 0 < source <= self.sources:
            raise DoppelError(
                f"{self.name} has no interrupt source {source}", f"choose one from 1 to {self.sources}"
            )
        if source in self._lines:
            raise DoppelError(
                f"interrupt source {source} of {self.name} is taken", "give each device a source of its own"
            )
        self._lines.add(source)
        return PlicLine(self, source)

    def set_level(self, source: int, level: bool) -> None:
        """What the wire of ``source`` does."""
        bit = 1 << source
        if level == bool(self._levels & bit):
            return
        self._levels ^= bit
        if level and not (self._pending | self._in_service) & bit:
            self._pending |= bit
            self._notify()

    def on_claim(self, source: int, callback: Callable[[], None]) -> None:
        """Have ``callback`` called whenever ``source`` is claimed; it may drive the wire."""
        self._claimed[source] = callback

    def _best(self, context: int) -> int:
        """The source that ``context`` would claim, without regard to the threshold, or 0."""
        best = best_priority = 0
        candidates = self._pending & self._enable[context]
        while candidates:
            lowest = candidates & -candidates
            candidates ^= lowest
            source = lowest.bit_length() - 1
            # Ties go to the lowest source number.
            if self._priority[source] > best_priority:
                best, best_priority = source, self._priority[source]
        return best

    def _notify(self) -> None:
        for context, notified in enumerate(self._notified):
            level = (
                self._pending & self._enable[context] != 0
                and self._priority[self._best(context)] > self._threshold[context]
            )
            if level != notified:
                self._drive(context, level)

    def _drive(self, context: int, level: bool) -> None:
        self._notified[context] = level
        hart, supervisor = divmod(context, 2)
        if supervisor:
            self._harts.set_seip(hart, level)
        else:
            self._harts.set_meip(hart, level)

    def read_priority(self, source: int) -> int:
        """Priority of a source."""
        return self._priority[source]

    def write_priority(self, source: int, value: int) -> None:
        """WARL: three bits. Source 0 does not exist and keeps priority 0."""
        if source:
            self._priority[source] = value & _MAX_PRIORITY
            self._notify()

    def read_pending(self, word: int) -> int:
        """Pending bits of 32 sources."""
        return self._pending >> 32 * word & 0xFFFF_FFFF

    def read_enable(self, index: int) -> int:
        """Enable bits of 32 sources for a context."""
        context, word = divmod(index, _WORDS_PER_CONTEXT)
        return self._enable[context] >> 32 * word & 0xFFFF_FFFF

    def write_enable(self, index: int, value: int) -> None:
        """Enable bits of 32 sources for a context; those of sources that do not exist stay 0."""
        context, word = divmod(index, _WORDS_PER_CONTEXT)
        kept = self._enable[context] & ~(0xFFFF_FFFF << 32 * word)
        self._enable[context] = (kept | value << 32 * word) & self._valid
        self._notify()

    def read_threshold(self, context: int) -> int:
        """Priority threshold of a context."""
        return self._threshold[context]

    def write_threshold(self, context: int, value: int) -> None:
        """WARL: three bits."""
        self._threshold[context] = value & _MAX_PRIORITY
        self._notify()

    def read_claim(self, context: int) -> int:
        """Claim: the pending source of highest priority; the threshold does not matter (section "Claim
        Process").
        """
        source = self._best(context)
        if source:
            self._pending &= ~(1 << source)
            self._in_service |= 1 << source
            if source in self._claimed:
                self._claimed[source]()
            self._notify()
        return source

    def write_claim(self, context: int, value: int) -> None:
        """Complete: ignored if the source is not enabled for the context (section "Interrupt Completion")."""
        if value > self.sources:
            return
        bit = 1 << value
        if not self._enable[context] & bit & self._in_service:
            return
        self._in_service &= ~bit
        if self._levels & bit:
            self._pending |= bit
            self._notify()

    def reset(self) -> None:
        """Nothing pending, enabled or in service; wires keep the level that their devices give them."""
        self._clear()
        for context in range(self.contexts):
            self._drive(context, False)

    def describe(self, node: DeviceTreeNode) -> None:
        """As in the binding ``sifive,plic-1.0.0``."""
        node.label = self.name
        node.set_strings("compatible", "sifive,plic-1.0.0", "riscv,plic0")
        node.set_cells("#interrupt-cells", 1)
        node.set_cells("#address-cells", 0)
        node.set_flag("interrupt-controller")
        node.set_cells("riscv,ndev", self.sources)
        targets: list[int | Label] = []
        for hart in range(self.hart_count):
            controller = hart_controller(hart)
            targets += [controller, _MACHINE_EXTERNAL, controller, _SUPERVISOR_EXTERNAL]
        node.set_cells("interrupts-extended", *targets)

    def _mask_bytes(self, mask: int) -> bytes:
        return mask.to_bytes(self._source_slots // 8 + 1, "little")

    def save(self) -> dict[str, object]:
        """Masks go as bytes: they have more bits than an integer of the saved form."""
        return super().save() | {
            "levels": self._mask_bytes(self._levels),
            "pending": self._mask_bytes(self._pending),
            "in_service": self._mask_bytes(self._in_service),
            "enable": b"".join(map(self._mask_bytes, self._enable)),
        }

    def load(self, state: Mapping[str, object]) -> None:
        """Also tells every hart its external interrupt level again."""
        super().load(state)
        width = self._source_slots // 8 + 1
        levels, pending, in_service, enable = (
            state.get(key) for key in ("levels", "pending", "in_service", "enable")
        )
        if not (
            isinstance(levels, bytes)
            and isinstance(pending, bytes)
            and isinstance(in_service, bytes)
            and isinstance(enable, bytes)
            and len(enable) == width * self.contexts
        ):
            raise DoppelError(
                f"the saved state of {self.name} does not fit this device",
                "load it into a machine with the same configuration as the one that was saved",
            )
        self._levels = int.from_bytes(levels, "little") & self._valid
        self._pending = int.from_bytes(pending, "little") & self._valid
        self._in_service = int.from_bytes(in_service, "little") & self._valid
        self._enable = [
            int.from_bytes(enable[at : at + width], "little") & self._valid
            for at in range(0, len(enable), width)
        ]
        for context in range(self.contexts):
            self._drive(context, self._priority[self._best(context)] > self._threshold[context])
