"""cpio archives in the "newc" format, the only one Linux unpacks as an initramfs.

The format is described in Documentation/driver-api/early-userspace/buffer-format.rst of the Linux sources:
a sequence of 110-byte headers of ASCII hexadecimal numbers, each followed by a name and the contents, both
padded to four bytes, and at the end an entry with the name `TRAILER!!!`. The same entries always give the
same bytes: times are zero, inode numbers count from one, entries are sorted so that a folder precedes its
contents.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from doppel.errors import DoppelError

__all__ = ["Archive", "Entry", "read"]

_MAGIC = b"070701"
_HEADER = re.compile(rb"070701((?:[0-9A-Fa-f]{8}){13})")
_HEADER_SIZE = 110
_TRAILER = "TRAILER!!!"
_BLOCK = 512

# Every number in a header has eight hexadecimal digits.
_MAX_SIZE = 0xFFFF_FFFF
# Linux skips an entry whose name (with its final NUL) or link target is longer (init/initramfs.c).
_PATH_MAX = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive; `mode` holds type and permissions as `st_mode` does.

    `data` is the contents of a regular file or the target of a symbolic link; `device` is (major, minor).
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


class Archive:
    """The files of an initramfs, added in any order; parent folders appear by themselves.

    A path added twice keeps the later entry, so a caller can replace a file of a ready-made tree. All methods
    raise `DoppelError` for a path or a size that the format or Linux cannot hold.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a folder."""
        self._add(path, stat.S_IFDIR | mode)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._add(path, stat.S_IFREG | mode, data)

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link that points to `target`."""
        data = target.encode("utf-8", "surrogateescape")
        if not data or b"\0" in data or len(data) > _PATH_MAX:
            raise DoppelError(f"the symbolic link {path!r} has a target that Linux cannot store")
        self._add(path, stat.S_IFLNK | 0o777, data)

    def device(self, path: str, kind: Literal["c", "b"], major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character ("c") or block ("b") device node; Linux has 12 bits for major, 20 for minor."""
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise DoppelError(f"the device node {path!r} has the impossible number {major}:{minor}")
        self._add(path, (stat.S_IFCHR if kind == "c" else stat.S_IFBLK) | mode, device=(major, minor))

    def entries(self) -> list[Entry]:
        """All entries in the order in which they are written."""
        return [self._entries[name] for name in sorted(self._entries)]

    def to_bytes(self) -> bytes:
        """The archive; several such archives can simply be concatenated, the later files winning."""
        parts: list[bytes] = []
        for inode, entry in enumerate(self.entries(), start=1):
            _append(parts, inode, entry)
        _append(parts, 0, Entry(_TRAILER, 0))
        size = sum(map(len, parts))
        parts.append(bytes(-size % _BLOCK))
        return b"".join(parts)

    def _add(self, path: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        name = _normalise(path)
        if len(data) > _MAX_SIZE:
            raise DoppelError(
                f"{path!r} has {len(data)} bytes, more than an initramfs can hold in one file",
                "put files of 4 GiB and more on a disk image instead",
            )
        parents = name.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            parent = "/".join(parents[:depth])
            if not stat.S_ISDIR(self._entries.setdefault(parent, Entry(parent, stat.S_IFDIR | 0o755)).mode):
                raise DoppelError(f"{path!r} cannot go into the initramfs: {parent!r} there is not a folder")
        present = self._entries.get(name)
        if present is not None and stat.S_ISDIR(present.mode) != stat.S_ISDIR(mode):
            raise DoppelError(f"{path!r} is both a file and a folder in the initramfs")
        self._entries[name] = Entry(name, mode, data, device)


def _normalise(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    name = "/".join(parts)
    if not parts or ".." in parts or "\0" in name or name == _TRAILER:
        raise DoppelError(f"{path!r} is not a usable path in an initramfs")
    if len(name.encode("utf-8", "surrogateescape")) >= _PATH_MAX:
        raise DoppelError(f"a path in the initramfs is longer than {_PATH_MAX} bytes: {path[:60]!r}...")
    return name


def _append(parts: list[bytes], inode: int, entry: Entry) -> None:
    name = entry.name.encode("utf-8", "surrogateescape") + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    parts.append(_MAGIC + b"".join(b"%08X" % field for field in fields))
    parts.append(name + bytes(-(_HEADER_SIZE + len(name)) % 4))
    parts.append(entry.data)
    parts.append(bytes(-len(entry.data) % 4))


def read(archive: bytes) -> Iterator[Entry]:
    """The entries of one or several concatenated archives, in order; `DoppelError` if damaged."""
    position = 0
    while position < len(archive):
        if archive[position] == 0:
            position += 1
            continue
        header = _HEADER.match(archive, position)
        if header is None:
            raise DoppelError(f"not a cpio archive in newc format (at byte {position})")
        fields = [int(header[1][i : i + 8], 16) for i in range(0, 104, 8)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        start = position + _HEADER_SIZE
        data_start = start + name_size + -(_HEADER_SIZE + name_size) % 4
        if name_size == 0 or data_start + size > len(archive):
            raise DoppelError(f"the cpio archive is truncated (entry at byte {position})")
        name = archive[start : start + name_size - 1].decode("utf-8", "surrogateescape")
        position = data_start + size + -size % 4
        if name != _TRAILER:
            yield Entry(name, mode, archive[data_start : data_start + size], (fields[9], fields[10]))
