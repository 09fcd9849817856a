"""Recognising kernels: Linux images in their several wrappings, ELF executables, raw binaries.

The header of a RISC-V Linux `Image` is described in Documentation/arch/riscv/boot-image-header.rst of the
Linux sources, the compressed EFI image ("zboot") in drivers/firmware/efi/libstub/zboot-header.S, ELF in the
System V ABI. Nothing here trusts what a file says about itself.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from doppel.errors import DoppelError
from doppel.guests.deb import AR_MAGIC, Deb
from doppel.guests.files import MAX_SIZE, compression, decompress, read_file

__all__ = ["Kernel", "KernelKind", "Segment", "load_kernel"]

# Linux Image: code0, code1, text_offset, image_size, flags, version, res1, res2, magic, magic2, res3.
_IMAGE_HEADER = struct.Struct("<IIQQQIIQ8s4sI")
_IMAGE_MAGIC2_AT = 0x38
_RISCV_MAGIC2 = b"RSC\x05"
_ARM64_MAGIC2 = b"ARM\x64"
_LINUX_ALIGNMENT = 2 << 20

# zboot: "MZ", "zimg", offset and size of the compressed kernel, whose own magic tells the compression.
_ZBOOT_HEADER = struct.Struct("<4s4sII")

# PE/COFF, as far as it tells for what and how long a file is: machine, sections, size of the optional header.
_PE_HEADER = struct.Struct("<4sHH12xH")
_PE_SECTION = struct.Struct("<16xII16x")
_PE_MACHINES = {0x8664: "x86-64", 0x14C: "x86", 0xAA64: "arm64", 0x1C2: "arm", 0x6264: "LoongArch"}
_PE_RISCV64 = 0x5064

_ELF_MACHINES = {3: "x86", 8: "MIPS", 20: "PowerPC", 21: "PowerPC", 22: "s390", 40: "arm", 62: "x86-64"}
_ELF_MACHINES |= {183: "arm64", 258: "LoongArch"}
_EM_RISCV = 243
# Physical addresses have at most 56 bits (Privileged Architecture, "Sv39: Page-Based 39-bit Virtual-Memory").
_PHYSICAL_ADDRESSES = 1 << 56

_RAW_SUFFIXES = (".bin", ".raw", ".flat")
_WANTED = "give a 64-bit RISC-V kernel: a Linux Image, an ELF executable, or a raw binary with a name in .bin"
_AGAIN = "get the file again"


class KernelKind(Enum):
    """What a kernel is, and so how it wants to be started."""

    LINUX = "Linux Image"
    ELF = "ELF executable"
    RAW = "raw binary"


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes for `address` and up; memory behind them, up to `memory_size` bytes in all, is to be zero."""

    address: int
    data: bytes | memoryview
    memory_size: int


@dataclass(frozen=True)
class Kernel:
    """A kernel taken apart, ready to be put into memory.

    An ELF executable has physical addresses of its own. Everything else is `relocatable`: addresses (`entry`
    and those of segments) count from the place the kernel is loaded at, which is `load_offset` bytes after
    the start of memory unless the loader has reasons, and a multiple of `alignment`.
    """

    kind: KernelKind
    path: Path
    segments: tuple[Segment, ...]
    entry: int
    relocatable: bool
    load_offset: int = 0
    alignment: int = 4
    elf: bytes = field(default=b"", repr=False)

    def segments_at(self, place: int) -> tuple[Segment, ...]:
        """The segments with physical addresses; `place` is where a relocatable kernel is to be loaded."""
        if not self.relocatable:
            return self.segments
        return tuple(Segment(s.address + place, s.data, s.memory_size) for s in self.segments)

    def entry_at(self, place: int) -> int:
        """The physical address of the first instruction, with `place` as in `segments_at`."""
        return self.entry + place if self.relocatable else self.entry

    def extent_at(self, place: int) -> tuple[int, int]:
        """The lowest physical address the kernel needs, and the first one behind what it needs."""
        segments = self.segments_at(place)
        return min(s.address for s in segments), max(s.address + s.memory_size for s in segments)

    def check_fits(self, place: int, memory_start: int, memory_size: int) -> None:
        """Raise `DoppelError` unless the kernel, loaded at `place`, is within the machine's memory.

        `memory_start` is a physical address, `memory_size` in bytes.
        """
        start, end = self.extent_at(place)
        if memory_start <= start and end <= memory_start + memory_size:
            return
        if start < memory_start or start >= memory_start + MAX_SIZE:
            raise DoppelError(
                f"the kernel {self.path} is made for the address {start:#x}, where the machine has no memory",
                "link it for this address, or choose a board that has memory there",
            )
        need = -(-(end - memory_start) >> 20)
        raise DoppelError(
            f"the kernel {self.path} needs {need} MiB of memory and the machine has {memory_size >> 20} MiB",
            f"give the machine more, for instance --memory {1 << need.bit_length()}M",
        )

    @cached_property
    def symbols(self) -> dict[str, int]:
        """The symbols of an ELF executable and their values; empty for other kinds and stripped files."""
        # Imported where it is used: most guests are not ELF files, and it takes a tenth of the start.
        from elftools.elf.elffile import ELFFile
        from elftools.elf.sections import SymbolTableSection

        found: dict[str, int] = {}
        if self.elf:
            try:
                for section in ELFFile(io.BytesIO(self.elf)).iter_sections():
                    if isinstance(section, SymbolTableSection):
                        found.update((s.name, s["st_value"]) for s in section.iter_symbols() if s.name)
            except Exception as error:
                _malformed(self.path, "symbol table", error)
        return found


