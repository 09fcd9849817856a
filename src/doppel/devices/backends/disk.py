"""Disks behind a block device: a raw image, a copy-on-write snapshot of another disk, memory.

Data goes straight between the disk and the buffers it is given, which are guest memory: no copy is made on
the way. Errors at run time are OSError, which the block device reports to the guest as an I/O error.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from doppel.errors import DoppelError

__all__ = ["SECTOR_SIZE", "Buffers", "Disk", "MemoryDisk", "RawDisk", "SnapshotDisk"]

SECTOR_SIZE = 512
"""Bytes; sizes of disks are multiples of it."""

Buffers = list[memoryview]

_IOV_MAX = 1024
_CLUSTER_SIZE = 65536
_ZEROES = bytes(1 << 20)

_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2
_fallocate = ctypes.CDLL(None).fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def _length(buffers: Buffers) -> int:
    return sum(buffer.nbytes for buffer in buffers)


def _split(buffers: Buffers, length: int) -> tuple[Buffers, Buffers]:
    """The first ``length`` bytes of ``buffers``, and the rest."""
    for index, buffer in enumerate(buffers):
        if length < buffer.nbytes:
            head = buffers[:index]
            if length:
                head.append(buffer[:length])
            return head, [buffer[length:], *buffers[index + 1 :]]
        length -= buffer.nbytes
    return buffers, []


def _transfer(call: Callable[[int, Buffers, int], int], fd: int, offset: int, buffers: Buffers) -> None:
    """``os.preadv`` or ``os.pwritev`` until all is done; OSError if the file ends before."""
    while buffers:
        batch, rest = buffers[:_IOV_MAX], buffers[_IOV_MAX:]
        done = call(fd, batch, offset)
        if not done:
            raise OSError(errno.EIO, "the disk image is shorter than it was")
        offset += done
        buffers = _split(batch, done)[1] + rest


def _punch_hole(fd: int, offset: int, length: int) -> bool:
    """Make a range of a file read as zeroes and take no room; False if this host or file system cannot."""
    return bool(_fallocate(fd, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, offset, length) == 0)


def _write_zeroes(fd: int, offset: int, length: int) -> None:
    while length:
        done = os.pwrite(fd, memoryview(_ZEROES)[:length], offset)
        offset += done
        length -= done


class Disk(ABC):
    """Sectors to read and write. ``size`` is in bytes; the block device keeps accesses within it."""

    size: int
    readonly: bool

    @abstractmethod
    def readv(self, offset: int, buffers: Buffers) -> None:
        """Fill ``buffers`` from byte ``offset`` on; OSError if that fails."""

    @abstractmethod
    def writev(self, offset: int, buffers: Buffers) -> None:
        """Write ``buffers`` from byte ``offset`` on; OSError if that fails."""

    @abstractmethod
    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Make ``length`` bytes read as zeroes, giving up their room on the host if ``unmap``."""

    @abstractmethod
    def discard(self, offset: int, length: int) -> None:
        """The guest does not need these bytes any more; what they read as is open."""

    @abstractmethod
    def flush(self) -> None:
        """Return when everything written is on stable storage, for disks that outlive the machine."""

    @abstractmethod
    def close(self) -> None:
        """Give up what the host lent."""


