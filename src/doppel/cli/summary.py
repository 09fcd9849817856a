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
    """A table of everything that is counted: what, how much, and a remark."""
    rows = list(_rows(statistics))
    names, values = (max(len(row[column]) for row in rows) for column in (0, 1))
    for name, value, remark in rows:
        yield f"{name:<{names}}  {value:>{values}}  {remark}".rstrip()


def _rows(statistics: Statistics) -> Iterator[tuple[str, str, str]]:
    engine = statistics.engine
    share = engine.compiled_share
    yield "instructions", f"{statistics.instructions:,}", ""
    yield "  in compiled code", "-" if share is None else f"{100 * share:.1f} %", "estimated by samples"
    yield "  decoded", f"{engine.decoded:,}", ""
    yield "regions", f"{engine.regions:,}", f"of compiled code; mode {engine.mode}"
    for name, count, remark in (
        ("loaded", engine.loaded, "of these, from the store on disk"),
        ("refused", engine.refused, "left to the interpreter"),
        ("outdated", engine.outdated, "the guest had changed the code meanwhile"),
        ("discarded", engine.discarded, "times that all code was given up to make room"),
        ("guest instructions", engine.instructions, "in regions"),
        ("host bytes", engine.code_bytes, _ratio(engine.code_bytes, engine.instructions)),
    ):
        yield f"  {name}", f"{count:,}", remark
    yield "compiler", f"{engine.compiler_seconds:.2f} s", "processor time"
    yield "TLB misses", f"{engine.tlb_misses:,}", _one_in(statistics.instructions, engine.tlb_misses)
    yield "  of instructions", f"{engine.itlb_misses:,}", _one_in(statistics.instructions, engine.itlb_misses)
    yield "interrupts", f"{engine.interrupts:,}", ""
    yield "exits", f"{sum(statistics.exits.values()):,}", "to the monitor"
    for name, count in _largest_first(statistics.exits):
        yield f"  {name}", f"{count:,}", ""
    yield "memory of the engine", _memory(engine.memory_bytes), ""
    for name, size, remark in (
        ("decoded pages", engine.decoded_bytes, ""),
        ("compiled code", engine.arena_bytes, ""),
        ("harts", engine.hart_bytes, "with their TLBs"),
        ("compiler processes", engine.worker_bytes, "resident, libraries included"),
    ):
        yield f"  {name}", _memory(size), remark
    for name, count in _largest_first(statistics.accesses):
        yield f"accesses to {name}", f"{count:,}", ""


def _ratio(size: int, instructions: int) -> str:
    return f"{size / instructions:.0f} for each of these" if instructions else ""


def _one_in(instructions: int, count: int) -> str:
    return f"one in {instructions // count:,} instructions" if count else ""


def _memory(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB" if size >= 1 << 20 else f"{size / (1 << 10):.1f} KiB"


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
