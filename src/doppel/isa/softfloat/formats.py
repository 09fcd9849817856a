"""Binary32 and binary64 as bits: fields, signs and special values, and the encodings of modes and flags."""

from __future__ import annotations

from doppel.isa.words import Word

__all__ = [
    "DZ",
    "NV",
    "NX",
    "OF",
    "RDN",
    "RMM",
    "RNE",
    "RTZ",
    "RUP",
    "UF",
    "bias",
    "canonical_nan",
    "fraction_bits",
    "infinity",
    "is_infinite",
    "is_nan",
    "is_signaling",
    "magnitude",
    "negate",
    "sign_of",
    "signed_bits",
]

# Accrued exceptions (unprivileged manual, table "Accrued exception flag encoding").
NX = 1
UF = 2
OF = 4
DZ = 8
NV = 16

# Rounding modes (table "Rounding mode encoding").
RNE = 0
RTZ = 1
RDN = 2
RUP = 3
RMM = 4


def fraction_bits(bits: int) -> int:
    """Width of the format's fraction field."""
    return 23 if bits == 32 else 52


def bias(bits: int) -> int:
    """The format's exponent bias."""
    return 127 if bits == 32 else 1023


def infinity(bits: int) -> int:
    """Positive infinity: above it, but for the sign, are the NaNs."""
    return 0x7F80_0000 if bits == 32 else 0x7FF0_0000_0000_0000


def canonical_nan(bits: int) -> Word:
    """The NaN that every operation returns: positive, quiet, without payload."""
    return Word(0x7FC0_0000 if bits == 32 else 0x7FF8_0000_0000_0000)


def sign_of(a: Word, bits: int) -> Word:
    """The sign bit, as 0 or 1."""
    return a >> (bits - 1) & 1


def magnitude(a: Word, bits: int) -> Word:
    """All but the sign."""
    return a & ((1 << (bits - 1)) - 1)


def negate(a: Word, bits: int) -> Word:
    """The other sign; of a NaN, too."""
    return a ^ (1 << (bits - 1))


def signed_bits(sign: Word, magnitude_: int, bits: int) -> Word:
    """A value from its sign and the other bits."""
    return sign << (bits - 1) | magnitude_


def is_nan(a: Word, bits: int) -> bool:
    """Whether it is a NaN, quiet or signaling."""
    return magnitude(a, bits) > infinity(bits)


def is_signaling(a: Word, bits: int) -> bool:
    """Whether it is a signaling NaN: the top bit of the fraction is clear."""
    return is_nan(a, bits) and a >> (fraction_bits(bits) - 1) & 1 == 0


def is_infinite(a: Word, bits: int) -> bool:
    """Whether it is an infinity."""
    return magnitude(a, bits) == infinity(bits)
