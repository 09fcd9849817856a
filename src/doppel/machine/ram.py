"""The machine's memory: frames, the f-map over them, and the pager that connects the two."""

from __future__ import annotations

import contextlib
from threading import Lock

from doppel.errors import DoppelError
from doppel.memory.entry import PAGE_SHIFT, PAGE_SIZE
from doppel.memory.fmap import FMap
from doppel.memory.frames import FramePool
from doppel.memory.pager import Pager, ZeroPager

__all__ = ["Ram"]

_LEAST, _MOST = 1 << 20, 1 << 40


class _SharedPager:
    """A pager for several threads that may fault on the same page at the same time."""

    def __init__(self, fmap: FMap, pager: Pager) -> None:
        self._fmap = fmap
        self._pager = pager
        self._lock = Lock()

    def fault(self, page: int) -> None:
        """Give the page a frame unless it got one meanwhile."""
        with self._lock:
            if not self._fmap.is_present(page):
                self._pager.fault(page)


class Ram:
    """``size`` bytes of memory at ``base``; pages appear on first touch, all zeroes.

    Raises:
        DoppelError: the size makes no sense or the host does not have it.
    """

    def __init__(self, base: int, size: int) -> None:
        if size % PAGE_SIZE or not _LEAST <= size <= _MOST:
            raise DoppelError(
                f"a machine cannot have {size} bytes of memory", "give a number of MiB, at least 1"
            )
        self.base = base
        self.size = size
        self.pool = FramePool(size)
        self.fmap = FMap((base + size) >> PAGE_SHIFT)
        self.fmap.add_memory(base >> PAGE_SHIFT, size >> PAGE_SHIFT)
        self._zero_pager = ZeroPager(self.fmap, self.pool)
        self.pager: Pager = _SharedPager(self.fmap, self._zero_pager)

    @property
    def mapped_bytes(self) -> int:
        """Bytes of memory that have frames."""
        return self._zero_pager.mapped_bytes

    def clear(self) -> None:
        """All zeroes again, and no frames. No hart may be running; its caller discards decoded code after
        this.
        """
        for page, _ in list(self.fmap.frames()):
            self.fmap.unmap(page)
        self._zero_pager.release()

    def close(self) -> None:
        """Give everything back to the host."""
        self.fmap.close()
        # Somebody may hold a view of memory still; the arena goes with the last one.
        with contextlib.suppress(BufferError):
            self.pool.close()
