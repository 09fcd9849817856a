"""Real memory: frames of 4 KiB in one arena, handed out in contiguous runs."""

from __future__ import annotations

import ctypes
import mmap
from bisect import insort

from doppel.errors import DoppelError
from doppel.memory.entry import PAGE_SIZE

__all__ = ["FramePool"]


class FramePool:
    """An arena of ``size`` bytes of host memory, reserved at once; a page is committed when touched.

    ``address`` is the arena's host address and ``view`` all of it. Frames are named by their offset in bytes.

    Raises:
        DoppelError: the host does not give that much address space.
    """

    def __init__(self, size: int) -> None:
        self.size = (size + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        try:
            self._map = mmap.mmap(-1, self.size, flags=flags)
        except (OSError, OverflowError, ValueError) as error:
            raise DoppelError(
                f"the host cannot reserve {self.size >> 20} MiB of memory ({error})",
                "give the machine less memory",
            ) from error
        if hasattr(mmap, "MADV_DONTDUMP"):
            # Keeps guests' memory out of core dumps, and the arena a mapping of its own for who looks at it.
            self._map.madvise(mmap.MADV_DONTDUMP)
        self._anchor = ctypes.c_uint8.from_buffer(self._map)
        self.address = ctypes.addressof(self._anchor)
        self.view = memoryview(self._map)
        self._free: list[tuple[int, int]] = [(0, self.size)]

    def allocate(self, frames: int) -> int:
        """A run of zeroed frames, one at least; the offset of its first.

        Raises:
            MemoryError: no run of that length is free.
        """
        if frames < 1:
            raise ValueError(f"{frames} frames")
        wanted = frames * PAGE_SIZE
        for index, (start, end) in enumerate(self._free):
            if end - start >= wanted:
                if end - start == wanted:
                    del self._free[index]
                else:
                    self._free[index] = (start + wanted, end)
                return start
        raise MemoryError(f"no {frames} contiguous frames are free")

    def release(self, offset: int, frames: int) -> None:
        """Give frames back; their contents are gone and the host gets its memory back.

        Raises:
            ValueError: they are not frames that were handed out.
        """
        start, end = offset, offset + frames * PAGE_SIZE
        inside = 0 <= start < end <= self.size and start % PAGE_SIZE == 0
        if not inside or any(low < end and start < high for low, high in self._free):
            raise ValueError(f"{frames} frames at {offset:#x} are not in use")
        self._map.madvise(mmap.MADV_DONTNEED, start, end - start)
        insort(self._free, (start, end))
        merged: list[tuple[int, int]] = []
        for low, high in self._free:
            if merged and merged[-1][1] == low:
                merged[-1] = (merged[-1][0], high)
            else:
                merged.append((low, high))
        self._free = merged

    @property
    def free_frames(self) -> int:
        """Frames not handed out."""
        return sum(end - start for start, end in self._free) // PAGE_SIZE

    def close(self) -> None:
        """Return the arena to the host; nothing may use its frames any more."""
        del self._anchor
        self.view.release()
        self._map.close()
