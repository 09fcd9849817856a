"""RV64I, the base integer instructions (unprivileged manual, chapters 2 and 4), Zifencei and Zihintpause."""

from __future__ import annotations

from doppel.isa.instruction import Extension
from doppel.isa.primitives import (
    Hart,
    branch,
    jump,
    load,
    memory_fence,
    store,
    synchronize_instructions,
    wait_for_others,
)
from doppel.isa.words import Word, sext, signed_ge, signed_lt, sra, zext

__all__ = ["ZIFENCEI", "ZIHINTPAUSE", "I"]

I = Extension("I")  # noqa: E741 - the extension's own name
ZIFENCEI = Extension("Zifencei")
ZIHINTPAUSE = Extension("Zihintpause")

UPPER = "rd, imm>>12"
BRANCH = "rs1, rs2, pc+imm"
LOAD = "rd, imm(rs1)"
STORE = "rs2, imm(rs1)"


@I.instruction("imm[31:12] rd 0110111", syntax=UPPER)
def lui(imm: Word) -> Word:
    return imm


@I.instruction("imm[31:12] rd 0010111", syntax=UPPER)
def auipc(pc: Word, imm: Word) -> Word:
    return pc + imm


@I.instruction("imm[20|10:1|11|19:12] rd 1101111", syntax="rd, pc+imm")
def jal(h: Hart, imm: Word, next_pc: Word) -> Word:
    branch(h, imm)
    return next_pc


@I.instruction("imm[11:0] rs1 000 rd 1100111", syntax=LOAD)
def jalr(h: Hart, rs1: Word, imm: Word, next_pc: Word) -> Word:
    jump(h, (rs1 + imm) & ~1)
    return next_pc


@I.instruction("imm[12|10:5] rs2 rs1 000 imm[4:1|11] 1100011", syntax=BRANCH)
def beq(h: Hart, rs1: Word, rs2: Word, imm: Word) -> None:
    if rs1 == rs2:
        branch(h, imm)


@I.instruction("imm[12|10:5] rs2 rs1 001 imm[4:1|11] 1100011", syntax=BRANCH)
def bne(h: Hart, rs1: Word, rs2: Word, imm: Word) -> None:
    if rs1 != rs2:
        branch(h, imm)


@I.instruction("imm[12|10:5] rs2 rs1 100 imm[4:1|11] 1100011", syntax=BRANCH)
def blt(h: Hart, rs1: Word, rs2: Word, imm: Word) -> None:
    if signed_lt(rs1, rs2):
        branch(h, imm)


@I.instruction("imm[12|10:5] rs2 rs1 101 imm[4:1|11] 1100011", syntax=BRANCH)
def bge(h: Hart, rs1: Word, rs2: Word, imm: Word) -> None:
    if signed_ge(rs1, rs2):
        branch(h, imm)


@I.instruction("imm[12|10:5] rs2 rs1 110 imm[4:1|11] 1100011", syntax=BRANCH)
def bltu(h: Hart, rs1: Word, rs2: Word, imm: Word) -> None:
    if rs1 < rs2:
        branch(h, imm)


@I.instruction("imm[12|10:5] rs2 rs1 111 imm[4:1|11] 1100011", syntax=BRANCH)
def bgeu(h: Hart, rs1: Word, rs2: Word, imm: Word) -> None:
    if rs1 >= rs2:
        branch(h, imm)


@I.instruction("imm[11:0] rs1 000 rd 0000011", syntax=LOAD)
def lb(h: Hart, rs1: Word, imm: Word) -> Word:
    return sext(load(h, rs1 + imm, 1), 8)


@I.instruction("imm[11:0] rs1 001 rd 0000011", syntax=LOAD)
def lh(h: Hart, rs1: Word, imm: Word) -> Word:
    return sext(load(h, rs1 + imm, 2), 16)


