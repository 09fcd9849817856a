"""The symbols that a Linux kernel carries in itself, which are those of its /proc/kallsyms.

scripts/kallsyms.c of the Linux sources (6.4 and later) writes them into the read-only data, one piece behind
the other, each at a multiple of 8: the number of symbols, their names, markers (where every 256th name
begins), a table of 256 tokens of which the names are made, an index of that table, the symbols' distances
from a base, the base. Nothing says where they are; the tokens for the ten digits are found because they stand
in a line.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

__all__ = ["read_kallsyms"]

_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_TOKENS = 256
_PER_MARKER = 256
_MAX_NAME = 512
_ALIGN = 8


class _DamagedError(Exception):
    """This is not where the tables are, or they are not what they should be."""


def read_kallsyms(image: bytes | memoryview) -> list[tuple[int, str, str]]:
    """Address, type letter (as in nm) and name of all symbols of a kernel image, in the order of addresses.

    Addresses count from the lowest symbol. Empty if the image has no such tables, or of another form.
    """
    data = bytes(image)
    at = data.find(_DIGITS)
    while at >= 0:
        try:
            return _read(data, at)
        except (_DamagedError, struct.error, IndexError, ValueError):
            at = data.find(_DIGITS, at + 1)
    return []


def _read(data: bytes, digits: int) -> list[tuple[int, str, str]]:
    start = digits
    for _ in range(ord("0") + 1):
        start = data.rindex(b"\0", max(0, start - _MAX_NAME), start) if start else 0
    start += 1
    start = _aligned(start)
    tokens, end = [], start
    for _ in range(_TOKENS):
        stop = data.index(b"\0", end, end + _MAX_NAME)
        tokens.append(data[end:stop])
        end = stop + 1
    index = _aligned(end)
    places = struct.unpack_from(f"<{_TOKENS}H", data, index)
    if places[0] or start + places[ord("0")] != digits:
        raise _DamagedError
    markers, first_marker = _markers(data, start)
    count, names = _names(data, markers, first_marker)
    offsets = struct.unpack_from(f"<{count}I", data, _aligned(index + 2 * _TOKENS))
    if any(a > b for a, b in pairwise(offsets)):
        raise _DamagedError
    found = []
    for offset, name in zip(offsets, _entries(data, names, count), strict=True):
        text = b"".join([tokens[token] for token in name]).decode()
        found.append((offset - offsets[0], text[:1], text[1:]))
    return found


def _aligned(address: int) -> int:
    return -(-address // _ALIGN) * _ALIGN


def _markers(data: bytes, end: int) -> tuple[list[int], int]:
    """The markers that end before ``end``, and where they begin: they go up from 0."""
    found: list[int] = []
    at = end - 4
    if data[at : at + 4] == bytes(4):
        # Padding: there is an odd number of them.
        at -= 4
    while True:
        (value,) = struct.unpack_from("<I", data, at)
        if found and value >= found[-1]:
            raise _DamagedError
        found.append(value)
        if value == 0:
            return found[::-1], at
        at -= 4


def _names(data: bytes, markers: list[int], end: int) -> tuple[int, int]:
    """The number of symbols, and where their names begin; behind them, at ``end``, are the markers."""
    most = _PER_MARKER * len(markers)
    lowest = end - markers[-1] - _PER_MARKER * (2 + _MAX_NAME)
    highest = (end - markers[-1] - _ALIGN) // _ALIGN * _ALIGN
    for start in range(highest, max(_ALIGN, lowest) - 1, -_ALIGN):
        (count,) = struct.unpack_from("<Q", data, start - _ALIGN)
        if not most - _PER_MARKER < count <= most:
            continue
        at = start + markers[-1]
        for _ in range(count - (most - _PER_MARKER)):
            at = _behind(data, at)
        if _aligned(at) == end:
            return count, start
    raise _DamagedError


def _length(data: bytes, at: int) -> tuple[int, int]:
    """How many tokens a name has, and where they begin: long names have a length of two bytes."""
    length = data[at]
    if length & 0x80:
        return length & 0x7F | data[at + 1] << 7, at + 2
    return length, at + 1


def _behind(data: bytes, at: int) -> int:
    length, start = _length(data, at)
    return start + length


def _entries(data: bytes, at: int, count: int) -> Iterator[bytes]:
    for _ in range(count):
        length, start = _length(data, at)
        at = start + length
        yield data[start:at]
