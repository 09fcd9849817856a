"""Names for a guest's code: from the symbols of an ELF file, a System.map, or the kernel itself."""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from doppel.errors import DoppelError
from doppel.guests.files import read_file
from doppel.guests.kallsyms import read_kallsyms
from doppel.guests.kernel import Kernel, KernelKind

__all__ = ["CodeNames", "SymbolFile", "kernel_symbols", "read_symbols"]

# A line of System.map, which is the output of nm: address, type, name.
_LINE = re.compile(rb"([0-9a-fA-F]{8,16}) ([A-Za-z?]) (\S+)")
_CODE = "tTwWiu"
_WANTED = "give --symbols an ELF file with a symbol table (vmlinux), or a System.map"
# A kernel's first symbol, which is at the beginning of its Image (arch/riscv/kernel/vmlinux.lds.S).
_IMAGE_START = "_start"


@dataclass(frozen=True)
class Symbol:
    """``address`` as the file has it; ``size`` in bytes, 0 if it does not say; ``code``: a function."""

    address: int
    size: int
    name: str
    code: bool


@dataclass(frozen=True)
class SymbolFile:
    """Symbols in the order of addresses. ``segments`` of an ELF file are virtual address, size and physical
    address.
    """

    path: Path
    symbols: tuple[Symbol, ...]
    segments: tuple[tuple[int, int, int], ...] = ()

    @property
    def values(self) -> dict[str, int]:
        """Addresses by name."""
        return {symbol.name: symbol.address for symbol in self.symbols}

    def located(self, kernel: Kernel, place: int) -> CodeNames:
        """The names at physical addresses, for a kernel that is loaded at ``place`` if it is relocatable.

        Raises:
            DoppelError: the file does not tell where its symbols are in this kernel.
        """
        segments = self.segments
        if kernel.kind is KernelKind.LINUX:
            start = self.values.get(_IMAGE_START)
            if start is None:
                raise DoppelError(f"{self.path} has no symbol {_IMAGE_START}, as Linux has", _WANTED)
            segments = ((start, kernel.segments[0].memory_size, place),)
        elif kernel.elf:
            shift = place if kernel.relocatable else 0
            segments = tuple((v, n, p + shift) for v, n, p in segments or _segments(kernel.path, kernel.elf))
        return CodeNames(_physical(self.symbols, segments))


def _physical(symbols: Iterable[Symbol], segments: tuple[tuple[int, int, int], ...]) -> Iterator[Symbol]:
    if not segments:
        yield from symbols
    for _, size, physical in segments:
        # What is behind it belongs to no function of it.
        yield Symbol(physical + size, 0, "", False)
    for symbol in symbols:
        for virtual, size, physical in segments:
            if virtual <= symbol.address < virtual + size:
                yield replace(symbol, address=symbol.address - virtual + physical)
                break


class CodeNames:
    """Which function is at a physical address."""

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        found: dict[int, Symbol] = {}
        for symbol in symbols:
            # Of several symbols at one address, the first that is a function names it.
            known = found.get(symbol.address)
            if known is None or (symbol.code and not known.code):
                found[symbol.address] = symbol
        self._addresses = sorted(found)
        self._symbols = [found[address] for address in self._addresses]

    def __len__(self) -> int:
        return len(self._symbols)

    def __call__(self, address: int) -> str | None:
        """``memset`` for its first instruction, ``memset+0x10`` for others; None if it is nothing known."""
        place = bisect_right(self._addresses, address) - 1
        if place < 0:
            return None
        symbol = self._symbols[place]
        offset = address - symbol.address
        if not symbol.code or (symbol.size and offset >= symbol.size):
            return None
        return f"{symbol.name}+{offset:#x}" if offset else symbol.name


def read_symbols(path: Path) -> SymbolFile:
    """The symbols in a file: an ELF file or a System.map.

    Raises:
        DoppelError: it cannot be read, or has no symbols.
    """
    data = read_file(path, "symbol file")
    if data.startswith(b"\x7fELF"):
        symbols, segments = tuple(_elf_symbols(path, data)), tuple(_segments(path, data))
    else:
        symbols, segments = tuple(_map_symbols(data)), ()
    if not any(symbol.code for symbol in symbols):
        raise DoppelError(f"there are no symbols of functions in {path}", _WANTED)
    return SymbolFile(path, tuple(sorted(symbols, key=lambda symbol: symbol.address)), segments)


def kernel_symbols(kernel: Kernel) -> SymbolFile | None:
    """The symbols that a kernel brings along itself, if it does."""
    if kernel.kind is KernelKind.LINUX:
        found = read_kallsyms(kernel.segments[0].data)
        symbols = tuple(Symbol(address, 0, name, kind in _CODE) for address, kind, name in found)
        return SymbolFile(kernel.path, symbols) if symbols else None
    if not kernel.elf:
        return None
    symbols = tuple(sorted(_elf_symbols(kernel.path, kernel.elf), key=lambda symbol: symbol.address))
    return SymbolFile(kernel.path, symbols, tuple(_segments(kernel.path, kernel.elf))) if symbols else None


def _map_symbols(data: bytes) -> Iterator[Symbol]:
    for line in data.splitlines():
        if (match := _LINE.fullmatch(line.strip())) is not None:
            name = match[3].decode("utf-8", "replace")
            if name[0] != "$":
                yield Symbol(int(match[1], 16), 0, name, match[2].decode() in _CODE)


def _elf_symbols(path: Path, data: bytes) -> Iterator[Symbol]:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    try:
        file = ELFFile(io.BytesIO(data))
        executable = {n for n, s in enumerate(file.iter_sections()) if s["sh_flags"] & 4}
        for section in file.iter_sections():
            if not isinstance(section, SymbolTableSection):
                continue
            for entry in section.iter_symbols():
                kind, where = entry["st_info"]["type"], entry["st_shndx"]
                # Assembly language has labels without a type; "$x" and the like are marks of the assembler.
                if entry.name and kind in ("STT_FUNC", "STT_NOTYPE", "STT_OBJECT") and entry.name[0] != "$":
                    code = kind == "STT_FUNC" or (kind == "STT_NOTYPE" and where in executable)
                    yield Symbol(entry["st_value"], entry["st_size"], entry.name, code)
    except Exception as error:
        # The ELF library meets damaged files with exceptions of a dozen kinds.
        raise DoppelError(f"the symbol table of {path} is damaged", "get the file again") from error


def _segments(path: Path, data: bytes) -> Iterator[tuple[int, int, int]]:
    from elftools.elf.elffile import ELFFile

    try:
        for segment in ELFFile(io.BytesIO(data)).iter_segments():
            if segment["p_type"] == "PT_LOAD" and segment["p_memsz"]:
                yield segment["p_vaddr"], segment["p_memsz"], segment["p_paddr"]
    except Exception as error:
        raise DoppelError(f"the headers of {path} are damaged", "get the file again") from error
