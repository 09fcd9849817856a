"""Interprocessor interrupts. Source: SBI 2.0, chapter 7."""

from __future__ import annotations

from collections.abc import Sequence

from doppel.machine.sbi.extension import Call, Extension, Function, hart_set

__all__ = ["Ipi"]


class Ipi(Extension):
    """One function."""

    identifier = 0x735049

    def functions(self) -> Sequence[Function]:
        """In the order of their numbers."""
        return (self.send_ipi,)

    def send_ipi(self, call: Call) -> int:
        """A supervisor software interrupt for the harts of a mask."""
        mask, base = call.arguments[:2]
        self.platform.interrupt(hart_set(mask, base, len(self.platform.harts)))
        return 0
