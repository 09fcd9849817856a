"""Pairs of instructions that run as one handler: each against the model, and stores that change the second
one."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from doppel.isa.assembler import assemble
from doppel.isa.extensions import rv64gc
from doppel.isa.instruction import Instruction
from doppel.isa.syntax import parse_syntax
from doppel.processor.exits import ExitReason
from doppel.translate.pairs import _PAIRS

from ..isa.oracle import (
    CODE,
    DATA,
    DATA_SIZE,
    RAM_SIZE,
    Outcome,
    Vector,
    encode_random,
    model_engine,
    vectors,
)
from .support import RAM_BASE, Board, Pair
from .test_integer import board, flow, step

INSTRUCTIONS = rv64gc().instructions


def instruction(text: str) -> Instruction:
    """The first of the instruction set with this body and length: ``c.`` means two bytes."""
    length = 2 if text.startswith("c.") else 4
    return next(i for i in INSTRUCTIONS if i.base.name == text.removeprefix("c.") and i.length == length)


PAIRS = [
    (instruction(first.strip()), instruction(second))
    for line in _PAIRS.strip().splitlines()
    for first, _, seconds in [line.partition(":")]
    for second in seconds.split()
]
IDS = [f"{first.name} {second.name}" for first, second in PAIRS]
STORING = [pair for pair in PAIRS if pair[0].base.name in ("sb", "sh", "sw", "sd", "fsw", "fsd")]


@pytest.fixture(scope="module")
def model():
    return model_engine()


@pytest.fixture(scope="module")
def bare(tier: str) -> Iterator[Board]:
    made = board()
    yield made
    made.close()


def memory_base(which: Instruction, word: int) -> tuple[int, int]:
    for operand in parse_syntax(which.syntax):
        if operand.kind == "memory":
            operands = which.operands(word)
            return operands.rs1, operands.imm
    return 0, 0


def cases(first: Instruction, second: Instruction, count: int) -> Iterator[Vector]:
    choice = random.Random(f"{first.name} {second.name}")
    for vector in vectors(first, count, seed=6):
        word = encode_random(second, choice)
        registers = list(vector.registers)
        base, offset = memory_base(second, word)
        if second.name in ("c.jr", "c.jalr"):
            base, offset = second.operands(word).rs1, -DATA_SIZE
        if base and base != memory_base(first, vector.words[0][0])[0]:
            registers[base] = DATA + choice.randrange(DATA_SIZE - 8) - offset
        yield Vector((*vector.words, (word, second.length)), tuple(registers), vector.data)


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=IDS)
def test_pairs_agree_with_the_model(first: Instruction, second: Instruction, bare: Board, model) -> None:
    compared = 0
    for vector in cases(first, second, 40):
        expected = outcome(model, vector)
        # The end must not lie in the instructions themselves, nor outside memory after a wild jump.
        if expected is None or CODE - 4 < expected.pc < CODE + len(vector.code):
            continue
        if not RAM_BASE <= expected.pc < RAM_BASE + RAM_SIZE:
            continue
        assert flow(bare, vector, expected.pc) == expected, vector
        compared += 1
    assert compared > 4


def outcome(model, vector: Vector) -> Outcome | None:
    """What the model says, or None if the second traps because of what the first left in its base."""
    try:
        return model(vector)
    except AssertionError:
        return None


def test_the_second_is_reached_alone_too(bare: Board, model) -> None:
    """A jump to the second of a pair runs it as it is."""
    for first, second in PAIRS:
        vector = next(cases(first, second, 1))
        if outcome(model, vector) is None:
            continue
        only = Vector(vector.words[1:], vector.registers, vector.data)
        expected = outcome(model, only)
        if expected is not None:
            assert step(bare, only) == expected


FIELDS = {"rd": 12, "rd'": 12, "rs1": 8, "rs1'": 8, "rs2": 13, "rs2'": 13}


@pytest.mark.parametrize(("first", "second"), STORING, ids=[f"{a.name} {b.name}" for a, b in STORING])
def test_a_store_that_changes_the_second(first: Instruction, second: Instruction) -> None:
    """What comes behind the store is what it stored, though the pair has run as it was before.

    A jump leads to the store, so that it is not itself the second of a pair.
    """
    pair = Pair(Board(size=0x2_0000))
    fields = {f.name for f in first.pattern.fields}
    store = first.pattern.encode(
        {name: {"rs1": 10, "rs1'": 10, "rs2": 11, "rs2'": 11}.get(name, 0) for name in fields}
    )
    behind = second.pattern.encode(
        {f.name: FIELDS.get(f.name, 8 if "imm" in f.name else 1) for f in second.pattern.fields}
    )
    prologue = assemble(
        f"again: c.addi s1, -1; beqz s1, 1f; li a0, {RAM_BASE + 0x1000}; 1: j 2f; 2:", RAM_BASE
    )
    at = RAM_BASE + len(prologue)
    changed = at + first.length
    epilogue = f"c.nop; c.nop; c.nop; c.nop; li a0, {changed}; bnez s1, {RAM_BASE}; wfi"
    head = prologue + store.to_bytes(first.length, "little") + behind.to_bytes(second.length, "little")
    pair.write(RAM_BASE, head + assemble(epilogue, RAM_BASE + len(head)))
    patch = int.from_bytes(assemble("c.addi a4, 1; c.addi a4, 1; c.addi a4, 1; c.addi a4, 1"), "little")
    pair.set(pc=RAM_BASE)
    pair.set_x(x8=RAM_BASE + 0x2000, x9=2, x11=patch, x13=5)
    assert pair.board.run(10_000).reason is ExitReason.WAIT
    while not pair.model.waiting:
        pair.model.step()
    pair.check()
