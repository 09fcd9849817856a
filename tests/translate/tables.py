"""Page tables for tests."""

from __future__ import annotations

from collections.abc import Callable

from doppel.isa.privileged.constants import Pte, SatpMode

__all__ = ["ALL", "PageTables"]

# A leaf for S mode that needs no update by a walk.
ALL = Pte.V | Pte.R | Pte.W | Pte.X | Pte.A | Pte.D


class PageTables:
    """Tables in guest memory from ``base`` up, written through ``write(address, bytes)`` as they grow."""

    def __init__(self, base: int, mode: SatpMode, write: Callable[[int, bytes], None]) -> None:
        self.mode = mode
        self.levels = int(mode) - 5
        self._write = write
        self._free = base
        self._tables: dict[tuple[int, int], int] = {}
        self._entries: dict[int, int] = {}
        self.root = self._table()
        #: How many entries above the leaves have been written on the way to others.
        self.links = 0

    @property
    def satp(self) -> int:
        return self.mode << 60 | self.root >> 12

    def _table(self) -> int:
        table, self._free = self._free, self._free + 4096
        self._write(table, bytes(4096))
        return table

    def set(self, address: int, entry: int) -> None:
        """Write an entry, where :meth:`entry_address` says that it is."""
        self._entries[address] = entry
        self._write(address, entry.to_bytes(8, "little"))

    def entry_address(self, virtual: int, level: int = 0) -> int:
        """Where the entry for an address at a level is; the tables on the way are made and linked."""
        table = self.root
        for depth in range(self.levels - 1, level, -1):
            at = table + (virtual >> 12 + 9 * depth & 511) * 8
            place = (depth, virtual % (1 << 12 + 9 * self.levels) >> 12 + 9 * depth)
            if place not in self._tables:
                self._tables[place] = self._table()
            table = self._tables[place]
            if self._entries.get(at) != table >> 2 | Pte.V:
                self.set(at, table >> 2 | Pte.V)
                self.links += 1
        return table + (virtual >> 12 + 9 * level & 511) * 8

    def map(self, virtual: int, physical: int, flags: int = ALL, *, level: int = 0, pages: int = 1) -> None:
        """Map pages of 4 KiB (level 0), 2 MiB (1), 1 GiB (2) or 512 GiB (3)."""
        size = 1 << 12 + 9 * level
        for page in range(pages):
            entry = (physical + page * size) >> 12 << 10 | flags
            self.set(self.entry_address(virtual + page * size, level), entry)
