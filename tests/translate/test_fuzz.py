"""A fuzzer: random programs interpreted, compiled and both, compared at every exit.

``DOPPEL_FUZZ_SECONDS`` is its time, ``DOPPEL_FUZZ_SEED`` where it begins. What fails is told as the arguments
of :func:`compare`, which repeat it.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from dataclasses import dataclass

import pytest

from doppel.isa.state import ARCHITECTURAL_STATE
from doppel.processor.exits import Exit, ExitReason

from .programs import SIZE, GuestProgram
from .support import RAM_BASE, TIER, Board, Mixer

SECONDS = float(os.environ.get("DOPPEL_FUZZ_SECONDS", "20"))
SEED = int(os.environ.get("DOPPEL_FUZZ_SEED", "1"))
# How a program runs: the clock, whether to exact budgets, and what is compared with the interpreter.
# Leaving to compile is a place to look around that the interpreter does not have, so that runs to a block's
# end are compared only where code is compiled between them.
WAYS = (
    ("icount", True, "all"),
    ("icount", True, "mixed"),
    ("icount", True, "quiet"),
    ("icount", False, "quiet"),
    ("host", True, "all"),
    ("host", True, "mixed"),
    ("host", True, "quiet"),
)


@dataclass(frozen=True)
class Seen:
    """What can be seen of a machine at an exit."""

    exit: Exit
    spent: int
    retired: int
    state: dict[str, int | tuple[int, ...]]
    memory: str

    def differences(self, other: Seen) -> str:
        found = []
        for name in ("exit", "spent", "retired", "memory"):
            if getattr(self, name) != getattr(other, name):
                found.append(f"{name}: {getattr(self, name)} instead of {getattr(other, name)}")
        for name, value in self.state.items():
            wanted = other.state[name]
            if value == wanted:
                continue
            if isinstance(value, int) or isinstance(wanted, int):
                found.append(f"{name}: {value:#x} instead of {wanted:#x}")
                continue
            for index, (ours, theirs) in enumerate(zip(value, wanted, strict=True)):
                if ours != theirs:
                    found.append(f"{name}[{index}]: {ours:#x} instead of {theirs:#x}")
        return "; ".join(found)


class Runner:
    """A program on a board of a tier, served as any other."""

    def __init__(self, program: GuestProgram, clock: str, tier: str) -> None:
        token = TIER.set("off" if tier == "quiet" else tier)
        self.clock = clock
        try:
            self.board = Board(size=SIZE, devices=True, clock=clock)
        finally:
            TIER.reset(token)
        self.mixer = Mixer(self.board.processor, quiet=True) if tier == "quiet" else None
        program.prepare(self.board, timer=clock == "icount")

    def run(self, budget: int, *, exact: bool) -> list[Seen]:
        """Spend a budget; what was seen at each exit, and what is to be answered."""
        hart = self.board.hart
        end = hart.state.spent + budget
        seen = []
        while True:
            if self.mixer:
                self.mixer.mix()
            exit = self.board.run(end - hart.state.spent, exact=exact)
            seen.append(self.look(exit))
            if exit.reason is not ExitReason.DEVICE:
                return seen
            if exit.address & 64:
                hart.fault()
            else:
                hart.answer(0 if exit.access == 1 else exit.address * 0x9E37_79B9 & 0xFFFF_FFFF)

    def look(self, exit: Exit) -> Seen:
        hart = self.board.hart
        if exit.reason is ExitReason.BUDGET:
            # The rest of it is of an earlier exit.
            exit = Exit(exit.reason)
        state: dict[str, int | tuple[int, ...]] = {}
        for field in ARCHITECTURAL_STATE:
            if field.name != "timer_lines":
                value = getattr(hart.state, field.name)
                state[field.name] = tuple(value[: min(field.count, 32)]) if field.count else value
        if self.clock == "host":
            state.pop("time", None)
        content = self.board.memory.read(RAM_BASE, SIZE)
        return Seen(exit, hart.state.spent, hart.instructions, state, hashlib.sha1(content).hexdigest())


def budgets(seed: int) -> list[int]:
    """Single steps, a few, and runs that are longer than a block can be."""
    choice = random.Random(seed)
    return [
        choice.choice((1, 1, 7, 300, choice.randrange(2000, 4000), choice.randrange(4000, 12_000)))
        for _ in range(8)
    ]


def compare(seed: int, clock: str, exact: bool, tier: str) -> Runner:
    """Run the program of a seed interpreted and in a tier, and fail at the first difference."""
    program = GuestProgram(seed)
    wanted, found = Runner(program, clock, "off"), Runner(program, clock, tier)
    for number, budget in enumerate(budgets(seed)):
        theirs, ours = wanted.run(budget, exact=exact), found.run(budget, exact=exact)
        for index, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            if a != b:
                call = f"compare({seed}, {clock!r}, {exact}, {tier!r})"
                raise AssertionError(f"{call}: run {number}, exit {index}: {a.differences(b)}")
        assert len(ours) == len(theirs), (seed, clock, exact, tier, number)
    wanted.board.close()
    found.board.close()
    return found


def way(seed: int) -> tuple[str, bool, str]:
    clock, exact, tier = WAYS[seed % len(WAYS)]
    # Compiling everything anew after every store takes minutes; test_self_modification does that.
    if tier == "all" and GuestProgram(seed).patching:
        tier = "mixed"
    return clock, exact, tier


@pytest.mark.parametrize("seed", range(14))
def test_a_few_programs(seed: int) -> None:
    """Always the same ones."""
    compare(seed, *way(seed))


def test_what_the_programs_come_to() -> None:
    """They do not get stuck: thousands of instructions are executed, and regions are compiled."""
    boards = [compare(seed, "icount", True, "mixed").board for seed in range(8)]
    assert sum(board.hart.instructions for board in boards) > 50_000
    assert sum(board.processor.compilation.statistics.regions for board in boards) > 15


@pytest.mark.slow
def test_for_a_while() -> None:
    end = time.monotonic() + SECONDS
    seed = SEED * 1_000_000
    while time.monotonic() < end:
        compare(seed, *way(seed))
        seed += 1
