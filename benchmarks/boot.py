"""From the start of the process to the prompt of the guest's shell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.debian import PROMPT, Starter, starters
from benchmarks.measure import Benchmark, Measured, Metric, Settings

__all__ = ["BOOT"]


@dataclass(frozen=True)
class _Boot:
    starter: Starter

    @property
    def name(self) -> str:
        return self.starter.name

    def measure(self) -> Measured:
        with self.starter.start() as process:
            _, kernel = process.wait_for(rb"Linux version")
            _, shell = process.wait_for(rb"Run /init")
            _, prompt = process.wait_for(PROMPT)
        return {"prompt": prompt, "console": kernel, "init": shell, "cpu": process.cpu_seconds}


@contextmanager
def _subjects(settings: Settings) -> Iterator[Sequence[_Boot]]:
    yield [_Boot(starter) for starter in starters(settings, doppel_options=[], peer_options=[])]


BOOT = Benchmark(
    "boot",
    "Debian's kernel to the busybox shell, one hart, 512 MiB",
    (
        Metric("prompt", "start of the process to the prompt", "s", "lower", no_worse=True),
        Metric("console", "... to the kernel's first line", "s", "lower"),
        Metric("init", "... to the first process", "s", "lower"),
        Metric("cpu", "processor time to the prompt", "s", "lower"),
    ),
    _subjects,
)
