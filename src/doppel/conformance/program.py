"""A test program: an ELF file that tells its verdict through HTIF, the RISC-V tools' host-target interface.

HTIF, as far as tests use it: the program stores a word at its symbol ``tohost``. 1 means passed,
``n << 1 | 1`` that case ``n`` failed. Bits 63:56 are a device and 55:48 a command; device 1, command 1 prints
the character in the low byte, and the program goes on when the host has cleared the word.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

__all__ = ["NotATestError", "TestProgram", "load_program"]

MAX_FILE = 256 << 20


class NotATestError(Exception):
    """The file is no test program; the message says why, in the form of a noun phrase."""


@dataclass(frozen=True)
class TestProgram:
    """What to put into memory, where to start, and the physical address of ``tohost``.

    ``segments`` are (physical address, contents); the rest of memory is to be zero.
    """

    __test__ = False

    segments: tuple[tuple[int, bytes], ...]
    entry: int
    tohost: int


def load_program(path: Path) -> TestProgram:
    """Read a test program.

    Raises:
        NotATestError: it is not one, or is damaged.
        OSError: it cannot be read.
    """
    if path.stat().st_size > MAX_FILE:
        raise NotATestError("a file too large for a test")
    data = path.read_bytes()
    if not data.startswith(b"\x7fELF"):
        raise NotATestError("not an ELF file")
    try:
        return _parse(ELFFile(BytesIO(data)), len(data))
    except NotATestError:
        raise
    except Exception as error:
        # pyelftools meets damaged files with exceptions of a dozen kinds.
        raise NotATestError("a damaged ELF file") from error


def _parse(elf: ELFFile, file_size: int) -> TestProgram:
    if elf["e_machine"] != "EM_RISCV":
        raise NotATestError("an ELF file for another kind of processor")
    if elf.elfclass != 64:
        raise NotATestError("a 32-bit program")
    segments = []
    for segment in elf.iter_segments("PT_LOAD"):
        if segment["p_offset"] + segment["p_filesz"] > file_size:
            raise NotATestError("a truncated ELF file")
        if segment["p_filesz"]:
            segments.append((int(segment["p_paddr"]), segment.data()))
    if not segments:
        raise NotATestError("an ELF file with nothing to load")
    return TestProgram(tuple(segments), int(elf["e_entry"]), _physical(elf, _tohost(elf, file_size)))


def _tohost(elf: ELFFile, file_size: int) -> int:
    table = elf.get_section_by_name(".symtab")
    if table is not None and table["sh_offset"] + table["sh_size"] > file_size:
        raise NotATestError("a truncated ELF file")
    symbols = table.get_symbol_by_name("tohost") if isinstance(table, SymbolTableSection) else None
    if not symbols:
        raise NotATestError("an ELF file without the symbol tohost")
    return int(symbols[0]["st_value"])


def _physical(elf: ELFFile, address: int) -> int:
    """Symbols are virtual addresses; a program linked elsewhere than it is loaded has others in memory."""
    for segment in elf.iter_segments("PT_LOAD"):
        start = segment["p_vaddr"]
        if start <= address < start + segment["p_memsz"]:
            return int(address - start + segment["p_paddr"])
    return address
