"""From an object file to a piece of code that runs wherever it is put.

A region refers to nothing outside itself, so its sections can be laid one behind the other and the distances
between them filled in for good (ELF-64 object file format; System V ABI for AMD64, "Relocation").
"""

from __future__ import annotations

import platform
import struct
from dataclasses import dataclass

__all__ = ["LINKS_FOR_THIS_HOST", "LinkError", "link"]

LINKS_FOR_THIS_HOST = platform.machine() == "x86_64"

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_SYMTAB, _RELA, _NOBITS = 2, 4, 8
_ALLOC = 2
_EM_X86_64 = 62
# R_X86_64_PC32 and R_X86_64_PLT32: the distance to a symbol in 32 bits.
_DISTANCES = (2, 4)


class LinkError(Exception):
    """The object is not one that can be put anywhere."""


@dataclass(frozen=True)
class _Section:
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int


def link(image: bytes) -> bytes:
    """The code of an object whose only function begins its text.

    Raises:
        LinkError: it refers to something outside itself, or is for another kind of host.
    """
    header = _HEADER.unpack_from(image)
    if header[2] != _EM_X86_64:
        raise LinkError(f"no linker for machine {header[2]}")
    sections = []
    for number in range(header[12]):
        fields = _SECTION.unpack_from(image, header[6] + number * header[11])
        sections.append(_Section(fields[1], fields[2], *fields[4:9]))
    places: dict[int, int] = {}
    code = bytearray()
    # Executable sections come first in what LLVM writes, so the function is at the beginning.
    order = sorted(range(len(sections)), key=lambda n: (not sections[n].flags & 4, n))
    for number in order:
        section = sections[number]
        if section.flags & _ALLOC and section.size:
            if section.kind == _NOBITS or section.flags & 1:
                raise LinkError("it has data that changes")
            if section.kind == 0x70000001:
                continue
            code += bytes(-len(code) % max(1, section.align))
            places[number] = len(code)
            code += image[section.offset : section.offset + section.size]
    for section in sections:
        if section.kind == _RELA and section.info in places:
            _relocate(image, section, sections[section.link], places, code)
    return bytes(code)


def _relocate(
    image: bytes, table: _Section, symbols: _Section, places: dict[int, int], code: bytearray
) -> None:
    for at in range(table.offset, table.offset + table.size, _RELOCATION.size):
        offset, info, addend = _RELOCATION.unpack_from(image, at)
        _, _, _, index, value, _ = _SYMBOL.unpack_from(image, symbols.offset + (info >> 32) * _SYMBOL.size)
        if info & 0xFFFF_FFFF not in _DISTANCES or index not in places:
            raise LinkError(f"relocation of type {info & 0xFFFF_FFFF} to section {index}")
        place = places[table.info] + offset
        distance = places[index] + value + addend - place
        code[place : place + 4] = (distance & 0xFFFF_FFFF).to_bytes(4, "little")
