"""What a benchmark is, and how it is run: subjects take turns (A B A B), and medians are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal, Protocol

from benchmarks.peer import Peer

__all__ = [
    "DOPPEL",
    "Benchmark",
    "BenchmarkError",
    "Measured",
    "Metric",
    "Result",
    "Settings",
    "Subject",
    "run",
]

DOPPEL = "doppel"

Measured = Mapping[str, float]
"""One run's values, by the key of their metric."""


class BenchmarkError(Exception):
    """Something could not be measured; the message says what and why."""


@dataclass(frozen=True)
class Metric:
    """One number that a benchmark gives.

    ``promise`` is what doppel promises for it: at least that much where higher is better, else at most. With
    ``lead`` it promises to be that many times as good as the peer.
    """

    key: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    promise: float | None = None
    lead: float | None = None


@dataclass(frozen=True)
class Settings:
    """How to measure.

    ``scale`` multiplies the amount of work, ``folder`` takes files, ``environment`` is that of children.
    """

    runs: int
    scale: float
    peer: Peer | None
    folder: Path
    environment: Mapping[str, str]

    def scaled(self, amount: int) -> int:
        """That amount of work, at least 1."""
        return max(1, round(amount * self.scale))


class Subject(Protocol):
    """What is measured: doppel or its peer."""

    @property
    def name(self) -> str:
        """As shown."""

    def measure(self) -> Measured:
        """Measure once.

        Raises:
            BenchmarkError: it cannot be measured.
        """


@dataclass(frozen=True)
class Benchmark:
    """A named group of metrics that are measured together.

    ``subjects`` makes everything ready, doppel first. With ``warm_up`` each runs once before it counts.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    subjects: Callable[[Settings], AbstractContextManager[Sequence[Subject]]]
    warm_up: bool = True


@dataclass(frozen=True)
class Result:
    """The values of one metric, by subject, in the order in which they were measured."""

    benchmark: str
    metric: Metric
    values: Mapping[str, Sequence[float]]

    def median(self, subject: str) -> float | None:
        """A subject's median; None if it was not measured."""
        return median(self.values[subject]) if self.values.get(subject) else None

    @property
    def peer(self) -> str | None:
        """The name of whom doppel is compared with."""
        return next((name for name in self.values if name != DOPPEL), None)

    @property
    def ratio(self) -> float | None:
        """How many times as good doppel's median is as the peer's; above 1 doppel is the better one."""
        own, other = self.median(DOPPEL), self.median(self.peer or "")
        if not own or not other:
            return None
        return own / other if self.metric.better == "higher" else other / own

    @property
    def kept(self) -> bool | None:
        """Whether doppel keeps its promise; None if there is none, or nothing to compare with."""
        own, metric = self.median(DOPPEL), self.metric
        if own is None:
            return None
        if metric.promise is not None:
            return own >= metric.promise if metric.better == "higher" else own <= metric.promise
        if metric.lead is not None and self.ratio is not None:
            return self.ratio >= metric.lead
        return None


def run(benchmark: Benchmark, settings: Settings, advance: Callable[[int, int, str], None]) -> list[Result]:
    """Measure; ``advance`` is told how many measurements are done, of how many, and what comes next.

    Raises:
        BenchmarkError: something cannot be measured.
    """
    collected: dict[str, dict[str, list[float]]] = {metric.key: {} for metric in benchmark.metrics}
    advance(0, 1, "making ready")
    with benchmark.subjects(settings) as subjects:
        first = 0 if benchmark.warm_up else 1
        rounds = range(first, settings.runs + 1)
        turns = [(number, subject) for number in rounds for subject in subjects]
        for done, (number, subject) in enumerate(turns):
            which = f"run {number} of {settings.runs}" if number else "warming up"
            advance(done, len(turns), f"{subject.name}, {which}")
            for key, value in subject.measure().items():
                if number:
                    collected[key].setdefault(subject.name, []).append(value)
    return [Result(benchmark.name, metric, collected[metric.key]) for metric in benchmark.metrics]
