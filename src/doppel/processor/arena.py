"""Memory for compiled regions: written through one mapping, executed through another."""

from __future__ import annotations

import ctypes
import mmap

__all__ = ["CodeArena"]

_ALIGN = 64
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mremap.restype = ctypes.c_void_p
_LIBC.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MREMAP_MAYMOVE = 1


class CodeArena:
    """``size`` bytes, given out from the beginning on; all are given back together.

    No page is ever writable and executable at one address.

    Raises:
        OSError: the host does not permit memory to be executed.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self.address = 0
        if size == 0:
            return
        # Shared and without a file, so that it can be mapped twice and perf looks it up in its map.
        self._writable = mmap.mmap(-1, size)
        anchor = ctypes.c_uint8.from_buffer(self._writable)
        # mremap(2): an old size of zero makes a second mapping of shared memory.
        address = _LIBC.mremap(ctypes.addressof(anchor), 0, size, _MREMAP_MAYMOVE)
        del anchor
        if address in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "memory cannot be mapped twice")
        self.address = int(address)
        if _LIBC.mprotect(self.address, size, mmap.PROT_READ | mmap.PROT_EXEC) != 0:
            code = ctypes.get_errno()
            self.close()
            raise OSError(code, "memory cannot be executed")

    def place(self, code: bytes) -> int | None:
        """The address at which the code can be executed; None if there is no room."""
        start = -(-self.used // _ALIGN) * _ALIGN
        if start + len(code) > self.size:
            return None
        self._writable[start : start + len(code)] = code
        self.used = start + len(code)
        return self.address + start

    def holds(self, address: int) -> bool:
        """Whether an address is in the arena."""
        return self.address <= address < self.address + self.size

    def clear(self) -> None:
        """Give everything back. Nobody may be executing it."""
        self.used = 0

    def close(self) -> None:
        """Return the memory to the host."""
        if self.size == 0:
            return
        self._writable.close()
        _LIBC.munmap(self.address, self.size)
