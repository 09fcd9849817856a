"""The default pager: zeroed frames in clusters, each page once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.memory.entry import PAGE_SIZE
from doppel.memory.fmap import FMap
from doppel.memory.frames import FramePool
from doppel.memory.pager import CLUSTER_PAGES, ZeroPager

FIRST = 1000
PAGES = 1500


def made(
    frames: int = PAGES, areas: tuple[tuple[int, int], ...] = ((FIRST, PAGES),)
) -> tuple[FMap, FramePool, ZeroPager]:
    fmap, pool = FMap(FIRST + 2 * PAGES), FramePool(frames * PAGE_SIZE)
    for first, pages in areas:
        fmap.add_memory(first, pages)
    return fmap, pool, ZeroPager(fmap, pool)


@given(
    touched=st.lists(st.integers(0, PAGES - 1), max_size=40),
    kept=st.sets(st.integers(0, PAGES - 1), max_size=5),
)
@settings(max_examples=30, deadline=None)
def test_every_page_gets_a_frame_of_its_own(touched: list[int], kept: set[int]) -> None:
    fmap, pool, pager = made()
    # Some that somebody else has mapped already.
    for page in kept:
        fmap.map(FIRST + page, pool.allocate(1))
    before = {FIRST + page: fmap.frame(FIRST + page) for page in kept}
    for page in touched:
        pager.fault(FIRST + page)
        assert fmap.is_present(FIRST + page)
    frames = dict(fmap.frames())
    assert len(set(frames.values())) == len(frames)
    assert before.items() <= frames.items()
    assert all(fmap.is_memory(page) for page in frames)
    assert pager.mapped_bytes == (len(frames) - len(before)) * PAGE_SIZE
    assert pool.free_frames == PAGES - len(frames)
    fmap.close()
    pool.close()


def test_a_cluster_ends_where_memory_does() -> None:
    fmap, pool, pager = made(areas=((FIRST, 10), (FIRST + 12, 4)))
    pager.fault(FIRST + 5)
    assert [page for page, _ in fmap.frames()] == list(range(FIRST, FIRST + 10))
    pager.fault(FIRST + 15)
    assert len(list(fmap.frames())) == 14
    assert pager.faults == 2
    fmap.close()
    pool.close()


def test_a_cluster_is_aligned_and_contiguous() -> None:
    fmap, pool, pager = made()
    pager.fault(1024 + 100)
    frames = dict(fmap.frames())
    assert sorted(frames) == list(range(1024, 1024 + CLUSTER_PAGES))
    assert [frames[page] - frames[1024] for page in sorted(frames)] == [
        i * PAGE_SIZE for i in range(CLUSTER_PAGES)
    ]
    fmap.close()
    pool.close()


def test_a_second_fault_on_a_page_changes_nothing() -> None:
    """Two harts meet the same missing page: what the first has stored since must stay."""
    fmap, pool, pager = made()
    pager.fault(FIRST)
    frame = fmap.frame(FIRST)
    pool.view[frame] = 7
    pager.fault(FIRST)
    assert fmap.frame(FIRST) == frame and pool.view[frame] == 7
    fmap.close()
    pool.close()


def test_single_frames_are_used_when_no_run_is_left() -> None:
    fmap, pool, pager = made(frames=4)
    runs = [pool.allocate(1) for _ in range(4)]
    pool.release(runs[0], 1)
    pool.release(runs[2], 1)
    pager.fault(FIRST)
    pager.fault(FIRST + 1)
    assert {frame for _, frame in fmap.frames()} == {runs[0], runs[2]}
    with pytest.raises(MemoryError):
        pager.fault(FIRST + 2)
    assert not fmap.is_present(FIRST + 2)
    fmap.close()
    pool.close()


def test_release_gives_all_back_and_zero_pages_come_again() -> None:
    fmap, pool, pager = made()
    pager.fault(FIRST)
    pager.fault(FIRST + PAGES - 1)
    pool.view[fmap.frame(FIRST)] = 1
    pager.release()
    assert pool.free_frames == PAGES and not list(fmap.frames()) and pager.mapped_bytes == 0
    assert fmap.is_memory(FIRST)
    pager.fault(FIRST)
    assert pool.view[fmap.frame(FIRST)] == 0
    fmap.close()
    pool.close()
