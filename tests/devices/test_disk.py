from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.devices.backends import disk as disk_module
from doppel.devices.backends.disk import Disk, MemoryDisk, RawDisk, SnapshotDisk
from doppel.errors import DoppelError

CLUSTER = 65536


def read(disk: Disk, offset: int, length: int) -> bytes:
    data = bytearray(length)
    disk.readv(offset, [memoryview(data)])
    return bytes(data)


def pattern(length: int, seed: int = 1) -> bytes:
    return bytes((seed + at * 7 + at // 512) & 0xFF for at in range(length))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(pattern(4 * CLUSTER + 512))
    return path


class TestRawDisk:
    def test_reads_and_writes_the_file(self, image: Path) -> None:
        disk = RawDisk(image)
        assert disk.size == 4 * CLUSTER + 512
        assert read(disk, 512, 1024) == image.read_bytes()[512:1536]
        disk.writev(1024, [memoryview(b"a" * 100), memoryview(b"b" * 412)])
        disk.flush()
        assert image.read_bytes()[1024:1536] == b"a" * 100 + b"b" * 412
        disk.close()
        disk.close()

    def test_more_pieces_than_one_system_call_takes(self, image: Path) -> None:
        disk = RawDisk(image)
        data = bytearray(3000 * 16)
        view = memoryview(data)
        disk.readv(0, [view[at : at + 16] for at in range(0, len(data), 16)])
        assert data == image.read_bytes()[: len(data)]
        disk.writev(512, [view[at : at + 16] for at in range(0, len(data), 16)])
        assert read(disk, 512, len(data)) == data

    def test_short_transfers_are_continued(self, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.preadv

        def short(fd: int, buffers: list[memoryview], offset: int) -> int:
            return real(fd, [buffers[0][:100]], offset)

        disk = RawDisk(image)
        monkeypatch.setattr(disk_module.os, "preadv", short)
        assert read(disk, 512, 1000) == image.read_bytes()[512:1512]

    def test_a_file_that_was_truncated(self, image: Path) -> None:
        disk = RawDisk(image)
        os.truncate(image, 1024)
        with pytest.raises(OSError) as error:
            read(disk, 1024, 512)
        assert error.value.errno == errno.EIO

    def test_read_only(self, image: Path) -> None:
        before = image.read_bytes()
        image.chmod(0o444)
        disk = RawDisk(image, readonly=True)
        with pytest.raises(OSError):
            disk.writev(0, [memoryview(b"x" * 512)])
        disk.flush()
        assert image.read_bytes() == before

    def test_flush_only_when_something_was_written(
        self, image: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[int] = []
        monkeypatch.setattr(disk_module.os, "fdatasync", calls.append)
        disk = RawDisk(image)
        disk.flush()
        disk.writev(0, [memoryview(b"x" * 512)])
        disk.flush()
        disk.flush()
        assert len(calls) == 1
        disk.close()
        careless = RawDisk(image, durable=False)
        careless.writev(0, [memoryview(b"x" * 512)])
        careless.flush()
        assert len(calls) == 1

    @pytest.mark.parametrize("unmap", [False, True])
    @pytest.mark.parametrize("holes", [False, True])
    def test_write_zeroes(
        self, image: Path, unmap: bool, holes: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not holes:
            monkeypatch.setattr(disk_module, "_punch_hole", lambda fd, offset, length: False)
        before = image.read_bytes()
        disk = RawDisk(image)
        disk.write_zeroes(512, 2 * CLUSTER, unmap=unmap)
        after = image.read_bytes()
        assert after[512 : 512 + 2 * CLUSTER] == bytes(2 * CLUSTER)
        assert after[:512] == before[:512]
        assert after[512 + 2 * CLUSTER :] == before[512 + 2 * CLUSTER :]

    def test_discard_gives_room_back(self, tmp_path: Path) -> None:
        path = tmp_path / "big.img"
        path.write_bytes(b"x" * (1 << 20))
        os.sync()
        disk = RawDisk(path)
        used = path.stat().st_blocks
        disk.discard(0, 1 << 20)
        disk.flush()
        assert path.stat().st_size == 1 << 20
        if used:
            assert path.stat().st_blocks < used

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DoppelError, match=r"no disk image .*truncate"):
            RawDisk(tmp_path / "none.img")

    @pytest.mark.parametrize("readonly", [False, True])
    def test_directory(self, tmp_path: Path, readonly: bool) -> None:
        with pytest.raises(DoppelError, match="is a directory"):
            RawDisk(tmp_path, readonly=readonly)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may open anything")
    def test_permission(self, image: Path) -> None:
        image.chmod(0o444)
        with pytest.raises(DoppelError, match="read-only"):
            RawDisk(image)

    def test_permission_hint(self, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*arguments: object) -> int:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(disk_module.os, "open", refuse)
        with pytest.raises(DoppelError, match="read-only"):
            RawDisk(image)

    @pytest.mark.parametrize("size", [0, 511, 1000])
    def test_sizes_that_are_not_whole_sectors(self, tmp_path: Path, size: int) -> None:
        path = tmp_path / "odd.img"
        path.write_bytes(bytes(size))
        with pytest.raises(DoppelError, match=f"has {size} bytes"):
            RawDisk(path)

    def test_named_pipes_are_not_waited_for(self, tmp_path: Path) -> None:
        path = tmp_path / "pipe"
        os.mkfifo(path)
        with pytest.raises(DoppelError, match="not a disk image"):
            RawDisk(path, readonly=True)

    def test_writers_exclude_each_other(self, image: Path) -> None:
        first = RawDisk(image)
        with pytest.raises(DoppelError, match="in use"):
            RawDisk(image)
        with pytest.raises(DoppelError, match="in use"):
            RawDisk(image, readonly=True)
        first.close()
        readers = [RawDisk(image, readonly=True) for _ in range(2)]
        with pytest.raises(DoppelError, match="in use"):
            RawDisk(image)
        for reader in readers:
            reader.close()
        RawDisk(image).close()

    def test_file_systems_without_locks(self, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(fd: int, how: int) -> None:
            raise OSError(errno.ENOTSUP, "not supported")

        monkeypatch.setattr(fcntl, "flock", refuse)
        RawDisk(image).close()


class TestSnapshotDisk:
    def test_the_base_is_left_alone(self, image: Path) -> None:
        before = image.read_bytes()
        disk = SnapshotDisk(RawDisk(image, readonly=True))
        disk.writev(1000 * 512 % disk.size, [memoryview(b"x" * 512)])
        disk.writev(0, [memoryview(b"y" * disk.size)])
        disk.write_zeroes(512, 1024, unmap=True)
        disk.discard(0, disk.size)
        disk.flush()
        assert image.read_bytes() == before
        disk.close()
        disk.close()

    def test_two_snapshots_of_one_base(self, image: Path) -> None:
        disks = [SnapshotDisk(RawDisk(image, readonly=True)) for _ in range(2)]
        disks[0].writev(512, [memoryview(b"0" * 512)])
        disks[1].writev(512, [memoryview(b"1" * 512)])
        assert [read(disk, 512, 512) for disk in disks] == [b"0" * 512, b"1" * 512]

    def test_no_file_stays_behind(self, image: Path, tmp_path: Path) -> None:
        directory = tmp_path / "temporary"
        directory.mkdir()
        disk = SnapshotDisk(RawDisk(image, readonly=True), directory=directory)
        disk.writev(0, [memoryview(b"x" * 512)])
        assert list(directory.iterdir()) == []

    def test_no_room_for_the_temporary_file(self, image: Path, tmp_path: Path) -> None:
        with pytest.raises(DoppelError, match="TMPDIR"):
            SnapshotDisk(RawDisk(image, readonly=True), directory=tmp_path / "missing")

    def test_only_written_clusters_take_room(self, tmp_path: Path) -> None:
        path = tmp_path / "sparse.img"
        path.touch()
        os.truncate(path, 1 << 40)
        disk = SnapshotDisk(RawDisk(path, readonly=True))
        disk.writev((1 << 39) + 512, [memoryview(b"z" * 512)])
        assert os.fstat(disk._fd).st_blocks * 512 <= 4 * CLUSTER
        assert read(disk, 1 << 39, 1536) == bytes(512) + b"z" * 512 + bytes(512)


def test_memory_disk() -> None:
    disk = MemoryDisk(b"hello", size=1024)
    assert read(disk, 0, 8) == b"hello\0\0\0"
    disk.writev(512, [memoryview(b"abc"), memoryview(b"def")])
    assert disk.data[512:518] == b"abcdef"
    disk.discard(0, 512)
    disk.flush()
    disk.close()
    for arguments in ((b"",), (b"x",), (b"x" * 600, 512), (b"", 100)):
        with pytest.raises(DoppelError):
            MemoryDisk(arguments[0], size=arguments[1] if len(arguments) > 1 else None)


SECTORS = 3 * CLUSTER // 512 + 5


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["write", "zero", "unmap", "read"]),
            st.integers(0, SECTORS - 1),
            st.sampled_from([1, 2, 127, 128, 129, 256, SECTORS]),
            st.integers(1, 4),
        ),
        max_size=12,
    )
)
def test_disks_agree(steps: list[tuple[str, int, int, int]]) -> None:
    contents = pattern(SECTORS * 512)
    model = bytearray(contents)
    base = MemoryDisk(contents)
    disk = SnapshotDisk(base)
    for kind, sector, count, pieces in steps:
        offset, length = sector * 512, min(count, SECTORS - sector) * 512
        if kind == "write":
            data = pattern(length, seed=sector + count)
            step = length // pieces // 2 * 2 or length
            disk.writev(offset, [memoryview(data)[at : at + step] for at in range(0, length, step)])
            model[offset : offset + length] = data
        elif kind == "read":
            assert read(disk, offset, length) == model[offset : offset + length]
        else:
            disk.write_zeroes(offset, length, unmap=kind == "unmap")
            model[offset : offset + length] = bytes(length)
    assert read(disk, 0, len(model)) == model
    assert base.data == contents
    disk.close()
