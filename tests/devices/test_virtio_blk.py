from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.devices.backends.disk import Buffers, MemoryDisk, RawDisk, SnapshotDisk
from doppel.devices.virtio.blk import VirtioBlk
from doppel.errors import DoppelError

from .support import RAM_BASE, Done, Driver, FakeMemory

IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
F_RO, F_FLUSH, F_DISCARD, F_WRITE_ZEROES = 1 << 5, 1 << 9, 1 << 13, 1 << 14


def contents(sectors: int = 64) -> bytes:
    return b"".join(bytes([sector]) * 512 for sector in range(sectors))


class Broken(MemoryDisk):
    """A disk that fails, and counts flushes."""

    failing = True
    flushes = 0

    def readv(self, offset: int, buffers: Buffers) -> None:
        if self.failing:
            raise OSError(5, "input/output error")
        super().readv(offset, buffers)

    def writev(self, offset: int, buffers: Buffers) -> None:
        if self.failing:
            raise OSError(28, "no space")
        super().writev(offset, buffers)

    def flush(self) -> None:
        self.flushes += 1
        if self.failing:
            raise OSError(5, "input/output error")


def request(
    driver: Driver, kind: int, sector: int, data: bytes = b"", room: int = 0, *, indirect: bool = False
) -> tuple[int, bytes, Done]:
    readable = [struct.pack("<IIQ", kind, 0, sector)] + ([data] if data else [])
    driver.rings[0].offer(readable, [room, 1] if room else [1], indirect=indirect)
    (done,) = driver.rings[0].collect()
    return done.data[-1], done.data[:-1], done


@pytest.fixture
def driver() -> Driver:
    return Driver(VirtioBlk(MemoryDisk(contents()), serial="disk-0"))


def test_configuration(driver: Driver) -> None:
    read = driver.transport.read
    assert driver.read(0x008) == 2
    assert read(0x100, 8) == 64
    assert read(0x10C, 4) == 254
    assert read(0x114, 4) == 512
    assert read(0x100 + 34, 2) == 1
    assert read(0x100 + 36, 4) > 0
    assert read(0x100 + 40, 4) == 16
    assert read(0x100 + 44, 4) == 1
    assert read(0x100 + 48, 4) > 0
    assert read(0x100 + 52, 4) == 16
    assert read(0x100 + 56, 1) == 1
    offered = driver.offered() & (F_RO | F_FLUSH | F_DISCARD | F_WRITE_ZEROES)
    assert offered == F_FLUSH | F_DISCARD | F_WRITE_ZEROES


@pytest.mark.parametrize("indirect", [False, True])
def test_read_and_write(driver: Driver, indirect: bool) -> None:
    status, data, done = request(driver, IN, 3, room=1024, indirect=indirect)
    assert status == OK
    assert data == b"\3" * 512 + b"\4" * 512
    assert done.length == 1025
    assert driver.interrupts() == 1
    status, _, done = request(driver, OUT, 5, data=b"new!" * 128, indirect=indirect)
    assert status == OK
    assert done.length == 1
    assert request(driver, IN, 5, room=512)[1] == b"new!" * 128
    assert driver.device.disk.data[4 * 512 : 5 * 512] == b"\4" * 512


def test_a_request_in_many_odd_pieces(driver: Driver) -> None:
    header = struct.pack("<IIQ", OUT, 0, 10)
    data = bytes(range(256)) * 4
    ring = driver.rings[0]
    # The first piece of data is in the header's descriptor, the rest is cut anywhere.
    ring.offer([header[:7], header[7:] + data[:3], data[3:500], data[500:]], [1])
    assert ring.collect()[0].data == b"\0"
    header = struct.pack("<IIQ", IN, 0, 10)
    # The status byte shares the last descriptor with data.
    ring.offer([header], [1, 1000, 24])
    (done,) = ring.collect()
    assert done.data == data + b"\0"
    assert done.length == 1025


def test_reads_across_pieces_of_host_memory() -> None:
    driver = Driver(
        VirtioBlk(MemoryDisk(contents(255))), queue_size=256, memory=FakeMemory(1 << 20, piece=0x700)
    )
    status, data, _ = request(driver, IN, 0, room=255 * 512)
    assert status == OK
    assert data == contents(255)


