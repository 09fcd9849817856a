"""The f-map: which guest pages are memory, which have frames."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.memory.entry import PAGE_SIZE, Entry
from doppel.memory.fmap import FMap

PAGES = 64


@st.composite
def operations(draw: st.DrawFn) -> list[tuple[str, int, int, int]]:
    found = []
    for _ in range(draw(st.integers(0, 20))):
        page = draw(st.integers(0, PAGES - 1))
        count = draw(st.integers(1, PAGES - page))
        kind = draw(st.sampled_from(["map", "map read-only", "unmap"]))
        found.append((kind, page, count, draw(st.integers(0, 1 << 40)) * PAGE_SIZE))
    return found


@given(first=st.integers(0, PAGES - 1), changes=operations())
@settings(max_examples=60, deadline=None)
def test_entries_are_what_was_put_there(first: int, changes: list[tuple[str, int, int, int]]) -> None:
    fmap = FMap(PAGES)
    fmap.add_memory(first, PAGES - first)
    expected: dict[int, tuple[int, bool]] = {}
    for kind, page, count, frame in changes:
        pages = range(max(page, first), page + count)
        for number in pages:
            if kind == "unmap":
                fmap.unmap(number)
                expected.pop(number, None)
            else:
                offset = frame + (number - page) * PAGE_SIZE
                expected[number] = (offset, kind == "map")
        if kind != "unmap" and pages:
            offset = frame + (pages[0] - page) * PAGE_SIZE
            fmap.map(pages[0], offset, len(pages), writable=kind == "map")
    assert dict(fmap.frames()) == {page: frame for page, (frame, _) in expected.items()}
    raw = (ctypes.c_uint64 * PAGES).from_address(fmap.address)
    for page in range(PAGES):
        assert fmap.is_memory(page) == (page >= first)
        assert fmap.is_present(page) == (page in expected)
        if page in expected:
            assert fmap.frame(page) == expected[page][0]
            assert bool(raw[page] & Entry.WRITABLE) == expected[page][1]
            assert not fmap.has_code(page)
        else:
            assert raw[page] == (Entry.MEMORY if page >= first else 0)
    del raw
    fmap.close()


@pytest.mark.parametrize("page", [-1, -PAGES, PAGES, PAGES + 1, 1 << 52, 1 << 64, -(1 << 64)])
def test_pages_outside_are_nothing(page: int) -> None:
    fmap = FMap(PAGES)
    fmap.add_memory(0, PAGES)
    fmap.map(0, 0, PAGES)
    assert not fmap.is_memory(page)
    assert not fmap.is_present(page)
    fmap.close()


def test_memory_must_fit() -> None:
    fmap = FMap(PAGES)
    with pytest.raises(ValueError, match="assignment"):
        fmap.add_memory(PAGES - 1, 2)
    assert not fmap.is_memory(PAGES - 1)
    fmap.close()


def test_ranges_of_memory() -> None:
    fmap = FMap(PAGES)
    fmap.add_memory(2, 3)
    fmap.add_memory(10, 1)
    assert [page for page in range(PAGES) if fmap.is_memory(page)] == [2, 3, 4, 10]
    assert [[page for page in range(PAGES) if page in area] for area in fmap.memory] == [[2, 3, 4], [10]]
    fmap.close()


def test_the_engines_mark_can_be_taken_away_alone() -> None:
    fmap = FMap(PAGES)
    fmap.add_memory(0, PAGES)
    fmap.map(3, 5 * PAGE_SIZE, writable=False)
    raw = (ctypes.c_uint64 * PAGES).from_address(fmap.address)
    before = raw[3]
    raw[3] |= Entry.CODE
    assert fmap.has_code(3)
    fmap.forget_code(3)
    assert raw[3] == before
    del raw
    fmap.close()
