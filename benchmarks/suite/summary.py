"""What the suite's figures come to: medians, means, the worst program, the gain by a second hart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Literal

from benchmarks.measure import DOPPEL, Result
from benchmarks.suite.catalog import Program
from benchmarks.suite.subjects import NATIVE, PAIR_ON_ONE, PAIR_ON_TWO

__all__ = ["Goal", "Row", "Summary", "goals", "summarize"]


@dataclass(frozen=True)
class Row:
    """Medians of one program, in seconds; the peer is the fastest one. None is what was not measured."""

    program: Program
    doppel: float
    peer: float | None = None
    peer_name: str | None = None
    native: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times faster than the peer doppel is."""
        return None if self.peer is None else self.peer / self.doppel

    @property
    def times_native(self) -> float | None:
        """How many times the host's own time doppel takes."""
        return None if self.native is None else self.doppel / self.native


@dataclass(frozen=True)
class Summary:
    """All rows, and ``gains``: how many times faster two processes are on two harts, by machine."""

    rows: Sequence[Row]
    gains: Mapping[str, float]

    @property
    def ratio(self) -> float | None:
        """The geometric mean of how many times faster than its peer doppel is."""
        return _mean(row.ratio for row in self.rows)

    @property
    def worst(self) -> Row | None:
        """The row where doppel does least well against its peer."""
        compared = [(row.ratio, row) for row in self.rows if row.ratio is not None]
        return min(compared, key=lambda pair: pair[0])[1] if compared else None

    @property
    def times_native(self) -> float | None:
        """The geometric mean of how many times the host's own time compute programs take."""
        return _mean(row.times_native for row in self.rows if row.program.kind == "compute")


@dataclass(frozen=True)
class Goal:
    """A number that a summary comes to, and what it is to be."""

    title: str
    value: float | None
    limit: float
    better: Literal["higher", "lower"]

    @property
    def reached(self) -> bool | None:
        """None if the number is not known."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.better == "higher" else self.value <= self.limit


def goals(summary: Summary) -> list[Goal]:
    """What the suite is to show."""
    worst = summary.worst
    return [
        Goal("times faster than the peer, geometric mean", summary.ratio, 3.0, "higher"),
        Goal(
            f"times faster, worst program{f' ({worst.program.name})' if worst else ''}",
            worst.ratio if worst else None,
            1.0,
            "higher",
        ),
        Goal("times the native time, compute programs, geometric mean", summary.times_native, 3.0, "lower"),
        Goal("times faster with 2 harts, two processes", summary.gains.get(DOPPEL), 1.8, "higher"),
    ]


def summarize(programs: Iterable[Program], results: Iterable[Result]) -> Summary:
    """Compare the medians of what was measured."""
    by_key = {result.metric.key: result for result in results}
    rows = [row for program in programs if (row := _row(program, by_key[program.name])) is not None]
    return Summary(rows, _gains(by_key.get(PAIR_ON_ONE), by_key.get(PAIR_ON_TWO)))


def _row(program: Program, result: Result) -> Row | None:
    medians = {name: middle for name in result.values if (middle := result.median(name)) is not None}
    own, native = medians.pop(DOPPEL, None), medians.pop(NATIVE, None)
    if own is None:
        return None
    fastest = min(medians, key=lambda name: medians[name]) if medians else None
    return Row(program, own, medians[fastest] if fastest else None, fastest, native)


def _gains(one: Result | None, two: Result | None) -> dict[str, float]:
    gains = {}
    if one is not None and two is not None:
        for name in one.values:
            before, after = one.median(name), two.median(name)
            if before is not None and after is not None:
                gains[name] = before / after
    return gains


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return geometric_mean(known) if known else None
