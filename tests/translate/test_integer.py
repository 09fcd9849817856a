"""Every instruction on integers, natively, against the model and unicorn; loads and stores also under Sv39
and Sv48."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from doppel.isa.extensions import rv64gc
from doppel.isa.instruction import Instruction
from doppel.isa.privileged.constants import Mode, SatpMode
from doppel.isa.syntax import parse_syntax
from doppel.processor.exits import ExitReason

from ..isa.oracle import (
    CODE,
    DATA,
    DATA_SIZE,
    RAM_SIZE,
    Outcome,
    Vector,
    model_engine,
    unicorn_engine,
    vectors,
    word_of,
)
from .support import ALL_ADDRESSES, PMP_EVERYTHING, RAM_BASE, STOP, Board
from .tables import PageTables

TABLES = RAM_BASE + RAM_SIZE - (1 << 20)
INSTRUCTIONS = [
    i
    for i in rv64gc().instructions
    if i.base.extension not in ("F", "D", "Privileged", "Zicsr")
    and i.name != "c.ebreak"
    and not i.name.startswith("sc.")
]
KNOWN_TO_UNICORN = [
    i
    for i in INSTRUCTIONS
    if i.extension in ("I", "M", "A", "C", "Zifencei", "Zihintpause") and not i.name.startswith("lr.")
]
ACCESSES = [i for i in INSTRUCTIONS if any(o.kind == "memory" for o in parse_syntax(i.syntax))]


def board(mode: SatpMode = SatpMode.BARE) -> Board:
    """RAM and a hart in M mode, or in S mode with RAM where it is physically too and a device page at 0."""
    board = Board(size=RAM_SIZE, devices=True)
    if mode != SatpMode.BARE:
        tables = PageTables(TABLES, mode, board.memory.write)
        tables.map(RAM_BASE, RAM_BASE, pages=512)
        tables.map(RAM_BASE + (2 << 20), RAM_BASE + (2 << 20), level=1, pages=3)
        tables.map(0, 0)
        state = board.hart.state
        state.satp, state.mode = tables.satp, Mode.S
        state.menvcfg |= 0xF0
        state.pmpcfg[0], state.pmpaddr[0] = PMP_EVERYTHING, ALL_ADDRESSES
    return board


def prepare(board: Board, vector: Vector) -> None:
    board.memory.write(CODE, vector.code)
    board.memory.write(DATA, vector.data)
    state = board.hart.state
    for number, value in enumerate(vector.registers):
        state.x[number] = value
    state.pc = CODE


def outcome(board: Board) -> Outcome:
    state = board.hart.state
    return Outcome(tuple(state.x[:32]), state.pc, board.memory.read(DATA, DATA_SIZE))


def step(board: Board, vector: Vector) -> Outcome:
    """One instruction at a time: it runs outside the decoded pages."""
    prepare(board, vector)
    for _ in vector.words:
        before = board.hart.instructions
        exit = board.run(1)
        assert exit.reason is ExitReason.BUDGET
        assert board.hart.instructions == before + 1, (board.hart.state.mcause, board.hart.state.mepc)
    return outcome(board)


def flow(board: Board, vector: Vector, end: int) -> Outcome:
    """In one go, as part of a decoded page, up to the address where it is to come out."""
    prepare(board, vector)
    kept = board.memory.read(end, len(STOP))
    board.memory.write(end, STOP)
    before = board.hart.instructions
    exit = board.run(10_000)
    board.memory.write(end, kept)
    assert (exit.reason, exit.address) == (ExitReason.DEVICE, 0), (exit, vector)
    assert board.hart.instructions == before + len(vector.words)
    return outcome(board)


def compare(board: Board, vector: Vector, expected: Outcome) -> None:
    assert step(board, vector) == expected, vector
    # The end must not lie in the instruction itself.
    if not CODE - len(STOP) < expected.pc < CODE + len(vector.code):
        assert flow(board, vector, expected.pc) == expected, vector


@pytest.fixture(scope="module")
def model():
    return model_engine()


@pytest.fixture(scope="module")
def unicorn():
    return unicorn_engine()


@pytest.fixture(scope="module", params=[SatpMode.BARE, SatpMode.SV39, SatpMode.SV48], ids=lambda m: m.name)
def any_board(request: pytest.FixtureRequest, tier: str) -> Iterator[Board]:
    made = board(request.param)
    yield made
    made.close()


@pytest.fixture(scope="module")
def bare(tier: str) -> Iterator[Board]:
    made = board()
    yield made
    made.close()


@pytest.mark.parametrize("instruction", INSTRUCTIONS, ids=lambda i: i.name)
def test_native_agrees_with_the_model(instruction: Instruction, bare: Board, model) -> None:
    for vector in vectors(instruction, 40, seed=2):
        compare(bare, vector, model(vector))


@pytest.mark.parametrize("instruction", ACCESSES, ids=lambda i: i.name)
def test_accesses_agree_in_every_translation_mode(instruction: Instruction, any_board: Board, model) -> None:
    for vector in vectors(instruction, 15, seed=3):
        compare(any_board, vector, model(vector))


@pytest.mark.parametrize("instruction", KNOWN_TO_UNICORN, ids=lambda i: i.name)
def test_native_agrees_with_unicorn(instruction: Instruction, bare: Board, unicorn) -> None:
    for vector in vectors(instruction, 20, seed=4):
        compare(bare, vector, unicorn(vector))


@pytest.mark.slow
@pytest.mark.parametrize("instruction", INSTRUCTIONS, ids=lambda i: i.name)
def test_native_agrees_with_the_model_at_length(instruction: Instruction, bare: Board, model) -> None:
    for vector in vectors(instruction, 1000, seed=5):
        compare(bare, vector, model(vector))


@pytest.mark.parametrize("size", ["w", "d"])
def test_load_reserved_and_store_conditional(size: str, any_board: Board, model) -> None:
    """Of a pair the second stores; of two stores only the first; and one without a reservation does not."""
    choice = random.Random(size)
    instructions = {i.name: i for i in rv64gc().instructions}
    for names in itertools.islice(itertools.cycle((["lr", "sc", "sc"], ["sc"], ["lr", "lr", "sc"])), 150):
        words = []
        for name in names:
            values = {"rd": choice.randrange(11, 32), "rs1": 10, "rs2": choice.randrange(11, 32)}
            words.append((instructions[f"{name}.{size}"].pattern.encode(values), 4))
        registers = [0, *(word_of(choice) for _ in range(31))]
        registers[10] = DATA + choice.randrange(0, DATA_SIZE, 8)
        vector = Vector(tuple(words), tuple(registers), choice.randbytes(DATA_SIZE))
        any_board.hart.state.reserved_address = (1 << 64) - 1
        expected = model(vector)
        compare(any_board, vector, expected)
