"""Between the formats, and between them and integers."""

from __future__ import annotations

from doppel.isa.primitives import Hart
from doppel.isa.softfloat.formats import (
    NV,
    NX,
    RNE,
    infinity,
    is_infinite,
    is_nan,
    is_signaling,
    magnitude,
    sign_of,
    signed_bits,
)
from doppel.isa.softfloat.rounding import jam, parts, propagated_nan, raise_flags, rounded, rounds_up
from doppel.isa.words import MASK64, Word, high, low, sext, signed_lt, wide

__all__ = [
    "float_from_int",
    "float_narrow",
    "float_to_int",
    "float_widen",
]


def float_from_int(h: Hart, x: Word, rm: int, bits: int, signed_: int, int_bits: int) -> Word:
    """An integer of ``int_bits``, already extended to 64 bits, as a floating-point number."""
    if x == 0:
        return Word(0)
    if signed_ == 1 and x >> 63 == 1:
        return rounded(h, Word(1), Word(63), 0 - x, rm, bits)
    return rounded(h, Word(0), Word(63), x, rm, bits)


def float_to_int(h: Hart, a: Word, rm: int, bits: int, signed_: int, int_bits: int) -> Word:
    """An integer of ``int_bits``, sign-extended to 64; out of range: the nearest; for NaN: the largest."""
    largest = MASK64 >> (64 - int_bits + signed_)
    if is_nan(a, bits):
        raise_flags(h, NV)
        return sext(largest, int_bits)
    sign = sign_of(a, bits)
    integer = Word(0)
    rest = Word(0)
    fits = False
    if not is_infinite(a, bits):
        _, exponent, significand = parts(a, bits)
        if signed_lt(exponent, 64):
            fixed = jam(wide(significand) << 64, 63 - exponent)
            integer = high(fixed)
            rest = low(fixed)
            if rounds_up(sign, integer, rest, 1 << 63, rm):
                integer = integer + 1
            limit = largest if sign == 0 else (largest + 1 if signed_ == 1 else 0)
            fits = integer <= limit
    if not fits:
        raise_flags(h, NV)
        if sign == 0:
            return sext(largest, int_bits)
        return sext(largest + 1 if signed_ == 1 else 0, int_bits)
    if rest != 0:
        raise_flags(h, NX)
    return sext(integer if sign == 0 else 0 - integer, int_bits)


def float_widen(h: Hart, a: Word) -> Word:
    """Binary32 to binary64, always exact."""
    if is_nan(a, 32):
        return propagated_nan(h, is_signaling(a, 32), 64)
    if is_infinite(a, 32):
        return signed_bits(sign_of(a, 32), infinity(64), 64)
    if magnitude(a, 32) == 0:
        return signed_bits(sign_of(a, 32), 0, 64)
    sign, exponent, significand = parts(a, 32)
    return rounded(h, sign, exponent, significand, RNE, 64)


def float_narrow(h: Hart, a: Word, rm: int) -> Word:
    """Binary64 to binary32."""
    if is_nan(a, 64):
        return propagated_nan(h, is_signaling(a, 64), 32)
    if is_infinite(a, 64):
        return signed_bits(sign_of(a, 64), infinity(32), 32)
    if magnitude(a, 64) == 0:
        return signed_bits(sign_of(a, 64), 0, 32)
    sign, exponent, significand = parts(a, 64)
    return rounded(h, sign, exponent, significand, rm, 32)
