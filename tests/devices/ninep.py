"""A 9P2000.L client in the guest's place, as far as the tests need one."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from doppel.devices.backends.share import ShareServer
from doppel.devices.virtio.ninep import VirtioNineP

from .support import Driver, FakeMemory

QID = struct.Struct("<BIQ")
NO_FID = 0xFFFF_FFFF
RLERROR = 7


class RemoteError(Exception):
    """The server answered with Rlerror."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.errno = number


@contextmanager
def refused(number: int) -> Iterator[None]:
    """The server must answer with this error."""
    with pytest.raises(RemoteError) as caught:
        yield
    assert caught.value.errno == number, os.strerror(caught.value.errno)


def string(value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<H", len(data)) + data


class Client:
    def __init__(self, path: Path, *, readonly: bool = False, attach: bool = True) -> None:
        self.server = ShareServer(path, readonly=readonly)
        self.driver = Driver(VirtioNineP(self.server), queue_size=128, memory=FakeMemory(4 << 20))
        self.start = self.driver.next
        self.last = 100
        if attach:
            self.version()
            self.attach(0)

    def close(self) -> None:
        self.server.close()

    def raw(self, message: bytes, room: int = 70_000) -> bytes:
        """Send any bytes; the answer."""
        self.driver.next = self.start
        half = len(message) // 2
        pieces = [part for part in (message[:half], message[half:]) if part]
        self.driver.rings[0].offer(pieces, [room])
        (done,) = self.driver.rings[0].collect()
        return done.data[: done.length]

    def call(self, kind: int, body: bytes, room: int = 70_000) -> bytes:
        answer = self.raw(struct.pack("<IBH", 7 + len(body), kind, 77) + body, room)
        size, answered, tag = struct.unpack_from("<IBH", answer)
        assert size == len(answer)
        assert tag == 77
        if answered == RLERROR:
            raise RemoteError(struct.unpack_from("<I", answer, 7)[0])
        assert answered == kind + 1
        return answer[7:]

    def version(self, size: int = 65536, name: str = "9P2000.L") -> tuple[int, bytes]:
        answer = self.call(100, struct.pack("<I", size) + string(name))
        return struct.unpack_from("<I", answer)[0], answer[6:]

    def attach(self, fid: int) -> tuple[int, ...]:
        body = struct.pack("<II", fid, NO_FID) + string("root") + string("/") + struct.pack("<I", 0)
        return QID.unpack(self.call(104, body))

    def walk(self, fid: int, *names: bytes | str, new: int | None = None) -> int:
        """A new fid, for all of the names."""
        number = self.new() if new is None else new
        assert len(self.walk_qids(fid, number, *names)) == len(names)
        return number

    def new(self) -> int:
        self.last += 1
        return self.last

    def walk_qids(self, fid: int, new: int, *names: bytes | str) -> list[tuple[int, ...]]:
        body = struct.pack("<IIH", fid, new, len(names)) + b"".join(map(string, names))
        answer = self.call(110, body)
        (count,) = struct.unpack_from("<H", answer)
        return [QID.unpack_from(answer, 2 + 13 * at) for at in range(count)]

    def lopen(self, fid: int, flags: int = 0) -> tuple[int, ...]:
        return QID.unpack_from(self.call(12, struct.pack("<II", fid, flags)))

    def lcreate(self, fid: int, name: bytes | str, flags: int = 2, mode: int = 0o644) -> tuple[int, ...]:
        body = struct.pack("<I", fid) + string(name) + struct.pack("<III", flags, mode, 0)
        return QID.unpack_from(self.call(14, body))

    def read(self, fid: int, offset: int, count: int, room: int = 70_000) -> bytes:
        answer = self.call(116, struct.pack("<IQI", fid, offset, count), room)
        (length,) = struct.unpack_from("<I", answer)
        assert length == len(answer) - 4
        return answer[4:]

    def write(self, fid: int, offset: int, data: bytes) -> int:
        answer = self.call(118, struct.pack("<IQI", fid, offset, len(data)) + data)
        return int(struct.unpack("<I", answer)[0])

    def clunk(self, fid: int) -> None:
        self.call(120, struct.pack("<I", fid))

    def remove(self, fid: int) -> None:
        self.call(122, struct.pack("<I", fid))

    def unlinkat(self, fid: int, name: bytes | str, flags: int = 0) -> None:
        self.call(76, struct.pack("<I", fid) + string(name) + struct.pack("<I", flags))

    def getattr(self, fid: int) -> dict[str, int]:
        answer = self.call(24, struct.pack("<IQ", fid, 0x3FFF))
        valid, _, mode, uid, gid, *rest = struct.unpack("<Q13sIII15Q", answer)
        names = ("nlink", "rdev", "size", "blksize", "blocks", "atime", "atime_ns", "mtime", "mtime_ns")
        return {"valid": valid, "mode": mode, "uid": uid, "gid": gid} | dict(zip(names, rest, strict=False))

    def setattr(
        self, fid: int, valid: int, *, mode: int = 0, size: int = 0, times: tuple[int, ...] = ()
    ) -> None:
        atime, atime_ns, mtime, mtime_ns = (*times, 0, 0, 0, 0)[:4]
        self.call(
            26, struct.pack("<IIIIIQQQQQ", fid, valid, mode, 1, 1, size, atime, atime_ns, mtime, mtime_ns)
        )

    def readdir(self, fid: int, position: int = 0, count: int = 60_000) -> list[tuple[bytes, int, int]]:
        """Name, type and the position that follows, of the entries of one answer."""
        answer = self.call(40, struct.pack("<IQI", fid, position, count))
        (length,) = struct.unpack_from("<I", answer)
        data, entries = answer[4:], []
        assert length == len(data) <= count
        while data:
            _, _, _, following, kind, size = struct.unpack_from("<BIQQBH", data)
            entries.append((data[24 : 24 + size], kind, following))
            data = data[24 + size :]
        return entries

    def list(self, fid: int, count: int = 60_000) -> list[bytes]:
        """All names of an open directory but . and .., in as many answers as it takes."""
        names: list[bytes] = []
        position = 0
        while entries := self.readdir(fid, position, count):
            names += [name for name, _, _ in entries if name not in (b".", b"..")]
            position = entries[-1][2]
        return names

    def mkdir(self, fid: int, name: bytes | str, mode: int = 0o755) -> tuple[int, ...]:
        return QID.unpack(self.call(72, struct.pack("<I", fid) + string(name) + struct.pack("<II", mode, 0)))

    def symlink(self, fid: int, name: bytes | str, target: bytes | str) -> tuple[int, ...]:
        body = struct.pack("<I", fid) + string(name) + string(target) + struct.pack("<I", 0)
        return QID.unpack(self.call(16, body))

    def readlink(self, fid: int) -> bytes:
        return self.call(22, struct.pack("<I", fid))[2:]

    def rename(self, fid: int, directory: int, name: bytes | str) -> None:
        self.call(20, struct.pack("<II", fid, directory) + string(name))

    def renameat(self, old: int, name: bytes | str, new: int, new_name: bytes | str) -> None:
        self.call(74, struct.pack("<I", old) + string(name) + struct.pack("<I", new) + string(new_name))

    def link(self, directory: int, fid: int, name: bytes | str) -> None:
        self.call(70, struct.pack("<II", directory, fid) + string(name))

    def mknod(self, fid: int, name: bytes | str, mode: int) -> None:
        self.call(18, struct.pack("<I", fid) + string(name) + struct.pack("<IIII", mode, 1, 3, 0))
