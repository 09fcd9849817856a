"""Order, extremes and classes."""

from __future__ import annotations

from doppel.isa.primitives import Hart
from doppel.isa.softfloat.formats import (
    NV,
    canonical_nan,
    fraction_bits,
    is_infinite,
    is_nan,
    is_signaling,
    magnitude,
    sign_of,
)
from doppel.isa.softfloat.rounding import raise_flags
from doppel.isa.words import Word, zext

__all__ = [
    "float_classify",
    "float_eq",
    "float_le",
    "float_lt",
    "float_max",
    "float_min",
]


def both_zero(a: Word, b: Word, bits: int) -> bool:
    """Whether both are zeros of any sign."""
    return magnitude(a | b, bits) == 0


def below(a: Word, b: Word, bits: int) -> bool:
    """Whether a is less than b, neither a NaN, and -0 less than +0."""
    if sign_of(a, bits) != sign_of(b, bits):
        return sign_of(a, bits) == 1
    if sign_of(a, bits) == 1:
        return magnitude(a, bits) > magnitude(b, bits)
    return magnitude(a, bits) < magnitude(b, bits)


def float_eq(h: Hart, a: Word, b: Word, bits: int) -> bool:
    """a == b; only signaling NaNs are invalid."""
    if is_nan(a, bits) or is_nan(b, bits):
        if is_signaling(a, bits) or is_signaling(b, bits):
            raise_flags(h, NV)
        return False
    return zext(a, bits) == zext(b, bits) or both_zero(a, b, bits)


def float_lt(h: Hart, a: Word, b: Word, bits: int) -> bool:
    """a < b; any NaN is invalid."""
    if is_nan(a, bits) or is_nan(b, bits):
        raise_flags(h, NV)
        return False
    return below(a, b, bits) and not both_zero(a, b, bits)


def float_le(h: Hart, a: Word, b: Word, bits: int) -> bool:
    """a <= b; any NaN is invalid."""
    if is_nan(a, bits) or is_nan(b, bits):
        raise_flags(h, NV)
        return False
    return not below(b, a, bits) or both_zero(a, b, bits)


def extremum_of_nan(h: Hart, a: Word, b: Word, bits: int) -> Word:
    """Minimum or maximum where a or b is a NaN: the other one."""
    if is_signaling(a, bits) or is_signaling(b, bits):
        raise_flags(h, NV)
    if not is_nan(a, bits):
        return zext(a, bits)
    if not is_nan(b, bits):
        return zext(b, bits)
    return canonical_nan(bits)


def float_min(h: Hart, a: Word, b: Word, bits: int) -> Word:
    """The lesser; -0 is less than +0, a number less than a NaN (minimumNumber of IEEE 754-2019)."""
    if is_nan(a, bits) or is_nan(b, bits):
        return extremum_of_nan(h, a, b, bits)
    return zext(a if below(a, b, bits) else b, bits)


def float_max(h: Hart, a: Word, b: Word, bits: int) -> Word:
    """The greater; +0 is greater than -0, a number greater than a NaN (maximumNumber of IEEE 754-2019)."""
    if is_nan(a, bits) or is_nan(b, bits):
        return extremum_of_nan(h, a, b, bits)
    return zext(b if below(a, b, bits) else a, bits)


def float_classify(a: Word, bits: int) -> Word:
    """A single bit that says what a is (unprivileged manual, "Floating-Point Classify Instruction")."""
    if is_nan(a, bits):
        return Word(0x100 if is_signaling(a, bits) else 0x200)
    kind = 4
    if is_infinite(a, bits):
        kind = 7
    elif magnitude(a, bits) >= 1 << fraction_bits(bits):
        kind = 6
    elif magnitude(a, bits) != 0:
        kind = 5
    return Word(1) << (kind if sign_of(a, bits) == 0 else 7 - kind)
