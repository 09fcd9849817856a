"""Who runs the suite: a machine that boots for it, or the host itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.debian import PROMPT, Starter
from benchmarks.measure import BenchmarkError, Measured
from benchmarks.suite.catalog import PAIR, Program

__all__ = [
    "NATIVE",
    "PAIR_ON_ONE",
    "PAIR_ON_TWO",
    "Machine",
    "Native",
    "Work",
    "pair",
    "seconds",
    "work_of",
]

NATIVE = "native"
PAIR_ON_ONE, PAIR_ON_TWO = "two-processes-one-hart", "two-processes-two-harts"
PROGRAM_SECONDS = 600.0
# Programs are so short on the host itself that one run is hardly a measurement.
NATIVE_REPEATS = 3
# The shell's echo of the command has no digit there.
ENDED = rb"(?s)(.*?)status=(\d+)\r?\n"


@dataclass(frozen=True)
class Work:
    """A program to run, how much of its work, and in how many processes at the same time."""

    key: str
    program: Program
    units: int
    processes: int = 1

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of ``suite``."""
        return self.program.name, str(self.units), str(self.processes)


def seconds(name: str, output: str) -> float:
    """How long a program says that it took.

    Raises:
        BenchmarkError: it says something else.
    """
    found = re.search(rf"^{re.escape(name)} (\d+\.\d+) [0-9a-f]{{16}}\r?$", output, re.MULTILINE)
    if found is None:
        raise BenchmarkError(f"{name} failed: {output.strip()[-300:] or 'it said nothing'}")
    return float(found[1])


@dataclass(frozen=True)
class Machine:
    """Boots with one hart for most of the work, and with two for what there is for them.

    ``note`` is told which program comes next.
    """

    one: Starter
    two: Starter
    work: Sequence[Work]
    work_for_two: Sequence[Work]
    note: Callable[[str], None]

    @property
    def name(self) -> str:
        return self.one.name

    def measure(self) -> Measured:
        return {**self._session(self.one, self.work), **self._session(self.two, self.work_for_two)}

    def _session(self, starter: Starter, work: Sequence[Work]) -> Measured:
        taken: dict[str, float] = {}
        if not work:
            return taken
        self.note("boot")
        with starter.start() as process:
            process.wait_for(PROMPT)
            for item in work:
                self.note(item.key)
                process.send(f"/suite/suite {' '.join(item.arguments)}; echo status=$?\n")
                try:
                    match, _ = process.wait_for(ENDED, PROGRAM_SECONDS)
                    taken[item.key] = seconds(item.program.name, match[1].decode(errors="replace"))
                except BenchmarkError as error:
                    raise BenchmarkError(f"{starter.name}, {item.key}: {error}") from error
                process.wait_for(PROMPT)
        return taken


@dataclass(frozen=True)
class Native:
    """The host itself, without a machine between; the median of some repeats counts as one measurement."""

    executable: Path
    work: Sequence[Work]
    environment: Mapping[str, str]
    note: Callable[[str], None]
    name: str = NATIVE

    def measure(self) -> Measured:
        taken: dict[str, float] = {}
        for item in self.work:
            if item.program.name == "build" and shutil.which("busybox") is None:
                continue
            self.note(item.key)
            taken[item.key] = median(self._run(item) for _ in range(NATIVE_REPEATS))
        return taken

    def _run(self, item: Work) -> float:
        try:
            done = subprocess.run(
                [self.executable, *item.arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PROGRAM_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BenchmarkError(f"{self.name}, {item.key}: {error}") from error
        return seconds(item.program.name, done.stdout + done.stderr)


def work_of(programs: Sequence[Program], scale: float) -> list[Work]:
    """These programs, ``scale`` times as much of each as usual, at least one unit."""
    return [Work(program.name, program, max(1, round(program.units * scale))) for program in programs]


def pair(key: str, scale: float) -> Work:
    """Two processes that compute at the same time."""
    return Work(key, PAIR, max(1, round(PAIR.units * scale)), processes=2)
