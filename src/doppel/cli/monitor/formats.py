"""The forms in which memory is shown: ``/NFU`` as debuggers have had it for long."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from doppel.cli.monitor.session import MonitorError

__all__ = ["FORMATS", "UNITS", "Form", "items", "parse_form"]

UNITS = {"b": 1, "h": 2, "w": 4, "g": 8}
FORMATS: dict[str, str] = {
    "x": "hexadecimal",
    "d": "decimal",
    "u": "decimal without sign",
    "o": "octal",
    "t": "binary",
    "c": "characters",
    "s": "text up to a zero byte",
    "i": "instructions",
}
MAX_COUNT = 4096
_FORM = re.compile(r"(\d*)([a-z]*)")


@dataclass(frozen=True)
class Form:
    """``count`` items of ``unit`` bytes each, shown as ``format`` says."""

    count: int
    format: str
    unit: int


def parse_form(text: str, format: str, unit: int) -> Form:
    """The form that ``NFU`` describes; what it leaves out is as given."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise MonitorError(f"/{text} is not a form: a number, a letter for the format, one for the unit")
    chosen_unit = 0
    for letter in match[2]:
        if letter in UNITS:
            chosen_unit = UNITS[letter]
        elif letter in FORMATS:
            format = letter
        else:
            raise MonitorError(
                f"{letter!r} is neither a format ({' '.join(FORMATS)}) nor a unit ({' '.join(UNITS)})"
            )
    count = int(match[1] or 1)
    if not 1 <= count <= MAX_COUNT:
        raise MonitorError(f"{count} items are too many or too few: 1 to {MAX_COUNT} are possible")
    return Form(count, format, 1 if format in "cs" else chosen_unit or unit)


def _character(value: int, bits: int) -> str:
    return repr(chr(value)) if 32 <= value < 127 else f"'\\x{value:02x}'"


_SHOW: dict[str, Callable[[int, int], str]] = {
    "x": lambda value, bits: f"{value:#0{bits // 4 + 2}x}",
    "d": lambda value, bits: str(value - (value >> bits - 1 << bits)),
    "u": lambda value, bits: str(value),
    "o": lambda value, bits: f"{value:#o}",
    "t": lambda value, bits: f"{value:#0{bits + 2}b}",
    "c": _character,
}


def items(data: bytes, form: Form) -> list[str]:
    """The items in the data, each as text."""
    show = _SHOW[form.format]
    values = (
        int.from_bytes(data[start : start + form.unit], "little") for start in range(0, len(data), form.unit)
    )
    return [show(value, 8 * form.unit) for value in values]
