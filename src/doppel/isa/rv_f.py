"""The F extension: single-precision floating point (unprivileged manual, chapter "F").

What every format has is defined here once, by :func:`define_format`, for the D extension too.
"""

from __future__ import annotations

from doppel.isa.csr import require_fp
from doppel.isa.instruction import Extension
from doppel.isa.primitives import Hart, load, store
from doppel.isa.privileged.constants import Cause, Status
from doppel.isa.softfloat import (
    RMM,
    canonical_nan,
    float_add,
    float_classify,
    float_div,
    float_eq,
    float_fma,
    float_from_int,
    float_le,
    float_lt,
    float_max,
    float_min,
    float_mul,
    float_sqrt,
    float_sub,
    float_to_int,
    negate,
)
from doppel.isa.words import Trap, Word, sext, zext

__all__ = ["F", "box", "define_format", "modify_fp", "rounding", "unbox"]

F = Extension("F")

# The value of rm that means frm.
DYNAMIC = 7


def modify_fp(h: Hart) -> None:
    """:func:`require_fp` for an instruction that writes a register or may raise flags: FS becomes Dirty."""
    if h.mstatus & Status.FS != Status.FS:
        require_fp(h)
        h.mstatus = h.mstatus | Status.FS


def rounding(h: Hart, rm: Word) -> Word:
    """The rounding mode that an instruction's ``rm`` field means; reserved ones trap, also those in frm."""
    mode = rm
    if rm == DYNAMIC:
        mode = h.frm
    if mode > RMM:
        raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)
    return mode


def unbox(register: Word, bits: int) -> Word:
    """The value of that width in a register: the canonical NaN if it is not NaN-boxed (chapter "D")."""
    if bits == 64:
        return register
    if register >> 32 == 0xFFFF_FFFF:
        return zext(register, 32)
    return canonical_nan(32)


def box(value: Word, bits: int) -> Word:
    """A register that holds a value of that width: the bits above it are all ones."""
    if bits == 64:
        return value
    return value | 0xFFFF_FFFF_0000_0000


def define_format(extension: Extension, suffix: str, fmt: str, bits: int) -> None:
    """Define what exists for each format; ``fmt`` is its two-bit code."""
    _define_arithmetic(extension, suffix, fmt, bits)
    _define_fused(extension, suffix, fmt, bits)
    _define_comparisons(extension, suffix, fmt, bits)
    _define_signs(extension, suffix, fmt, bits)
    _define_integer_conversions(extension, suffix, fmt, bits, "w", "00000", 1, 32)
    _define_integer_conversions(extension, suffix, fmt, bits, "wu", "00001", 0, 32)
    _define_integer_conversions(extension, suffix, fmt, bits, "l", "00010", 1, 64)
    _define_integer_conversions(extension, suffix, fmt, bits, "lu", "00011", 0, 64)


