"""What a monitor session knows: the machine, the hart looked at, names, where examine left off."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from doppel.isa.expressions import evaluate
from doppel.isa.names import X_NAMES, x_register
from doppel.isa.words import MASK64

if TYPE_CHECKING:
    from doppel.machine import Machine
    from doppel.machine.registers import HartView

__all__ = ["MonitorError", "Session", "number"]

# A label this far away (bytes) says nothing about an address.
NEAR = 1 << 20


class MonitorError(Exception):
    """A command cannot be done; the message is for the person at the prompt."""


@dataclass
class Session:
    """``symbols`` are names of the guest's program and their addresses."""

    machine: Machine
    symbols: Mapping[str, int] = field(default_factory=dict)
    hart_index: int = 0
    # Where an examine or disassemble without an address goes on, and in which form.
    next_address: int | None = None
    examine_format: str = "x"
    examine_unit: int = 4

    def __post_init__(self) -> None:
        self._by_address = sorted((value, name) for name, value in self.symbols.items() if name)

    @property
    def hart(self) -> HartView:
        """The hart that commands are about."""
        return self.machine.harts[self.hart_index]

    def select(self, text: str) -> int:
        """The index of the hart that a person names."""
        index = number(text)
        if not 0 <= index < len(self.machine.harts):
            raise MonitorError(f"there is no hart {text}: they are 0 to {len(self.machine.harts) - 1}")
        return index

    def value(self, text: str) -> int:
        """The value of an expression of numbers, registers (``a0``, ``$a0``, ``pc``) and symbols; 64 bits."""
        try:
            return evaluate(text, self._named, _no_modifier) & MASK64
        except ValueError as error:
            raise MonitorError(str(error)) from error
        except RecursionError:
            raise MonitorError("the expression has too many parentheses") from None

    def _named(self, name: str) -> int:
        plain = name.removeprefix("$")
        if plain in ("pc", "."):
            return self.hart.pc
        index = x_register(plain)
        if index is not None:
            return self.hart.registers[X_NAMES[index]]
        if name in self.symbols:
            return self.symbols[name]
        raise ValueError(f"no register or symbol is called {name}")

    def label(self, address: int) -> str:
        """``<main+8>`` for an address that a symbol is near, else empty."""
        index = bisect_right(self._by_address, (address, "\U0010ffff")) - 1
        if index < 0 or address - self._by_address[index][0] >= NEAR:
            return ""
        start, name = self._by_address[index]
        return f" <{name}+{address - start}>" if address > start else f" <{name}>"


def number(text: str) -> int:
    """A plain number, decimal or with 0x, 0o, 0b."""
    try:
        return int(text, 0)
    except ValueError:
        raise MonitorError(f"{text!r} is not a number") from None


def _no_modifier(name: str, value: int) -> int:
    raise ValueError(f"no such operator: %{name}")
