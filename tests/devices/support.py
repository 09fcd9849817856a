"""What the device tests share: guest memory over a bytearray, wires that remember, and a guest's virtio
driver.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import RLock

import msgspec

from doppel.devices.devicetree import DeviceTreeNode
from doppel.devices.virtio.device import VirtioDevice
from doppel.devices.virtio.mmio import VirtioMmio
from doppel.memory.view import GuestAddressError

RAM_BASE = 0x8000_0000
EVENT_IDX, INDIRECT, VERSION_1, RING_RESET = 1 << 29, 1 << 28, 1 << 32, 1 << 40


class FakeMemory:
    """Guest memory over a bytearray; ranges come in pieces that end at multiples of ``piece``."""

    def __init__(self, size: int = 1 << 20, piece: int = 0x3000) -> None:
        self.data = bytearray(size)
        self.piece = piece

    def _offset(self, address: int, length: int) -> int:
        offset = address - RAM_BASE
        if offset < 0 or length < 0 or offset + length > len(self.data):
            raise GuestAddressError(address, length)
        return offset

    def read(self, address: int, length: int) -> bytes:
        offset = self._offset(address, length)
        return bytes(self.data[offset : offset + length])

    def write(self, address: int, data: bytes | memoryview) -> None:
        offset = self._offset(address, len(data))
        self.data[offset : offset + len(data)] = data

    def segments(self, address: int, length: int, *, write: bool) -> list[memoryview]:
        offset = self._offset(address, length)
        end = offset + length
        view = memoryview(self.data)
        pieces = []
        while offset < end:
            stop = min(end, (offset // self.piece + 1) * self.piece)
            pieces.append(view[offset:stop] if write else view[offset:stop].toreadonly())
            offset = stop
        return pieces

    def read_u16(self, address: int) -> int:
        return int.from_bytes(self.read(address, 2), "little")

    def read_u32(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")

    def read_u64(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")

    def write_u16(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(2, "little"))

    def write_u32(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(4, "little"))

    def write_u64(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(8, "little"))


class Wire:
    """An interrupt line that remembers its level and how often it rose."""

    def __init__(self) -> None:
        self.level = False
        self.rises = 0
        self.taken: Callable[[], None] = int

    def set(self, level: bool) -> None:
        self.rises += level and not self.level
        self.level = level

    def on_taken(self, callback: Callable[[], None]) -> None:
        self.taken = callback

    def describe(self, node: DeviceTreeNode) -> None:
        node.set_cells("interrupts", 5)


class FakeClock:
    frequency = 10_000_000

    def __init__(self) -> None:
        self.ticks = 0
        self.wall = 1_700_000_000_000_000_000

    def now(self) -> int:
        return self.ticks

    def wall_ns(self) -> int:
        return self.wall


class FakeAlarm:
    def __init__(self) -> None:
        self.wall_ns: int | None = None
        self.ring: Callable[[], None] | None = None

    def set(self, wall_ns: int | None, ring: Callable[[], None]) -> None:
        self.wall_ns = wall_ns
        self.ring = ring


@dataclass
class FakeHarts:
    msip: dict[int, bool] = field(default_factory=dict)
    mtimecmp: dict[int, int] = field(default_factory=dict)
    meip: dict[int, bool] = field(default_factory=dict)
    seip: dict[int, bool] = field(default_factory=dict)

    def set_msip(self, hart: int, level: bool) -> None:
        self.msip[hart] = level

    def set_mtimecmp(self, hart: int, value: int) -> None:
        self.mtimecmp[hart] = value

    def set_meip(self, hart: int, level: bool) -> None:
        self.meip[hart] = level

    def set_seip(self, hart: int, level: bool) -> None:
        self.seip[hart] = level


@dataclass
class Buffer:
    """A chain that the driver made available."""

    head: int
    writable: list[tuple[int, int]]


@dataclass
class Done:
    """A chain that came back: bytes written as the device says, and the whole writable part."""

    head: int
    length: int
    data: bytes


class Ring:
    """The driver's side of one split virtqueue."""

    def __init__(self, driver: Driver, index: int, size: int) -> None:
        self.driver = driver
        self.index = index
        self.size = size
        self.memory = driver.memory
        self.descriptors = driver.allocate(16 * size, 16)
        self.available = driver.allocate(6 + 2 * size, 2)
        self.used = driver.allocate(6 + 8 * size, 4)
        self.free = list(range(size))
        self.buffers: dict[int, Buffer] = {}
        self.chains: dict[int, list[int]] = {}
        self.seen = 0

    def descriptor(self, index: int, address: int, length: int, flags: int, following: int = 0) -> None:
        self.memory.write(
            self.descriptors + 16 * index, struct.pack("<QIHH", address, length, flags, following)
        )

    def publish(self, *heads: int) -> None:
        index = self.memory.read_u16(self.available + 2)
        for head in heads:
            self.memory.write_u16(self.available + 4 + 2 * (index % self.size), head)
            index = (index + 1) & 0xFFFF
        self.memory.write_u16(self.available + 2, index)

    def kick(self) -> None:
        self.driver.write(0x050, self.index)

    def pieces(self, readable: list[bytes], writable: list[int]) -> list[tuple[int, int, int]]:
        result = []
        for data in readable:
            address = self.driver.allocate(len(data), 1)
            self.memory.write(address, data)
            result.append((address, len(data), 0))
        for length in writable:
            address = self.driver.allocate(length, 1)
            self.memory.write(address, b"\xcc" * length)
            result.append((address, length, 2))
        return result

    def offer(
        self, readable: list[bytes], writable: list[int] = (), *, indirect: bool = False, kick: bool = True
    ) -> int:
        """Make a chain of these pieces available; its head."""
        return self.offer_pieces(self.pieces(readable, list(writable)), indirect=indirect, kick=kick)

    def offer_pieces(
        self, pieces: list[tuple[int, int, int]], *, indirect: bool = False, kick: bool = True
    ) -> int:
        count = len(pieces)
        if indirect:
            table = self.driver.allocate(16 * count, 16)
            for at, (address, length, flags) in enumerate(pieces):
                last = at == count - 1
                entry = struct.pack("<QIHH", address, length, flags | (not last), 0 if last else at + 1)
                self.memory.write(table + 16 * at, entry)
            indices = [self.free.pop()]
            self.descriptor(indices[0], table, 16 * count, 4)
        else:
            indices = [self.free.pop() for _ in pieces]
            for at, (address, length, flags) in enumerate(pieces):
                last = at == count - 1
                self.descriptor(
                    indices[at], address, length, flags | (not last), 0 if last else indices[at + 1]
                )
        head = indices[0]
        writable = [(address, length) for address, length, flags in pieces if flags & 2]
        self.buffers[head] = Buffer(head, writable)
        self.chains[head] = indices
        self.publish(head)
        if kick:
            self.kick()
        return head

    def collect(self) -> list[Done]:
        """The chains that came back since the last call."""
        done = []
        while self.seen != self.memory.read_u16(self.used + 2):
            head, length = struct.unpack(
                "<II", self.memory.read(self.used + 4 + 8 * (self.seen % self.size), 8)
            )
            buffer = self.buffers.pop(head)
            self.free += self.chains.pop(head)
            data = b"".join(self.memory.read(*piece) for piece in buffer.writable)
            done.append(Done(head, length, data))
            self.seen = (self.seen + 1) & 0xFFFF
        # used_event: interrupt when the next chain comes back.
        self.memory.write_u16(self.available + 4 + 2 * self.size, self.seen)
        return done