def load_kernel(path: Path, *, raw: bool = False) -> Kernel:
    """Read the kernel in a file, whatever it is wrapped in (a compressed file, a Debian package).

    With `raw`, or with a name that ends in .bin, .raw or .flat, a file of no known format is taken as it is.
    `DoppelError` for anything that no 64-bit RISC-V machine can run.
    """
    data = read_file(path, "kernel")
    if raw:
        return _raw(data, path)
    if data.startswith(AR_MAGIC):
        data = _from_package(path)
    # A compressed file may hold a zboot image, which holds a compressed one.
    for _ in range(4):
        if data.startswith(b"MZ") and data[4:8] == b"zimg":
            data = _from_zboot(data, path)
        elif name := compression(data):
            data = decompress(data, name, path)
        else:
            break
    if data.startswith(b"\x7fELF"):
        return _elf(data, path)
    if data[_IMAGE_MAGIC2_AT : _IMAGE_MAGIC2_AT + 4] == _RISCV_MAGIC2:
        return _linux(data, path)
    _reject_foreign(data, path)
    if path.suffix.lower() in _RAW_SUFFIXES:
        return _raw(data, path)
    raise DoppelError(f"{path} is not a kernel that doppel knows", _WANTED)


def _raw(data: bytes, path: Path) -> Kernel:
    return Kernel(KernelKind.RAW, path, (Segment(0, data, len(data)),), entry=0, relocatable=True)


def _linux(data: bytes, path: Path) -> Kernel:
    if len(data) < _IMAGE_HEADER.size:
        raise DoppelError(f"the kernel {path} is truncated", _AGAIN)
    _, _, text_offset, image_size, flags, *_ = _IMAGE_HEADER.unpack_from(data)
    if text_offset >= MAX_SIZE or text_offset % 4096 or image_size > MAX_SIZE:
        raise DoppelError(f"the kernel {path} has a damaged Linux header", _AGAIN)
    if flags & 1:
        raise DoppelError(f"the kernel {path} is for a big-endian machine", _WANTED)
    if len(data) < _pe_length(data):
        raise DoppelError(f"the kernel {path} is truncated", _AGAIN)
    segment = Segment(0, data, max(image_size, len(data)))
    return Kernel(
        KernelKind.LINUX,
        path,
        (segment,),
        entry=0,
        relocatable=True,
        load_offset=text_offset,
        alignment=_LINUX_ALIGNMENT,
    )


