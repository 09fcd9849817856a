"""Memory for compiled regions: written through one mapping, executed through another."""

from __future__ import annotations

import ctypes
import mmap
import os

__all__ = ["CodeArena"]

_ALIGN = 64
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class CodeArena:
    """``size`` bytes, given out from the beginning on; all are given back together.

    No page is ever writable and executable at one address.

    Raises:
        OSError: the host does not permit memory to be executed.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        file = os.memfd_create("doppel-code", os.MFD_CLOEXEC)
        try:
            os.ftruncate(file, size)
            self._writable = mmap.mmap(file, size)
            address = _LIBC.mmap(None, size, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_SHARED, file, 0)
        finally:
            os.close(file)
        if address in (None, ctypes.c_void_p(-1).value):
            self._writable.close()
            raise OSError(ctypes.get_errno(), "memory cannot be executed")
        self.address = int(address)

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
        self._writable.close()
        _LIBC.munmap(self.address, self.size)
