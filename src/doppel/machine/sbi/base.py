"""Base extension: what there is. Source: SBI 2.0, chapter 4."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from doppel.isa.csr import CSR_BY_NAME
from doppel.machine.sbi.extension import Call, Extension, Function, Platform

__all__ = ["IMPLEMENTATION_ID", "SPECIFICATION_VERSION", "Base"]

SPECIFICATION_VERSION = 2 << 24
# No number is registered for doppel; this one spells its name and collides with none that is.
IMPLEMENTATION_ID = int.from_bytes(b"doppel", "big")
IMPLEMENTATION_VERSION = 1


def _constant(value: int) -> Function:
    def function(call: Call) -> int:
        return value

    return function


class Base(Extension):
    """``has(extension)`` says whether there is an extension of that number."""

    identifier = 0x10

    def __init__(self, platform: Platform, has: Callable[[int], bool]) -> None:
        super().__init__(platform)
        self._has = has

    def functions(self) -> Sequence[Function]:
        """Versions, probe, and the machine's identity registers."""
        return (
            _constant(SPECIFICATION_VERSION),
            _constant(IMPLEMENTATION_ID),
            _constant(IMPLEMENTATION_VERSION),
            self.probe_extension,
            *(_constant(CSR_BY_NAME[name].constant) for name in ("mvendorid", "marchid", "mimpid")),
        )

    def probe_extension(self, call: Call) -> int:
        """1 if there is the extension, else 0."""
        return int(self._has(call.arguments[0]))
