"""Recognising kernels: Linux images in their several wrappings, ELF executables, raw binaries.

Formats: the RISC-V Linux `Image` header is described in Documentation/arch/riscv/boot-image-header.rst of the
Linux sources, the compressed EFI ("zboot") image in drivers/firmware/efi/libstub/zboot-header.S, ELF in the
System V ABI. Nothing here trusts what a file says about itself.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from doppel.errors import DoppelError
from doppel.guests.deb import AR_MAGIC, Deb

__all__ = ["Kernel", "KernelKind", "Segment", "load_kernel"]

_MAX_SIZE = 1 << 30

# Linux Image: code0, code1, text_offset, image_size, flags, version, res1, res2, magic, magic2, res3.
_IMAGE_HEADER = struct.Struct("<IIQQQIIQ8s4sI")
_IMAGE_MAGIC2 = b"RSC\x05"
# Where Linux expects to be loaded relative to a 2 MiB boundary when its header gives no offset.
_IMAGE_ALIGNMENT = 2 << 20

# zboot: "MZ", "zimg", payload offset, payload size, 8 reserved bytes, name of the compression.
_ZBOOT_HEADER = struct.Struct("<4s4sII8x8s")
_PE_OFFSET = 0x3C
_PE_MACHINES = {0x8664: "x86-64", 0x14C: "x86", 0xAA64: "arm64", 0x1C2: "arm", 0x6264: "LoongArch"}
_PE_RISCV64 = 0x5064

_RAW_SUFFIXES = (".bin", ".raw", ".flat", ".img")
_GIVE_A_KERNEL = "give a 64-bit RISC-V kernel: a Linux Image, an ELF executable, or a raw binary named .bin"


class KernelKind(Enum):
    """What kind of file a kernel came from, and so how it wants to be started."""

    LINUX = "Linux Image"
    ELF = "ELF executable"
    RAW = "raw binary"


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes to be put at `address`; memory from their end up to `memory_size` bytes is to be zero."""

    address: int
    data: bytes | memoryview
    memory_size: int


@dataclass(frozen=True)
class Kernel:
    """A kernel ready to be put into memory.

    `absolute` says whether addresses (of segments and `entry`) are physical ones, as in an ELF executable, or
    count from the place the kernel is loaded at. That place must be a multiple of `alignment`, and
    `text_offset` bytes below it, from an equally aligned address on, belong to the kernel's idea of memory.
    `memory_size` is the number of bytes the kernel takes from its lowest address on, zeroed memory included.
    """

    kind: KernelKind
    path: Path
    segments: tuple[Segment, ...]
    entry: int
    absolute: bool
    memory_size: int
    alignment: int = 1
    text_offset: int = 0

    @property
    def base(self) -> int:
        """The lowest address of any segment."""
        return min(segment.address for segment in self.segments)
