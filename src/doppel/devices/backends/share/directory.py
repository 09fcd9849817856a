"""Reading a directory from any position, as ``getdents64`` does and Python's own functions do not.

A directory may be larger than memory and change meanwhile; so nothing is kept between requests but the
position that the host's file system gave with the last entry.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from doppel.devices.backends.share.wire import fail

__all__ = ["Entry", "read_entries"]

# struct linux_dirent64: inode, position after this entry, record length, type, then the name and a NUL.
_DIRENT = struct.Struct("<QqHB")
_BUFFER_SIZE = 32768

_getdents64 = ctypes.CDLL(None, use_errno=True).getdents64
_getdents64.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_getdents64.restype = ctypes.c_ssize_t


class Entry(NamedTuple):
    """``following`` is the position to go on from; ``type`` is a DT_ constant, as in ``dirent.h``."""

    inode: int
    following: int
    type: int
    name: bytes


def read_entries(descriptor: int, position: int) -> Iterator[Entry]:
    """Entries of an open directory from ``position`` on, 0 for the first; OSError as the host says."""
    os.lseek(descriptor, position, os.SEEK_SET)
    buffer = ctypes.create_string_buffer(_BUFFER_SIZE)
    while True:
        length = _getdents64(descriptor, buffer, _BUFFER_SIZE)
        if length < 0:
            raise fail(ctypes.get_errno() or errno.EIO)
        if not length:
            return
        data = buffer.raw[:length]
        at = 0
        while at < length:
            inode, following, size, kind = _DIRENT.unpack_from(data, at)
            name = data[at + _DIRENT.size : at + size]
            yield Entry(inode, following, kind, name[: name.index(b"\0")])
            at += size
