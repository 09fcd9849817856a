"""The M extension: integer multiplication and division (unprivileged manual, chapter "M")."""

from __future__ import annotations

from doppel.isa.instruction import Extension
from doppel.isa.words import (
    MASK64,
    Word,
    div_signed,
    div_unsigned,
    high,
    rem_signed,
    rem_unsigned,
    sext,
    signed_wide,
    wide,
    zext,
)

__all__ = ["M"]

M = Extension("M")

ZERO = Word(0)
MINUS_ONE = Word(MASK64)


@M.instruction("0000001 rs2 rs1 000 rd 0110011")
def mul(rs1: Word, rs2: Word) -> Word:
    return rs1 * rs2


@M.instruction("0000001 rs2 rs1 001 rd 0110011")
def mulh(rs1: Word, rs2: Word) -> Word:
    return high(signed_wide(rs1) * signed_wide(rs2))


@M.instruction("0000001 rs2 rs1 010 rd 0110011")
def mulhsu(rs1: Word, rs2: Word) -> Word:
    return high(signed_wide(rs1) * wide(rs2))


@M.instruction("0000001 rs2 rs1 011 rd 0110011")
def mulhu(rs1: Word, rs2: Word) -> Word:
    return high(wide(rs1) * wide(rs2))


# Division by zero gives all ones and leaves the dividend as the remainder. Dividing by -1 is negation, which
# gives what the manual asks of the one quotient that overflows.


@M.instruction("0000001 rs2 rs1 100 rd 0110011")
def div(rs1: Word, rs2: Word) -> Word:
    if rs2 == 0:
        return MINUS_ONE
    if rs2 == MINUS_ONE:
        return 0 - rs1
    return div_signed(rs1, rs2)


@M.instruction("0000001 rs2 rs1 101 rd 0110011")
def divu(rs1: Word, rs2: Word) -> Word:
    if rs2 == 0:
        return MINUS_ONE
    return div_unsigned(rs1, rs2)


@M.instruction("0000001 rs2 rs1 110 rd 0110011")
def rem(rs1: Word, rs2: Word) -> Word:
    if rs2 == 0:
        return rs1
    if rs2 == MINUS_ONE:
        return ZERO
    return rem_signed(rs1, rs2)


@M.instruction("0000001 rs2 rs1 111 rd 0110011")
def remu(rs1: Word, rs2: Word) -> Word:
    if rs2 == 0:
        return rs1
    return rem_unsigned(rs1, rs2)


@M.instruction("0000001 rs2 rs1 000 rd 0111011")
def mulw(rs1: Word, rs2: Word) -> Word:
    return sext(rs1 * rs2, 32)


# The 32-bit quotients cannot overflow 64 bits.


@M.instruction("0000001 rs2 rs1 100 rd 0111011")
def divw(rs1: Word, rs2: Word) -> Word:
    divisor = sext(rs2, 32)
    if divisor == 0:
        return MINUS_ONE
    return sext(div_signed(sext(rs1, 32), divisor), 32)


@M.instruction("0000001 rs2 rs1 101 rd 0111011")
def divuw(rs1: Word, rs2: Word) -> Word:
    divisor = zext(rs2, 32)
    if divisor == 0:
        return MINUS_ONE
    return sext(div_unsigned(zext(rs1, 32), divisor), 32)


@M.instruction("0000001 rs2 rs1 110 rd 0111011")
def remw(rs1: Word, rs2: Word) -> Word:
    divisor = sext(rs2, 32)
    if divisor == 0:
        return sext(rs1, 32)
    return sext(rem_signed(sext(rs1, 32), divisor), 32)


@M.instruction("0000001 rs2 rs1 111 rd 0111011")
def remuw(rs1: Word, rs2: Word) -> Word:
    divisor = zext(rs2, 32)
    if divisor == 0:
        return sext(rs1, 32)
    return sext(rem_unsigned(zext(rs1, 32), divisor), 32)