@I.instruction("imm[11:0] rs1 010 rd 0000011", syntax=LOAD)
def lw(h: Hart, rs1: Word, imm: Word) -> Word:
    return sext(load(h, rs1 + imm, 4), 32)


@I.instruction("imm[11:0] rs1 011 rd 0000011", syntax=LOAD)
def ld(h: Hart, rs1: Word, imm: Word) -> Word:
    return load(h, rs1 + imm, 8)


@I.instruction("imm[11:0] rs1 100 rd 0000011", syntax=LOAD)
def lbu(h: Hart, rs1: Word, imm: Word) -> Word:
    return load(h, rs1 + imm, 1)


@I.instruction("imm[11:0] rs1 101 rd 0000011", syntax=LOAD)
def lhu(h: Hart, rs1: Word, imm: Word) -> Word:
    return load(h, rs1 + imm, 2)


@I.instruction("imm[11:0] rs1 110 rd 0000011", syntax=LOAD)
def lwu(h: Hart, rs1: Word, imm: Word) -> Word:
    return load(h, rs1 + imm, 4)


@I.instruction("imm[11:5] rs2 rs1 000 imm[4:0] 0100011", syntax=STORE)
def sb(h: Hart, rs1: Word, rs2: Word, imm: Word) -> None:
    store(h, rs1 + imm, 1, rs2)


@I.instruction("imm[11:5] rs2 rs1 001 imm[4:0] 0100011", syntax=STORE)
def sh(h: Hart, rs1: Word, rs2: Word, imm: Word) -> None:
    store(h, rs1 + imm, 2, rs2)


@I.instruction("imm[11:5] rs2 rs1 010 imm[4:0] 0100011", syntax=STORE)
def sw(h: Hart, rs1: Word, rs2: Word, imm: Word) -> None:
    store(h, rs1 + imm, 4, rs2)


@I.instruction("imm[11:5] rs2 rs1 011 imm[4:0] 0100011", syntax=STORE)
def sd(h: Hart, rs1: Word, rs2: Word, imm: Word) -> None:
    store(h, rs1 + imm, 8, rs2)


@I.instruction("imm[11:0] rs1 000 rd 0010011")
def addi(rs1: Word, imm: Word) -> Word:
    return rs1 + imm


@I.instruction("imm[11:0] rs1 010 rd 0010011")
def slti(rs1: Word, imm: Word) -> bool:
    return signed_lt(rs1, imm)


@I.instruction("imm[11:0] rs1 011 rd 0010011")
def sltiu(rs1: Word, imm: Word) -> bool:
    return rs1 < imm


@I.instruction("imm[11:0] rs1 100 rd 0010011")
def xori(rs1: Word, imm: Word) -> Word:
    return rs1 ^ imm


@I.instruction("imm[11:0] rs1 110 rd 0010011")
def ori(rs1: Word, imm: Word) -> Word:
    return rs1 | imm


@I.instruction("imm[11:0] rs1 111 rd 0010011")
def andi(rs1: Word, imm: Word) -> Word:
    return rs1 & imm


@I.instruction("000000 shamt[5:0] rs1 001 rd 0010011")
def slli(rs1: Word, shamt: Word) -> Word:
    return rs1 << shamt


@I.instruction("000000 shamt[5:0] rs1 101 rd 0010011")
def srli(rs1: Word, shamt: Word) -> Word:
    return rs1 >> shamt


@I.instruction("010000 shamt[5:0] rs1 101 rd 0010011")
def srai(rs1: Word, shamt: Word) -> Word:
    return sra(rs1, shamt)


@I.instruction("0000000 rs2 rs1 000 rd 0110011")
def add(rs1: Word, rs2: Word) -> Word:
    return rs1 + rs2


@I.instruction("0100000 rs2 rs1 000 rd 0110011")
def sub(rs1: Word, rs2: Word) -> Word:
    return rs1 - rs2


