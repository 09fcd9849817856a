"""Split virtqueues, the device's side. Source: VIRTIO 1.2, section 2.7.

A driver shares three areas of its memory with the device: the descriptor table, the available ring (driver
area) and the used ring (device area). Everything read from there is hostile: whatever breaks the rules raises
:class:`VirtqueueError`, which the transport turns into DEVICE_NEEDS_RESET.

The rings are read in bulk: one look takes over the index, all new ring entries and the whole descriptor
table. That is sound because a driver may not touch descriptors it has made available.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Mapping
from threading import Lock

from doppel.devices.device import GuestMemory
from doppel.errors import DoppelError

__all__ = ["Chain", "Piece", "Virtqueue", "VirtqueueError", "cut"]

DESC_F_NEXT, DESC_F_WRITE, DESC_F_INDIRECT = 1, 2, 4
AVAIL_F_NO_INTERRUPT = 1

_DESCRIPTOR = struct.Struct("<QIHH")
_USED_ELEMENT = struct.Struct("<II")
_MAX_CHAIN_BYTES = 1 << 32
# Section 2.7: the largest queue size, hence the longest indirect table that can be of use.
_MAX_TABLE_ENTRIES = 1 << 15
_INDEX = 0xFFFF

Piece = tuple[int, int]
"""Guest-physical address and length in bytes."""


class VirtqueueError(Exception):
    """The driver broke a rule of section 2.7; the device cannot go on without a reset."""


def cut(pieces: list[Piece], offset: int, length: int) -> list[Piece]:
    """The part of ``pieces`` from byte ``offset`` on, ``length`` bytes or as many as there are."""
    result = []
    for address, size in pieces:
        if offset >= size:
            offset -= size
            continue
        if length <= 0:
            break
        taken = min(size - offset, length)
        result.append((address + offset, taken))
        length -= taken
        offset = 0
    return result


class Chain:
    """One buffer that the driver made available: memory for the device to read, then memory to write."""

    __slots__ = ("head", "memory", "readable", "writable")

    def __init__(self, memory: GuestMemory, head: int, readable: list[Piece], writable: list[Piece]) -> None:
        self.memory = memory
        self.head = head
        self.readable = readable
        self.writable = writable

    @property
    def readable_length(self) -> int:
        """Bytes that the device may read."""
        return sum(length for _, length in self.readable)

    @property
    def writable_length(self) -> int:
        """Bytes that the device may write."""
        return sum(length for _, length in self.writable)

    def read(self, offset: int, length: int) -> bytes:
        """Copy out of the readable part; fewer bytes if it ends before. Callers bound ``length``."""
        return b"".join(self.memory.read(*piece) for piece in cut(self.readable, offset, length))

    def write(self, offset: int, data: bytes) -> int:
        """Copy into the writable part; the number of bytes that found room."""
        at = 0
        for address, length in cut(self.writable, offset, len(data)):
            self.memory.write(address, data[at : at + length])
            at += length
        return at

    def readable_segments(self, offset: int, length: int) -> list[memoryview]:
        """Host memory behind the readable part."""
        return self._segments(cut(self.readable, offset, length), write=False)

    def writable_segments(self, offset: int, length: int) -> list[memoryview]:
        """Host memory behind the writable part."""
        return self._segments(cut(self.writable, offset, length), write=True)

    def _segments(self, pieces: list[Piece], *, write: bool) -> list[memoryview]:
        segments = self.memory.segments
        return [view for address, length in pieces for view in segments(address, length, write=write)]


class Virtqueue:
    """One queue of a device. ``size`` and the addresses are the driver's; set ``ready`` through
    :meth:`enable`.
    """

    def __init__(self, memory: GuestMemory, index: int, max_size: int) -> None:
        self._memory = memory
        self.index = index
        self.max_size = max_size
        # A lock taken and released is the portable way to a full memory barrier between two accesses.
        self._fence = Lock()
        self.reset()

    def reset(self) -> None:
        """As after a reset of the device."""
        self.size = self.max_size
        self.ready = False
        self.descriptors = 0
        self.driver = 0
        self.device = 0
        self.event_idx = False
        self.indirect = False
        self.backlog = False
        """A budget ended before the available chains did."""
        self._start_rings()

    def _start_rings(self) -> None:
        self._next = 0
        self._used = 0
        self._signalled = 0
        self._asked: int | None = None
        self._heads: deque[int] = deque()
        self._table = b""

    def enable(self, *, event_idx: bool, indirect: bool) -> None:
        """Take over the driver's setting, with empty rings; VirtqueueError if it makes no sense (section
        2.7).
        """
        if not 0 < self.size <= self.max_size or self.size & (self.size - 1):
            raise VirtqueueError(f"queue {self.index} of {self.size} entries")
        if self.descriptors % 16 or self.driver % 2 or self.device % 4:
            raise VirtqueueError(f"queue {self.index} is not aligned")
        self.event_idx = event_idx
        self.indirect = indirect
        self._start_rings()
        self.ready = True

    def take(self, budget: int) -> Iterator[Chain]:
        """Every available chain, also those that come while earlier ones are served, but at most ``budget``.

        Without the bound, a guest could keep the device busy for ever from another hart. Sets ``backlog`` if
        the budget ended first.
        """
        self.backlog = False
        while budget > 0:
            chain = self.pop()
            if chain is None:
                return
            yield chain
            budget -= 1
        self.backlog = True

    def pop(self) -> Chain | None:
        """The next available chain, or None; then the driver is going to notify when there is one."""
        if not self._heads and not self._look():
            return None
        head = self._heads.popleft()
        chain = self._parse(head)
        self._next = self._next + 1 & _INDEX
        return chain

    def unpop(self, chain: Chain) -> None:
        """Give the chain that was popped last back, unused."""
        self._heads.appendleft(chain.head)
        self._next = self._next - 1 & _INDEX

    def push(self, chain: Chain, written: int) -> None:
        """The chain is used; ``written`` bytes from the start of its writable part were written (section
        2.7.8).
        """
        memory = self._memory
        element = self.device + 4 + 8 * (self._used % self.size)
        memory.write(element, _USED_ELEMENT.pack(chain.head, written))
        self._used = self._used + 1 & _INDEX
        memory.write_u16(self.device + 2, self._used)

    def wants_interrupt(self) -> bool:
        """Whether the driver asked to be told of what was pushed since the last call (section 2.7.7)."""
        if self._used == self._signalled:
            return False
        before, self._signalled = self._signalled, self._used
        with self._fence:
            pass
        if self.event_idx:
            event = self._memory.read_u16(self.driver + 4 + 2 * self.size)
            return (self._used - event - 1) & _INDEX < (self._used - before) & _INDEX
        return not self._memory.read_u16(self.driver) & AVAIL_F_NO_INTERRUPT

    def _look(self) -> bool:
        """Whether there are new chains; if not, the driver was asked to notify before that was found."""
        if self.event_idx and self._asked != self._next:
            # avail_event (section 2.7.10).
            self._memory.write_u16(self.device + 4 + 8 * self.size, self._next)
            self._asked = self._next
            with self._fence:
                pass
        return self._fetch()

    def _fetch(self) -> bool:
        """Take over the entries that are new in the available ring."""
        memory = self._memory
        count = memory.read_u16(self.driver + 2) - self._next & _INDEX
        if not count:
            return False
        if count > self.size:
            raise VirtqueueError(f"queue {self.index}: {count} chains available in a ring of {self.size}")
        with self._fence:
            pass
        start = self._next % self.size
        ring = self.driver + 4
        first = min(count, self.size - start)
        entries = memory.read(ring + 2 * start, 2 * first)
        if first < count:
            entries += memory.read(ring, 2 * (count - first))
        self._heads.extend(struct.unpack(f"<{count}H", entries))
        self._table = memory.read(self.descriptors, self.size * _DESCRIPTOR.size)
        return True

    def _parse(self, head: int) -> Chain:
        """Follow a chain through the table, and through at most one indirect table at its end (section
        2.7.5).
        """
        table = self._table
        entries = self.size
        nested = False
        readable: list[Piece] = []
        writable: list[Piece] = []
        index = head
        total = 0
        while True:
            if index >= entries:
                raise VirtqueueError(f"queue {self.index}: descriptor {index} of {entries}")
            address, length, flags, following = _DESCRIPTOR.unpack_from(table, index * _DESCRIPTOR.size)
            if flags & DESC_F_INDIRECT:
                if nested or not self.indirect or flags & DESC_F_NEXT:
                    raise VirtqueueError(f"queue {self.index}: an indirect table where none may be")
                entries, rest = divmod(length, _DESCRIPTOR.size)
                if rest or not 0 < entries <= _MAX_TABLE_ENTRIES:
                    raise VirtqueueError(f"queue {self.index}: an indirect table of {length} bytes")
                table = self._memory.read(address, length)
                nested = True
                index = 0
                continue
            if not length:
                raise VirtqueueError(f"queue {self.index}: a descriptor of no bytes")
            if flags & DESC_F_WRITE:
                writable.append((address, length))
            elif writable:
                raise VirtqueueError(f"queue {self.index}: a readable descriptor after a writable one")
            else:
                readable.append((address, length))
            total += length
            if len(readable) + len(writable) > self.size or total > _MAX_CHAIN_BYTES:
                raise VirtqueueError(f"queue {self.index}: a chain too long, or one that loops")
            if not flags & DESC_F_NEXT:
                return Chain(self._memory, head, readable, writable)
            index = following

    def save(self) -> dict[str, object]:
        """Addresses, size and ring positions; chains that were seen but not popped are seen again."""
        return {attribute.lstrip("_"): getattr(self, attribute) for attribute in _SAVED}

    def load(self, state: Mapping[str, object]) -> None:
        """Take over what :meth:`save` returned; DoppelError if this queue cannot have been in that state."""
        values = [state.get(attribute.lstrip("_")) for attribute in _SAVED]
        size = values[0]
        if not isinstance(size, int) or not 0 < size <= self.max_size:
            raise DoppelError(
                f"the saved queue {self.index} does not fit this device",
                "load it into a machine with the same configuration as the one that was saved",
            )
        self._start_rings()
        for attribute, value in zip(_SAVED, values, strict=True):
            if type(value) is not type(getattr(self, attribute)):
                raise DoppelError(
                    f"the saved state of queue {self.index} is damaged ({attribute.lstrip('_')})",
                    "use another snapshot",
                )
            setattr(self, attribute, value)


_SAVED = (
    "size",
    "ready",
    "descriptors",
    "driver",
    "device",
    "event_idx",
    "indirect",
    "_next",
    "_used",
    "_signalled",
)
