"""Sum, product, quotient, square root and fused multiply-add."""

from __future__ import annotations

from doppel.isa.primitives import Hart
from doppel.isa.softfloat.formats import (
    DZ,
    RDN,
    infinity,
    is_infinite,
    is_nan,
    is_signaling,
    magnitude,
    negate,
    sign_of,
    signed_bits,
)
from doppel.isa.softfloat.rounding import (
    invalid,
    jam,
    jammed_high,
    parts,
    propagated_nan,
    raise_flags,
    rounded,
)
from doppel.isa.words import (
    Wide,
    Word,
    clz,
    div_unsigned,
    high,
    rem_unsigned,
    signed_lt,
    sra,
    wide,
    zext,
)

__all__ = [
    "float_add",
    "float_div",
    "float_fma",
    "float_mul",
    "float_sqrt",
    "float_sub",
]

# Quotients and square roots are computed to this many bits below the binary point, enough for both formats.
RESULT_BITS = 60
DIGIT_BITS = 10


def rounded_sum(
    h: Hart, sign: Word, exponent: Word, a: Wide, sign_b: Word, exponent_b: Word, b: Wide, rm: int, bits: int
) -> Word:
    """Add numbers with significands of 128 bits, binary point below bit 127.

    The significands may be zero. Bits 127 and 126 must be clear, to leave room for a carry, and so must the
    lowest eight: then what is jammed is far enough below for a difference to round as if it were exact.
    """
    if b != 0 and (a == 0 or signed_lt(exponent, exponent_b)):
        a = jam(a, exponent_b - exponent)
        exponent = exponent_b
    else:
        b = jam(b, exponent - exponent_b)
    if sign == sign_b:
        total = a + b
        if total == 0:
            return signed_bits(sign, 0, bits)
    elif a == b:
        return signed_bits(Word(1 if rm == RDN else 0), 0, bits)
    elif a > b:
        total = a - b
    else:
        total = b - a
        sign = sign_b
    shift = clz(high(total))
    return rounded(h, sign, exponent - shift, jammed_high(total << shift), rm, bits)


def float_add(h: Hart, a: Word, b: Word, rm: int, bits: int) -> Word:
    """a + b."""
    if is_nan(a, bits) or is_nan(b, bits):
        return propagated_nan(h, is_signaling(a, bits) or is_signaling(b, bits), bits)
    if is_infinite(a, bits):
        if is_infinite(b, bits) and sign_of(a, bits) != sign_of(b, bits):
            return invalid(h, bits)
        return zext(a, bits)
    if is_infinite(b, bits):
        return zext(b, bits)
    sign_a, exponent_a, significand_a = parts(a, bits)
    sign_b, exponent_b, significand_b = parts(b, bits)
    return rounded_sum(
        h,
        sign_a,
        exponent_a + 2,
        wide(significand_a) << 62,
        sign_b,
        exponent_b + 2,
        wide(significand_b) << 62,
        rm,
        bits,
    )


def float_sub(h: Hart, a: Word, b: Word, rm: int, bits: int) -> Word:
    """a - b."""
    return float_add(h, a, negate(b, bits), rm, bits)


def float_mul(h: Hart, a: Word, b: Word, rm: int, bits: int) -> Word:
    """a * b."""
    if is_nan(a, bits) or is_nan(b, bits):
        return propagated_nan(h, is_signaling(a, bits) or is_signaling(b, bits), bits)
    sign = sign_of(a ^ b, bits)
    if is_infinite(a, bits) or is_infinite(b, bits):
        if magnitude(a, bits) == 0 or magnitude(b, bits) == 0:
            return invalid(h, bits)
        return signed_bits(sign, infinity(bits), bits)
    if magnitude(a, bits) == 0 or magnitude(b, bits) == 0:
        return signed_bits(sign, 0, bits)
    _, exponent_a, significand_a = parts(a, bits)
    _, exponent_b, significand_b = parts(b, bits)
    product = wide(significand_a) * wide(significand_b)
    return rounded(h, sign, exponent_a + exponent_b + 1, jammed_high(product), rm, bits)


