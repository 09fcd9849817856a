"""The B extension: Zba, Zbb and Zbs (unprivileged manual, chapter "B"), and Zicond (chapter "Zicond")."""

from __future__ import annotations

from doppel.isa.instruction import Extension
from doppel.isa.words import (
    Word,
    byte_swap,
    clz,
    ctz,
    popcount,
    select,
    sext,
    signed_lt,
    zext,
)

__all__ = ["ZBA", "ZBB", "ZBS", "ZICOND"]

ZBA = Extension("Zba")
ZBB = Extension("Zbb")
ZBS = Extension("Zbs")
ZICOND = Extension("Zicond")

ZERO = Word(0)
ONE = Word(1)
LOW_BITS = Word(0x7F7F_7F7F_7F7F_7F7F)


def rotate_right(x: Word, amount: Word) -> Word:
    """Rotate 64 bits by the amount modulo 64."""
    return x >> (amount & 63) | x << ((0 - amount) & 63)


def rotate_right_word(x: Word, amount: Word) -> Word:
    """Rotate the low 32 bits by the amount modulo 32, and sign-extend."""
    low = zext(x, 32)
    return sext(low >> (amount & 31) | low << ((0 - amount) & 31), 32)


@ZBA.instruction("0000100 rs2 rs1 000 rd 0111011")
def add_uw(rs1: Word, rs2: Word) -> Word:
    return zext(rs1, 32) + rs2


@ZBA.instruction("0010000 rs2 rs1 010 rd 0110011")
def sh1add(rs1: Word, rs2: Word) -> Word:
    return (rs1 << 1) + rs2


@ZBA.instruction("0010000 rs2 rs1 100 rd 0110011")
def sh2add(rs1: Word, rs2: Word) -> Word:
    return (rs1 << 2) + rs2


@ZBA.instruction("0010000 rs2 rs1 110 rd 0110011")
def sh3add(rs1: Word, rs2: Word) -> Word:
    return (rs1 << 3) + rs2


@ZBA.instruction("0010000 rs2 rs1 010 rd 0111011")
def sh1add_uw(rs1: Word, rs2: Word) -> Word:
    return (zext(rs1, 32) << 1) + rs2


@ZBA.instruction("0010000 rs2 rs1 100 rd 0111011")
def sh2add_uw(rs1: Word, rs2: Word) -> Word:
    return (zext(rs1, 32) << 2) + rs2


@ZBA.instruction("0010000 rs2 rs1 110 rd 0111011")
def sh3add_uw(rs1: Word, rs2: Word) -> Word:
    return (zext(rs1, 32) << 3) + rs2


@ZBA.instruction("000010 shamt[5:0] rs1 001 rd 0011011")
def slli_uw(rs1: Word, shamt: Word) -> Word:
    return zext(rs1, 32) << shamt


@ZBB.instruction("0100000 rs2 rs1 111 rd 0110011")
def andn(rs1: Word, rs2: Word) -> Word:
    return rs1 & ~rs2


@ZBB.instruction("0100000 rs2 rs1 110 rd 0110011")
def orn(rs1: Word, rs2: Word) -> Word:
    return rs1 | ~rs2


@ZBB.instruction("0100000 rs2 rs1 100 rd 0110011")
def xnor(rs1: Word, rs2: Word) -> Word:
    return ~(rs1 ^ rs2)


@ZBB.instruction("011000000000 rs1 001 rd 0010011")
def clz_(rs1: Word) -> Word:
    return clz(rs1)


@ZBB.instruction("011000000000 rs1 001 rd 0011011")
def clzw(rs1: Word) -> Word:
    return clz(zext(rs1, 32)) - 32


@ZBB.instruction("011000000001 rs1 001 rd 0010011")
def ctz_(rs1: Word) -> Word:
    return ctz(rs1)


@ZBB.instruction("011000000001 rs1 001 rd 0011011")
def ctzw(rs1: Word) -> Word:
    return ctz(rs1 | (1 << 32))


@ZBB.instruction("011000000010 rs1 001 rd 0010011")
def cpop(rs1: Word) -> Word:
    return popcount(rs1)


@ZBB.instruction("011000000010 rs1 001 rd 0011011")
def cpopw(rs1: Word) -> Word:
    return popcount(zext(rs1, 32))


@ZBB.instruction("0000101 rs2 rs1 110 rd 0110011")
def max_(rs1: Word, rs2: Word) -> Word:
    return select(signed_lt(rs1, rs2), rs2, rs1)


@ZBB.instruction("0000101 rs2 rs1 111 rd 0110011")
def maxu(rs1: Word, rs2: Word) -> Word:
    return select(rs1 < rs2, rs2, rs1)


