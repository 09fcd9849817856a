"""The disassembler against that of GNU binutils, an independent reading of the same manuals."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from doppel.isa.disassembler import disassemble
from doppel.isa.extensions import rv64gc

from .oracle import encode_random

PREFIX = "riscv64-linux-gnu-"
# Zicond is newer than the binutils of some current distributions.
MARCH = "rv64gc_zba_zbb_zbs_zicbom_zicboz_zihintpause"

needs_binutils = pytest.mark.skipif(
    shutil.which(PREFIX + "objdump") is None or shutil.which(PREFIX + "as") is None,
    reason=f"{PREFIX}objdump or {PREFIX}as is not installed (package binutils-riscv64-linux-gnu)",
)


def objdump(words: list[tuple[int, int]], folder: Path) -> list[str]:
    """The texts of (word, length) pairs."""
    source, elf = folder / "words.s", folder / "words.o"
    lines = [f".insn {length}, {word:#x}" for word, length in words]
    source.write_text("\n".join(lines) + "\n")
    subprocess.run([PREFIX + "as", f"-march={MARCH}", str(source), "-o", str(elf)], check=True, timeout=60)
    command = [PREFIX + "objdump", "-d", "-z", "-M", "no-aliases", str(elf)]
    output = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout
    rows = [line.split("\t", 2) for line in output.splitlines() if re.match(r" *[0-9a-f]+:\t", line)]
    assert len(rows) == len(words)
    return [row[2] for row in rows]


def plain(text: str, *, target_base: int = 10) -> list[str]:
    """The words of a text, numbers in decimal; ``target_base`` is that of a last operand without prefix."""
    text = re.sub(r"\s*(<.*>|#.*)", "", text)
    # The rounding mode of conversions that are always exact has no name in older binutils.
    text = re.sub(r"(fcvt\.d\.(?:s|wu?) .*), ?rne$", r"\1", text.replace("\t", " "))
    # A fence of nothing, and shifts by zero, which RV128 takes for shifts by 64.
    text = re.sub(r"\bunknown\b", "0", text)
    text = re.sub(r"(c\.s\w+)64 (\w+)", r"\1 \2, 0", text)
    tokens = [token for token in re.split(r"[\s,()]+", text) if token]
    if target_base == 16:
        tokens[-1] = tokens[-1] if tokens[-1].startswith("0x") else "0x" + tokens[-1]
    return [str(int(t, 0)) if re.fullmatch(r"-?(0x[0-9a-f]+|\d+)", t) else t for t in tokens]


def same(ours: str, theirs: str, instruction_syntax: str) -> bool:
    base = 16 if "pc+imm" in instruction_syntax else 10
    return plain(ours) == plain(theirs, target_base=base)


@needs_binutils
def test_instructions_read_as_in_objdump(tmp_path: Path):
    choice = random.Random(40)
    cases = [
        (instruction, encode_random(instruction, choice))
        for instruction in rv64gc().instructions
        if instruction.extension != "Zicond"
        for _ in range(25)
    ]
    # CSRs without a name here have one there.
    cases = [
        (i, word)
        for i, word in cases
        if i.extension != "Zicsr" or "0x" not in disassemble(word).split(",")[1]
    ]
    # The exact conversions of older binutils allow no rounding mode but 0.
    exact = ("fcvt.d.w", "fcvt.d.wu", "fcvt.d.s")
    cases = [(i, word & ~0x7000 if i.name in exact else word) for i, word in cases]
    pc, differences = 0, []
    for (i, word), theirs in zip(cases, objdump([(w, i.length) for i, w in cases], tmp_path), strict=True):
        ours = disassemble(word, pc)
        if not same(ours, theirs, i.syntax):
            differences.append(f"{word:#x} at {pc:#x}: {ours!r}, objdump has {theirs!r}")
        pc += i.length
    assert "\n".join(differences) == ""


@needs_binutils
def test_all_compressed_words_read_as_in_objdump(tmp_path: Path):
    words = [word for word in range(1 << 16) if word & 3 != 3]
    instructions = rv64gc()
    differences = []
    for number, theirs in enumerate(objdump([(word, 2) for word in words], tmp_path)):
        word, ours = words[number], disassemble(words[number], 2 * number)
        decoded = instructions.decode(word)
        if decoded is None:
            # objdump reads c.addi16sp of zero, which is reserved.
            if not theirs.startswith((".", "c.unimp")) and word != 0x6101:
                differences.append(f"{word:#06x}: nothing, objdump has {theirs!r}")
        elif not same(ours, theirs, decoded.syntax):
            differences.append(f"{word:#06x}: {ours!r}, objdump has {theirs!r}")
    assert "\n".join(differences) == ""


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (0xFFFFFFFF, ".word 0xffffffff"),
        (0x00000000, ".half 0x0000"),
        (0x12349002, "c.ebreak"),
        (0xFE0718E3, "bne a4, zero, 0x7ffffff0"),
        (0x06B6252F, "amoadd.w.aqrl a0, a1, (a2)"),
        (0x30059573, "csrrw a0, mstatus, a1"),
        (0x7C01D573, "csrrwi a0, 0x7c0, 3"),
        (0x0FF0000F, "fence iorw, iorw"),
        (0x0000100F, "fence.i"),
        (0x0100000F, "pause"),
        (0x8330000F, "fence.tso"),
        (0x00C5F553, "fadd.s fa0, fa1, fa2"),
        (0x02C59553, "fadd.d fa0, fa1, fa2, rtz"),
        (0xFFFFF537, "lui a0, 0xfffff"),
    ],
)
def test_texts(word: int, text: str):
    assert disassemble(word, 0x8000_0000) == text


def test_targets_wrap_around():
    assert disassemble(0xFE0718E3, 0) == "bne a4, zero, 0xfffffffffffffff0"