@pytest.mark.parametrize(
    ("kind", "sector", "data", "room"),
    [
        (IN, 64, b"", 512),
        (IN, 63, b"", 1024),
        (IN, (1 << 64) - 1, b"", 512),
        (IN, 0, b"", 511),
        (OUT, 64, b"x" * 512, 0),
        (OUT, 63, b"x" * 1024, 0),
        (OUT, 0, b"x" * 100, 0),
    ],
)
def test_accesses_outside_the_disk_or_not_in_sectors(
    driver: Driver, kind: int, sector: int, data: bytes, room: int
) -> None:
    status, _, done = request(driver, kind, sector, data, room)
    assert status == IOERR
    assert done.length == (0 if room else 1)
    assert driver.device.disk.data == contents()


def test_flush_and_unknown_requests(driver: Driver) -> None:
    assert request(driver, FLUSH, 0)[0] == OK
    for kind in (2, 3, 5, 14, 0x8000_0000):
        assert request(driver, kind, 0, room=512)[0] == UNSUPP
        assert request(driver, kind, 0, data=b"x")[0] == UNSUPP


@pytest.mark.parametrize("room", [20, 30, 5])
def test_device_id(driver: Driver, room: int) -> None:
    status, data, done = request(driver, GET_ID, 0, room=room)
    expected = b"disk-0".ljust(20, b"\0")[:room]
    assert status == OK
    assert data[: len(expected)] == expected
    assert done.length == (room + 1 if room <= 20 else 20)


def test_serial_numbers_that_do_not_fit() -> None:
    for serial in ("x" * 21, "ä"):
        with pytest.raises(DoppelError):
            VirtioBlk(MemoryDisk(size=512), serial=serial)


def ranges(*entries: tuple[int, int, int]) -> bytes:
    return b"".join(struct.pack("<QII", *entry) for entry in entries)


def test_write_zeroes(driver: Driver) -> None:
    assert request(driver, WRITE_ZEROES, 0, ranges((1, 2, 0), (60, 4, 1)))[0] == OK
    data = driver.device.disk.data
    assert data[:512] == bytes(512)
    assert data[512 : 3 * 512] == bytes(1024)
    assert data[3 * 512 : 60 * 512] == contents()[3 * 512 : 60 * 512]
    assert data[60 * 512 :] == bytes(2048)


def test_discard(driver: Driver) -> None:
    assert request(driver, DISCARD, 0, ranges((1, 2, 0)))[0] == OK


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [
        (DISCARD, ranges((0, 1, 1)), UNSUPP),
        (DISCARD, ranges((0, 1, 2)), UNSUPP),
        (WRITE_ZEROES, ranges((0, 1, 2)), UNSUPP),
        (WRITE_ZEROES, ranges((64, 1, 0)), IOERR),
        (WRITE_ZEROES, ranges((0, 1, 0), (63, 2, 0)), IOERR),
        (WRITE_ZEROES, ranges((0, 0xFFFF_FFFF, 0)), IOERR),
        (DISCARD, ranges(((1 << 64) - 1, 1, 0)), IOERR),
        (DISCARD, b"", IOERR),
        (DISCARD, ranges((0, 1, 0))[:-1], IOERR),
        (DISCARD, ranges(*[(0, 1, 0)] * 17), IOERR),
    ],
)
def test_bad_ranges(driver: Driver, kind: int, data: bytes, status: int) -> None:
    assert request(driver, kind, 0, data)[0] == status
    assert driver.device.disk.data == contents()


def test_read_only() -> None:
    driver = Driver(VirtioBlk(MemoryDisk(contents(), readonly=True)))
    assert driver.offered() & (F_RO | F_DISCARD | F_WRITE_ZEROES) == F_RO
    assert request(driver, OUT, 0, data=b"x" * 512)[0] == IOERR
    assert request(driver, WRITE_ZEROES, 0, ranges((0, 1, 0)))[0] == IOERR
    assert request(driver, DISCARD, 0, ranges((0, 1, 0)))[0] == IOERR
    assert request(driver, IN, 1, room=512)[1] == b"\1" * 512
    assert driver.device.disk.data == contents()


