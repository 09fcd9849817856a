"""Throughput of the virtio block device from and to the page cache, without any guest: the device alone.

Run with: python benchmarks/devices_blk.py [MiB]. Prints one line per kind and size of request.
"""

from __future__ import annotations

import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from doppel.devices.backends.disk import Disk, RawDisk, SnapshotDisk
from doppel.devices.devicetree import DeviceTreeNode
from doppel.devices.virtio.blk import VirtioBlk
from doppel.devices.virtio.mmio import VirtioMmio
from doppel.memory.fmap import FMap
from doppel.memory.frames import FramePool
from doppel.memory.pager import ZeroPager
from doppel.memory.view import GuestMemory

RAM_BASE = 0x8000_0000
RAM_SIZE = 64 << 20
RING = RAM_BASE
TABLES = RAM_BASE + 0x10_0000
BUFFER = RAM_BASE + 0x100_0000
QUEUE_SIZE = 256
FEATURES = 1 << 9 | 1 << 28 | 1 << 29 | 1 << 32
MIB = 1 << 20


class Unconnected:
    """An interrupt line that leads nowhere."""

    def set(self, level: bool) -> None:
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


class Bench:
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
        """Bytes per second, reading or writing ``total`` bytes sequentially."""
        entries = self.table(length, piece, write=kind == 1)
        started = time.perf_counter()
        for offset in range(0, total, length):
            self.request(kind, offset // 512, entries)
        seconds = time.perf_counter() - started
        if self.memory.read(TABLES + 0xF800, 1) != b"\0" or self.device.failure:
            raise SystemExit(f"the request failed: {self.device.failure}")
        return total / seconds


def measure(title: str, bench: Bench, total: int) -> None:
    for kind, verb in ((0, "read"), (1, "write")):
        for length, piece in (
            (4096, 4096),
            (128 << 10, 4096),
            (128 << 10, 128 << 10),
            (MIB, 8192),
            (MIB, MIB),
        ):
            amount = min(total, 16 * MIB) if length == 4096 else total
            rate = max(bench.run(kind, amount, length, piece) for _ in range(3))
            size = f"{length >> 10:5} KiB in pieces of {piece >> 10:4} KiB"
            print(f"{title:9} {verb:5} {size}: {rate / MIB:8.0f} MiB/s")


def main() -> None:
    total = (int(sys.argv[1]) if len(sys.argv) > 1 else 128) * MIB
    with tempfile.NamedTemporaryFile(suffix=".img") as image, guest_memory() as memory:
        for _ in range(total // MIB):
            image.write(b"doppel.." * (MIB // 8))
        image.flush()
        disk = RawDisk(image.name)
        measure("raw", Bench(memory, disk), total)
        disk.close()
        snapshot = SnapshotDisk(RawDisk(image.name, readonly=True))
        measure("snapshot", Bench(memory, snapshot), total)
        snapshot.close()


if __name__ == "__main__":
    main()
