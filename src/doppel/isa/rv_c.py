"""The C extension: 16-bit forms of other instructions (unprivileged manual, chapter "C").

Reserved encodings are left undefined here. Hints expand to instructions that change nothing.
"""

from __future__ import annotations

from doppel.isa.instruction import Extension
from doppel.isa.rv_d import D
from doppel.isa.rv_i import I
from doppel.isa.rv_system import PRIVILEGED

__all__ = ["C"]

C = Extension("C")

# Quadrant 0
C.compressed(
    "c.addi4spn",
    "000 nzuimm[5:4|9:6|2|3] rd' 00",
    I,
    "addi",
    nonzero="nzuimm",
    syntax="rd', sp, nzuimm",
    rd="rd'",
    rs1=2,
    imm="nzuimm",
)


def _load(name: str, pattern: str, expands: Extension, base: str, rd: str) -> None:
    syntax = f"{rd}, uimm(rs1')"
    C.compressed(name, pattern, expands, base, syntax=syntax, rd=rd, rs1="rs1'", imm="uimm")


def _store(name: str, pattern: str, expands: Extension, base: str, rs2: str) -> None:
    syntax = f"{rs2}, uimm(rs1')"
    C.compressed(name, pattern, expands, base, syntax=syntax, rs2=rs2, rs1="rs1'", imm="uimm")


_load("c.fld", "001 uimm[5:3] rs1' uimm[7:6] fd' 00", D, "fld", "fd'")
_load("c.lw", "010 uimm[5:3] rs1' uimm[2|6] rd' 00", I, "lw", "rd'")
_load("c.ld", "011 uimm[5:3] rs1' uimm[7:6] rd' 00", I, "ld", "rd'")
_store("c.fsd", "101 uimm[5:3] rs1' uimm[7:6] fs2' 00", D, "fsd", "fs2'")
_store("c.sw", "110 uimm[5:3] rs1' uimm[2|6] rs2' 00", I, "sw", "rs2'")
_store("c.sd", "111 uimm[5:3] rs1' uimm[7:6] rs2' 00", I, "sd", "rs2'")


# Quadrant 1
def _immediate(name: str, pattern: str, base: str, nonzero: str = "") -> None:
    C.compressed(name, pattern, I, base, nonzero=nonzero, syntax="rd, imm", rd="rd", rs1="rd", imm="imm")


_immediate("c.addi", "000 imm[5] rd imm[4:0] 01", "addi")
_immediate("c.addiw", "001 imm[5] rd imm[4:0] 01", "addiw", nonzero="rd")
C.compressed("c.li", "010 imm[5] rd imm[4:0] 01", I, "addi", rd="rd", imm="imm")
# Before c.lui, which gives way to it for x2.
C.compressed(
    "c.addi16sp",
    "011 nzimm[9] 00010 nzimm[4|6|8:7|5] 01",
    I,
    "addi",
    nonzero="nzimm",
    syntax="sp, nzimm",
    rd=2,
    rs1=2,
    imm="nzimm",
)
C.compressed(
    "c.lui",
    "011 nzimm[17] rd nzimm[16:12] 01",
    I,
    "lui",
    nonzero="nzimm",
    syntax="rd, nzimm>>12",
    rd="rd",
    imm="nzimm",
)
C.compressed("c.srli", "100 shamt[5] 00 rd' shamt[4:0] 01", I, "srli", rd="rd'", rs1="rd'", imm="shamt")
C.compressed("c.srai", "100 shamt[5] 01 rd' shamt[4:0] 01", I, "srai", rd="rd'", rs1="rd'", imm="shamt")
C.compressed("c.andi", "100 imm[5] 10 rd' imm[4:0] 01", I, "andi", rd="rd'", rs1="rd'", imm="imm")
for _name, _bits in (("sub", "00"), ("xor", "01"), ("or", "10"), ("and", "11")):
    C.compressed(f"c.{_name}", f"100011 rd' {_bits} rs2' 01", I, _name, rd="rd'", rs1="rd'", rs2="rs2'")
for _name, _bits in (("subw", "00"), ("addw", "01")):
    C.compressed(f"c.{_name}", f"100111 rd' {_bits} rs2' 01", I, _name, rd="rd'", rs1="rd'", rs2="rs2'")
C.compressed("c.j", "101 imm[11|4|9:8|10|6|7|3:1|5] 01", I, "jal", syntax="pc+imm", imm="imm")
for _name, _bits in (("beq", "110"), ("bne", "111")):
    C.compressed(
        f"c.{_name}z",
        f"{_bits} imm[8|4:3] rs1' imm[7:6|2:1|5] 01",
        I,
        _name,
        syntax="rs1', pc+imm",
        rs1="rs1'",
        imm="imm",
    )


# Quadrant 2
def _load_from_stack(
    name: str, pattern: str, expands: Extension, base: str, rd: str, nonzero: str = ""
) -> None:
    syntax = f"{rd}, uimm(sp)"
    C.compressed(name, pattern, expands, base, nonzero=nonzero, syntax=syntax, rd=rd, rs1=2, imm="uimm")


def _store_to_stack(name: str, pattern: str, expands: Extension, base: str, rs2: str) -> None:
    syntax = f"{rs2}, uimm(sp)"
    C.compressed(name, pattern, expands, base, syntax=syntax, rs2=rs2, rs1=2, imm="uimm")


C.compressed("c.slli", "000 shamt[5] rd shamt[4:0] 10", I, "slli", rd="rd", rs1="rd", imm="shamt")
_load_from_stack("c.fldsp", "001 uimm[5] fd uimm[4:3|8:6] 10", D, "fld", "fd")
_load_from_stack("c.lwsp", "010 uimm[5] rd uimm[4:2|7:6] 10", I, "lw", "rd", nonzero="rd")
_load_from_stack("c.ldsp", "011 uimm[5] rd uimm[4:3|8:6] 10", I, "ld", "rd", nonzero="rd")
_store_to_stack("c.fsdsp", "101 uimm[5:3|8:6] fs2 10", D, "fsd", "fs2")
_store_to_stack("c.swsp", "110 uimm[5:2|7:6] rs2 10", I, "sw", "rs2")
_store_to_stack("c.sdsp", "111 uimm[5:3|8:6] rs2 10", I, "sd", "rs2")
C.compressed("c.jr", "1000 rs1 00000 10", I, "jalr", nonzero="rs1", rs1="rs1")
C.compressed("c.mv", "1000 rd rs2 10", I, "add", nonzero="rs2", rd="rd", rs2="rs2")
C.compressed("c.ebreak", "1001 00000 00000 10", PRIVILEGED, "ebreak")
C.compressed("c.jalr", "1001 rs1 00000 10", I, "jalr", nonzero="rs1", rd=1, rs1="rs1")
C.compressed("c.add", "1001 rd rs2 10", I, "add", nonzero="rs2", rd="rd", rs1="rd", rs2="rs2")