class Driver:
    """A guest's driver for one virtio-mmio device, with a bump allocator for its memory."""

    def __init__(
        self,
        device: VirtioDevice,
        *,
        features: int | None = None,
        refused: int = 0,
        queue_size: int = 16,
        start: bool = True,
        memory: FakeMemory | None = None,
    ) -> None:
        self.memory = memory or FakeMemory()
        self.wire = Wire()
        self.lock = RLock()
        self.device = device
        self.transport = VirtioMmio(device, self.memory, self.wire, self.lock, name="virtio")
        self.next = RAM_BASE + 0x100
        self.rings: list[Ring] = []
        if start:
            self.negotiate(features, refused)
            self.set_up(queue_size)
            self.write_status(4)

    def moved_to(self, device: VirtioDevice) -> Driver:
        """The same guest on another machine: the saved state, encoded and decoded, loaded into ``device``."""
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(self.transport.save()))
        copy = Driver(device, start=False, memory=self.memory)
        copy.transport.load(state)
        assert copy.transport.save() == self.transport.save()
        copy.next = self.next
        copy.rings = self.rings
        for ring in copy.rings:
            ring.driver = copy
        return copy

    def read(self, offset: int) -> int:
        return self.transport.read(offset, 4)

    def write(self, offset: int, value: int) -> None:
        self.transport.write(offset, 4, value)

    def allocate(self, length: int, alignment: int) -> int:
        address = -(-self.next // alignment) * alignment
        self.next = address + length
        return address

    @property
    def status(self) -> int:
        return self.read(0x070)

    def write_status(self, bits: int) -> None:
        self.write(0x070, self.status | bits)

    @property
    def needs_reset(self) -> bool:
        return bool(self.status & 0x40)

    def offered(self) -> int:
        self.write(0x014, 1)
        high = self.read(0x010)
        self.write(0x014, 0)
        return high << 32 | self.read(0x010)

    def negotiate(self, features: int | None = None, refused: int = 0) -> bool:
        """Accept ``features`` (by default all offered but ``refused``); whether the device agreed."""
        self.write(0x070, 0)
        self.write_status(1)
        self.write_status(2)
        accepted = self.offered() & ~refused if features is None else features
        for word in (0, 1):
            self.write(0x024, word)
            self.write(0x020, accepted >> 32 * word & 0xFFFF_FFFF)
        self.write_status(8)
        return bool(self.status & 8)

    def set_up(self, queue_size: int) -> None:
        self.rings = []
        for index in range(len(self.device.queue_sizes)):
            self.write(0x030, index)
            size = min(queue_size, self.read(0x034))
            ring = Ring(self, index, size)
            self.rings.append(ring)
            self.write(0x038, size)
            for register, address in ((0x080, ring.descriptors), (0x090, ring.available), (0x0A0, ring.used)):
                self.write(register, address & 0xFFFF_FFFF)
                self.write(register + 4, address >> 32)
            self.write(0x044, 1)

    def interrupts(self) -> int:
        """InterruptStatus, acknowledged."""
        status = self.read(0x060)
        self.write(0x064, status)
        return status
