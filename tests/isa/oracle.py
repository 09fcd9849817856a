"""Independent judges of what an instruction does, and vectors to try it with.

A :class:`Vector` is one instruction with the registers and memory that it starts from, an :class:`Outcome` is
what it leaves behind. An engine is a function from the one to the other, so that any implementation can be
compared with any other: the Python model, Unicorn, the native interpreter.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unicorn import UC_ARCH_RISCV, UC_HOOK_INTR, UC_MODE_RISCV64, Uc, UcError
from unicorn.riscv_const import UC_RISCV_REG_PC, UC_RISCV_REG_X0

from doppel.isa.assembler import assemble
from doppel.isa.extensions import rv64gc
from doppel.isa.instruction import Instruction
from doppel.isa.model import HartModel, ModelMemory
from doppel.isa.syntax import parse_syntax
from doppel.isa.words import MASK64, Word

RAM_BASE = 0x8000_0000
RAM_SIZE = 8 << 20
# Far enough from both ends that every branch stays in RAM.
CODE = RAM_BASE + (4 << 20)
DATA = RAM_BASE + (1 << 20)
DATA_SIZE = 256

EDGES = [
    *(0, 1, 2, 3, 31, 32, 33, 63, 64, MASK64, MASK64 - 1),
    *(0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF),
    *(0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000),
    *(0xFFFF_FFFF_7FFF_FFFF, 0xFFFF_FFFF_8000_0000, 0x7FFF_FFFF_FFFF_FFFF, 1 << 63, (1 << 63) + 1),
    *(0x0102_0304_0506_0708, 0x5555_5555_5555_5555, 0xAAAA_AAAA_AAAA_AAAA),
]


@dataclass(frozen=True)
class Vector:
    """``words`` stand at CODE and are executed one after the other; ``data`` is at DATA."""

    words: tuple[tuple[int, int], ...]
    registers: tuple[int, ...]
    data: bytes

    @property
    def code(self) -> bytes:
        return b"".join(word.to_bytes(length, "little") for word, length in self.words)


@dataclass(frozen=True)
class Outcome:
    """What is in x0 to x31, pc and the data area afterwards."""

    registers: tuple[int, ...]
    pc: int
    data: bytes


Engine = Callable[[Vector], Outcome]


def word_of(value_choice: random.Random) -> int:
    """An operand: often an edge case, else random bits of random length."""
    if value_choice.random() < 0.5:
        return value_choice.choice(EDGES)
    value = value_choice.getrandbits(value_choice.randint(1, 64))
    return value ^ MASK64 if value_choice.random() < 0.3 else value


def encode_random(instruction: Instruction, choice: random.Random) -> int:
    """An instruction word with random fields; those that its assembly syntax does not show are zero."""
    named = instruction.syntax
    while True:
        values = {}
        for field in instruction.pattern.fields:
            if field.name in named or field.name in ("aq", "rl"):
                allowed = field.values()
                extremes = (allowed[0], allowed[-1], choice.choice(allowed))
                values[field.name] = choice.choice((*extremes, choice.choice(allowed)))
            else:
                values[field.name] = field.bias
        if values.get("rm") in (5, 6):
            continue
        word = instruction.pattern.encode(values)
        if instruction.matches(word):
            return word


def _memory_base(instruction: Instruction, word: int) -> tuple[int, int] | None:
    """The base register and offset of an instruction that accesses memory or jumps to such an address."""
    for operand in parse_syntax(instruction.syntax):
        if operand.kind == "memory":
            operands = instruction.operands(word)
            return operands.rs1, operands.imm if operand.field else 0
    return None


def vectors(instruction: Instruction, count: int, seed: int = 0) -> Iterator[Vector]:
    """Random cases of one instruction; addresses lie in the data area, targets of jumps in RAM."""
    choice = random.Random(f"{instruction.name} {seed}")
    while count:
        word = encode_random(instruction, choice)
        registers = [0, *(word_of(choice) for _ in range(31))]
        base = _memory_base(instruction, word)
        if base is not None:
            register, offset = base
            if register == 0:
                continue
            aligned = "aq" in {field.name for field in instruction.pattern.fields}
            target = DATA + choice.randrange(0, DATA_SIZE - 8, 8 if aligned else 1)
            registers[register] = target - offset
        elif instruction.name in ("c.jr", "c.jalr"):
            registers[instruction.operands(word).rs1] = DATA + choice.randrange(DATA_SIZE)
        count -= 1
        yield Vector(((word, instruction.length),), tuple(registers), choice.randbytes(DATA_SIZE))


def model_engine() -> Engine:
    """The reference model."""
    memory = ModelMemory(RAM_BASE, RAM_SIZE)

    def run(vector: Vector) -> Outcome:
        hart = HartModel(memory)
        hart.pc = Word(CODE)
        for address, content in ((CODE, vector.code), (DATA, vector.data)):
            memory.data[address - RAM_BASE : address - RAM_BASE + len(content)] = content
        hart.x = [*(Word(value) for value in vector.registers), Word(0)]
        for _ in vector.words:
            hart.step()
        if hart.retired != len(vector.words):
            raise AssertionError(f"trap {int(hart.mcause)} at {int(hart.mepc):#x}")
        offset = DATA - RAM_BASE
        data = bytes(memory.data[offset : offset + DATA_SIZE])
        return Outcome(tuple(int(value) for value in hart.x[:32]), int(hart.pc), data)

    return run


def unicorn_engine() -> Engine:
    """QEMU's translator of 2020, by way of Unicorn: RV64IMAFDC."""
    uc = Uc(UC_ARCH_RISCV, UC_MODE_RISCV64)
    uc.mem_map(RAM_BASE, RAM_SIZE)
    traps: list[int] = []

    def on_trap(uc: Uc, number: int, _data: object) -> None:
        traps.append(number)
        uc.emu_stop()

    uc.hook_add(UC_HOOK_INTR, on_trap)

    def run(vector: Vector) -> Outcome:
        uc.mem_write(CODE, vector.code)
        uc.ctl_remove_cache(CODE, CODE + 16)
        uc.mem_write(DATA, vector.data)
        for number, value in enumerate(vector.registers):
            uc.reg_write(UC_RISCV_REG_X0 + number, value)
        traps.clear()
        try:
            uc.emu_start(CODE, 0, count=len(vector.words))
        except UcError as error:
            raise AssertionError(f"unicorn: {error}") from error
        if traps:
            raise AssertionError(f"unicorn: trap {traps[0]}")
        registers = tuple(uc.reg_read(UC_RISCV_REG_X0 + number) for number in range(32))
        return Outcome(registers, uc.reg_read(UC_RISCV_REG_PC), bytes(uc.mem_read(DATA, DATA_SIZE)))

    return run


