"""Reading files that people name, and unpacking what is compressed, with errors that say what to do."""

from __future__ import annotations

import bz2
import lzma
import stat
import zlib
from pathlib import Path
from typing import Protocol

from doppel.errors import DoppelError

__all__ = ["MAX_SIZE", "compression", "decompress", "read_file"]

# More than any kernel or initramfs has; keeps a wrong file, or one that expands without end, from eating up
# the host's memory.
MAX_SIZE = 1 << 30

_MAGICS = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
    b"\x5d\0\0": "lzma",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x02\x21\x4c\x18": "lz4",
    b"\x89LZO\0": "lzo",
}


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def read_file(path: Path, what: str) -> bytes:
    """The contents of a file; `what` is what the user took it for ("kernel", "initrd") in messages.

    A pipe will do. `DoppelError` if there is nothing to read, or more than `MAX_SIZE` bytes.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise DoppelError(f"the {what} {path} is a folder", f"give the {what} file itself")
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
            raise DoppelError(f"the {what} {path} is a device, not a file", f"give a {what} file")
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
    except FileNotFoundError as error:
        raise DoppelError(f"there is no {what} {path}", "check the path") from error
    except PermissionError as error:
        raise DoppelError(f"the {what} {path} may not be read", "check its permissions") from error
    except (OSError, ValueError) as error:
        raise DoppelError(f"the {what} {path} cannot be read: {error}", "check the path") from error
    if not data:
        raise DoppelError(f"the {what} {path} is empty", "get the file again")
    if len(data) > MAX_SIZE:
        raise DoppelError(f"the {what} {path} is larger than {MAX_SIZE >> 20} MiB", f"give a {what} file")
    return data


def compression(data: bytes) -> str | None:
    """The name of the format that `data` is compressed in, going by its first bytes."""
    return next((name for magic, name in _MAGICS.items() if data.startswith(magic)), None)


def decompress(data: bytes, name: str, path: Path) -> bytes:
    """Undo a compression called `name`; `DoppelError` about `path` if damaged, endless, or not known here.

    What follows the compressed stream is ignored, as boot loaders do.
    """
    decompressor: _Decompressor
    match name:
        case "gzip":
            decompressor = zlib.decompressobj(wbits=31)
        case "xz":
            decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ)
        case "lzma":
            decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE)
        case "bzip2":
            decompressor = bz2.BZ2Decompressor()
        case _:
            raise DoppelError(
                f"{path} is compressed with {name}, which doppel cannot undo",
                f"decompress it first, with the {name} program for instance",
            )
    try:
        plain = decompressor.decompress(data, MAX_SIZE)
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise DoppelError(f"{path} is damaged: {error}", "get the file again") from error
    if decompressor.eof:
        return plain
    if len(plain) >= MAX_SIZE:
        raise DoppelError(f"{path} is larger than {MAX_SIZE >> 20} MiB when decompressed", "check the file")
    raise DoppelError(f"{path} is truncated", "get the file again")
