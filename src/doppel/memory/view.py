"""Guest-physical memory as devices, loaders and people see it: through the f-map, pages appear on touch."""

from __future__ import annotations

from collections.abc import Callable

from doppel.memory.entry import PAGE_SHIFT, PAGE_SIZE
from doppel.memory.fmap import FMap
from doppel.memory.frames import FramePool
from doppel.memory.pager import Pager

__all__ = ["GuestAddressError", "GuestMemory"]


class GuestAddressError(Exception):
    """Some of ``length`` bytes at guest-physical ``address`` are not memory."""

    def __init__(self, address: int, length: int) -> None:
        super().__init__(f"no memory at {address:#x} for {length} bytes")
        self.address = address
        self.length = length


def _no_code(address: int, length: int) -> None:
    return


class GuestMemory:
    """Reads and writes; addresses and lengths in bytes.

    ``code_written(address, length)`` is called after a write to a page of which the engine holds decoded
    code.
    """

    def __init__(
        self,
        fmap: FMap,
        pool: FramePool,
        pager: Pager,
        code_written: Callable[[int, int], None] = _no_code,
    ) -> None:
        self._fmap = fmap
        self._pool = pool
        self._pager = pager
        self.code_written = code_written

    def segments(self, address: int, length: int, *, write: bool) -> list[memoryview]:
        """Host memory of the range, in order; adjacent frames come as one piece.

        With ``write`` the engine forgets what it decoded there, so the caller must write soon and hold no
        piece for long. Nobody may run code from there before that is done.

        Raises:
            GuestAddressError: part of the range is not memory.
            MemoryError: the pager has no frame for a page of it.
        """
        if length == 0:
            return []
        # The end first: a length that a guest made up must not cost a walk through all of memory.
        if length < 0 or not self._fmap.is_memory(address + length - 1 >> PAGE_SHIFT):
            raise GuestAddressError(address, length)
        pieces: list[memoryview] = []
        start = end = -1
        at, left = address, length
        while left:
            page, offset = at >> PAGE_SHIFT, at & (PAGE_SIZE - 1)
            take = min(left, PAGE_SIZE - offset)
            host = self._frame(page, address, length) + offset
            if write and self._fmap.has_code(page):
                self.code_written(at, take)
            if host == end:
                end += take
            else:
                if end >= 0:
                    pieces.append(self._pool.view[start:end])
                start, end = host, host + take
            at += take
            left -= take
        pieces.append(self._pool.view[start:end])
        return pieces

    def _frame(self, page: int, address: int, length: int) -> int:
        fmap = self._fmap
        if not fmap.is_present(page):
            if not fmap.is_memory(page):
                raise GuestAddressError(address, length)
            self._pager.fault(page)
        return fmap.frame(page)

    def read(self, address: int, length: int) -> bytes:
        """Copy bytes out."""
        offset = address & (PAGE_SIZE - 1)
        # Descriptors and rings are small and in one page: most calls end here.
        if 0 < length <= PAGE_SIZE - offset:
            frame = self._fmap.frame_to_read(address >> PAGE_SHIFT)
            if frame >= 0:
                return self._pool.view[frame + offset : frame + offset + length].tobytes()
        return b"".join(self.segments(address, length, write=False))

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Copy bytes in."""
        length, offset = len(data), address & (PAGE_SIZE - 1)
        if isinstance(data, bytes) and 0 < length <= PAGE_SIZE - offset:
            frame = self._fmap.frame_to_write(address >> PAGE_SHIFT)
            if frame >= 0:
                self._pool.view[frame + offset : frame + offset + length] = data
                self._forget_code(address, length)
                return
        view = memoryview(data).cast("B") if isinstance(data, memoryview) else memoryview(data)
        done = 0
        for piece in self.segments(address, len(view), write=True):
            piece[:] = view[done : done + len(piece)]
            done += len(piece)
        self._forget_code(address, len(view))

    def _forget_code(self, address: int, length: int) -> None:
        """A hart that ran code from there meanwhile may have decoded what stood there before."""
        end = address + length
        while address < end:
            take = min(end - address, PAGE_SIZE - (address & (PAGE_SIZE - 1)))
            if self._fmap.has_code(address >> PAGE_SHIFT):
                self.code_written(address, take)
            address += take

    def read_u8(self, address: int) -> int:
        """One byte."""
        return self.read(address, 1)[0]

    def read_u16(self, address: int) -> int:
        """Two bytes, little-endian."""
        return int.from_bytes(self.read(address, 2), "little")

    def read_u32(self, address: int) -> int:
        """Four bytes, little-endian."""
        return int.from_bytes(self.read(address, 4), "little")

    def read_u64(self, address: int) -> int:
        """Eight bytes, little-endian."""
        return int.from_bytes(self.read(address, 8), "little")

    def write_u16(self, address: int, value: int) -> None:
        """Two bytes, little-endian."""
        self.write(address, value.to_bytes(2, "little"))

    def write_u32(self, address: int, value: int) -> None:
        """Four bytes, little-endian."""
        self.write(address, value.to_bytes(4, "little"))

    def write_u64(self, address: int, value: int) -> None:
        """Eight bytes, little-endian."""
        self.write(address, value.to_bytes(8, "little"))
