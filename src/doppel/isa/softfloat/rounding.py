"""From bits to the parts of a number, and from the parts of an exact result to rounded bits and flags."""

from __future__ import annotations

from doppel.isa.primitives import Hart
from doppel.isa.softfloat.formats import (
    NV,
    NX,
    OF,
    RDN,
    RMM,
    RNE,
    RTZ,
    RUP,
    UF,
    bias,
    canonical_nan,
    fraction_bits,
    infinity,
    magnitude,
    sign_of,
    signed_bits,
)
from doppel.isa.words import Wide, Word, clz, high, low, signed_lt, wide

__all__ = [
    "invalid",
    "jam",
    "jammed_high",
    "overflow",
    "parts",
    "propagated_nan",
    "raise_flags",
    "rounded",
    "rounds_up",
]


def raise_flags(h: Hart, flags: int) -> None:
    """Accrue exceptions."""
    h.fflags = h.fflags | flags


def invalid(h: Hart, bits: int) -> Word:
    """The result of an invalid operation."""
    raise_flags(h, NV)
    return canonical_nan(bits)


def propagated_nan(h: Hart, signaling: bool, bits: int) -> Word:
    """The result of an operation on a NaN; ``signaling``: one of them was."""
    if signaling:
        raise_flags(h, NV)
    return canonical_nan(bits)


def jam(x: Wide, distance: Word) -> Wide:
    """Shift right by any distance, jamming the bits that fall out into bit 0."""
    if distance >= 128:
        return Wide(1 if x != 0 else 0)
    shifted = x >> distance
    if shifted << distance != x:
        return shifted | Wide(1)
    return shifted


def jammed_high(x: Wide) -> Word:
    """The upper 64 bits, the lower ones jammed into bit 0."""
    return high(x) | (1 if low(x) != 0 else 0)


def parts(a: Word, bits: int) -> tuple[Word, Word, Word]:
    """Sign, exponent and significand of a finite number; the significand has bit 63 set, or is 0."""
    fraction = a & ((1 << fraction_bits(bits)) - 1)
    exponent = magnitude(a, bits) >> fraction_bits(bits)
    significand = fraction << (63 - fraction_bits(bits))
    if exponent != 0:
        return sign_of(a, bits), exponent - bias(bits), significand | (1 << 63)
    shift = clz(significand) & 63
    return sign_of(a, bits), 1 - bias(bits) - shift, significand << shift


def rounds_up(sign: Word, kept: Word, rest: Word, half: int, rm: int) -> bool:
    """Whether ``kept`` and a ``rest``, of which ``half`` is the middle, round to ``kept + 1``."""
    if rm == RNE:
        return rest > half or (rest == half and kept & 1 == 1)
    if rm == RMM:
        return rest >= half
    if rm == RDN:
        return rest != 0 and sign == 1
    if rm == RUP:
        return rest != 0 and sign == 0
    return False


def overflow(h: Hart, sign: Word, rm: int, bits: int) -> Word:
    """The result of an overflow: infinity, or the largest number if the mode rounds towards zero here."""
    raise_flags(h, OF | NX)
    if rm == RTZ or (rm == RDN and sign == 0) or (rm == RUP and sign == 1):
        return signed_bits(sign, infinity(bits) - 1, bits)
    return signed_bits(sign, infinity(bits), bits)


def rounded(h: Hart, sign: Word, exponent: Word, significand: Word, rm: int, bits: int) -> Word:
    """The number with these parts; the significand is not zero and need not be normalized."""
    extra = 63 - fraction_bits(bits)
    rest_mask = (1 << extra) - 1
    half = 1 << (extra - 1)
    shift = clz(significand)
    significand = significand << shift
    biased = exponent - shift + bias(bits)
    tiny = False
    if signed_lt(biased, 1):
        # Tiny unless, with an unbounded exponent, it would round up to the smallest normal number.
        all_ones = significand >> extra == (1 << (64 - extra)) - 1
        tiny = biased != 0 or not (
            all_ones and rounds_up(sign, significand >> extra, significand & rest_mask, half, rm)
        )
        significand = jammed_high(jam(wide(significand) << 64, 1 - biased))
        biased = Word(1)
    if not signed_lt(biased, 2 * bias(bits) + 1):
        return overflow(h, sign, rm, bits)
    kept = significand >> extra
    rest = significand & rest_mask
    # The leading one of a normal significand adds one to the exponent field, as does a carry out of rounding.
    result = ((biased - 1) << fraction_bits(bits)) + kept
    if rest != 0:
        if rounds_up(sign, kept, rest, half, rm):
            result = result + 1
            if result == infinity(bits):
                return overflow(h, sign, rm, bits)
        raise_flags(h, UF | NX if tiny else NX)
    return signed_bits(sign, result, bits)