class RawDisk(Disk):
    """A raw image file or a block device of the host.

    The file is locked against other machines: shared while read only, exclusively otherwise. With ``durable``
    off, ``flush`` does not wait for the host's storage.
    """

    def __init__(self, path: str | os.PathLike[str], *, readonly: bool = False, durable: bool = True) -> None:
        self.path = Path(path)
        self.readonly = readonly
        self._durable = durable and not readonly
        self._dirty = False
        self._fd = self._open()
        try:
            self.size = self._measure()
            self._lock()
        except BaseException:
            os.close(self._fd)
            raise

    def _open(self) -> int:
        try:
            # O_NONBLOCK: do not wait for the other end if the path turns out to be a named pipe.
            flags = os.O_CLOEXEC | os.O_NONBLOCK | (os.O_RDONLY if self.readonly else os.O_RDWR)
            return os.open(self.path, flags)
        except FileNotFoundError:
            raise DoppelError(
                f"there is no disk image {self.path}", f"make one with: truncate -s 1G {self.path}"
            ) from None
        except IsADirectoryError:
            raise DoppelError(
                f"{self.path} is a directory, not a disk image",
                "name a file; to share a directory use --share",
            ) from None
        except PermissionError:
            raise DoppelError(
                f"no permission to open the disk image {self.path}",
                "change its permissions"
                if self.readonly
                else "change its permissions, or attach it read-only",
            ) from None
        except OSError as error:
            raise DoppelError(
                f"cannot open the disk image {self.path}: {error.strerror}", "give another disk image"
            ) from error

    def _measure(self) -> int:
        kind = os.fstat(self._fd).st_mode
        if stat.S_ISDIR(kind):
            raise DoppelError(
                f"{self.path} is a directory, not a disk image",
                "name a file; to share a directory use --share",
            )
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            raise DoppelError(f"{self.path} is not a disk image", "name a regular file or a block device")
        size = os.lseek(self._fd, 0, os.SEEK_END)
        if not size or size % SECTOR_SIZE:
            raise DoppelError(
                f"the disk image {self.path} has {size} bytes, which is not a whole number of sectors",
                f"enlarge it with: truncate -s %{SECTOR_SIZE} {self.path}"
                if size
                else "give an image with contents",
            )
        return size

    def _lock(self) -> None:
        kind = fcntl.LOCK_SH if self.readonly else fcntl.LOCK_EX
        try:
            fcntl.flock(self._fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DoppelError(
                f"the disk image {self.path} is in use by another machine",
                "stop that machine, or give each machine a copy of its own",
            ) from None
        except OSError:
            # Some network file systems have no locks; then there is no protection to be had.
            return

    def readv(self, offset: int, buffers: Buffers) -> None:
        """One ``preadv`` as a rule."""
        _transfer(os.preadv, self._fd, offset, buffers)

    def writev(self, offset: int, buffers: Buffers) -> None:
        """One ``pwritev`` as a rule."""
        self._dirty = True
        _transfer(os.pwritev, self._fd, offset, buffers)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """A hole in the image file if ``unmap`` and the host can."""
        self._dirty = True
        if not (unmap and _punch_hole(self._fd, offset, length)):
            _write_zeroes(self._fd, offset, length)

    def discard(self, offset: int, length: int) -> None:
        """A hole in the image file, if the host can."""
        self._dirty = True
        _punch_hole(self._fd, offset, length)

    def flush(self) -> None:
        """``fdatasync`` if anything was written since the last one."""
        if self._dirty and self._durable:
            os.fdatasync(self._fd)
        self._dirty = False

    def close(self) -> None:
        """Close the file and with it the lock."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class SnapshotDisk(Disk):
    """Writable copy of ``base``, which is left alone: clusters of 64 KiB move to a temporary file when
    written.

    The temporary file has no name and is gone with the machine, so ``flush`` has nothing to wait for.
    ``directory`` is where it is put; by default where the host keeps temporary files.
    """

    def __init__(self, base: Disk, *, directory: str | os.PathLike[str] | None = None) -> None:
        self._base = base
        self.size = base.size
        self.readonly = False
        try:
            self._fd, name = tempfile.mkstemp(prefix="doppel-snapshot-", dir=directory)
            os.unlink(name)
            os.truncate(self._fd, self.size)
        except OSError as error:
            raise DoppelError(
                f"cannot make a temporary file for the disk snapshot: {error.strerror}",
                "make room there, or set TMPDIR to a directory that has some",
            ) from error
        # One byte per cluster, so that runs are found by bytearray.find: 1 if the cluster is in the temporary
        # file.
        self._present = bytearray(-(-self.size // _CLUSTER_SIZE))

    def _run(self, offset: int, end: int) -> tuple[bool, int]:
        """Whether the cluster at ``offset`` is ours, and up to where (at most ``end``) that is so."""
        cluster = offset // _CLUSTER_SIZE
        ours = self._present[cluster]
        change = self._present.find(1 - ours, cluster, -(-end // _CLUSTER_SIZE))
        return bool(ours), end if change < 0 else change * _CLUSTER_SIZE

    def readv(self, offset: int, buffers: Buffers) -> None:
        """From the temporary file and the base, run by run."""
        end = offset + _length(buffers)
        while offset < end:
            ours, stop = self._run(offset, end)
            piece, buffers = _split(buffers, stop - offset) if stop < end else (buffers, [])
            if ours:
                _transfer(os.preadv, self._fd, offset, piece)
            else:
                self._base.readv(offset, piece)
            offset = stop

    def _copy_up(self, cluster: int) -> None:
        """Bring a cluster that is going to be written in part into the temporary file."""
        if not self._present[cluster]:
            start = cluster * _CLUSTER_SIZE
            data = memoryview(bytearray(min(_CLUSTER_SIZE, self.size - start)))
            self._base.readv(start, [data])
            _transfer(os.pwritev, self._fd, start, [data])
            self._present[cluster] = 1

    def _prepare(self, offset: int, length: int) -> tuple[int, int]:
        """Copy up the clusters that a write covers only in part; the range of clusters it covers."""
        end = offset + length
        first, last = offset // _CLUSTER_SIZE, (end - 1) // _CLUSTER_SIZE
        if offset % _CLUSTER_SIZE:
            self._copy_up(first)
        if end % _CLUSTER_SIZE and end != self.size:
            self._copy_up(last)
        return first, last + 1

    def _mark(self, first: int, stop: int) -> None:
        self._present[first:stop] = b"\1" * (stop - first)

    def writev(self, offset: int, buffers: Buffers) -> None:
        """To the temporary file."""
        length = _length(buffers)
        if length:
            clusters = self._prepare(offset, length)
            _transfer(os.pwritev, self._fd, offset, buffers)
            self._mark(*clusters)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """A hole in the temporary file hides what the base has there."""
        if length:
            clusters = self._prepare(offset, length)
            if not _punch_hole(self._fd, offset, length):
                _write_zeroes(self._fd, offset, length)
            self._mark(*clusters)

    def discard(self, offset: int, length: int) -> None:
        """Gives the room of clusters in the temporary file back; the base has none to give."""
        _punch_hole(self._fd, offset, length)

    def flush(self) -> None:
        """Nothing outlives the machine."""

    def close(self) -> None:
        """The temporary file is gone, and the base closed."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
            self._base.close()


class MemoryDisk(Disk):
    """A disk in the memory of this process, with ``contents`` filled up to ``size`` bytes."""

    def __init__(self, contents: bytes = b"", *, size: int | None = None, readonly: bool = False) -> None:
        self.size = len(contents) if size is None else size
        if not self.size or self.size % SECTOR_SIZE or self.size < len(contents):
            raise DoppelError(
                f"a memory disk cannot have {self.size} bytes",
                f"give a multiple of {SECTOR_SIZE} that the contents fit in",
            )
        self.readonly = readonly
        self.data = bytearray(self.size)
        self.data[: len(contents)] = contents

    def readv(self, offset: int, buffers: Buffers) -> None:
        """Copy out."""
        view = memoryview(self.data)
        for buffer in buffers:
            buffer[:] = view[offset : offset + buffer.nbytes]
            offset += buffer.nbytes

    def writev(self, offset: int, buffers: Buffers) -> None:
        """Copy in."""
        view = memoryview(self.data)
        for buffer in buffers:
            view[offset : offset + buffer.nbytes] = buffer
            offset += buffer.nbytes

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zeroes."""
        self.data[offset : offset + length] = bytes(length)

    def discard(self, offset: int, length: int) -> None:
        """There is no room to give back."""

    def flush(self) -> None:
        """Nothing outlives the machine."""

    def close(self) -> None:
        """The contents go with this object."""
