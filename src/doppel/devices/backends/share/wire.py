"""Numbers and encodings of 9P2000.L. Source: diod's protocol description; Linux, include/net/9p/9p.h.

A message is ``size[4] type[1] tag[2]`` and a body; integers are little endian, a string is ``length[2]`` and
that many bytes. A qid stands for a file: ``type[1] version[4] path[8]``. The answer to a request has its type
plus one.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from enum import IntEnum, IntFlag

__all__ = [
    "HEADER",
    "NO_FID",
    "RLERROR",
    "Open",
    "Reader",
    "Type",
    "fail",
    "pack_string",
    "qid_type",
]


class Type(IntEnum):
    """Types of requests."""

    STATFS = 8
    LOPEN = 12
    LCREATE = 14
    SYMLINK = 16
    MKNOD = 18
    RENAME = 20
    READLINK = 22
    GETATTR = 24
    SETATTR = 26
    XATTRWALK = 30
    XATTRCREATE = 32
    READDIR = 40
    FSYNC = 50
    LOCK = 52
    GETLOCK = 54
    LINK = 70
    MKDIR = 72
    RENAMEAT = 74
    UNLINKAT = 76
    VERSION = 100
    AUTH = 102
    ATTACH = 104
    FLUSH = 108
    WALK = 110
    READ = 116
    WRITE = 118
    CLUNK = 120
    REMOVE = 122


RLERROR = 7


class Open(IntFlag):
    """Flags of lopen and lcreate: Linux's generic numbers, whatever the host's are."""

    WRONLY = 0o1
    RDWR = 0o2
    ACCMODE = 0o3
    CREAT = 0o100
    EXCL = 0o200
    TRUNC = 0o1000
    DSYNC = 0o10000
    SYNC = 0o4000000


HEADER = struct.Struct("<IBH")
NO_FID = 0xFFFF_FFFF


def fail(number: int) -> OSError:
    """An error to answer with."""
    return OSError(number, os.strerror(number))


def pack_string(value: bytes) -> bytes:
    """A string; names and link targets of a host are never too long for it."""
    return struct.pack("<H", len(value)) + value


def qid_type(mode: int) -> int:
    """The type of a qid: directory, symbolic link, or anything else."""
    return 0x80 if stat.S_ISDIR(mode) else 0x02 if stat.S_ISLNK(mode) else 0


class Reader:
    """The body of a request, taken apart from the front; EINVAL if it is too short."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        """Integers."""
        try:
            values = layout.unpack_from(self._data, self._at)
        except struct.error:
            raise fail(errno.EINVAL) from None
        self._at += layout.size
        return values

    def string(self) -> bytes:
        """A string."""
        (length,) = self.take(_U16)
        value = self._data[self._at : self._at + length]
        if len(value) < length:
            raise fail(errno.EINVAL)
        self._at += length
        return value


_U16 = struct.Struct("<H")
