"""The operands of assembly text, as an instruction's ``syntax`` describes them.

A syntax is the operand list as it is written, with names of pattern fields: ``rd, imm(rs1)``. A field's name
says what is written there: a register, a CSR, a rounding mode, a fence set, or else a number. ``pc+imm`` is a
branch target, written as an address; ``imm>>12`` an upper immediate, written as its 20 bits; a register's own
name (``sp``) must be written so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from doppel.isa.csr import CSR_BY_NAME, CSR_TABLE
from doppel.isa.names import F_NAMES, ROUNDING_MODES, X_NAMES, f_register, x_register
from doppel.isa.words import MASK64

__all__ = ["Operand", "OperandError", "format_operand", "parse_operand", "parse_syntax"]

Kind = Literal["x", "f", "fixed", "memory", "target", "upper", "csr", "rounding", "fence", "number"]

_CSR_NAMES = {row.number: row.name for row in CSR_TABLE}
_ROUNDING_NAMES = {number: name for name, number in ROUNDING_MODES.items()}
_FENCE_LETTERS = "iorw"


class OperandError(ValueError):
    """An operand is not what the instruction takes."""


@dataclass(frozen=True)
class Operand:
    """One operand: ``field`` of the pattern, and for ``memory`` also the ``base`` field or register name.

    The field of a ``fixed`` operand is the register's name; a ``memory`` operand without offset has none.
    """

    kind: Kind
    field: str
    base: str = ""


@cache
def parse_syntax(syntax: str) -> tuple[Operand, ...]:
    """The operands of a syntax, in order."""
    return tuple(_parse_one(text.strip()) for text in syntax.split(",") if text.strip())


def _parse_one(text: str) -> Operand:
    memory = re.fullmatch(r"([a-z0-9']*)\(([a-z0-9']+)\)", text)
    if memory is not None:
        return Operand("memory", memory[1], memory[2])
    if text.startswith("pc+"):
        return Operand("target", text.removeprefix("pc+"))
    if text.endswith(">>12"):
        return Operand("upper", text.removesuffix(">>12"))
    if text in X_NAMES:
        return Operand("fixed", text)
    return Operand(_kind_of_field(text), text)


def _kind_of_field(name: str) -> Kind:
    if re.fullmatch("r(d|s[123])'?", name):
        return "x"
    if re.fullmatch("f(d|s[123])'?", name):
        return "f"
    special: dict[str, Kind] = {"csr": "csr", "rm": "rounding", "pred": "fence", "succ": "fence"}
    return special.get(name, "number")


def format_operand(operand: Operand, values: Mapping[str, int], pc: int) -> str:
    """The operand as text; ``values`` are those of the pattern's fields, ``pc`` the instruction's address."""
    if operand.kind == "fixed":
        return operand.field
    if operand.kind == "memory":
        base = X_NAMES[values[operand.base]] if operand.base in values else operand.base
        return f"{values[operand.field] if operand.field else ''}({base})"
    value = values[operand.field]
    match operand.kind:
        case "x":
            return X_NAMES[value]
        case "f":
            return F_NAMES[value]
        case "target":
            return f"{(pc + value) & MASK64:#x}"
        case "upper":
            return f"{value >> 12 & 0xFFFFF:#x}"
        case "csr":
            return _CSR_NAMES.get(value, f"{value:#x}")
        case "rounding":
            return _ROUNDING_NAMES.get(value, str(value))
        case "fence":
            return "".join(c for bit, c in enumerate(_FENCE_LETTERS) if value >> (3 - bit) & 1) or "0"
    return str(value)


def parse_operand(operand: Operand, text: str, evaluate: Callable[[str], int], pc: int) -> dict[str, int]:
    """The values of the fields that the operand names.

    Raises:
        OperandError: the text is not such an operand. ``evaluate``, which computes numbers, may raise more.
    """
    if operand.kind == "fixed":
        if x_register(text) != x_register(operand.field):
            raise OperandError(f"expected {operand.field}, not {text!r}")
        return {}
    if operand.kind == "memory":
        return _parse_memory(operand, text, evaluate)
    return {operand.field: _parse_value(operand, text, evaluate, pc)}


def _parse_memory(operand: Operand, text: str, evaluate: Callable[[str], int]) -> dict[str, int]:
    parts = re.fullmatch(r"(.*)\(\s*(\w+)\s*\)", text)
    if parts is None:
        raise OperandError(f"expected offset(register), not {text!r}")
    values = {}
    offset = evaluate(parts[1]) if parts[1].strip() else 0
    if operand.field:
        values[operand.field] = offset
    elif offset:
        raise OperandError(f"no offset is possible here: {text!r}")
    if operand.base in X_NAMES:
        if x_register(parts[2]) != x_register(operand.base):
            raise OperandError(f"the base register must be {operand.base}: {text!r}")
    else:
        values[operand.base] = _register(x_register(parts[2]), parts[2])
    return values


def _parse_value(operand: Operand, text: str, evaluate: Callable[[str], int], pc: int) -> int:
    match operand.kind:
        case "x":
            return _register(x_register(text), text)
        case "f":
            return _register(f_register(text), text)
        case "csr" if text in CSR_BY_NAME:
            return CSR_BY_NAME[text].number
        case "rounding" if text in ROUNDING_MODES:
            return ROUNDING_MODES[text]
        case "fence" if set(text) <= set(_FENCE_LETTERS):
            return sum(8 >> _FENCE_LETTERS.index(letter) for letter in set(text))
    value = evaluate(text)
    match operand.kind:
        case "target":
            return value - pc
        case "upper":
            if not -1 << 19 <= value < 1 << 20:
                raise OperandError(f"upper immediate out of range: {text!r}")
            # 20 bits, of which the topmost is the sign of what they make.
            return ((value & 0xFFFFF ^ 0x80000) - 0x80000) << 12
    return value


def _register(number: int | None, text: str) -> int:
    if number is None:
        raise OperandError(f"not a register of that kind: {text!r}")
    return number
