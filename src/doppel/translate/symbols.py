"""The functions of the engine as it is in memory, for those who look at native code from outside."""

from __future__ import annotations

import struct
from typing import NamedTuple

from doppel.translate.build import engine_object, load_engine

__all__ = ["EngineFunction", "engine_functions"]

# ELF-64 object file format: file header, section header, symbol table entry.
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMTAB, _FUNCTION = 2, 2
_ANCHOR = "doppel_run"


class EngineFunction(NamedTuple):
    """Where a function of the engine is, and how many bytes it has."""

    address: int
    size: int
    name: str


def engine_functions() -> list[EngineFunction]:
    """All of them, by address. The engine's code is in one piece, so one address gives the others."""
    found = sorted(EngineFunction(value, size, name) for name, value, size in _functions(engine_object()))
    base = load_engine().addresses[_ANCHOR] - next(f.address for f in found if f.name == _ANCHOR)
    return [function._replace(address=base + function.address) for function in found]


def _functions(image: bytes) -> list[tuple[str, int, int]]:
    """Name, value and size of all functions of an object file."""
    header = _HEADER.unpack_from(image)
    sections = [_SECTION.unpack_from(image, header[6] + number * header[11]) for number in range(header[12])]
    found = []
    for _, kind, _, _, start, length, link, *_ in sections:
        if kind != _SYMTAB:
            continue
        names = sections[link][4]
        for at in range(start, start + length, _SYMBOL.size):
            name, info, _, _, value, size = _SYMBOL.unpack_from(image, at)
            if info & 15 == _FUNCTION:
                text = image[names + name : image.index(b"\0", names + name)]
                found.append((text.decode(), value, size))
    return found
