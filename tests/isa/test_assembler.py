"""The assembler: inverse of the disassembler, pseudo-instructions, directives, expressions and mistakes."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.isa.assembler import AssemblyError, assemble, assemble_program
from doppel.isa.disassembler import disassemble
from doppel.isa.extensions import rv64gc
from doppel.isa.instruction import Instruction
from doppel.isa.model import HartModel, ModelMemory
from doppel.isa.words import Word

from .oracle import RAM_BASE, encode_random

PREFIX = "riscv64-linux-gnu-"


@pytest.mark.parametrize("instruction", rv64gc().instructions, ids=lambda i: i.name)
def test_assembler_inverts_disassembler(instruction: Instruction):
    choice = random.Random(instruction.name)
    for _ in range(20):
        word = encode_random(instruction, choice)
        text = disassemble(word, RAM_BASE)
        assert assemble(text, RAM_BASE) == word.to_bytes(instruction.length, "little"), text


def lines(code: bytes, origin: int = 0) -> list[str]:
    texts, offset = [], 0
    while offset < len(code):
        word = int.from_bytes(code[offset : offset + 4], "little")
        texts.append(disassemble(word, origin + offset))
        offset += 4 if word & 3 == 3 else 2
    return texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nop", ["addi zero, zero, 0"]),
        ("mv x10, fp", ["addi a0, s0, 0"]),
        ("not a0, a1", ["xori a0, a1, -1"]),
        ("bgtz a0, .", ["blt zero, a0, 0x1000"]),
        ("ble a0, a1, .+8", ["bge a1, a0, 0x1008"]),
        ("jr a0", ["jalr zero, 0(a0)"]),
        ("jalr a0", ["jalr ra, 0(a0)"]),
        ("ret", ["jalr zero, 0(ra)"]),
        ("j .-2", ["jal zero, 0xffe"]),
        ("call .+0x12345678", ["auipc ra, 0x12345", "jalr ra, 1656(ra)"]),
        ("la a0, .-1", ["auipc a0, 0x0", "addi a0, a0, -1"]),
        ("csrw satp, a0", ["csrrw zero, satp, a0"]),
        ("csrr a0, 0xf14", ["csrrs a0, mhartid, zero"]),
        ("csrsi mstatus, 1 << 3", ["csrrsi zero, mstatus, 8"]),
        ("fence", ["fence iorw, iorw"]),
        ("fence w, r", ["fence w, r"]),
        ("sfence.vma", ["sfence.vma zero, zero"]),
        ("fmv.d fa0, fa1", ["fsgnj.d fa0, fa1, fa1"]),
        ("fadd.s fa0, fa1, fa2", ["fadd.s fa0, fa1, fa2"]),
        ("lw a0, (a1)", ["lw a0, 0(a1)"]),
        ("lw a0, %lo(0x12345fff)(a1)", ["lw a0, -1(a1)"]),
        ("lui a0, %hi(0x12345fff)", ["lui a0, 0x12346"]),
        ("lui a0, -1", ["lui a0, 0xfffff"]),
        ("lr.w a0, 0(a1)", ["lr.w a0, (a1)"]),
        ("amoswap.d.aq a0, a1, (a2)", ["amoswap.d.aq a0, a1, (a2)"]),
        ("c.nop", ["c.addi zero, 0"]),
        ("li a0, 0x80000000", ["addi a0, zero, 1", "slli a0, a0, 31"]),
        ("li a0, -0x80000000", ["lui a0, 0x80000"]),
        ("unimp", ["csrrw zero, cycle, zero"]),
    ],
)
def test_what_it_makes_of(text: str, expected: list[str]):
    assert lines(assemble(text, 0x1000), 0x1000) == expected


@given(st.one_of(st.integers(-(1 << 63), (1 << 64) - 1), st.integers(-(1 << 33), 1 << 33)))
def test_li_gives_the_number(value: int):
    memory = ModelMemory(RAM_BASE, 64)
    code = assemble(f"li a0, {value}")
    assert len(code) <= 8 * 4
    memory.data[: len(code)] = code
    hart = HartModel(memory)
    hart.pc = Word(RAM_BASE)
    while hart.pc < RAM_BASE + len(code):
        hart.step()
    assert hart.x[10] == value % (1 << 64)


def test_program():
    program = assemble_program(
        """
        .equ  SIZE, 4 * 2          # a comment with ; and "
        start:
            li    t0, SIZE - 1     // another
        1:  addi  t0, t0, -1 ; bnez t0, 1b
            beqz  t0, 1f
            ebreak
        1:  la    a0, text
            j     end
        text: .asciz "a,b # (\\"x\\")\\n"
            .balign 8
        end:
            .dword text, end - start
            .byte 'A', '\\n', -1, 255
            .half 0x1234
            .align 3
            .word text
            .zero 2
        """,
        origin=0x8000_0000,
    )
    text, end = program.symbols["text"], program.symbols["end"]
    assert program.symbols == {"SIZE": 8, "start": 0x8000_0000, "text": text, "end": end}
    assert lines(program.code[: text - 0x8000_0000], 0x8000_0000) == [
        "addi t0, zero, 7",
        "addi t0, t0, -1",
        "bne t0, zero, 0x80000004",
        "beq t0, zero, 0x80000014",
        "ebreak",
        "auipc a0, 0x0",
        "addi a0, a0, 12",
        f"jal zero, {end:#x}",
    ]
    assert program.code[text - 0x8000_0000 :].startswith(b'a,b # ("x")\n\0')
    data = program.code[end - 0x8000_0000 :]
    assert data[:16] == text.to_bytes(8, "little") + (end - 0x8000_0000).to_bytes(8, "little")
    assert data[16:24] == b"A\n\xff\xff\x34\x12\x01\x00"
    assert data[24:] == text.to_bytes(4, "little") + bytes(2)


def test_symbols_from_outside():
    assert assemble("li a0, UART", symbols={"UART": 0x123}) == assemble("li a0, 0x123")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("-7 / 2", -3),
        ("1 << 4 | 1", 17),
        ("~0 & 0xff ^ 0b1", 0xFE),
        ("10 - 4 - 3", 3),
        ("0x10 >> 2", 4),
        ("-(-5)", 5),
        ("'A' + 1", 66),
        ("'\\\\'", 92),
    ],
)
def test_expressions(expression: str, value: int):
    assert assemble(f".dword {expression}") == (value % (1 << 64)).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frobnicate a0", "line 1: no such instruction: frobnicate"),
        ("nop\naddi a0, a0, 2048", "line 2: imm cannot be 2048"),
        ("add a0, a1", "line 1: add takes rd, rs1, rs2"),
        ("add a0, a1, fa2", "line 1: not a register of that kind: 'fa2'"),
        ("lw a0, 4", "line 1: expected offset"),
        ("lr.w a0, 4(a1)", "line 1: no offset is possible"),
        ("beq a0, a1, nowhere", "line 1: nowhere is not defined"),
        ("j 1f", "line 1: 1.1 is not defined"),
        ("li a0, later\nlater:", "line 1: later is not defined above"),
        ("x: nop\nx: nop", "line 2: x is defined twice"),
        ("c.lui a0, 0", "line 1: reserved encoding of c.lui"),
        ("c.addi4spn a0, ra, 4", "line 1: expected sp"),
        ("c.lw a0, 4(sp)", "line 1: rs1' cannot be 2"),
        ("c.lwsp a0, 4(a1)", "line 1: the base register must be sp"),
        ("add.aq a0, a1, a2", "line 1: no such instruction: add.aq"),
        ("lui a0, 0x100000", "line 1: upper immediate out of range"),
        ("jal a0, .+1", "line 1: imm cannot be 1"),
        (".byte 256", "line 1: 256 does not fit into 1 bytes"),
        (".word 1 +", "line 1: not an expression: '1 +'"),
        (".word 1 2", "line 1: not an expression"),
        (".word 1/0", "line 1: division by zero"),
        (".word 1 << 99", "line 1: shift by 99"),
        (".word %top(3)", "line 1: no such modifier: %top"),
        (".word", "line 1: .word takes some operands"),
        (".zero -1", "line 1: cannot leave -1 bytes free"),
        (".zero 1 << 40", "line 1: cannot leave"),
        (".balign 3", "line 1: cannot align to 3 bytes"),
        (".align", "line 1: .align takes 1 operands"),
        (".ascii hello", "line 1: not a string: hello"),
        (".nonsense 3", "line 1: no such instruction: .nonsense"),
        ("li a0, 1 << 63 << 1", "line 1: 1 << 63 << 1 has more than 64 bits"),
        ("csrr a0, nosuchcsr", "line 1: nosuchcsr is not defined"),
        ("fadd.s fa0, fa1, fa2, up", "line 1: up is not defined"),
    ],
)
def test_mistakes(text: str, message: str):
    with pytest.raises(AssemblyError) as error:
        assemble(text)
    assert str(error.value).startswith(message)


@pytest.mark.skipif(
    shutil.which(PREFIX + "as") is None,
    reason=f"{PREFIX}as is not installed (package binutils-riscv64-linux-gnu)",
)
def test_a_program_like_that_of_the_gnu_assembler(tmp_path: Path):
    source = """
    start: li a0, 0x123456789abcdef0
      li a1, -1
      li a2, 0x7ffff800
      li a3, 0x123450000
      mv s0, sp
      seqz a0, a1
      sext.w a0, a0
      neg t0, t1
      beqz a0, start
    1: bgt a0, a1, 1b
      bleu a0, a1, 1f
      csrw mtvec, a0
      csrci mstatus, 8
      rdtime a0
      fcvt.w.s a0, fa0, rtz
      fneg.d fa0, fa1
      fld fa0, 16(sp)
      fence rw, w
      sc.w.rl a0, a1, (a2)
      jr ra
    1: ret
      .word 0x12345678
      .byte 1, 2, 'x'
      .asciz "end"
    """
    assembly, elf, flat = tmp_path / "a.s", tmp_path / "a.o", tmp_path / "a.bin"
    assembly.write_text(".option norelax\n.option norvc\n" + source)
    run = {"check": True, "timeout": 60}
    subprocess.run([PREFIX + "as", "-march=rv64gc", str(assembly), "-o", str(elf)], **run)
    subprocess.run([PREFIX + "objcopy", "-O", "binary", "-j", ".text", str(elf), str(flat)], **run)
    assert lines(assemble(source)) == lines(flat.read_bytes())
