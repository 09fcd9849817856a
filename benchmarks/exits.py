"""What it costs to leave the guest: for a device, for memory that is not there yet, for the firmware."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.flat import SMALL_PAGES_END, Loop, bare_image, run_flat, supervised_image
from benchmarks.machines import flat_commands
from benchmarks.measure import DOPPEL, Benchmark, Measured, Metric, Settings

__all__ = ["EXITS"]

ACCESSES = 100_000
# Stretches of 2 MiB between the end of the small pages and the end of 512 MiB.
STRETCHES = (512 - 16) // 2

UART = "li s0, 0x10000000"
FIRST_TOUCH = f"""
    li s0, {SMALL_PAGES_END}
    li s1, 0x200000
"""
SBI_BASE = """
    li a7, 0x10
    li a6, 0
"""


@dataclass(frozen=True)
class _Machine:
    """Runs two programs, because SBI calls need firmware and the other loops need page tables."""

    name: str
    programs: Sequence[tuple[Sequence[str], Path, Sequence[Loop]]]
    settings: Settings

    def measure(self) -> Measured:
        values: dict[str, float] = {}
        for command, image, loops in self.programs:
            timings = run_flat(self.name, command, image, loops, self.settings.environment)
            values |= {loop.key: timings[loop.key].seconds / loop.iterations * 1e6 for loop in loops}
        if self.name != DOPPEL:
            # Only the host's kernel has something to do there: the peer has mapped all memory from the start.
            del values["touch"]
        return values


@contextmanager
def _subjects(settings: Settings) -> Iterator[Sequence[_Machine]]:
    accesses = settings.scaled(ACCESSES)
    bare = (
        Loop("load", "lbu a0, 5(s0)", accesses, 1, setup=UART),
        Loop("store", "sb a0, 7(s0)", accesses, 1, setup=UART),
        Loop("touch", "sd a0, 0(s0); add s0, s0, s1", min(STRETCHES, accesses), 2, setup=FIRST_TOUCH),
    )
    supervised = (Loop("sbi", "ecall", accesses, 1, setup=SBI_BASE),)
    images = settings.folder / "exits.bin", settings.folder / "calls.bin"
    images[0].write_bytes(bare_image(bare))
    images[1].write_bytes(supervised_image(supervised))
    commands = [flat_commands(settings.peer, supervised=behind) for behind in (False, True)]
    yield [
        _Machine(
            name,
            ((commands[0][name], images[0], bare), (commands[1][name], images[1], supervised)),
            settings,
        )
        for name in commands[0]
    ]


EXITS = Benchmark(
    "exits",
    "leaving the guest",
    (
        Metric("load", "load from a device register", "us", "lower"),
        Metric("store", "store to a device register", "us", "lower"),
        Metric("touch", "first store to 2 MiB of memory (VM-fault)", "us", "lower"),
        Metric("sbi", "SBI call that answers at once", "us", "lower"),
    ),
    _subjects,
    warm_up=False,
)
