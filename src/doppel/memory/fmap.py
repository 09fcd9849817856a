"""The f-map of one machine: guest page to frame. Native code reads the same entries at every TLB fill."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator

from doppel.memory.entry import FRAME_MASK, PAGE_SIZE, Entry

__all__ = ["FMap", "MemoryRange"]


class MemoryRange:
    """``pages`` guest pages of memory from page number ``first`` up."""

    def __init__(self, first: int, pages: int) -> None:
        self.first = first
        self.pages = pages

    def __contains__(self, page: int) -> bool:
        return self.first <= page < self.first + self.pages


class FMap:
    """Entries for guest pages 0 to ``pages`` - 1 (:mod:`doppel.memory.entry` has their format).

    The table is sparse: the host commits only those parts of it that are in use.
    """

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self._map = mmap.mmap(-1, max(pages, 1) * 8, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._anchor = ctypes.c_uint64.from_buffer(self._map)
        self.address = ctypes.addressof(self._anchor)
        self._entries = memoryview(self._map).cast("Q")
        self.memory: list[MemoryRange] = []

    def add_memory(self, first: int, pages: int) -> None:
        """Declare guest pages to be memory, without frames yet."""
        for page in range(first, first + pages):
            self._entries[page] = Entry.MEMORY
        self.memory.append(MemoryRange(first, pages))

    def map(self, page: int, frame: int, pages: int = 1, *, writable: bool = True) -> None:
        """Give guest pages the frames from offset ``frame`` up."""
        flags = Entry.MEMORY | Entry.PRESENT | (Entry.WRITABLE if writable else 0)
        for index in range(pages):
            self._entries[page + index] = frame + index * PAGE_SIZE | flags

    def unmap(self, page: int) -> None:
        """Take a guest page's frame away; the caller flushes the harts' TLBs."""
        self._entries[page] = Entry.MEMORY

    def is_memory(self, page: int) -> bool:
        """Whether the guest page is memory, with a frame or without."""
        return page < self.pages and bool(self._entries[page] & Entry.MEMORY)

    def is_present(self, page: int) -> bool:
        """Whether the guest page has a frame."""
        return page < self.pages and bool(self._entries[page] & Entry.PRESENT)

    def has_code(self, page: int) -> bool:
        """Whether the engine holds decoded instructions of the page."""
        return bool(self._entries[page] & Entry.CODE)

    def frame(self, page: int) -> int:
        """The arena offset of a present page."""
        return self._entries[page] & FRAME_MASK

    def frames(self) -> Iterator[tuple[int, int]]:
        """Every (guest page, arena offset) that is present."""
        for area in self.memory:
            for page in range(area.first, area.first + area.pages):
                if self._entries[page] & Entry.PRESENT:
                    yield page, self._entries[page] & FRAME_MASK

    def close(self) -> None:
        """Release the table."""
        self._entries.release()
        del self._anchor
        self._map.close()
