"""A 9P2000.L server for one directory and one guest. Source: diod's protocol description; Linux,
net/9p/client.c.

Every request is answered at once. Data of reads and writes goes straight between the host's file and guest
memory. Errors of the host are the guest's errors. The guest's users do not exist on the host: everything is
done as the user who runs doppel, files that a guest makes belong to that user, and a change of owner is
accepted without effect. Set-user-ID bits are not passed on, and special files are not made. Symbolic links
are: the server never follows one, but a program of the host that works in the shared directory may follow a
link that the guest has made.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from doppel.devices.backends.share.attributes import pack_file_system, pack_status, set_attributes
from doppel.devices.backends.share.directory import read_entries
from doppel.devices.backends.share.tree import Node, Tree
from doppel.devices.backends.share.wire import (
    HEADER,
    NO_FID,
    RLERROR,
    Open,
    Reader,
    Type,
    fail,
    pack_string,
    qid_type,
)
from doppel.errors import DoppelError

__all__ = ["BadMessage", "Message", "ShareServer"]

PROTOCOL = b"9P2000.L"
MAX_MESSAGE = 1 << 20
MIN_MESSAGE = 4096
# A Linux guest that caches (mount option cache=loose) keeps a fid for every file it has seen.
MAX_FIDS = 1 << 17
MAX_OPEN_FILES = 256
_MAX_REQUEST = 65536
# Read at once of every request: all of it, but for data and very long names.
_FRONT = 512
_MAX_WALK = 16
_MAX_PIECES = 1024

_READ_HEADER = HEADER.size + 4
_WRITE_HEADER = HEADER.size + 16
_PERMISSIONS = 0o777
_STICKY = 0o1777
_REMOVE_DIRECTORY = 0x200
_LOCK_SUCCESS, _UNLOCKED = 0, 2
_U64 = (1 << 64) - 1

_VALUE = struct.Struct("<I")
_FID = struct.Struct("<I")
_TWO = struct.Struct("<II")
_THREE = struct.Struct("<III")
_ACCESS = struct.Struct("<IQI")
_WALK = struct.Struct("<IIH")
_QID = struct.Struct("<BIQ")
_GETATTR = struct.Struct("<IQ")
_SETATTR = struct.Struct("<IIIIIQQQQQ")
_LOCK = struct.Struct("<IBIQQI")
_GETLOCK = struct.Struct("<IBQQI")
_RANGE = struct.Struct("<BQQI")


class BadMessage(Exception):
    """There is no request, or no room for an answer."""


class Message(Protocol):
    """A request in guest memory, and the room for its answer."""

    @property
    def writable_length(self) -> int:
        """Bytes of room."""

    def read(self, offset: int, length: int) -> bytes:
        """Copy out of the request."""

    def write(self, offset: int, data: bytes) -> int:
        """Copy into the room; the number of bytes that fitted."""

    def readable_segments(self, offset: int, length: int) -> list[memoryview]:
        """Host memory behind the request."""

    def writable_segments(self, offset: int, length: int) -> list[memoryview]:
        """Host memory behind the room."""


class _Fid:
    """What a number that the guest chose stands for: a file, and perhaps that file open."""

    __slots__ = ("file", "flags", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.file = -1
        self.flags = 0


class ShareServer:
    """Serves the directory ``path``; with ``readonly``, every change is refused with EROFS."""

    def __init__(self, path: str | os.PathLike[str], *, readonly: bool = False) -> None:
        self.readonly = readonly
        self._tree = Tree(path)
        self._fids: dict[int, _Fid] = {}
        self._open_files = 0
        self._message_size = MAX_MESSAGE
        # Files of another file system mounted inside get qids of their own: device number to a small one.
        self._devices: dict[int, int] = {self._tree.root.identity[0]: 0}
        self._handlers: dict[int, Callable[[Reader], bytes]] = {
            Type.STATFS: self._statfs,
            Type.LOPEN: self._lopen,
            Type.LCREATE: self._lcreate,
            Type.SYMLINK: self._symlink,
            Type.MKNOD: self._mknod,
            Type.RENAME: self._rename,
            Type.READLINK: self._readlink,
            Type.GETATTR: self._getattr,
            Type.SETATTR: self._setattr,
            Type.XATTRWALK: self._xattrs,
            Type.XATTRCREATE: self._xattrs,
            Type.FSYNC: self._fsync,
            Type.LOCK: self._lock,
            Type.GETLOCK: self._getlock,
            Type.LINK: self._link,
            Type.MKDIR: self._mkdir,
            Type.RENAMEAT: self._renameat,
            Type.UNLINKAT: self._unlinkat,
            Type.VERSION: self._version,
            Type.AUTH: self._auth,
            Type.ATTACH: self._attach,
            Type.FLUSH: self._flush,
            Type.WALK: self._walk,
            Type.CLUNK: self._clunk,
            Type.REMOVE: self._remove,
        }

    def handle(self, message: Message) -> int:
        """Do what a request asks and write the answer; its length in bytes.

        Raises:
            BadMessage: there is no request, or no room for an answer.
        """
        front = message.read(0, _FRONT)
        if len(front) < HEADER.size or message.writable_length < HEADER.size + _VALUE.size:
            raise BadMessage("a 9P request without header or without room for its answer")
        size, kind, tag = HEADER.unpack_from(front)
        try:
            if kind == Type.READ:
                return self._read(message, front, tag)
            if kind == Type.WRITE:
                body = self._write(message, front)
            elif kind == Type.READDIR:
                body = self._readdir(message, front)
            else:
                handler = self._handlers.get(kind)
                if handler is None:
                    raise fail(errno.EOPNOTSUPP)
                if not HEADER.size <= size <= _MAX_REQUEST:
                    raise fail(errno.EMSGSIZE)
                if size > _FRONT:
                    front = message.read(0, size)
                body = handler(Reader(front[HEADER.size : size]))
            if HEADER.size + len(body) > message.writable_length:
                raise fail(errno.EMSGSIZE)
        except OSError as error:
            kind, body = RLERROR - 1, _VALUE.pack(error.errno or errno.EIO)
        except OverflowError:
            # A size, position or time that the host cannot express.
            kind, body = RLERROR - 1, _VALUE.pack(errno.EINVAL)
        finally:
            self._tree.trim()
        return message.write(0, HEADER.pack(HEADER.size + len(body), kind + 1, tag) + body)

    # Fids

    def _get(self, number: int) -> _Fid:
        fid = self._fids.get(number)
        if fid is None:
            raise fail(errno.EBADF)
        return fid

    def _directory(self, number: int) -> Node:
        node = self._get(number).node
        if not node.is_directory:
            raise fail(errno.ENOTDIR)
        return node

    def _add(self, number: int, node: Node) -> None:
        """Takes over one use of ``node``."""
        if number in self._fids or number == NO_FID or len(self._fids) >= MAX_FIDS:
            self._tree.release(node)
            raise fail(errno.EMFILE if len(self._fids) >= MAX_FIDS else errno.EBADF)
        self._fids[number] = _Fid(node)

    def _drop(self, number: int) -> None:
        fid = self._fids.pop(number)
        self._close_file(fid)
        self._tree.release(fid.node)

    def _close_file(self, fid: _Fid) -> None:
        if fid.file >= 0:
            os.close(fid.file)
            fid.file = -1
            self._open_files -= 1

    def _opened(self, number: int) -> int:
        file = self._get(number).file
        if file < 0:
            raise fail(errno.EBADF)
        return file

    def _writable(self) -> None:
        if self.readonly:
            raise fail(errno.EROFS)

    def _status(self, fid: _Fid) -> os.stat_result:
        return os.fstat(fid.file) if fid.file >= 0 else self._tree.status(fid.node)

    def _qid(self, status: os.stat_result) -> bytes:
        version = (status.st_mtime_ns ^ status.st_size << 8) & 0xFFFF_FFFF
        return _QID.pack(qid_type(status.st_mode), version, self._qid_path(status.st_dev, status.st_ino))

    def _qid_path(self, device: int, inode: int) -> int:
        return (self._devices.setdefault(device, len(self._devices)) << 48 ^ inode) & _U64

    # Session

    def _version(self, body: Reader) -> bytes:
        (size,) = body.take(_VALUE)
        version = body.string()
        self.reset()
        if size < MIN_MESSAGE:
            raise fail(errno.EMSGSIZE)
        self._message_size = min(size, MAX_MESSAGE)
        return _VALUE.pack(self._message_size) + pack_string(PROTOCOL if version == PROTOCOL else b"unknown")

    def _auth(self, body: Reader) -> bytes:
        # Anybody who can talk to the device is the guest.
        raise fail(errno.EOPNOTSUPP)

    def _attach(self, body: Reader) -> bytes:
        number, _ = body.take(_TWO)
        self._add(number, self._tree.retain(self._tree.root))
        return self._qid(self._tree.status(self._tree.root))

    def _flush(self, body: Reader) -> bytes:
        return b""

    def _walk(self, body: Reader) -> bytes:
        number, new_number, count = body.take(_WALK)
        if count > _MAX_WALK:
            raise fail(errno.EINVAL)
        names = [body.string() for _ in range(count)]
        fid = self._get(number)
        node = self._tree.retain(fid.node)
        qids: list[bytes] = []
        try:
            for name in names:
                following = self._tree.walk(node, name)
                self._tree.release(node)
                node = following
                qids.append(self._qid(self._tree.status(node)))
        except OSError:
            self._tree.release(node)
            if not qids:
                raise
        else:
            if new_number == number:
                self._drop(number)
            self._add(new_number, node)
        return struct.pack("<H", len(qids)) + b"".join(qids)

    def _clunk(self, body: Reader) -> bytes:
        (number,) = body.take(_FID)
        self._get(number)
        self._drop(number)
        return b""

    # Opening, reading and writing

    @staticmethod
    def _host_flags(flags: int) -> int:
        access = flags & Open.ACCMODE
        if access == Open.ACCMODE:
            raise fail(errno.EINVAL)
        host = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)[access]
        if flags & Open.TRUNC:
            host |= os.O_TRUNC
        # The two sync flags share a bit in Linux: O_SYNC contains O_DSYNC.
        if flags & Open.SYNC:
            host |= os.O_SYNC
        elif flags & Open.DSYNC:
            host |= os.O_DSYNC
        return host

    def _open(self, fid: _Fid, flags: int) -> None:
        host = self._host_flags(flags)
        if host & (os.O_ACCMODE | os.O_TRUNC):
            self._writable()
        self._may_open(fid)
        self._set_file(fid, self._tree.open(fid.node, host), host)

    def _may_open(self, fid: _Fid) -> None:
        if fid.file >= 0:
            raise fail(errno.EBADF)
        if self._open_files >= MAX_OPEN_FILES:
            raise fail(errno.EMFILE)

    def _set_file(self, fid: _Fid, file: int, flags: int) -> None:
        fid.file, fid.flags = file, flags & ~os.O_TRUNC
        self._open_files += 1

    def _lopen(self, body: Reader) -> bytes:
        number, flags = body.take(_TWO)
        fid = self._get(number)
        self._open(fid, flags)
        # An iounit of 0 leaves the size of reads and writes to the message size.
        return self._qid(self._status(fid)) + _VALUE.pack(0)

    def _lcreate(self, body: Reader) -> bytes:
        (number,) = body.take(_FID)
        name = body.string()
        flags, mode, _ = body.take(_THREE)
        self._writable()
        directory = self._directory(number)
        fid = self._get(number)
        self._may_open(fid)
        host = self._host_flags(flags)
        try:
            file = self._tree.create(directory, name, host & ~os.O_TRUNC, mode & _PERMISSIONS)
        except FileExistsError:
            if flags & Open.EXCL:
                raise
            node = self._tree.walk(directory, name)
            try:
                file = self._tree.open(node, host)
            except OSError:
                self._tree.release(node)
                raise
        else:
            try:
                node = self._tree.walk(directory, name)
            except OSError:
                os.close(file)
                raise
        fid.node = node
        self._tree.release(directory)
        self._set_file(fid, file, host)
        return self._qid(self._status(fid)) + _VALUE.pack(0)

    def _read(self, message: Message, front: bytes, tag: int) -> int:
        number, offset, count = Reader(front[HEADER.size :]).take(_ACCESS)
        file = self._opened(number)
        count = min(count, self._message_size - _READ_HEADER, message.writable_length - _READ_HEADER)
        done = _transfer(os.preadv, file, offset, message.writable_segments(_READ_HEADER, count))
        message.write(0, HEADER.pack(_READ_HEADER + done, Type.READ + 1, tag) + _VALUE.pack(done))
        return _READ_HEADER + done

    def _write(self, message: Message, front: bytes) -> bytes:
        number, offset, count = Reader(front[HEADER.size :]).take(_ACCESS)
        file = self._opened(number)
        if count > self._message_size:
            raise fail(errno.EMSGSIZE)
        done = _transfer(os.pwritev, file, offset, message.readable_segments(_WRITE_HEADER, count))
        return _VALUE.pack(done)

    def _readdir(self, message: Message, front: bytes) -> bytes:
        number, position, count = Reader(front[HEADER.size :]).take(_ACCESS)
        fid = self._get(number)
        file = self._opened(number)
        room = min(count, self._message_size - _READ_HEADER, message.writable_length - _READ_HEADER)
        device = fid.node.identity[0]
        entries: list[bytes] = []
        for entry in read_entries(file, position):
            inode = entry.inode
            if entry.name == b".." and fid.node is self._tree.root:
                inode = fid.node.identity[1]
            qid = _QID.pack(qid_type(entry.type << 12), 0, self._qid_path(device, inode))
            data = qid + struct.pack("<QB", entry.following & _U64, entry.type) + pack_string(entry.name)
            if len(data) > room:
                if not entries:
                    raise fail(errno.EINVAL)
                break
            room -= len(data)
            entries.append(data)
        data = b"".join(entries)
        return _VALUE.pack(len(data)) + data

    def _fsync(self, body: Reader) -> bytes:
        number, data_only = body.take(_TWO)
        (os.fdatasync if data_only else os.fsync)(self._opened(number))
        return b""

    # Attributes

    def _getattr(self, body: Reader) -> bytes:
        number, _ = body.take(_GETATTR)
        status = self._status(self._get(number))
        return pack_status(status, self._qid(status))

    def _setattr(self, body: Reader) -> bytes:
        number, valid, mode, _, _, size, *times = body.take(_SETATTR)
        self._writable()
        fid = self._get(number)
        path = self._tree.link_path(fid.node) if fid.file < 0 else f"/proc/self/fd/{fid.file}"
        file = fid.file if fid.flags & os.O_ACCMODE else -1
        set_attributes(path, file, self._status(fid), valid, mode, size, times)
        return b""

    def _statfs(self, body: Reader) -> bytes:
        (number,) = body.take(_FID)
        return pack_file_system(os.statvfs(self._tree.link_path(self._get(number).node)))

    def _xattrs(self, body: Reader) -> bytes:
        raise fail(errno.EOPNOTSUPP)

    # One guest is the only client, and its kernel settles locks between its own processes before it asks.

    def _lock(self, body: Reader) -> bytes:
        number, *_ = body.take(_LOCK)
        body.string()
        self._opened(number)
        return bytes((_LOCK_SUCCESS,))

    def _getlock(self, body: Reader) -> bytes:
        number, _, start, length, process = body.take(_GETLOCK)
        client = body.string()
        self._opened(number)
        return _RANGE.pack(_UNLOCKED, start, length, process) + pack_string(client)

    # Names

    def _readlink(self, body: Reader) -> bytes:
        (number,) = body.take(_FID)
        return pack_string(self._tree.read_link(self._get(number).node))

    def _made(self, directory: Node, name: bytes) -> bytes:
        """The qid of an entry that was made just now."""
        node = self._tree.walk(directory, name)
        try:
            return self._qid(self._tree.status(node))
        finally:
            self._tree.release(node)

    def _symlink(self, body: Reader) -> bytes:
        (number,) = body.take(_FID)
        name, target = body.string(), body.string()
        self._writable()
        directory = self._directory(number)
        self._tree.make_symbolic_link(directory, name, target)
        return self._made(directory, name)

    def _mkdir(self, body: Reader) -> bytes:
        (number,) = body.take(_FID)
        name = body.string()
        mode, _ = body.take(_TWO)
        self._writable()
        directory = self._directory(number)
        self._tree.make_directory(directory, name, mode & _STICKY)
        node = self._tree.walk(directory, name)
        try:
            # Not subject to the umask of this process: the guest has applied its own.
            if node.is_directory:
                os.chmod(self._tree.link_path(node), mode & _STICKY)
            return self._qid(self._tree.status(node))
        finally:
            self._tree.release(node)

    def _mknod(self, body: Reader) -> bytes:
        self._writable()
        raise fail(errno.EPERM)

    def _link(self, body: Reader) -> bytes:
        directory, number = body.take(_TWO)
        name = body.string()
        self._writable()
        self._tree.link(self._get(number).node, self._directory(directory), name)
        return b""

    def _rename(self, body: Reader) -> bytes:
        number, directory = body.take(_TWO)
        name = body.string()
        self._writable()
        node = self._get(number).node
        if node.parent is None:
            raise fail(errno.EBUSY if node is self._tree.root else errno.ESTALE)
        self._tree.rename(node.parent, node.name, self._directory(directory), name)
        return b""

    def _renameat(self, body: Reader) -> bytes:
        (number,) = body.take(_FID)
        name = body.string()
        (new_number,) = body.take(_FID)
        new_name = body.string()
        self._writable()
        self._tree.rename(self._directory(number), name, self._directory(new_number), new_name)
        return b""

    def _unlinkat(self, body: Reader) -> bytes:
        (number,) = body.take(_FID)
        name = body.string()
        (flags,) = body.take(_VALUE)
        self._writable()
        self._tree.remove(self._directory(number), name, is_directory=bool(flags & _REMOVE_DIRECTORY))
        return b""

    def _remove(self, body: Reader) -> bytes:
        (number,) = body.take(_FID)
        node = self._get(number).node
        try:
            self._writable()
            if node.parent is None:
                raise fail(errno.EBUSY if node is self._tree.root else errno.ESTALE)
            self._tree.remove(node.parent, node.name, is_directory=node.is_directory)
        finally:
            # The fid is gone even if the file is not.
            self._drop(number)
        return b""

    # The rest of a server's life

    def reset(self) -> None:
        """Forget every fid."""
        for number in list(self._fids):
            self._drop(number)

    def close(self) -> None:
        """Give the directory back."""
        self.reset()
        self._tree.close()

    def save(self) -> dict[str, object]:
        """Fids by the names that lead to their files; those of deleted files are lost."""
        fids = []
        for number, fid in self._fids.items():
            nodes = fid.node.ancestry()
            if nodes[-1] is self._tree.root:
                names = [node.name for node in reversed(nodes[:-1])]
                fids.append([number, names, fid.flags if fid.file >= 0 else -1])
        return {"message_size": self._message_size, "fids": fids}

    def load(self, state: Mapping[str, object]) -> None:
        """Find the files again by their names. What is not there any more is a bad fid for the guest."""
        try:
            size = msgspec.convert(state.get("message_size"), int)
            fids = msgspec.convert(state.get("fids"), list[tuple[int, list[bytes], int]])
        except msgspec.ValidationError as error:
            raise DoppelError(
                f"the saved state of the shared directory is damaged ({error})", "use another snapshot"
            ) from error
        self.reset()
        self._message_size = min(max(size, MIN_MESSAGE), MAX_MESSAGE)
        for number, names, flags in fids:
            node = self._tree.retain(self._tree.root)
            try:
                for name in names:
                    following = self._tree.walk(node, name)
                    self._tree.release(node)
                    node = following
            except OSError:
                self._tree.release(node)
                continue
            self._add(number, node)
            if flags >= 0:
                try:
                    self._set_file(self._fids[number], self._tree.open(node, flags), flags)
                except OSError:
                    self._drop(number)
            self._tree.trim()


def _transfer(
    call: Callable[[int, list[memoryview], int], int], file: int, offset: int, pieces: list[memoryview]
) -> int:
    """``os.preadv`` or ``os.pwritev``; the number of bytes until the end of the file or of the pieces."""
    done = 0
    for at in range(0, len(pieces), _MAX_PIECES):
        batch = pieces[at : at + _MAX_PIECES]
        moved = call(file, batch, offset + done)
        done += moved
        if moved < sum(piece.nbytes for piece in batch):
            break
    return done