def _elf(data: bytes, path: Path) -> Kernel:
    from elftools.elf.elffile import ELFFile

    if len(data) < 20:
        raise DoppelError(f"the kernel {path} is truncated", _AGAIN)
    bits, order = data[4], data[5]
    machine = int.from_bytes(data[18:20], "little" if order == 1 else "big")
    if machine != _EM_RISCV:
        name = _ELF_MACHINES.get(machine, f"machine number {machine}")
        raise DoppelError(f"the kernel {path} is an ELF file for {name}, not for RISC-V", _WANTED)
    if bits != 2 or order != 1:
        raise DoppelError(f"the kernel {path} is for 32-bit or big-endian RISC-V", _WANTED)
    try:
        file = ELFFile(io.BytesIO(data))
        kind, entry = file.header["e_type"], file.header["e_entry"]
        headers = [h.header for h in file.iter_segments() if h["p_type"] == "PT_LOAD" and h["p_memsz"]]
    except Exception as error:
        _malformed(path, "headers", error)
    if kind not in ("ET_EXEC", "ET_DYN") or not headers:
        raise DoppelError(f"the kernel {path} is an ELF file but not an executable", _WANTED)
    segments = []
    physical_entry = None
    for header in headers:
        offset, stored, size = header["p_offset"], header["p_filesz"], header["p_memsz"]
        if offset + stored > len(data):
            raise DoppelError(f"the kernel {path} is truncated", _AGAIN)
        if stored > size or size > MAX_SIZE:
            _malformed(path, "segments")
        if header["p_paddr"] + size > _PHYSICAL_ADDRESSES:
            raise DoppelError(
                f"the kernel {path} is linked for virtual addresses only, as Linux's vmlinux is",
                "give the Image that is made from it (arch/riscv/boot/Image)",
            )
        segments.append(Segment(header["p_paddr"], memoryview(data)[offset : offset + stored], size))
        if 0 <= entry - header["p_vaddr"] < size:
            physical_entry = entry - header["p_vaddr"] + header["p_paddr"]
    return Kernel(
        KernelKind.ELF,
        path,
        tuple(segments),
        entry=entry if physical_entry is None else physical_entry,
        relocatable=kind == "ET_DYN",
        elf=data,
    )


def _from_package(path: Path) -> bytes:
    files = Deb(path).files(lambda name: re.match(r"boot/vmlinu[xz]", name) is not None)
    if not files:
        raise DoppelError(f"the package {path} holds no kernel", "give a linux-image package for riscv64")
    return files[max(files)]


def _from_zboot(data: bytes, path: Path) -> bytes:
    if len(data) < _ZBOOT_HEADER.size:
        raise DoppelError(f"the kernel {path} is truncated", _AGAIN)
    _, _, offset, size = _ZBOOT_HEADER.unpack_from(data)
    machine = _pe_machine(data)
    if machine not in (None, _PE_RISCV64):
        _reject_machine(machine, path)
    if offset + size > len(data):
        raise DoppelError(f"the kernel {path} is truncated", _AGAIN)
    return data[offset : offset + size]


def _pe_start(data: bytes) -> int | None:
    start = int.from_bytes(data[0x3C:0x40], "little")
    complete = len(data) >= start + _PE_HEADER.size
    return start if data.startswith(b"MZ") and complete and data[start : start + 4] == b"PE\0\0" else None


def _pe_machine(data: bytes) -> int | None:
    start = _pe_start(data)
    return None if start is None else int(_PE_HEADER.unpack_from(data, start)[1])


def _pe_length(data: bytes) -> int:
    """How long the file has to be for all sections that its PE header lists; 0 without such a header."""
    start = _pe_start(data)
    if start is None:
        return 0
    _, _, count, optional = _PE_HEADER.unpack_from(data, start)
    # The COFF header ends two bytes (its flags) after what _PE_HEADER describes.
    table = start + _PE_HEADER.size + 2 + optional
    end: int = table + count * _PE_SECTION.size
    if end > len(data):
        return end
    sections = _PE_SECTION.iter_unpack(data[table:end])
    length: int = max((offset + size for size, offset in sections), default=0)
    return length


def _reject_foreign(data: bytes, path: Path) -> None:
    if data[_IMAGE_MAGIC2_AT : _IMAGE_MAGIC2_AT + 4] == _ARM64_MAGIC2:
        _reject_machine(0xAA64, path)
    if data[0x202:0x206] == b"HdrS":
        _reject_machine(0x8664, path)
    machine = _pe_machine(data)
    if machine is not None and machine != _PE_RISCV64:
        _reject_machine(machine, path)
    if data.startswith(b"\x27\x05\x19\x56"):
        raise DoppelError(f"the kernel {path} is a U-Boot uImage", "give the Image it was made from")
    if data.startswith(b"\xd0\x0d\xfe\xed"):
        raise DoppelError(f"{path} is a device tree or a U-Boot FIT image, not a kernel", _WANTED)


def _reject_machine(machine: int | None, path: Path) -> NoReturn:
    name = _PE_MACHINES.get(machine or 0, "another kind of machine")
    raise DoppelError(f"the kernel {path} is for {name}, not for RISC-V", _WANTED)


def _malformed(path: Path, what: str, error: Exception | None = None) -> NoReturn:
    # The ELF library meets damaged files with exceptions of a dozen kinds.
    raise DoppelError(f"the kernel {path} has damaged ELF {what}", _AGAIN) from error