def float_fma(h: Hart, a: Word, b: Word, c: Word, rm: int, bits: int) -> Word:
    """a * b + c, rounded once."""
    sign = sign_of(a ^ b, bits)
    infinite = is_infinite(a, bits) or is_infinite(b, bits)
    zero = magnitude(a, bits) == 0 or magnitude(b, bits) == 0
    # Invalid even if c is a quiet NaN (unprivileged manual, "Single-Precision Floating-Point
    # Computational Instructions").
    if infinite and zero:
        return invalid(h, bits)
    if is_nan(a, bits) or is_nan(b, bits) or is_nan(c, bits):
        signaling = is_signaling(a, bits) or is_signaling(b, bits) or is_signaling(c, bits)
        return propagated_nan(h, signaling, bits)
    if infinite:
        if is_infinite(c, bits) and sign_of(c, bits) != sign:
            return invalid(h, bits)
        return signed_bits(sign, infinity(bits), bits)
    if is_infinite(c, bits):
        return zext(c, bits)
    _, exponent_a, significand_a = parts(a, bits)
    _, exponent_b, significand_b = parts(b, bits)
    sign_c, exponent_c, significand_c = parts(c, bits)
    # The product has 22 zero bits at least at its low end, so shifting it by two loses nothing.
    product = wide(significand_a) * wide(significand_b)
    return rounded_sum(
        h,
        sign,
        exponent_a + exponent_b + 3,
        product >> 2,
        sign_c,
        exponent_c + 2,
        wide(significand_c) << 62,
        rm,
        bits,
    )


def float_div(h: Hart, a: Word, b: Word, rm: int, bits: int) -> Word:
    """a / b."""
    if is_nan(a, bits) or is_nan(b, bits):
        return propagated_nan(h, is_signaling(a, bits) or is_signaling(b, bits), bits)
    sign = sign_of(a ^ b, bits)
    if is_infinite(a, bits):
        return invalid(h, bits) if is_infinite(b, bits) else signed_bits(sign, infinity(bits), bits)
    if magnitude(b, bits) == 0:
        if magnitude(a, bits) == 0:
            return invalid(h, bits)
        raise_flags(h, DZ)
        return signed_bits(sign, infinity(bits), bits)
    if magnitude(a, bits) == 0 or is_infinite(b, bits):
        return signed_bits(sign, 0, bits)
    _, exponent_a, significand_a = parts(a, bits)
    _, exponent_b, significand_b = parts(b, bits)
    # Long division in digits of ten bits: a remainder of at most 53 bits leaves room for one.
    divisor = significand_b >> 11
    dividend = significand_a >> 11
    quotient = div_unsigned(dividend, divisor)
    remainder = rem_unsigned(dividend, divisor)
    done = 0
    while done < RESULT_BITS:
        dividend = remainder << DIGIT_BITS
        quotient = quotient << DIGIT_BITS | div_unsigned(dividend, divisor)
        remainder = rem_unsigned(dividend, divisor)
        done = done + DIGIT_BITS
    quotient = quotient << 1 | (1 if remainder != 0 else 0)
    return rounded(h, sign, exponent_a - exponent_b + (62 - RESULT_BITS), quotient, rm, bits)


def float_sqrt(h: Hart, a: Word, rm: int, bits: int) -> Word:
    """The square root of a."""
    if is_nan(a, bits):
        return propagated_nan(h, is_signaling(a, bits), bits)
    if magnitude(a, bits) == 0:
        return zext(a, bits)
    if sign_of(a, bits) == 1:
        return invalid(h, bits)
    if is_infinite(a, bits):
        return zext(a, bits)
    sign, exponent, radicand = parts(a, bits)
    # The radicand in [1, 4), two bits before the point, so that what is left of the exponent is even.
    if exponent & 1 == 0:
        radicand = radicand >> 1
    # Digit by digit: each step brings down two bits of the radicand and finds one bit of the root.
    root = Word(0)
    remainder = Word(0)
    done = 0
    while done <= RESULT_BITS:
        remainder = remainder << 2 | radicand >> 62
        radicand = radicand << 2
        trial = root << 2 | 1
        root = root << 1
        if remainder >= trial:
            remainder = remainder - trial
            root = root | 1
        done = done + 1
    root = root << 1 | (1 if remainder != 0 else 0)
    return rounded(h, sign, sra(exponent, 1) + (62 - RESULT_BITS), root, rm, bits)
