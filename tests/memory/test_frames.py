"""The arena: no frame is handed out twice, and what comes back is zero and whole again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from doppel.errors import DoppelError
from doppel.memory.entry import PAGE_SIZE
from doppel.memory.frames import FramePool

FRAMES = 64


class Frames(RuleBasedStateMachine):
    """Allocate and release in any order, against a plain record of who has what."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.pool = FramePool(FRAMES * PAGE_SIZE)
        self.used: dict[int, int] = {}

    def teardown(self) -> None:
        self.pool.close()

    @rule(target=runs, count=st.integers(1, FRAMES + 1))
    def allocate(self, count: int) -> int:
        taken = {f for start, length in self.used.items() for f in range(start, start + length)}
        free = [all(f not in taken for f in range(i, i + count)) for i in range(FRAMES - count + 1)]
        if not any(free):
            with pytest.raises(MemoryError):
                self.pool.allocate(count)
            return -1
        offset = self.pool.allocate(count)
        assert offset % PAGE_SIZE == 0
        first = offset // PAGE_SIZE
        assert not taken & set(range(first, first + count))
        assert first + count <= FRAMES
        assert not any(self.pool.view[offset : offset + count * PAGE_SIZE])
        self.pool.view[offset] = 0xFF
        self.pool.view[offset + count * PAGE_SIZE - 1] = 0xFF
        self.used[first] = count
        return first

    @rule(first=consumes(runs))
    def release(self, first: int) -> None:
        if first >= 0:
            self.pool.release(first * PAGE_SIZE, self.used.pop(first))

    @rule(first=consumes(runs), part=st.integers(1, FRAMES))
    def release_the_end(self, first: int, part: int) -> None:
        if first >= 0:
            count = self.used.pop(first)
            part = min(part, count)
            self.pool.release((first + count - part) * PAGE_SIZE, part)
            if part < count:
                self.pool.release(first * PAGE_SIZE, count - part)

    @invariant()
    def adds_up(self) -> None:
        assert self.pool.free_frames == FRAMES - sum(self.used.values())


TestFrames = Frames.TestCase
TestFrames.settings = settings(max_examples=40, stateful_step_count=30, deadline=None, derandomize=True)


@given(size=st.integers(1, 1 << 20))
@settings(max_examples=30, deadline=None)
def test_the_size_is_rounded_up_to_whole_frames(size: int) -> None:
    pool = FramePool(size)
    assert pool.size >= size > pool.size - PAGE_SIZE
    assert len(pool.view) == pool.size
    assert pool.free_frames == pool.size // PAGE_SIZE
    pool.close()


@pytest.mark.parametrize("size", [0, -1, -PAGE_SIZE, 1 << 62, 1 << 80])
def test_an_arena_that_cannot_be_is_an_error_for_people(size: int) -> None:
    with pytest.raises(DoppelError, match="cannot reserve"):
        FramePool(size)


def test_nothing_is_released_twice_or_from_elsewhere() -> None:
    pool = FramePool(8 * PAGE_SIZE)
    offset = pool.allocate(4)
    pool.release(offset, 2)
    for bad, count in (
        (offset, 1),
        (offset, 4),
        (offset + PAGE_SIZE, 2),
        (-PAGE_SIZE, 1),
        (8 * PAGE_SIZE, 1),
    ):
        with pytest.raises(ValueError, match="not in use"):
            pool.release(bad, count)
    for bad, count in ((offset + 2 * PAGE_SIZE + 1, 1), (offset + 2 * PAGE_SIZE, 0)):
        with pytest.raises(ValueError, match="not in use"):
            pool.release(bad, count)
    with pytest.raises(ValueError, match="0 frames"):
        pool.allocate(0)
    assert pool.free_frames == 6
    pool.close()


def test_released_frames_join_their_neighbours() -> None:
    pool = FramePool(3 * PAGE_SIZE)
    first, second, third = (pool.allocate(1) for _ in range(3))
    for offset in (first, third, second):
        pool.release(offset, 1)
    assert pool.allocate(3) == first
    pool.close()
