"""ELF executables made of assembly language, for tests."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from doppel.isa.assembler import assemble_program

__all__ = ["executable"]

RAM = 0x8000_0000
EM_RISCV, EM_X86_64 = 243, 62

# ELF-64 object file format, version 1.5: header, program header, section header, symbol.
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM = struct.Struct("<IIQQQQQQ")
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")


def executable(
    text: str,
    *,
    address: int = RAM,
    virtual: int | None = None,
    machine: int = EM_RISCV,
    bits: int = 64,
    memory_size: int | None = None,
    symbols: Mapping[str, int] | None = None,
    symbol_type: int = 0,
) -> bytes:
    """An executable of one segment at ``address``, linked for ``virtual``, with all labels as symbols.

    The first instruction is the entry. All symbols have size 0, as some tools write it; with
    ``symbol_type`` 2 they are functions.
    """
    program = assemble_program(text, address if virtual is None else virtual)
    names = {**program.symbols, **(symbols or {})}
    strings = bytearray(b"\0")
    table = bytearray(SYMBOL.size)
    for name, value in names.items():
        table += SYMBOL.pack(len(strings), 1 << 4 | symbol_type, 0, 0xFFF1, value, 0)
        strings += name.encode() + b"\0"
    section_names = b"\0.symtab\0.strtab\0.shstrtab\0"
    code_at = HEADER.size + PROGRAM.size
    table_at = code_at + len(program.code)
    strings_at = table_at + len(table)
    section_names_at = strings_at + len(strings)
    sections_at = section_names_at + len(section_names)
    size = memory_size or len(program.code)
    header = HEADER.pack(
        b"\x7fELF" + bytes([bits // 32, 1, 1]),
        2,  # ET_EXEC
        machine,
        1,
        program.origin,
        HEADER.size,
        sections_at,
        0,
        HEADER.size,
        PROGRAM.size,
        1,
        SECTION.size,
        4,
        3,
    )
    segment = PROGRAM.pack(1, 7, code_at, program.origin, address, len(program.code), size, 4)
    sections = (
        SECTION.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        + SECTION.pack(1, 2, 0, 0, table_at, len(table), 2, 1, 8, SYMBOL.size)
        + SECTION.pack(9, 3, 0, 0, strings_at, len(strings), 0, 0, 1, 0)
        + SECTION.pack(17, 3, 0, 0, section_names_at, len(section_names), 0, 0, 1, 0)
    )
    return header + segment + program.code + bytes(table) + bytes(strings) + section_names + sections