def compare(engine: Engine, oracle: Engine, cases: Iterator[Vector]) -> None:
    """Fail on the first case in which the two differ."""
    for vector in cases:
        ours, theirs = engine(vector), oracle(vector)
        if ours == theirs:
            continue
        names = [rv64gc().decode(word) for word, _ in vector.words]
        differences = [
            f"x{n}: {a:#x} instead of {b:#x}"
            for n, (a, b) in enumerate(zip(ours.registers, theirs.registers, strict=True))
            if a != b
        ]
        if ours.pc != theirs.pc:
            differences.append(f"pc: {ours.pc:#x} instead of {theirs.pc:#x}")
        if ours.data != theirs.data:
            differences.append(f"memory: {ours.data.hex()} instead of {theirs.data.hex()}")
        words = " ".join(f"{word:#x}" for word, _ in vector.words)
        raise AssertionError(
            f"{[n.name for n in names if n]} ({words}): {'; '.join(differences)}; from {vector}"
        )


QEMU = shutil.which("qemu-system-riscv64")


def qemu_results(cases: Sequence[tuple[int, int, int]], folder: Path) -> list[int]:
    """What a2 holds after an instruction word that reads a0 and a1, for each (word, a0, a1), by QEMU.

    All run in one bare machine, which sends its memory through the serial port at the end.
    """
    lines = ["la s0, table"]
    for word, _, _ in cases:
        lines += ["ld a0, 0(s0)", "ld a1, 8(s0)", f".word {word:#x}", "sd a2, 16(s0)", "addi s0, s0, 24"]
    lines += [
        "la s1, table",
        "li s2, 0x10000000",
        "1: lbu t0, 5(s2)",
        "andi t0, t0, 0x20",
        "beqz t0, 1b",
        "lbu t0, 0(s1)",
        "sb t0, 0(s2)",
        "addi s1, s1, 1",
        "bne s1, s0, 1b",
        "li t0, 0x100000",
        "li t1, 0x5555",
        "sw t1, 0(t0)",
        "2: j 2b",
        ".align 3",
        "table:",
    ]
    table = b"".join(a.to_bytes(8, "little") + b.to_bytes(8, "little") + bytes(8) for _, a, b in cases)
    image, output = folder / "image", folder / "output"
    image.write_bytes(assemble("\n".join(lines), RAM_BASE) + table)
    assert QEMU is not None
    machine = [QEMU, "-M", "virt", "-bios", "none", "-display", "none", "-monitor", "none"]
    subprocess.run(
        [*machine, "-serial", f"file:{output}", "-device", f"loader,file={image},addr={RAM_BASE:#x}"],
        check=True,
        timeout=120,
    )
    result = output.read_bytes()
    assert len(result) == len(table)
    return [int.from_bytes(result[i + 16 : i + 24], "little") for i in range(0, len(result), 24)]
