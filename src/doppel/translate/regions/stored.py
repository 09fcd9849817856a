"""A compiled region as it is kept: what it was made from, its code, and both as bytes.

A region is found again through its *anchor*: which 64-byte chunk of the guest page holds its entry, and the
hash of that chunk. That only says where to look: whether a region fits is decided by comparing all guest
bytes it was made from. A hash of 32 bits is therefore enough, and CRC-32 is the fastest that Python's library
has and that is the same in every process (a page in 8 to 11 us; BLAKE2 takes 27, MD5 29).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

__all__ = ["CHUNKS", "CHUNK_BYTES", "PAGE_BYTES", "StoredRegion", "chunk_hashes", "pack", "unpack"]

PAGE_BYTES = 4096
CHUNK_BYTES = 64
CHUNKS = PAGE_BYTES // CHUNK_BYTES

_split = struct.Struct(f"{CHUNK_BYTES}s" * CHUNKS).unpack
# Numbers of ranges and entries, bytes of guest code and extra; what is left is the code.
_HEAD = struct.Struct("<HHII")


def chunk_hashes(page: bytes | memoryview) -> Sequence[int]:
    """The hashes, 32 bits each, of the 64 chunks of a page; `struct.error` if it is no page of 4096 bytes."""
    return list(map(crc32, _split(page)))


@dataclass(frozen=True, slots=True)
class StoredRegion:
    """Host code and the guest bytes that it was compiled from.

    All offsets are bytes from the start of the guest page that holds the entry; those of `ranges` and
    `entries` may lie in pages before and after it. `guest` is the bytes of all `ranges`, joined.
    `extra` belongs to the caller.
    """

    chunk: int
    chunk_hash: int
    ranges: tuple[tuple[int, int], ...]
    guest: bytes
    entries: tuple[int, ...]
    code: bytes
    extra: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.chunk < CHUNKS or not 0 <= self.chunk_hash < 1 << 32:
            raise ValueError(f"no anchor: chunk {self.chunk}, hash {self.chunk_hash:#x}")
        if sum(length for _, length in self.ranges) != len(self.guest):
            raise ValueError(f"the ranges {self.ranges} are not {len(self.guest)} bytes long")

    @property
    def anchor(self) -> int:
        """Chunk and hash as one number of 38 bits."""
        return self.chunk << 32 | self.chunk_hash

    def fits(self, page: bytes | memoryview) -> bool:
        """Whether the part of the ranges that lies in the anchor's page has the same bytes as `page`."""
        position = 0
        for offset, length in self.ranges:
            low, high = max(offset, 0), min(offset + length, PAGE_BYTES)
            start = position - offset
            if low < high and page[low:high] != self.guest[start + low : start + high]:
                return False
            position += length
        return True

    def identity(self) -> int:
        """A signed number of 64 bits, the same for regions that are made from the same bytes."""
        digest = hashlib.blake2b(self.guest, digest_size=8)
        digest.update(_ranges(self.ranges))
        return int.from_bytes(digest.digest(), "little", signed=True)


def pack(region: StoredRegion) -> bytes:
    """A region without its anchor as bytes; `struct.error` if an offset does not fit 32 bits."""
    head = _HEAD.pack(len(region.ranges), len(region.entries), len(region.guest), len(region.extra))
    entries = struct.pack(f"<{len(region.entries)}i", *region.entries)
    return b"".join((head, _ranges(region.ranges), entries, region.guest, region.extra, region.code))


def unpack(anchor: int, content: bytes) -> StoredRegion:
    """What `pack` made; `struct.error` or `ValueError` if it was something else."""
    ranges_count, entries_count, guest_size, extra_size = _HEAD.unpack_from(content)
    numbers = struct.unpack_from(f"<{2 * ranges_count + entries_count}i", content, _HEAD.size)
    guest = _HEAD.size + 4 * len(numbers)
    extra = guest + guest_size
    code = extra + extra_size
    if code > len(content):
        raise ValueError(f"{len(content)} bytes are too few")
    return StoredRegion(
        chunk=anchor >> 32,
        chunk_hash=anchor & 0xFFFF_FFFF,
        ranges=tuple(zip(numbers[: 2 * ranges_count : 2], numbers[1 : 2 * ranges_count : 2], strict=True)),
        guest=content[guest:extra],
        entries=numbers[2 * ranges_count :],
        code=content[code:],
        extra=content[extra:code],
    )


def _ranges(ranges: tuple[tuple[int, int], ...]) -> bytes:
    return struct.pack(f"<{2 * len(ranges)}i", *(number for one in ranges for number in one))