@ZBB.instruction("0000101 rs2 rs1 100 rd 0110011")
def min_(rs1: Word, rs2: Word) -> Word:
    return select(signed_lt(rs1, rs2), rs1, rs2)


@ZBB.instruction("0000101 rs2 rs1 101 rd 0110011")
def minu(rs1: Word, rs2: Word) -> Word:
    return select(rs1 < rs2, rs1, rs2)


@ZBB.instruction("011000000100 rs1 001 rd 0010011")
def sext_b(rs1: Word) -> Word:
    return sext(rs1, 8)


@ZBB.instruction("011000000101 rs1 001 rd 0010011")
def sext_h(rs1: Word) -> Word:
    return sext(rs1, 16)


@ZBB.instruction("000010000000 rs1 100 rd 0111011")
def zext_h(rs1: Word) -> Word:
    return zext(rs1, 16)


@ZBB.instruction("0110000 rs2 rs1 001 rd 0110011")
def rol(rs1: Word, rs2: Word) -> Word:
    return rotate_right(rs1, 0 - rs2)


@ZBB.instruction("0110000 rs2 rs1 001 rd 0111011")
def rolw(rs1: Word, rs2: Word) -> Word:
    return rotate_right_word(rs1, 0 - rs2)


@ZBB.instruction("0110000 rs2 rs1 101 rd 0110011")
def ror(rs1: Word, rs2: Word) -> Word:
    return rotate_right(rs1, rs2)


@ZBB.instruction("011000 shamt[5:0] rs1 101 rd 0010011")
def rori(rs1: Word, shamt: Word) -> Word:
    return rotate_right(rs1, shamt)


@ZBB.instruction("0110000 shamt[4:0] rs1 101 rd 0011011")
def roriw(rs1: Word, shamt: Word) -> Word:
    return rotate_right_word(rs1, shamt)


@ZBB.instruction("0110000 rs2 rs1 101 rd 0111011")
def rorw(rs1: Word, rs2: Word) -> Word:
    return rotate_right_word(rs1, rs2)


# Adding 0x7F to the low seven bits of a byte carries into its top bit unless they are all zero.
@ZBB.instruction("001010000111 rs1 101 rd 0010011")
def orc_b(rs1: Word) -> Word:
    nonzero = ((rs1 & LOW_BITS) + LOW_BITS | rs1) & ~LOW_BITS
    return (nonzero >> 7) * 0xFF


@ZBB.instruction("011010111000 rs1 101 rd 0010011")
def rev8(rs1: Word) -> Word:
    return byte_swap(rs1)


@ZBS.instruction("0100100 rs2 rs1 001 rd 0110011")
def bclr(rs1: Word, rs2: Word) -> Word:
    return rs1 & ~(ONE << (rs2 & 63))


@ZBS.instruction("010010 shamt[5:0] rs1 001 rd 0010011")
def bclri(rs1: Word, shamt: Word) -> Word:
    return rs1 & ~(ONE << shamt)


@ZBS.instruction("0100100 rs2 rs1 101 rd 0110011")
def bext(rs1: Word, rs2: Word) -> Word:
    return rs1 >> (rs2 & 63) & 1


@ZBS.instruction("010010 shamt[5:0] rs1 101 rd 0010011")
def bexti(rs1: Word, shamt: Word) -> Word:
    return rs1 >> shamt & 1


@ZBS.instruction("0110100 rs2 rs1 001 rd 0110011")
def binv(rs1: Word, rs2: Word) -> Word:
    return rs1 ^ ONE << (rs2 & 63)


@ZBS.instruction("011010 shamt[5:0] rs1 001 rd 0010011")
def binvi(rs1: Word, shamt: Word) -> Word:
    return rs1 ^ ONE << shamt


@ZBS.instruction("0010100 rs2 rs1 001 rd 0110011")
def bset(rs1: Word, rs2: Word) -> Word:
    return rs1 | ONE << (rs2 & 63)


@ZBS.instruction("001010 shamt[5:0] rs1 001 rd 0010011")
def bseti(rs1: Word, shamt: Word) -> Word:
    return rs1 | ONE << shamt


@ZICOND.instruction("0000111 rs2 rs1 101 rd 0110011")
def czero_eqz(rs1: Word, rs2: Word) -> Word:
    return select(rs2 == 0, ZERO, rs1)


@ZICOND.instruction("0000111 rs2 rs1 111 rd 0110011")
def czero_nez(rs1: Word, rs2: Word) -> Word:
    return select(rs2 != 0, ZERO, rs1)
