"""Takes a hart's ECALL to the function that it asks for (SBI 2.0, chapter 3)."""

from __future__ import annotations

from doppel.machine.sbi.base import Base
from doppel.machine.sbi.dbcn import DebugConsole
from doppel.machine.sbi.extension import Call, Extension, Function, Platform, SbiError, SbiFailure
from doppel.machine.sbi.hsm import HartStateManagement
from doppel.machine.sbi.ipi import Ipi
from doppel.machine.sbi.legacy import LEGACY
from doppel.machine.sbi.rfence import RemoteFence
from doppel.machine.sbi.srst import SystemReset
from doppel.machine.sbi.time import Time
from doppel.processor.processor import Hart

__all__ = ["Sbi"]

A0, A1, A6, A7 = 10, 11, 16, 17
ECALL_LENGTH = 4

_NONE: tuple[tuple[Function, ...], bool] = ((), False)


class Sbi:
    """All extensions of one machine."""

    def __init__(self, platform: Platform) -> None:
        kinds: tuple[type[Extension], ...] = (
            *(Time, Ipi, RemoteFence, HartStateManagement, SystemReset, DebugConsole),
            *LEGACY,
        )
        extensions = [Base(platform, self.has), *(kind(platform) for kind in kinds)]
        self._functions: dict[int, tuple[tuple[Function, ...], bool]] = {
            extension.identifier: (tuple(extension.functions()), extension.legacy) for extension in extensions
        }
        self._registers = [hart.state.x for hart in platform.harts]

    def has(self, identifier: int) -> bool:
        """Whether there is an extension of that number."""
        return identifier in self._functions

    def call(self, hart: Hart) -> None:
        """Serve the ECALL at the hart's pc, which goes on behind it or where the function says."""
        registers = self._registers[hart.index]
        arguments = registers[A0 : A7 + 1]
        hart.state.pc += ECALL_LENGTH
        functions, legacy = self._functions.get(arguments[A7 - A0], _NONE)
        number = 0 if legacy else arguments[A6 - A0]
        if number >= len(functions):
            registers[A0] = SbiError.NOT_SUPPORTED
            if not legacy:
                registers[A1] = 0
            return
        try:
            value = functions[number](Call(hart, arguments))
        except SbiFailure as failure:
            registers[A0], registers[A1] = failure.error, 0
            return
        if value is None:
            return
        if legacy:
            registers[A0] = value
        else:
            registers[A0], registers[A1] = SbiError.SUCCESS, value
