"""Attributes of files and file systems, between the host's structures and 9P2000.L's messages."""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from collections.abc import Sequence
from enum import IntFlag

from doppel.devices.backends.share.wire import fail

__all__ = ["Set", "pack_file_system", "pack_status", "set_attributes"]

_STATUS = struct.Struct("<Q13sIII15Q")
_FILE_SYSTEM = struct.Struct("<IIQQQQQQI")
# The fields of a getattr answer up to ``blocks``, which are all that a host always knows.
_BASIC_FIELDS = 0x7FF
# What Linux shows as the type of a mounted 9P file system (V9FS_MAGIC).
_FILE_SYSTEM_TYPE = 0x0102_1997
_NS_PER_SECOND = 1_000_000_000
_U64 = (1 << 64) - 1
# Permissions and the sticky bit: a guest cannot make set-user-ID files of the user who runs doppel.
_MODE = 0o1777


class Set(IntFlag):
    """What a setattr request sets. Owners and the change time are the host's."""

    MODE = 0x1
    SIZE = 0x8
    ATIME = 0x10
    MTIME = 0x20
    ATIME_SET = 0x80
    MTIME_SET = 0x100


def pack_status(status: os.stat_result, qid: bytes) -> bytes:
    """The body of a getattr answer."""
    times: list[int] = []
    for ns in (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns):
        seconds, rest = divmod(ns, _NS_PER_SECOND)
        times += [seconds & _U64, rest]
    return _STATUS.pack(
        _BASIC_FIELDS,
        qid,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_nlink,
        status.st_rdev,
        status.st_size,
        status.st_blksize,
        status.st_blocks,
        *times,
        # Birth time, generation and data version are not given.
        *(0, 0, 0, 0),
    )


def pack_file_system(host: os.statvfs_result) -> bytes:
    """The body of a statfs answer."""
    return _FILE_SYSTEM.pack(
        _FILE_SYSTEM_TYPE,
        host.f_bsize,
        host.f_blocks,
        host.f_bfree,
        host.f_bavail,
        host.f_files,
        host.f_ffree,
        host.f_fsid & _U64,
        host.f_namemax,
    )


def set_attributes(
    path: str, file: int, status: os.stat_result, valid: int, mode: int, size: int, times: Sequence[int]
) -> None:
    """Do what a setattr request asks to the file at ``path``, which must not be one that the host would
    follow.

    ``file`` is the same file open for writing, or -1. ``times`` are seconds and nanoseconds of the access
    time, then of the modification time.
    """
    kind = stat.S_IFMT(status.st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        raise fail(errno.EPERM)
    if valid & Set.SIZE:
        if kind != stat.S_IFREG:
            raise fail(errno.EISDIR if kind == stat.S_IFDIR else errno.EINVAL)
        # An open file may be cut even if its permissions have changed since.
        os.truncate(path if file < 0 else file, size)
    if valid & Set.MODE:
        if kind == stat.S_IFLNK:
            raise fail(errno.EOPNOTSUPP)
        os.chmod(path, mode & _MODE)
    if valid & (Set.ATIME | Set.MTIME):
        accessed = _time(status.st_atime_ns, valid & Set.ATIME, valid & Set.ATIME_SET, times[0], times[1])
        modified = _time(status.st_mtime_ns, valid & Set.MTIME, valid & Set.MTIME_SET, times[2], times[3])
        os.utime(path, ns=(accessed, modified))


def _time(old: int, change: int, given: int, seconds: int, ns: int) -> int:
    """A time in ns: as it is, now, or as given."""
    if not change:
        return old
    if not given:
        return time.time_ns()
    if ns >= _NS_PER_SECOND:
        raise fail(errno.EINVAL)
    return (seconds - (seconds >> 63 << 64)) * _NS_PER_SECOND + ns
