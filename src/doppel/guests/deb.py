"""Debian binary packages (deb(5)): an ar archive that holds two tar archives, `control` and `data`."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import mmap
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

from doppel.errors import DoppelError
from doppel.guests import stanza

__all__ = ["AR_MAGIC", "Deb", "ar_members"]

AR_MAGIC = b"!<arch>\n"
_HEADER_SIZE = 60
_HEADER_END = b"`\n"
# A single wanted file larger than this is not what it claims to be.
_MAX_FILE = 1 << 30
_CHUNK = 1 << 20

# What tarfile, the decompressors and a short read say about damaged input.
_DAMAGE = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError)
_FETCH_AGAIN = "get the file again"


class _Buffer(Protocol):
    def __getitem__(self, index: slice, /) -> bytes: ...
    def __len__(self) -> int: ...


def ar_members(archive: _Buffer) -> Iterator[tuple[str, int, int]]:
    """(name, offset of the contents, size) of every member of an ar archive; ValueError if malformed."""
    if archive[: len(AR_MAGIC)] != AR_MAGIC:
        raise ValueError("it is not an ar archive")
    position = len(AR_MAGIC)
    while position < len(archive):
        header = archive[position : position + _HEADER_SIZE]
        digits = header[48:58].strip()
        if len(header) < _HEADER_SIZE or header[58:] != _HEADER_END or not digits.isdigit():
            raise ValueError("it is truncated or damaged")
        size = int(digits)
        position += _HEADER_SIZE
        if position + size > len(archive):
            raise ValueError("it is truncated")
        yield header[:16].decode("latin-1").rstrip(" ").removesuffix("/"), position, size
        position += size + size % 2


class Deb:
    """One .deb file: who it is, and its files without installing anything.

    `DoppelError` is raised on opening when the file is missing or no Debian package, and on reading when it
    is truncated or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                if not file.seek(0, io.SEEK_END):
                    raise ValueError("it is empty")
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as archive:
                    self._members = {name: (start, size) for name, start, size in ar_members(archive)}
        except OSError as error:
            raise DoppelError(f"cannot read {path}: {error.strerror}", "check the path") from error
        except ValueError as error:
            raise DoppelError(f"{path} is not a usable Debian package: {error}", _FETCH_AGAIN) from error
        if "debian-binary" not in self._members:
            raise DoppelError(f"{path} is an archive but not a Debian package", "give a .deb file")

    @cached_property
    def control(self) -> dict[str, str]:
        """The fields of the control file: Package, Version, Architecture, Depends and so on."""
        files = self._read("control.tar", lambda name: name == "control")
        fields = stanza.parse(files.get("control", b"").decode("utf-8", "replace"))
        if not fields or not {"Package", "Version", "Architecture"} <= fields[0].keys():
            raise DoppelError(f"{self.path} has no complete control file", _FETCH_AGAIN)
        return fields[0]

    @property
    def package(self) -> str:
        """Name of the package."""
        return self.control["Package"]

    @property
    def version(self) -> str:
        """Version of the package as Debian writes it."""
        return self.control["Version"]

    @property
    def architecture(self) -> str:
        """Debian's name of the architecture, or "all"."""
        return self.control["Architecture"]

    @cached_property
    def sha256(self) -> str:
        """Digest of the whole file, in hexadecimal."""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DoppelError(f"cannot read {self.path}: {error.strerror}", _FETCH_AGAIN) from error

    def files(self, select: Callable[[str], bool]) -> dict[str, bytes]:
        """Contents of the regular files whose path (without a leading slash) `select` accepts.

        Every call decompresses the whole package, so ask for everything in one.
        """
        return self._read("data.tar", select)

    def _read(self, stem: str, select: Callable[[str], bool]) -> dict[str, bytes]:
        name = next((name for name in self._members if name == stem or name.startswith(stem + ".")), None)
        if name is None:
            raise DoppelError(f"{self.path} has no {stem}", _FETCH_AGAIN)
        compression = name.removeprefix(stem).removeprefix(".")
        files: dict[str, bytes] = {}
        try:
            with (
                self.path.open("rb") as file,
                self._decompressor(compression, _Section(file, *self._members[name])) as plain,
                tarfile.open(fileobj=plain, mode="r|", bufsize=_CHUNK) as tar,
            ):
                for member in tar:
                    path = member.name.removeprefix("./").lstrip("/")
                    if member.isreg() and select(path):
                        files[path] = _contents(tar, member)
                # tarfile stops at the end mark; the checksum of the compressed stream comes after it.
                while plain.read(_CHUNK):
                    pass
        except _DAMAGE as error:
            raise DoppelError(f"{self.path} is truncated or damaged ({name})", _FETCH_AGAIN) from error
        return files

    def _decompressor(self, compression: str, section: io.RawIOBase) -> io.BufferedIOBase:
        buffered = io.BufferedReader(section, _CHUNK)
        match compression:
            case "":
                return buffered
            case "xz" | "lzma":
                return lzma.open(buffered)
            case "gz":
                return gzip.open(buffered)
            case "bz2":
                return bz2.open(buffered)
        raise DoppelError(
            f"{self.path} is compressed with {compression}, which doppel cannot read",
            "give the package from Debian itself (it uses xz), or repack this one with dpkg-deb -Zxz",
        )


def _contents(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _MAX_FILE:
        raise ValueError(f"{member.name} has {member.size} bytes")
    file = tar.extractfile(member)
    data = file.read() if file is not None else b""
    if len(data) != member.size:
        raise EOFError(member.name)
    return data


class _Section(io.RawIOBase):
    """The bytes of a file from `start` on, as a file of `size` bytes of its own."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        file.seek(start)
        self._file = file
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)
