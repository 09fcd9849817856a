"""Random programs natively and by the model: the same registers, memory, pc, CSRs and counts at every
exit."""

from __future__ import annotations

import random

import pytest

from doppel.isa.privileged.constants import EnvironmentConfig, Interrupt, Mode, SatpMode, Status
from doppel.processor.exits import ExitReason
from doppel.translate.engine.attention import LONGEST_BLOCK

from .streams import DATA, HANDLER, TABLE, Stream
from .support import RAM_BASE, TIERS, Board, Pair
from .tables import PageTables

STATUS = 0xA_0000_0000 | Status.FS
TABLES = 0x800E_0000


def pair_with(stream: Stream, board: Board | None = None) -> Pair:
    pair = Pair(board)
    pair.write(HANDLER, stream.handler)
    pair.write(stream.base, stream.code)
    pair.write(TABLE, stream.table)
    pair.write(DATA - 0x1000, stream.data())
    pair.set(x=stream.registers(), pc=stream.base, mtvec=HANDLER, mstatus=STATUS)
    pair.set(f=[stream.choice.getrandbits(64) for _ in range(32)])
    return pair


def with_timer(pair: Pair) -> None:
    """An S timer interrupt, taken in M mode, every few hundred instructions."""
    pair.set(menvcfg=EnvironmentConfig.STCE | EnvironmentConfig.ADUE, stimecmp=10)
    pair.set(mie=1 << Interrupt.STI, mstatus=STATUS | Status.MIE)


def run_in_steps(pair: Pair, choice: random.Random, total: int, *, soft: bool = True) -> None:
    """Single steps, short runs, ones around and above the longest block, and, if ``soft``, ones to a
    block's end."""
    while pair.model.spent < total:
        kind = choice.choice(("steps", "short", "long", "soft" if soft else "long"))
        match kind:
            case "steps":
                for _ in range(choice.randint(1, 4)):
                    assert pair.run(1).reason is ExitReason.BUDGET
            case "short":
                assert pair.run(choice.choice((2, 3, 10, 50, 400))).reason is ExitReason.BUDGET
            case "long":
                assert (
                    pair.run(choice.randint(LONGEST_BLOCK - 3, LONGEST_BLOCK + 1000)).reason
                    is ExitReason.BUDGET
                )
            case "soft":
                for _ in range(choice.randint(1, 8)):
                    assert pair.run(choice.randint(1, 300), exact=False).reason is ExitReason.BUDGET


@TIERS
@pytest.mark.parametrize("seed", range(4))
def test_in_machine_mode(seed: int) -> None:
    choice = random.Random(seed)
    run_in_steps(pair_with(Stream(choice)), choice, 5000)


@TIERS
@pytest.mark.parametrize("seed", range(3))
def test_in_one_go(seed: int) -> None:
    """So that most of it runs in decoded pages, and only its end step by step."""
    choice = random.Random(100 + seed)
    pair = pair_with(Stream(choice))
    assert pair.run(8000).reason is ExitReason.BUDGET


@TIERS
@pytest.mark.parametrize("seed", range(3))
def test_with_timer_interrupts(seed: int) -> None:
    choice = random.Random(200 + seed)
    pair = pair_with(Stream(choice))
    with_timer(pair)
    run_in_steps(pair, choice, 4000, soft=False)
    assert pair.native.state.interrupts > 3


@TIERS
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mode", [SatpMode.SV39, SatpMode.SV48], ids=lambda m: m.name)
def test_under_translation(seed: int, mode: SatpMode) -> None:
    """In S mode, with traps to M mode."""
    choice = random.Random(300 + seed)
    pair = pair_with(Stream(choice))
    translate(pair, mode)
    run_in_steps(pair, choice, 2000)


def translate(pair: Pair, mode: SatpMode) -> PageTables:
    """S mode, RAM in pages at its own address, and once more at address 0x40000000."""
    tables = PageTables(TABLES, mode, pair.write)
    tables.map(RAM_BASE, RAM_BASE, pages=256)
    tables.map(0x4000_0000, RAM_BASE, pages=256)
    pair.allow_everything()
    pair.set(satp=tables.satp, mode=Mode.S)
    return tables


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tier", "seed"),
    [(tier, seed) for tier, seeds in (("off", 30), ("all", 6), ("mixed", 6)) for seed in range(seeds)],
    indirect=["tier"],
)
def test_at_length(tier: str, seed: int) -> None:
    choice = random.Random(1000 + seed)
    pair = pair_with(Stream(choice, size=1200, chunk=60, floats=0.1))
    if seed % 3 == 1:
        with_timer(pair)
    if seed % 3 == 2:
        translate(pair, (SatpMode.SV39, SatpMode.SV48)[seed & 1])
    run_in_steps(pair, choice, 20_000, soft=seed % 3 != 1)
