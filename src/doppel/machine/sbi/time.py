"""Timer extension. Source: SBI 2.0, chapter 6. Guests that know Sstc write ``stimecmp`` themselves."""

from __future__ import annotations

from collections.abc import Sequence

from doppel.machine.sbi.extension import Call, Extension, Function

__all__ = ["Time"]


class Time(Extension):
    """One function."""

    identifier = 0x54494D45

    def functions(self) -> Sequence[Function]:
        """In the order of their numbers."""
        return (self.set_timer,)

    def set_timer(self, call: Call) -> int:
        """The time of the next timer interrupt, in ticks; takes a pending one back if it is in the future."""
        call.hart.state.stimecmp = call.arguments[0]
        return 0
