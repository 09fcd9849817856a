"""The words that instruction bodies compute with.

The architecture is written in plain Python over the types of this module, in a subset small enough to be
compiled: a function may use local variables, ``if``/``elif``/``else``, ``while``, ``break``, ``continue``,
``return`` (also of a tuple), ``raise Trap(cause, value)``, conditional expressions, ``and``/``or``/``not``,
comparisons, ``+ - * & | ^ << >> ~``, calls of other such functions and of the functions below, attributes and
array elements of the hart ``h``, and constants that are visible from the function. Run by CPython, it is the
reference model; ``doppel.translate`` compiles the same text to native code.

Every value is a :class:`Word` of 64 bits, unsigned, wrapping; a ``bool``; or a :class:`Wide` of 128 bits.
Comparisons are unsigned: signed ones have functions. A shift amount must be smaller than the width.
"""

from __future__ import annotations

from typing import Self, TypeVar

__all__ = [
    "MASK64",
    "Trap",
    "Wide",
    "Word",
    "byte_swap",
    "clz",
    "ctz",
    "div_signed",
    "div_unsigned",
    "high",
    "low",
    "popcount",
    "rem_signed",
    "rem_unsigned",
    "select",
    "sext",
    "signed_ge",
    "signed_lt",
    "signed_wide",
    "sra",
    "wide",
    "zext",
]

MASK64 = (1 << 64) - 1
MASK128 = (1 << 128) - 1


class Trap(Exception):
    """An architectural exception: ``cause`` as in mcause (privileged manual 3.1.15), ``value`` for mtval."""

    def __init__(self, cause: int, value: int = 0) -> None:
        super().__init__(cause, value)
        self.cause = int(cause)
        self.value = int(value) & MASK64


class _Unsigned(int):
    """Unsigned integer arithmetic modulo 2**width; subclasses give the mask."""

    _mask: int = 0

    def __add__(self, other: int) -> Self:
        return type(self)((int(self) + int(other)) & self._mask)

    __radd__ = __add__

    def __sub__(self, other: int) -> Self:
        return type(self)((int(self) - int(other)) & self._mask)

    def __rsub__(self, other: int) -> Self:
        return type(self)((int(other) - int(self)) & self._mask)

    def __mul__(self, other: int) -> Self:
        return type(self)((int(self) * int(other)) & self._mask)

    __rmul__ = __mul__

    def __and__(self, other: int) -> Self:
        return type(self)(int(self) & int(other) & self._mask)

    __rand__ = __and__

    def __or__(self, other: int) -> Self:
        return type(self)((int(self) | int(other)) & self._mask)

    __ror__ = __or__

    def __xor__(self, other: int) -> Self:
        return type(self)((int(self) ^ int(other)) & self._mask)

    __rxor__ = __xor__

    def __invert__(self) -> Self:
        return type(self)(~int(self) & self._mask)

    def __neg__(self) -> Self:
        return type(self)(-int(self) & self._mask)

    def __lshift__(self, amount: int) -> Self:
        self._check(amount)
        return type(self)((int(self) << int(amount)) & self._mask)

    def __rlshift__(self, other: int) -> Self:
        self._check(self)
        return type(self)((int(other) << int(self)) & self._mask)

    def __rshift__(self, amount: int) -> Self:
        self._check(amount)
        return type(self)(int(self) >> int(amount))

    def __rrshift__(self, other: int) -> Self:
        self._check(self)
        return type(self)(int(other) >> int(self))

    def _check(self, amount: int) -> None:
        if not 0 <= int(amount) < self._mask.bit_length():
            raise ValueError(f"shift amount {int(amount)} of a {self._mask.bit_length()}-bit word")


class Word(_Unsigned):
    """64 bits, unsigned, wrapping."""

    _mask = MASK64


class Wide(_Unsigned):
    """128 bits, unsigned, wrapping."""

    _mask = MASK128


_Value = TypeVar("_Value", Word, Wide)


def _signed(x: int) -> int:
    x = int(x) & MASK64
    return x - (1 << 64) if x >> 63 else x


def sext(x: int, bits: int) -> Word:
    """The low ``bits`` (a constant) of ``x``, sign-extended to 64."""
    x = int(x) & ((1 << bits) - 1)
    return Word((x - (1 << bits) if x >> (bits - 1) else x) & MASK64)


def zext(x: int, bits: int) -> Word:
    """The low ``bits`` (a constant) of ``x``, zero-extended to 64."""
    return Word(int(x) & ((1 << bits) - 1))


def signed_lt(a: int, b: int) -> bool:
    """``a < b`` as two's complement."""
    return _signed(a) < _signed(b)


def signed_ge(a: int, b: int) -> bool:
    """``a >= b`` as two's complement."""
    return _signed(a) >= _signed(b)


def sra(x: int, amount: int) -> Word:
    """Arithmetic right shift; ``amount`` < 64."""
    return Word(_signed(x) >> int(amount) & MASK64)


def wide(x: int) -> Wide:
    """Zero-extend to 128 bits."""
    return Wide(int(x) & MASK64)


def signed_wide(x: int) -> Wide:
    """Sign-extend to 128 bits."""
    return Wide(_signed(x) & MASK128)


def high(x: Wide) -> Word:
    """The upper 64 of 128 bits."""
    return Word(int(x) >> 64 & MASK64)


def low(x: Wide) -> Word:
    """The lower 64 of 128 bits."""
    return Word(int(x) & MASK64)


def div_unsigned(a: int, b: int) -> Word:
    """Quotient; ``b`` must not be zero."""
    return Word(int(a) // int(b))


def rem_unsigned(a: int, b: int) -> Word:
    """Remainder; ``b`` must not be zero."""
    return Word(int(a) % int(b))


def div_signed(a: int, b: int) -> Word:
    """Quotient rounded to zero; ``b`` must not be zero, nor -1 with ``a`` the most negative word."""
    x, y = _signed(a), _signed(b)
    quotient = abs(x) // abs(y)
    return Word((quotient if (x < 0) == (y < 0) else -quotient) & MASK64)


def rem_signed(a: int, b: int) -> Word:
    """Remainder with the sign of ``a``; the same preconditions as :func:`div_signed`."""
    x, y = _signed(a), _signed(b)
    remainder = abs(x) % abs(y)
    return Word((-remainder if x < 0 else remainder) & MASK64)


def clz(x: int) -> Word:
    """Leading zero bits, 64 for zero."""
    return Word(64 - int(x).bit_length())


def ctz(x: int) -> Word:
    """Trailing zero bits, 64 for zero."""
    x = int(x)
    return Word((x & -x).bit_length() - 1 if x else 64)


def popcount(x: int) -> Word:
    """One bits."""
    return Word(int(x).bit_count())


def byte_swap(x: int) -> Word:
    """The eight bytes in opposite order."""
    return Word(int.from_bytes(int(x).to_bytes(8, "little"), "big"))


def select(condition: bool, a: _Value, b: _Value) -> _Value:
    """``a`` if the condition holds, else ``b``; both are computed."""
    return a if condition else b