def test_errors_of_the_disk_are_the_guests() -> None:
    disk = Broken(contents())
    driver = Driver(VirtioBlk(disk))
    for kind, data, room in ((IN, b"", 512), (OUT, b"x" * 512, 0), (FLUSH, b"", 0)):
        assert request(driver, kind, 0, data, room)[0] == IOERR
    disk.failing = False
    assert request(driver, IN, 2, room=512)[1] == b"\2" * 512
    assert not driver.needs_reset


@pytest.mark.parametrize(("refused", "flushes"), [(0, 0), (F_FLUSH, 2)])
def test_writes_are_stable_for_drivers_that_do_not_flush(refused: int, flushes: int) -> None:
    disk = Broken(contents())
    disk.failing = False
    driver = Driver(VirtioBlk(disk), refused=refused)
    request(driver, OUT, 0, data=b"x" * 512)
    request(driver, WRITE_ZEROES, 0, ranges((0, 1, 0)))
    request(driver, IN, 0, room=512)
    assert disk.flushes == flushes
    copy = driver.moved_to(VirtioBlk(disk))
    request(copy, OUT, 0, data=b"x" * 512)
    assert disk.flushes == flushes * 3 // 2


@pytest.mark.parametrize(
    ("readable", "writable"),
    [
        ([struct.pack("<IIQ", IN, 0, 0)], []),
        ([struct.pack("<IIQ", IN, 0, 0)[:15]], [1]),
        ([], [513]),
    ],
)
def test_requests_without_header_or_status(readable: list[bytes], writable: list[int]) -> None:
    driver = Driver(VirtioBlk(MemoryDisk(contents())))
    driver.rings[0].offer(readable, writable)
    assert driver.needs_reset


def test_data_outside_memory() -> None:
    driver = Driver(VirtioBlk(MemoryDisk(contents())))
    ring = driver.rings[0]
    header, status = *ring.pieces([struct.pack("<IIQ", IN, 0, 0)], []), *ring.pieces([], [1])
    ring.offer_pieces([header, (0x1000, 512, 2), status])
    assert driver.needs_reset


def test_a_snapshot_behind_the_device(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(contents())
    driver = Driver(VirtioBlk(SnapshotDisk(RawDisk(path, readonly=True))))
    assert request(driver, OUT, 7, data=b"n" * 512)[0] == OK
    assert request(driver, IN, 6, room=1536)[1] == b"\6" * 512 + b"n" * 512 + b"\x08" * 512
    assert path.read_bytes() == contents()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from([0, 1, 4, 8, 11, 13]), st.integers(0, 0xFFFF_FFFF)),
            st.one_of(st.integers(0, 70), st.integers(0, (1 << 64) - 1)),
            st.one_of(st.binary(max_size=40), st.sampled_from([bytes(512), bytes(1024), ranges((0, 1, 0))])),
            st.lists(st.integers(1, 1100), max_size=3),
        ),
        max_size=6,
    )
)
def test_any_requests(requests: list[tuple[int, int, bytes, list[int]]]) -> None:
    driver = Driver(VirtioBlk(MemoryDisk(contents())), queue_size=64)
    for kind, sector, data, writable in requests:
        header = struct.pack("<IIQ", kind, 0, sector)
        driver.rings[0].offer([header, data] if data else [header], writable)
        for done in driver.rings[0].collect():
            assert done.length <= len(done.data)
            assert done.data[-1] in (OK, IOERR, UNSUPP)
    assert driver.needs_reset == any(not writable for *_, writable in requests)
    assert len(driver.device.disk.data) == len(contents())


@pytest.mark.parametrize("sectors", [64, 1 << 24])
def test_a_request_for_almost_4_gib_is_refused_before_memory_is_looked_at(
    tmp_path: Path, sectors: int
) -> None:
    path = tmp_path / "sparse.img"
    path.touch()
    os.truncate(path, sectors * 512)
    driver = Driver(VirtioBlk(RawDisk(path)))
    ring = driver.rings[0]
    header, status = *ring.pieces([struct.pack("<IIQ", IN, 0, 0)], []), *ring.pieces([], [1])
    ring.offer_pieces([header, (RAM_BASE, 0xFFFF_FE00, 2), status])
    assert driver.memory.read(status[0], 1) == b"\1"
    assert not driver.needs_reset
