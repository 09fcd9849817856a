"""resident memory at the shell's prompt, without the guest's own pages.

The kernel's account of a process (``/proc/PID/smaps``) has the guest's memory as one mapping as large as the
machine's memory; a page of it is resident once somebody has touched it. What is resident besides is the
machine's own cost. To that comes what the processes have that compile for it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.debian import MEMORY, PROMPT, Starter, starters
from benchmarks.measure import Benchmark, BenchmarkError, Measured, Metric, Settings

__all__ = ["MEMORY_USE", "resident"]

SETTLE_SECONDS = 1.0
PROMISE_MIB = 150.0
PROMISE_WITH_COMPILERS_MIB = 256.0
_HEADER = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ")


def resident(smaps: str, guest_bytes: int) -> dict[str, float]:
    """MiB resident: in all, of the guest's memory, besides it, and that with shared pages in proportion.

    Raises:
        BenchmarkError: the guest's memory is not to be found.
    """
    totals = {"Rss": 0, "Pss": 0}
    guest = {"Rss": 0, "Pss": 0}
    found = in_guest = False
    for line in smaps.splitlines():
        if header := _HEADER.match(line):
            in_guest = int(header[2], 16) - int(header[1], 16) == guest_bytes
            found = found or in_guest
            continue
        key, _, rest = line.partition(":")
        if key in totals:
            kib = int(rest.split()[0])
            totals[key] += kib
            if in_guest:
                guest[key] += kib
    if not found:
        raise BenchmarkError("the guest's memory is no mapping of its own")
    return {
        "total": totals["Rss"] / 1024,
        "guest": guest["Rss"] / 1024,
        "besides": (totals["Rss"] - guest["Rss"]) / 1024,
        "share": (totals["Pss"] - guest["Pss"]) / 1024,
    }


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for listed in lists for child in listed.read_text().split()]


def proportional(pid: int) -> float:
    """MiB resident of a whole process, shared pages in proportion."""
    found = re.search(r"^Pss: *(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    if found is None:
        raise BenchmarkError("the kernel does not say what a process shares")
    return int(found[1]) / 1024


@dataclass(frozen=True)
class _Memory:
    starter: Starter

    @property
    def name(self) -> str:
        return self.starter.name

    def measure(self) -> Measured:
        with self.starter.start() as process:
            process.wait_for(PROMPT)
            time.sleep(SETTLE_SECONDS)
            measured = resident(Path(f"/proc/{process.pid}/smaps").read_text(), MEMORY << 20)
            compilers = sum(proportional(child) for child in children(process.pid))
            return {**measured, "compilers": compilers, "engine": measured["share"] + compilers}


@contextmanager
def _subjects(settings: Settings) -> Iterator[Sequence[_Memory]]:
    yield [_Memory(starter) for starter in starters(settings, doppel_options=[], peer_options=[])]


MEMORY_USE = Benchmark(
    "memory",
    "resident memory at the shell's prompt, one hart, 512 MiB",
    (
        Metric("besides", "besides guest pages touched", "MiB", "lower", promise=PROMISE_MIB),
        Metric("share", "the same, shared pages in proportion", "MiB", "lower"),
        Metric("compilers", "processes that compile", "MiB", "lower"),
        Metric("engine", "both", "MiB", "lower", promise=PROMISE_WITH_COMPILERS_MIB),
        Metric("guest", "guest pages touched", "MiB", "lower"),
        Metric("total", "in all", "MiB", "lower"),
    ),
    _subjects,
    warm_up=False,
)
