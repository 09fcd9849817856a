"""Who answers VM-faults. The default: a zeroed frame when a page is first touched."""

from __future__ import annotations

from typing import Protocol

from doppel.memory.entry import PAGE_SIZE
from doppel.memory.fmap import FMap
from doppel.memory.frames import FramePool

__all__ = ["Pager", "ZeroPager"]

# Pages mapped by one VM-fault: the host commits a page only when it is touched, so mapping around costs
# nothing.
CLUSTER_PAGES = 512


class Pager(Protocol):
    """Makes guest pages present."""

    def fault(self, page: int) -> None:
        """Give the guest page, which is memory, a frame.

        Raises:
            MemoryError: there is none.
        """


class ZeroPager:
    """Frames from a pool, zero-filled, in clusters of up to 2 MiB."""

    def __init__(self, fmap: FMap, pool: FramePool) -> None:
        self._fmap = fmap
        self._pool = pool
        # (first guest page, arena offset, pages)
        self._runs: list[tuple[int, int, int]] = []
        self.faults = 0

    def fault(self, page: int) -> None:
        """Map the cluster around the page, as far as it is memory and has no frames yet.

        A page that has a frame already is left as it is: several harts may fault on it at once.
        """
        if self._fmap.is_present(page):
            return
        self.faults += 1
        start = page - page % CLUSTER_PAGES
        first, end = self._fmap.run_without_frames(page, start, start + CLUSTER_PAGES)
        try:
            frame = self._pool.allocate(end - first)
        except MemoryError:
            # One frame may be left where a whole run is not.
            first, end = page, page + 1
            frame = self._pool.allocate(1)
        self._runs.append((first, frame, end - first))
        self._fmap.map(first, frame, end - first)

    def release(self) -> None:
        """Give all frames back; the pages are memory without frames again. No hart may be running."""
        for first, frame, count in self._runs:
            for page in range(first, first + count):
                self._fmap.unmap(page)
            self._pool.release(frame, count)
        self._runs.clear()

    @property
    def mapped_bytes(self) -> int:
        """Bytes of guest memory that have frames."""
        return sum(count for _, _, count in self._runs) * PAGE_SIZE