@I.instruction("0000000 rs2 rs1 001 rd 0110011")
def sll(rs1: Word, rs2: Word) -> Word:
    return rs1 << (rs2 & 63)


@I.instruction("0000000 rs2 rs1 010 rd 0110011")
def slt(rs1: Word, rs2: Word) -> bool:
    return signed_lt(rs1, rs2)


@I.instruction("0000000 rs2 rs1 011 rd 0110011")
def sltu(rs1: Word, rs2: Word) -> bool:
    return rs1 < rs2


@I.instruction("0000000 rs2 rs1 100 rd 0110011")
def xor(rs1: Word, rs2: Word) -> Word:
    return rs1 ^ rs2


@I.instruction("0000000 rs2 rs1 101 rd 0110011")
def srl(rs1: Word, rs2: Word) -> Word:
    return rs1 >> (rs2 & 63)


@I.instruction("0100000 rs2 rs1 101 rd 0110011")
def sra_(rs1: Word, rs2: Word) -> Word:
    return sra(rs1, rs2 & 63)


@I.instruction("0000000 rs2 rs1 110 rd 0110011")
def or_(rs1: Word, rs2: Word) -> Word:
    return rs1 | rs2


@I.instruction("0000000 rs2 rs1 111 rd 0110011")
def and_(rs1: Word, rs2: Word) -> Word:
    return rs1 & rs2


@I.instruction("imm[11:0] rs1 000 rd 0011011")
def addiw(rs1: Word, imm: Word) -> Word:
    return sext(rs1 + imm, 32)


@I.instruction("0000000 shamt[4:0] rs1 001 rd 0011011")
def slliw(rs1: Word, shamt: Word) -> Word:
    return sext(rs1 << shamt, 32)


@I.instruction("0000000 shamt[4:0] rs1 101 rd 0011011")
def srliw(rs1: Word, shamt: Word) -> Word:
    return sext(zext(rs1, 32) >> shamt, 32)


@I.instruction("0100000 shamt[4:0] rs1 101 rd 0011011")
def sraiw(rs1: Word, shamt: Word) -> Word:
    return sra(sext(rs1, 32), shamt)


@I.instruction("0000000 rs2 rs1 000 rd 0111011")
def addw(rs1: Word, rs2: Word) -> Word:
    return sext(rs1 + rs2, 32)


@I.instruction("0100000 rs2 rs1 000 rd 0111011")
def subw(rs1: Word, rs2: Word) -> Word:
    return sext(rs1 - rs2, 32)


@I.instruction("0000000 rs2 rs1 001 rd 0111011")
def sllw(rs1: Word, rs2: Word) -> Word:
    return sext(rs1 << (rs2 & 31), 32)


@I.instruction("0000000 rs2 rs1 101 rd 0111011")
def srlw(rs1: Word, rs2: Word) -> Word:
    return sext(zext(rs1, 32) >> (rs2 & 31), 32)


@I.instruction("0100000 rs2 rs1 101 rd 0111011")
def sraw(rs1: Word, rs2: Word) -> Word:
    return sra(sext(rs1, 32), rs2 & 31)


@I.instruction("1000 0011 0011 00000 000 00000 0001111")
def fence_tso(h: Hart) -> None:
    memory_fence(h)


# Reserved fence modes and nonzero rd and rs1 are to be treated as plain fences (2.7).
@I.instruction("fm pred succ rs1 000 rd 0001111", syntax="pred, succ")
def fence(h: Hart) -> None:
    memory_fence(h)


# The blank syntax: nothing is written of fields that are to be ignored.
@ZIFENCEI.instruction("imm[11:0] rs1 001 rd 0001111", name="fence.i", syntax="")
def fence_i(h: Hart) -> None:
    synchronize_instructions(h)


# A fence by its encoding, so this extension comes before I in the instruction set.
@ZIHINTPAUSE.instruction("000000010000 00000 000 00000 0001111")
def pause(h: Hart) -> None:
    wait_for_others(h)
