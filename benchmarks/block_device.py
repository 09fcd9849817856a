"""Throughput of the virtio block device from and to the page cache, without any guest: the device alone."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock

from benchmarks.images import MIB, write_image
from benchmarks.measure import DOPPEL, Benchmark, BenchmarkError, Measured, Metric, Settings
from doppel.devices.backends.disk import Disk, RawDisk, SnapshotDisk
from doppel.devices.devicetree import DeviceTreeNode
from doppel.devices.virtio.blk import VirtioBlk
from doppel.devices.virtio.mmio import VirtioMmio
from doppel.memory.fmap import FMap
from doppel.memory.frames import FramePool
from doppel.memory.pager import ZeroPager
from doppel.memory.view import GuestMemory

__all__ = ["BLOCK_DEVICE"]

RAM_BASE = 0x8000_0000
RAM_SIZE = 64 << 20
RING = RAM_BASE
TABLES = RAM_BASE + 0x10_0000
BUFFER = RAM_BASE + 0x100_0000
QUEUE_SIZE = 256
FEATURES = 1 << 9 | 1 << 28 | 1 << 29 | 1 << 32
KIB = 1 << 10
IMAGE_SIZE = 128 * MIB
T_IN, T_OUT = 0, 1


class Unconnected:
    """An interrupt line that leads nowhere."""

    def set(self, level: bool) -> None:
        return

    def on_taken(self, callback: Callable[[], None]) -> None:
        return

    def describe(self, node: DeviceTreeNode) -> None:
        return


@contextmanager
def guest_memory() -> Iterator[GuestMemory]:
    pool = FramePool(RAM_SIZE)
    fmap = FMap((RAM_BASE + RAM_SIZE) >> 12)
    fmap.add_memory(RAM_BASE >> 12, RAM_SIZE >> 12)
    try:
        yield GuestMemory(fmap, pool, ZeroPager(fmap, pool))
    finally:
        fmap.close()
        pool.close()


class Driver:
    """A driver that has one request under way at a time, through an indirect table as Linux does it."""

    def __init__(self, memory: GuestMemory, disk: Disk) -> None:
        self.memory = memory
        self.device = VirtioMmio(VirtioBlk(disk), memory, Unconnected(), RLock(), name="virtio0")
        self.index = 0
        self.write(0x070, 0)
        for word in (0, 1):
            self.write(0x024, word)
            self.write(0x020, FEATURES >> 32 * word & 0xFFFF_FFFF)
        self.write(0x070, 0xB)
        self.write(0x038, QUEUE_SIZE)
        for register, offset in ((0x080, 0), (0x090, 0x2000), (0x0A0, 0x4000)):
            self.write(register, RING + offset)
        self.memory.write(RING, bytes(0x6000))
        self.write(0x044, 1)
        self.write(0x070, 0xF)

    def write(self, register: int, value: int) -> None:
        self.device.write(register, 4, value)

    def table(self, length: int, piece: int, *, write: bool) -> int:
        """An indirect table for a request of ``length`` bytes in pieces; the number of its entries."""
        entries = [(TABLES + 0xF000, 16, 1)]
        # Every other piece of memory, so that pieces are not adjacent.
        entries += [
            (BUFFER + 2 * at, min(piece, length - at), 1 if write else 3) for at in range(0, length, piece)
        ]
        entries.append((TABLES + 0xF800, 1, 2))
        for at, (address, size, flags) in enumerate(entries):
            self.memory.write(TABLES + 16 * at, struct.pack("<QIHH", address, size, flags, at + 1))
        return len(entries)

    def request(self, kind: int, sector: int, entries: int) -> None:
        memory = self.memory
        memory.write(TABLES + 0xF000, struct.pack("<IIQ", kind, 0, sector))
        head = self.index % QUEUE_SIZE
        memory.write(RING + 16 * head, struct.pack("<QIHH", TABLES, 16 * entries, 4, 0))
        memory.write_u16(RING + 0x2004 + 2 * head, head)
        self.index = self.index + 1 & 0xFFFF
        memory.write_u16(RING + 0x2002, self.index)
        self.write(0x050, 0)

    def run(self, kind: int, total: int, length: int, piece: int) -> float:
        """Bytes per second, reading or writing ``total`` bytes in requests of ``length`` bytes."""
        entries = self.table(length, piece, write=kind == T_OUT)
        started = time.perf_counter()
        for offset in range(0, total, length):
            self.request(kind, offset // 512, entries)
        seconds = time.perf_counter() - started
        if self.memory.read(TABLES + 0xF800, 1) != b"\0" or self.device.failure:
            raise BenchmarkError(f"a request to the block device failed: {self.device.failure}")
        return total / seconds


@dataclass(frozen=True)
class _Pattern:
    """Requests of one kind; ``piece`` is the length of their memory's pieces, in bytes."""

    key: str
    title: str
    kind: int
    length: int
    piece: int


PATTERNS = (
    _Pattern("read-4k", "read, 4 KiB a request", T_IN, 4 * KIB, 4 * KIB),
    _Pattern("read-128k", "read, 128 KiB in scattered pages", T_IN, 128 * KIB, 4 * KIB),
    _Pattern("read-1m", "read, 1 MiB in one piece", T_IN, MIB, MIB),
    _Pattern("write-128k", "write, 128 KiB in scattered pages", T_OUT, 128 * KIB, 4 * KIB),
    _Pattern("write-1m", "write, 1 MiB in one piece", T_OUT, MIB, MIB),
)


@dataclass(frozen=True)
class _Device:
    drivers: dict[str, Driver]
    total: int
    name: str = DOPPEL

    def measure(self) -> Measured:
        return {
            f"{disk}-{pattern.key}": driver.run(
                pattern.kind,
                # Small requests take longer and need no more repetition to be timed.
                self.total if pattern.length > 4 * KIB else max(MIB, self.total // 8),
                pattern.length,
                pattern.piece,
            )
            / 1e6
            for disk, driver in self.drivers.items()
            for pattern in PATTERNS
        }


@contextmanager
def _subjects(settings: Settings) -> Iterator[Sequence[_Device]]:
    paths = [settings.folder / name for name in ("raw.img", "snapshot.img")]
    total, _ = (write_image(path, settings.scaled(IMAGE_SIZE)) for path in paths)
    raw = RawDisk(paths[0])
    snapshot = SnapshotDisk(RawDisk(paths[1], readonly=True))
    try:
        with guest_memory() as first, guest_memory() as second:
            yield [_Device({"raw": Driver(first, raw), "snapshot": Driver(second, snapshot)}, total)]
    finally:
        raw.close()
        snapshot.close()
        for path in paths:
            path.unlink()


BLOCK_DEVICE = Benchmark(
    "block-device",
    "virtio-blk without a guest: the device alone, from and to the page cache",
    tuple(
        Metric(f"{disk}-{pattern.key}", f"{disk}: {pattern.title}", "MB/s", "higher")
        for disk in ("raw", "snapshot")
        for pattern in PATTERNS
    ),
    _subjects,
)
