"""What the values of options mean: sizes, disks, networks, shared folders."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from doppel.errors import DoppelError

if TYPE_CHECKING:
    from doppel.devices.backends.disk import Disk
    from doppel.devices.backends.network import NetworkBackend

__all__ = ["DiskOption", "Share", "parse_disk", "parse_network", "parse_share", "parse_size"]

_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_SIZE = re.compile(r"(\d{1,15})([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
# The RISC-V manual has physical addresses of 56 bits; a size beyond any host's memory is a slip all the same.
_MAX_MEMORY = 1 << 40
_MIN_MEMORY = 1 << 20
# Of a virtio-fs device: 36 bytes (virtio 1.3, 5.11.4); 9P has no limit of its own.
_MAX_TAG = 36


def parse_size(text: str) -> int:
    """Bytes of memory: ``512M``, ``2GiB``, ``1073741824``."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise DoppelError(
            f"{text!r} is not an amount of memory", "give --memory a number with K, M or G: 512M"
        )
    size = int(match[1]) << _UNITS[match[2].lower()]
    if not _MIN_MEMORY <= size <= _MAX_MEMORY:
        raise DoppelError(
            f"a machine cannot have {text} of memory",
            "give --memory at least 1M" if size < _MIN_MEMORY else "give --memory less, such as 512M",
        )
    if size % 4096:
        raise DoppelError(f"{text} of memory is not a whole number of pages", "give a multiple of 4K")
    return size


@dataclass(frozen=True)
class DiskOption:
    """``PATH[,readonly|,snapshot]``."""

    path: Path
    readonly: bool = False
    snapshot: bool = False

    def open(self) -> Disk:
        """The disk itself."""
        from doppel.devices.backends.disk import RawDisk, SnapshotDisk

        if self.snapshot:
            return SnapshotDisk(RawDisk(self.path, readonly=True))
        return RawDisk(self.path, readonly=self.readonly)


def parse_disk(text: str) -> DiskOption:
    """The value of ``--disk``."""
    path, words = _split(text, "--disk", ("readonly", "snapshot"))
    if {"readonly", "snapshot"} <= words:
        raise DoppelError(
            f"the disk {path} cannot be both read-only and a snapshot",
            "leave out one: a snapshot is writable",
        )
    return DiskOption(Path(path), "readonly" in words, "snapshot" in words)


@dataclass(frozen=True)
class Share:
    """``DIR[:TAG][,readonly]``."""

    path: Path
    tag: str
    readonly: bool = False


def parse_share(text: str, number: int = 0) -> Share:
    """The value of ``--share``; the tag is ``share``, ``share1``... if none is given."""
    folder, words = _split(text, "--share", ("readonly",))
    tag = f"share{number or ''}"
    if ":" in folder and not Path(folder).is_dir():
        folder, _, tag = folder.rpartition(":")
    path = Path(folder)
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise DoppelError(f"the shared folder {folder} {what}", "give --share a folder: DIR[:TAG][,readonly]")
    if not re.fullmatch(r"[\w.-]+", tag, re.ASCII) or len(tag) > _MAX_TAG:
        raise DoppelError(
            f"{tag!r} cannot be the tag of a shared folder",
            f"use up to {_MAX_TAG} letters, digits, -, _ and .",
        )
    return Share(path, tag, "readonly" in words)


def parse_network(text: str) -> NetworkBackend:
    """The value of ``--net``, as the backend itself."""
    from doppel.devices.backends.network import Loopback, Tap

    kind, colon, name = text.partition(":")
    if kind == "loopback" and not colon:
        return Loopback()
    if kind == "tap" and (name or not colon):
        return Tap(name)
    raise DoppelError(f"{text!r} is not a network", "give --net one of: loopback, tap, tap:NAME")


def _split(text: str, option: str, known: Iterable[str]) -> tuple[str, set[str]]:
    """The part before the words behind commas that the option knows; a file's name may have commas too."""
    path, comma, word = text.rpartition(",")
    words: set[str] = set()
    while comma and word in known:
        words.add(word)
        text = path
        path, comma, word = text.rpartition(",")
    if not text:
        raise DoppelError(f"{option} needs a path", "see: doppel run --help")
    if comma and not Path(text).exists():
        raise DoppelError(
            f"{option} does not know {word!r}", f"behind the path it takes: {', '.join(sorted(known))}"
        )
    return text, words