def _define_arithmetic(extension: Extension, suffix: str, fmt: str, bits: int) -> None:
    @extension.instruction(f"00000 {fmt} fs2 fs1 rm fd 1010011", name=f"fadd.{suffix}")
    def fadd(h: Hart, fs1: Word, fs2: Word, rm: Word) -> Word:
        mode = rounding(h, rm)
        modify_fp(h)
        return box(float_add(h, unbox(fs1, bits), unbox(fs2, bits), mode, bits), bits)

    @extension.instruction(f"00001 {fmt} fs2 fs1 rm fd 1010011", name=f"fsub.{suffix}")
    def fsub(h: Hart, fs1: Word, fs2: Word, rm: Word) -> Word:
        mode = rounding(h, rm)
        modify_fp(h)
        return box(float_sub(h, unbox(fs1, bits), unbox(fs2, bits), mode, bits), bits)

    @extension.instruction(f"00010 {fmt} fs2 fs1 rm fd 1010011", name=f"fmul.{suffix}")
    def fmul(h: Hart, fs1: Word, fs2: Word, rm: Word) -> Word:
        mode = rounding(h, rm)
        modify_fp(h)
        return box(float_mul(h, unbox(fs1, bits), unbox(fs2, bits), mode, bits), bits)

    @extension.instruction(f"00011 {fmt} fs2 fs1 rm fd 1010011", name=f"fdiv.{suffix}")
    def fdiv(h: Hart, fs1: Word, fs2: Word, rm: Word) -> Word:
        mode = rounding(h, rm)
        modify_fp(h)
        return box(float_div(h, unbox(fs1, bits), unbox(fs2, bits), mode, bits), bits)

    @extension.instruction(f"01011 {fmt} 00000 fs1 rm fd 1010011", name=f"fsqrt.{suffix}")
    def fsqrt(h: Hart, fs1: Word, rm: Word) -> Word:
        mode = rounding(h, rm)
        modify_fp(h)
        return box(float_sqrt(h, unbox(fs1, bits), mode, bits), bits)

    @extension.instruction(f"00101 {fmt} fs2 fs1 000 fd 1010011", name=f"fmin.{suffix}")
    def fmin(h: Hart, fs1: Word, fs2: Word) -> Word:
        modify_fp(h)
        return box(float_min(h, unbox(fs1, bits), unbox(fs2, bits), bits), bits)

    @extension.instruction(f"00101 {fmt} fs2 fs1 001 fd 1010011", name=f"fmax.{suffix}")
    def fmax(h: Hart, fs1: Word, fs2: Word) -> Word:
        modify_fp(h)
        return box(float_max(h, unbox(fs1, bits), unbox(fs2, bits), bits), bits)


def _define_fused(extension: Extension, suffix: str, fmt: str, bits: int) -> None:
    @extension.instruction(f"fs3 {fmt} fs2 fs1 rm fd 1000011", name=f"fmadd.{suffix}")
    def fmadd(h: Hart, fs1: Word, fs2: Word, fs3: Word, rm: Word) -> Word:
        mode = rounding(h, rm)
        modify_fp(h)
        return box(float_fma(h, unbox(fs1, bits), unbox(fs2, bits), unbox(fs3, bits), mode, bits), bits)

    @extension.instruction(f"fs3 {fmt} fs2 fs1 rm fd 1000111", name=f"fmsub.{suffix}")
    def fmsub(h: Hart, fs1: Word, fs2: Word, fs3: Word, rm: Word) -> Word:
        mode = rounding(h, rm)
        modify_fp(h)
        addend = negate(unbox(fs3, bits), bits)
        return box(float_fma(h, unbox(fs1, bits), unbox(fs2, bits), addend, mode, bits), bits)

    @extension.instruction(f"fs3 {fmt} fs2 fs1 rm fd 1001011", name=f"fnmsub.{suffix}")
    def fnmsub(h: Hart, fs1: Word, fs2: Word, fs3: Word, rm: Word) -> Word:
        mode = rounding(h, rm)
        modify_fp(h)
        factor = negate(unbox(fs1, bits), bits)
        return box(float_fma(h, factor, unbox(fs2, bits), unbox(fs3, bits), mode, bits), bits)

    @extension.instruction(f"fs3 {fmt} fs2 fs1 rm fd 1001111", name=f"fnmadd.{suffix}")
    def fnmadd(h: Hart, fs1: Word, fs2: Word, fs3: Word, rm: Word) -> Word:
        mode = rounding(h, rm)
        modify_fp(h)
        factor = negate(unbox(fs1, bits), bits)
        addend = negate(unbox(fs3, bits), bits)
        return box(float_fma(h, factor, unbox(fs2, bits), addend, mode, bits), bits)


