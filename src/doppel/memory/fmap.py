"""The f-map of one machine: guest page to frame. Native code reads the same entries at every TLB fill."""

from __future__ import annotations

import ctypes
import mmap
import sys
from array import array
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
        blank = memoryview(Entry.MEMORY.to_bytes(8, sys.byteorder) * pages).cast("Q")
        self._entries[first : first + pages] = blank
        self.memory.append(MemoryRange(first, pages))

    def map(self, page: int, frame: int, pages: int = 1, *, writable: bool = True) -> None:
        """Give guest pages the frames from offset ``frame`` up; the engine must hold no code of them."""
        flags = Entry.MEMORY | Entry.PRESENT | (Entry.WRITABLE if writable else 0)
        frames = range(frame | flags, (frame | flags) + pages * PAGE_SIZE, PAGE_SIZE)
        self._entries[page : page + pages] = array("Q", frames)

    def unmap(self, page: int) -> None:
        """Take a guest page's frame away; the caller flushes the harts' TLBs."""
        self._entries[page] = Entry.MEMORY

    def run_without_frames(self, page: int, start: int, end: int) -> tuple[int, int]:
        """The longest run of pages around ``page``, in ``start`` to ``end``, that are memory without frames.

        Raises:
            ValueError: the page itself is not such a page.
        """
        end = min(end, self.pages)
        states = self._entries[start:end].tolist()
        if states[page - start] != Entry.MEMORY:
            raise ValueError(f"guest page {page:#x} is not waiting for a frame")
        first = last = page - start
        while first > 0 and states[first - 1] == Entry.MEMORY:
            first -= 1
        while last + 1 < len(states) and states[last + 1] == Entry.MEMORY:
            last += 1
        return start + first, start + last + 1

    def is_memory(self, page: int) -> bool:
        """Whether the guest page is memory, with a frame or without."""
        return 0 <= page < self.pages and bool(self._entries[page] & Entry.MEMORY)

    def is_present(self, page: int) -> bool:
        """Whether the guest page has a frame."""
        return 0 <= page < self.pages and bool(self._entries[page] & Entry.PRESENT)

    def frame_to_read(self, page: int) -> int:
        """The arena offset of a page that is present, else -1."""
        entry = self._entries[page] if 0 <= page < self.pages else 0
        return entry & FRAME_MASK if entry & Entry.PRESENT else -1

    def frame_to_write(self, page: int) -> int:
        """The arena offset of a page that is present and holds no decoded code, else -1."""
        entry = self._entries[page] if 0 <= page < self.pages else 0
        return entry & FRAME_MASK if entry & (Entry.PRESENT | Entry.CODE) == Entry.PRESENT else -1

    def has_code(self, page: int) -> bool:
        """Whether the engine holds decoded instructions of the page."""
        return bool(self._entries[page] & Entry.CODE)

    def forget_code(self, page: int) -> None:
        """Say that the engine holds no decoded instructions of the page any more."""
        self._entries[page] &= ~Entry.CODE

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
