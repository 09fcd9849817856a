"""A hart as people and programs look at it while the machine does not run: registers and CSRs by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from doppel.errors import DoppelError
from doppel.isa.csr import CSR_BY_NAME, csr_read, csr_write
from doppel.isa.names import F_NAMES, X_NAMES, f_register, x_register
from doppel.isa.privileged.constants import Mode
from doppel.isa.state import ARCHITECTURAL_STATE
from doppel.isa.words import MASK64, Trap, Word
from doppel.processor.processor import Hart
from doppel.translate.exits import Request

__all__ = ["Csrs", "HartView", "Registers"]

_FIELDS = frozenset(field.name for field in ARCHITECTURAL_STATE)


class Registers(MutableMapping[str, int]):
    """Integer and floating-point registers by their names in the calling convention; ``x5`` and ``f5``
    work too.

    Values are 64-bit words; a single in a floating-point register is NaN-boxed. ``x0`` stays zero.
    """

    def __init__(self, hart: Hart, check: Callable[[], None]) -> None:
        self._hart = hart
        self._check = check

    def _place(self, name: str) -> tuple[Any, int]:
        if (number := x_register(name)) is not None:
            return self._hart.state.x, number
        if (number := f_register(name)) is not None:
            return self._hart.state.f, number
        raise KeyError(name)

    def __getitem__(self, name: str) -> int:
        array, number = self._place(name)
        return int(array[number])

    def __setitem__(self, name: str, value: int) -> None:
        self._check()
        array, number = self._place(name)
        if number or x_register(name) is None:
            array[number] = value & MASK64

    def __delitem__(self, name: str) -> None:
        raise TypeError("registers cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        yield from X_NAMES
        yield from F_NAMES

    def __len__(self) -> int:
        return len(X_NAMES) + len(F_NAMES)


class _CsrHart:
    """What the CSR table's functions need of a hart, on the structure that native code uses.

    It accesses CSRs as M mode does, whatever mode the hart is in.
    """

    def __init__(self, hart: Hart) -> None:
        object.__setattr__(self, "hart", hart)

    def __getattr__(self, name: str) -> Any:
        if name == "mode":
            return Word(Mode.M)
        if name not in _FIELDS:
            raise AttributeError(name)
        value = getattr(self.hart.state, name)
        return Word(value) if isinstance(value, int) else value

    def __setattr__(self, name: str, value: int) -> None:
        setattr(self.hart.state, name, int(value))

    def ticks(self) -> Word:
        return Word(self.hart.processor.ticks())

    def instructions_retired(self) -> Word:
        return Word(self.hart.instructions)

    def read_host_flags(self) -> Word:
        """Outside native code they are in the hart's structure."""
        return Word(0)

    def write_host_flags(self) -> None:
        return

    def flush_translations(self) -> None:
        self.hart.request(Request.FLUSH)

    def translation_mode_changed(self) -> None:
        self.hart.request(Request.ATTEND)

    recheck_interrupts = translation_mode_changed


class Csrs(MutableMapping[str, int]):
    """Control and status registers by name, as M mode sees them; legal values only, as the manual has it."""

    def __init__(self, hart: Hart, check: Callable[[], None]) -> None:
        self._hart = _CsrHart(hart)
        self._check = check

    def __getitem__(self, name: str) -> int:
        try:
            return int(csr_read(self._hart, CSR_BY_NAME[name].number))
        except Trap:
            raise DoppelError(
                f"{name} cannot be read as the hart's state is now",
                "floating-point registers need mstatus.FS to be on",
            ) from None

    def __setitem__(self, name: str, value: int) -> None:
        self._check()
        row = CSR_BY_NAME[name]
        if row.number >> 10 == 3:
            raise DoppelError(f"{name} is read-only", "there is nothing to set")
        try:
            csr_write(self._hart, row.number, value & MASK64)
        except Trap:
            raise DoppelError(
                f"{name} cannot be written as the hart's state is now",
                "floating-point registers need mstatus.FS to be on",
            ) from None

    def __delitem__(self, name: str) -> None:
        raise TypeError("registers cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(CSR_BY_NAME)

    def __len__(self) -> int:
        return len(CSR_BY_NAME)


class HartView:
    """One hart. Looking at a running hart shows some recent state; changing it takes a machine that does
    not run.

    ``check`` raises DoppelError if the machine runs.
    """

    def __init__(self, hart: Hart, check: Callable[[], None]) -> None:
        self._hart = hart
        self._check = check
        self.index = hart.index
        self.registers = Registers(hart, check)
        self.csr = Csrs(hart, check)

    @property
    def pc(self) -> int:
        """The address of the next instruction."""
        return int(self._hart.state.pc)

    @pc.setter
    def pc(self, value: int) -> None:
        self._check()
        self._hart.state.pc = value & MASK64 & ~1

    @property
    def mode(self) -> Mode:
        """The privilege mode."""
        return Mode(self._hart.state.mode)

    @property
    def instructions(self) -> int:
        """Instructions retired since the machine was made."""
        return self._hart.instructions

    @property
    def waiting(self) -> bool:
        """Whether it stands in WFI."""
        return self._hart.waiting

    def __repr__(self) -> str:
        return f"<hart {self.index} in {self.mode.name} mode at {self.pc:#x}>"
