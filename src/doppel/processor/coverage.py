"""How much of the guest's execution is in compiled code, from the points at which slices ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from doppel.memory.entry import PAGE_SIZE

__all__ = ["Coverage"]


class Coverage:
    """Which guest-physical bytes have compiled code, and how many samples fell on such."""

    def __init__(self) -> None:
        self.samples = 0
        self.compiled = 0
        self._pages: dict[int, bytearray] = {}

    def add(self, page: int, ranges: Iterable[tuple[int, int]]) -> None:
        """Starts and lengths in a page that now have compiled code."""
        covered = self._pages.setdefault(page, bytearray(PAGE_SIZE // 2))
        for start, length in ranges:
            covered[start // 2 : (start + length) // 2] = b"\1" * (length // 2)

    def holds(self, address: int) -> bool:
        """Whether an instruction has compiled code."""
        covered = self._pages.get(address // PAGE_SIZE)
        return covered is not None and bool(covered[address % PAGE_SIZE // 2])

    def count(self, samples: Mapping[int, int]) -> None:
        """Take in samples: how many there were of each guest-physical address."""
        self.samples += sum(samples.values())
        self.compiled += sum(count for address, count in samples.items() if self.holds(address))

    def forget(self) -> None:
        """No code is compiled any more."""
        self._pages.clear()

    @property
    def share(self) -> float | None:
        """The share of samples that fell on compiled code; None without samples."""
        return self.compiled / self.samples if self.samples else None
