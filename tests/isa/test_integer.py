"""The integer instructions against independent implementations."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from doppel.isa.extensions import rv64gc
from doppel.isa.instruction import Instruction

from .oracle import (
    CODE,
    DATA_SIZE,
    QEMU,
    Vector,
    compare,
    encode_random,
    model_engine,
    qemu_results,
    unicorn_engine,
    vectors,
    word_of,
)

INSTRUCTIONS = rv64gc()
# Those that need no other state than registers and memory, of the extensions that Unicorn has.
KNOWN_TO_UNICORN = [
    i
    for i in INSTRUCTIONS.instructions
    if i.extension in ("I", "M", "A", "C", "Zifencei", "Zihintpause")
    and i.base.extension != "D"
    and i.name != "c.ebreak"
    and not i.name.startswith(("lr.", "sc."))
]
KNOWN_TO_QEMU = [i for i in INSTRUCTIONS.instructions if i.extension in ("Zba", "Zbb", "Zbs")]


@pytest.fixture(scope="module")
def unicorn():
    return unicorn_engine()


@pytest.fixture(scope="module")
def model():
    return model_engine()


@pytest.mark.parametrize("instruction", KNOWN_TO_UNICORN, ids=lambda i: i.name)
def test_model_agrees_with_unicorn(instruction: Instruction, model, unicorn):
    compare(model, unicorn, vectors(instruction, 120))


@pytest.mark.parametrize("size", ["w", "d"])
def test_load_reserved_and_store_conditional(size: str, model, unicorn):
    """Of a pair the second stores; of two stores only the first."""
    choice = random.Random(size)
    names = (f"lr.{size}", f"sc.{size}", f"sc.{size}")
    instructions = [INSTRUCTIONS[name] for name in names]
    for _ in range(200):
        values = [{"rd": choice.randrange(11, 32), "rs1": 10, "rs2": choice.randrange(11, 32)} for _ in names]
        words = [i.pattern.encode(v) for i, v in zip(instructions, values, strict=True)]
        address = 0x8010_0000 + choice.randrange(0, DATA_SIZE, 8)
        registers = [0, *(word_of(choice) for _ in range(31))]
        registers[10] = address
        code = tuple((word, 4) for word in words)
        compare(model, unicorn, iter([Vector(code, tuple(registers), choice.randbytes(DATA_SIZE))]))


@pytest.mark.skipif(QEMU is None, reason="qemu-system-riscv64 is not installed (package qemu-system-misc)")
def test_bit_manipulation_agrees_with_qemu(model, tmp_path: Path):
    choice = random.Random(28)
    cases = []
    for instruction in KNOWN_TO_QEMU:
        for _ in range(40):
            fields = {
                f.name: f.extract(encode_random(instruction, choice)) for f in instruction.pattern.fields
            }
            word = instruction.pattern.encode(fields | {"rd": 12, "rs1": 10, "rs2": 11})
            cases.append((word, word_of(choice), word_of(choice)))
    for (word, a, b), expected in zip(cases, qemu_results(cases, tmp_path), strict=True):
        registers = [0] * 32
        registers[10], registers[11] = a, b
        outcome = model(Vector(((word, 4),), tuple(registers), bytes(DATA_SIZE)))
        instruction = INSTRUCTIONS.decode(word)
        assert instruction is not None
        assert outcome.registers[12] == expected, (instruction.name, hex(a), hex(b))
        assert outcome.pc == CODE + 4


@pytest.mark.parametrize("name", ["czero.eqz", "czero.nez"])
def test_conditional_zero(name: str, model):
    """Zicond is newer than both oracles."""
    word = INSTRUCTIONS[name].pattern.encode({"rd": 12, "rs1": 10, "rs2": 11})
    for condition in (0, 1, 1 << 63, 1 << 32):
        registers = [0] * 32
        registers[10], registers[11] = 0x123, condition
        outcome = model(Vector(((word, 4),), tuple(registers), bytes(DATA_SIZE)))
        assert outcome.registers[12] == (0 if (condition == 0) == (name == "czero.eqz") else 0x123)
