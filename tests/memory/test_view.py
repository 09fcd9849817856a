"""Guest memory as devices see it: pieces that cover exactly, through any f-map, and no address does harm."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from doppel.memory.entry import PAGE_SIZE, Entry
from doppel.memory.fmap import FMap
from doppel.memory.frames import FramePool
from doppel.memory.pager import ZeroPager
from doppel.memory.view import GuestAddressError, GuestMemory

# Two areas with a hole between.
LOW, HIGH = 16, 40
PAGES = 8
BASE = LOW * PAGE_SIZE
END = (LOW + PAGES) * PAGE_SIZE
UPPER = HIGH * PAGE_SIZE


class Memory:
    """Guest memory of two areas whose pages have frames in a given order, or none yet."""

    def __init__(self, order: list[int] | None = None) -> None:
        self.pool = FramePool(4 * PAGES * PAGE_SIZE)
        self.fmap = FMap(HIGH + PAGES)
        self.fmap.add_memory(LOW, PAGES)
        self.fmap.add_memory(HIGH, PAGES)
        self.pager = ZeroPager(self.fmap, self.pool)
        self.written: list[tuple[int, int]] = []
        self.view = GuestMemory(self.fmap, self.pool, self.pager, self.forget)
        if order is not None:
            frames = self.pool.allocate(2 * PAGES)
            for number, frame in enumerate(order):
                page = LOW + number if number < PAGES else HIGH + number - PAGES
                self.fmap.map(page, frames + frame * PAGE_SIZE)

    def forget(self, address: int, length: int) -> None:
        self.written.append((address, length))
        self.fmap.forget_code(address // PAGE_SIZE)

    def close(self) -> None:
        self.fmap.close()
        self.pool.close()


orders = st.one_of(st.none(), st.just(list(range(2 * PAGES))), st.permutations(range(2 * PAGES)))
addresses = st.one_of(st.integers(BASE, END), st.integers(UPPER, UPPER + PAGES * PAGE_SIZE))
near_edges = st.builds(
    lambda page, step: page * PAGE_SIZE + step, st.integers(LOW - 1, LOW + PAGES + 1), st.integers(-9, 9)
)
lengths = st.one_of(st.integers(0, 20), st.integers(0, 3 * PAGE_SIZE))


def inside(address: int, length: int) -> bool:
    return any(
        first * PAGE_SIZE <= address and address + length <= (first + PAGES) * PAGE_SIZE
        for first in (LOW, HIGH)
    )


@given(order=orders, address=addresses | near_edges, length=lengths, write=st.booleans())
@settings(max_examples=150, deadline=None)
def test_segments_cover_the_range_exactly(
    order: list[int] | None, address: int, length: int, write: bool
) -> None:
    memory = Memory(order)
    if length == 0 or inside(address, length):
        fill_pieces(memory, address, length, write)
    else:
        with pytest.raises(GuestAddressError) as caught:
            memory.view.segments(address, length, write=write)
        assert (caught.value.address, caught.value.length) == (address, length)
    memory.close()


def fill_pieces(memory: Memory, address: int, length: int, write: bool) -> None:
    """Each byte of the pieces must be the byte of its page's frame."""
    pieces = memory.view.segments(address, length, write=write)
    assert sum(len(piece) for piece in pieces) == length
    assert all(len(piece) and not piece.readonly for piece in pieces)
    for index, piece in enumerate(pieces):
        piece[:] = bytes([index + 1]) * len(piece)
    at = address
    for index, piece in enumerate(pieces):
        for _ in range(len(piece)):
            assert memory.pool.view[memory.fmap.frame(at // PAGE_SIZE) + at % PAGE_SIZE] == index + 1
            at += 1
    # Few and large: neighbours in both worlds are one piece.
    frames = [memory.fmap.frame(page) for page in range(address // PAGE_SIZE, (at - 1) // PAGE_SIZE + 1)]
    jumps = sum(b != a + PAGE_SIZE for a, b in itertools.pairwise(frames))
    assert len(pieces) == (jumps + 1 if length else 0)


@given(order=orders, address=addresses, data=st.binary(max_size=3 * PAGE_SIZE), around=st.integers(0, 64))
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read(order: list[int] | None, address: int, data: bytes, around: int) -> None:
    assume(not data or inside(address, len(data)))
    memory = Memory(order)
    memory.view.write(address, data)
    assert memory.view.read(address, len(data)) == data
    start, end = max(BASE, address - around), min(END, address + len(data) + around)
    if BASE <= address < END and data:
        everything = memory.view.read(start, end - start)
        assert everything == bytes(address - start) + data + bytes(end - address - len(data))
    memory.close()


@pytest.mark.parametrize(
    "address",
    [
        0,
        BASE - 1,
        -1,
        -8,
        -PAGE_SIZE,
        -UPPER,
        END,
        END - 4,
        (1 << 64) - 4,
        (1 << 64) - PAGE_SIZE,
        1 << 63,
        1 << 64,
        BASE + (1 << 64),
        UPPER + PAGES * PAGE_SIZE - 7,
        1 << 200,
        -(1 << 200),
    ],
)
def test_hostile_addresses(address: int) -> None:
    memory = Memory(list(range(2 * PAGES)))
    before = bytes(memory.pool.view)
    for attempt in (
        lambda: memory.view.read(address, 8),
        lambda: memory.view.write(address, b"12345678"),
        lambda: memory.view.segments(address, 8, write=True),
        lambda: memory.view.read_u64(address),
        lambda: memory.view.write_u64(address, 1),
    ):
        with pytest.raises(GuestAddressError):
            attempt()
    assert bytes(memory.pool.view) == before
    memory.close()


@pytest.mark.parametrize("length", [-1, -PAGE_SIZE, -(1 << 64), 1 << 32, (1 << 64) - 1, 1 << 64, 1 << 200])
def test_hostile_lengths(length: int) -> None:
    """Refused at once: no page is given a frame on the way."""
    memory = Memory()
    with pytest.raises(GuestAddressError):
        memory.view.segments(BASE + 8, length, write=False)
    assert memory.pager.faults == 0
    memory.close()


def test_a_range_with_a_hole_is_refused() -> None:
    memory = Memory()
    with pytest.raises(GuestAddressError):
        memory.view.read(END - 8, UPPER - END + 16)
    memory.close()


def test_nothing_at_all_is_allowed_anywhere() -> None:
    memory = Memory()
    for address in (-5, 0, BASE, END, 1 << 70):
        assert memory.view.segments(address, 0, write=True) == []
        assert memory.view.read(address, 0) == b""
        memory.view.write(address, b"")
    assert memory.pager.faults == 0
    memory.close()


def test_integers_are_little_endian() -> None:
    memory = Memory()
    edge = BASE + PAGE_SIZE - 3
    memory.view.write(edge, bytes.fromhex("0102030405060708"))
    assert memory.view.read_u8(edge) == 1
    assert memory.view.read_u16(edge + 2) == 0x0403
    assert memory.view.read_u32(edge) == 0x04030201
    assert memory.view.read_u64(edge) == 0x0807060504030201
    memory.view.write_u16(edge, 0xAABB)
    memory.view.write_u32(edge + 2, 0xCCDDEEFF)
    assert memory.view.read(edge, 8).hex() == "bbaaffeeddcc0708"
    memory.view.write_u64(edge, 0x1122334455667788)
    assert memory.view.read(edge, 8).hex() == "8877665544332211"
    memory.close()


def test_memory_of_any_format_can_be_written() -> None:
    memory = Memory()
    words = memoryview(bytes(range(16))).cast("I")
    memory.view.write(BASE, words)
    memory.view.write(BASE + 16, bytearray(b"end"))
    assert memory.view.read(BASE, 19) == bytes(range(16)) + b"end"
    memory.close()


def test_the_engine_hears_of_writes_to_its_code() -> None:
    memory = Memory(list(range(2 * PAGES)))
    entries = memoryview(memory.fmap._map).cast("Q")
    entries[LOW + 1] |= Entry.CODE
    memory.view.read(BASE, 3 * PAGE_SIZE)
    memory.view.segments(BASE, 3 * PAGE_SIZE, write=False)
    memory.view.write(BASE, bytes(PAGE_SIZE))
    assert memory.written == []
    memory.view.write(BASE + PAGE_SIZE - 4, bytes(8))
    assert memory.written == [(BASE + PAGE_SIZE, 4)]
    memory.view.write_u32(BASE + PAGE_SIZE, 5)
    entries[LOW + 1] |= Entry.CODE
    memory.view.segments(BASE + 10, 2 * PAGE_SIZE, write=True)
    assert memory.written == [(BASE + PAGE_SIZE, 4), (BASE + PAGE_SIZE, PAGE_SIZE)]
    entries.release()
    memory.close()


def test_no_frames_left() -> None:
    memory = Memory()
    while memory.pool.free_frames:
        memory.pool.allocate(1)
    with pytest.raises(MemoryError):
        memory.view.read(BASE, 1)
    memory.close()


def test_the_engine_hears_of_code_decoded_while_it_was_written() -> None:
    """A hart that runs from a page while that is written may keep what stood there before."""
    memory = Memory(list(range(2 * PAGES)))
    entries = memoryview(memory.fmap._map).cast("Q")

    def decoded_again(address: int, length: int) -> None:
        """Forget it, but the first time a hart comes by before the copy is made."""
        memory.forget(address, length)
        if len(memory.written) == 1:
            entries[LOW + 1] |= Entry.CODE

    memory.view.code_written = decoded_again
    for data in (b"1234", bytes(PAGE_SIZE)):
        memory.written.clear()
        entries[LOW + 1] |= Entry.CODE
        memory.view.write(BASE + PAGE_SIZE, data)
        assert memory.written == [(BASE + PAGE_SIZE, len(data))] * 2
        assert not memory.fmap.has_code(LOW + 1)
    entries.release()
    memory.close()
