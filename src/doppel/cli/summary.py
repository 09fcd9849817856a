"""What a run came to, as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doppel.machine.statistics import Statistics

__all__ = ["detail_lines", "summary_line"]


def summary_line(statistics: Statistics) -> str:
    """Instructions, speed, exits by reason, and the share of instructions that ran without the monitor."""
    exits = sum(statistics.exits.values())
    reasons = ", ".join(f"{reason} {count}" for reason, count in _largest_first(statistics.exits))
    return (
        f"{_count(statistics.instructions)} instructions in {statistics.seconds:.1f} s "
        f"({statistics.mips:.0f} MIPS), "
        f"{exits} exits{f' ({reasons})' if reasons else ''}, "
        f"{_percent(statistics.native_share)} of the instructions without the monitor"
    )


def detail_lines(statistics: Statistics) -> Iterator[str]:
    """Device accesses, a line for each device that had any."""
    for name, count in _largest_first(statistics.accesses):
        yield f"{count:>12} accesses to {name}"


def _largest_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(((name, count) for name, count in counts.items() if count), key=lambda item: -item[1])


def _count(number: int) -> str:
    """``1234`` as it is, then ``12.3 million``, ``1.25 billion``."""
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if number >= unit:
            return f"{number / unit:.2f} {name}"
    return str(number)


def _percent(share: float) -> str:
    """As many digits as it takes to tell the share from 100 %, and never rounded up to it."""
    if share >= 1:
        return "100 %"
    digits = min(8, max(1, math.ceil(-math.log10(1 - share)) - 1))
    return f"{math.floor(share * 10 ** (digits + 2)) / 10**digits:.{digits}f} %"