def _define_comparisons(extension: Extension, suffix: str, fmt: str, bits: int) -> None:
    @extension.instruction(f"10100 {fmt} fs2 fs1 010 rd 1010011", name=f"feq.{suffix}")
    def feq(h: Hart, fs1: Word, fs2: Word) -> bool:
        modify_fp(h)
        return float_eq(h, unbox(fs1, bits), unbox(fs2, bits), bits)

    @extension.instruction(f"10100 {fmt} fs2 fs1 001 rd 1010011", name=f"flt.{suffix}")
    def flt(h: Hart, fs1: Word, fs2: Word) -> bool:
        modify_fp(h)
        return float_lt(h, unbox(fs1, bits), unbox(fs2, bits), bits)

    @extension.instruction(f"10100 {fmt} fs2 fs1 000 rd 1010011", name=f"fle.{suffix}")
    def fle(h: Hart, fs1: Word, fs2: Word) -> bool:
        modify_fp(h)
        return float_le(h, unbox(fs1, bits), unbox(fs2, bits), bits)

    @extension.instruction(f"11100 {fmt} 00000 fs1 001 rd 1010011", name=f"fclass.{suffix}")
    def fclass(h: Hart, fs1: Word) -> Word:
        require_fp(h)
        return float_classify(unbox(fs1, bits), bits)


def _define_signs(extension: Extension, suffix: str, fmt: str, bits: int) -> None:
    sign = 1 << (bits - 1)
    others = sign - 1

    @extension.instruction(f"00100 {fmt} fs2 fs1 000 fd 1010011", name=f"fsgnj.{suffix}")
    def fsgnj(h: Hart, fs1: Word, fs2: Word) -> Word:
        modify_fp(h)
        return box(unbox(fs1, bits) & others | unbox(fs2, bits) & sign, bits)

    @extension.instruction(f"00100 {fmt} fs2 fs1 001 fd 1010011", name=f"fsgnjn.{suffix}")
    def fsgnjn(h: Hart, fs1: Word, fs2: Word) -> Word:
        modify_fp(h)
        return box(unbox(fs1, bits) & others | ~unbox(fs2, bits) & sign, bits)

    @extension.instruction(f"00100 {fmt} fs2 fs1 010 fd 1010011", name=f"fsgnjx.{suffix}")
    def fsgnjx(h: Hart, fs1: Word, fs2: Word) -> Word:
        modify_fp(h)
        return box(unbox(fs1, bits) ^ unbox(fs2, bits) & sign, bits)


def _define_integer_conversions(
    extension: Extension,
    suffix: str,
    fmt: str,
    bits: int,
    integer: str,
    code: str,
    signed_: int,
    int_bits: int,
) -> None:
    @extension.instruction(f"11000 {fmt} {code} fs1 rm rd 1010011", name=f"fcvt.{integer}.{suffix}")
    def to_int(h: Hart, fs1: Word, rm: Word) -> Word:
        mode = rounding(h, rm)
        modify_fp(h)
        return float_to_int(h, unbox(fs1, bits), mode, bits, signed_, int_bits)

    @extension.instruction(f"11010 {fmt} {code} rs1 rm fd 1010011", name=f"fcvt.{suffix}.{integer}")
    def from_int(h: Hart, rs1: Word, rm: Word) -> Word:
        mode = rounding(h, rm)
        modify_fp(h)
        x = sext(rs1, int_bits) if signed_ == 1 else zext(rs1, int_bits)
        return box(float_from_int(h, x, mode, bits, signed_, int_bits), bits)


@F.instruction("imm[11:0] rs1 010 fd 0000111", syntax="fd, imm(rs1)")
def flw(h: Hart, rs1: Word, imm: Word) -> Word:
    require_fp(h)
    value = load(h, rs1 + imm, 4)
    modify_fp(h)
    return box(value, 32)


@F.instruction("imm[11:5] fs2 rs1 010 imm[4:0] 0100111", syntax="fs2, imm(rs1)")
def fsw(h: Hart, rs1: Word, fs2: Word, imm: Word) -> None:
    require_fp(h)
    store(h, rs1 + imm, 4, fs2)


define_format(F, "s", "00", 32)


@F.instruction("1110000 00000 fs1 000 rd 1010011")
def fmv_x_w(h: Hart, fs1: Word) -> Word:
    require_fp(h)
    return sext(fs1, 32)


@F.instruction("1111000 00000 rs1 000 fd 1010011")
def fmv_w_x(h: Hart, rs1: Word) -> Word:
    modify_fp(h)
    return box(zext(rs1, 32), 32)
