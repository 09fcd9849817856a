"""The floating-point functions against exact arithmetic on fractions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import isqrt
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.isa import softfloat
from doppel.isa.softfloat import DZ, NV, NX, OF, RDN, RMM, RNE, RTZ, RUP, UF
from doppel.isa.words import Word

MODES = (RNE, RTZ, RDN, RUP, RMM)


@dataclass(frozen=True)
class Format:
    bits: int
    precision: int
    emax: int

    @property
    def emin(self) -> int:
        return 1 - self.emax

    @property
    def fraction(self) -> int:
        return self.precision - 1

    @property
    def infinity(self) -> int:
        return (2 * self.emax + 1) << self.fraction

    @property
    def nan(self) -> int:
        return self.infinity | 1 << (self.fraction - 1)

    @property
    def sign(self) -> int:
        return 1 << (self.bits - 1)


SINGLE = Format(32, 24, 127)
DOUBLE = Format(64, 53, 1023)
FORMATS = (SINGLE, DOUBLE)


def negative(a: int, fmt: Format) -> bool:
    return a & fmt.sign != 0


def size(a: int, fmt: Format) -> int:
    return a & (fmt.sign - 1)


def is_nan(a: int, fmt: Format) -> bool:
    return size(a, fmt) > fmt.infinity


def is_inf(a: int, fmt: Format) -> bool:
    return size(a, fmt) == fmt.infinity


def is_signaling(a: int, fmt: Format) -> bool:
    return is_nan(a, fmt) and size(a, fmt) < fmt.nan


def exact(a: int, fmt: Format) -> Fraction:
    """The value of a finite number."""
    field, fraction = divmod(size(a, fmt), 1 << fmt.fraction)
    if field:
        fraction += 1 << fmt.fraction
    value = Fraction(fraction) * Fraction(2) ** (max(field, 1) - fmt.emax - fmt.fraction)
    return -value if negative(a, fmt) else value


def to_integer(x: Fraction, rm: int) -> int:
    """Round to an integer."""
    below = x.numerator // x.denominator
    rest = x - below
    if rm == RDN or rest == 0:
        return below
    if rm == RUP:
        return below + 1
    if rm == RTZ:
        return below if x > 0 else below + 1
    if rest != Fraction(1, 2):
        return below if rest < Fraction(1, 2) else below + 1
    if rm == RMM:
        return below + 1 if x > 0 else below
    return below + (below & 1)


def exponent_of(x: Fraction) -> int:
    """The e with 2**e <= abs(x) < 2**(e + 1)."""
    e = abs(x.numerator).bit_length() - x.denominator.bit_length()
    return e if abs(x) >= Fraction(2) ** e else e - 1


def round_to(x: Fraction, zero: int, rm: int, fmt: Format) -> tuple[int, int]:
    """Bits and flags of ``x`` in the format; ``zero`` is the zero meant if it is one."""
    if x == 0:
        return zero, 0
    sign = fmt.sign if x < 0 else 0
    quantum = Fraction(2) ** (max(exponent_of(x), fmt.emin) - fmt.fraction)
    units = abs(to_integer(x / quantum, rm))
    flags = 0
    if units * quantum != abs(x):
        flags = NX
        unbounded = Fraction(2) ** (exponent_of(x) - fmt.fraction)
        if abs(to_integer(x / unbounded, rm)) * unbounded < Fraction(2) ** fmt.emin:
            flags |= UF
    value = units * quantum
    if value >= Fraction(2) ** (fmt.emax + 1):
        away = rm in (RNE, RMM) or (rm == RUP and x > 0) or (rm == RDN and x < 0)
        return sign | (fmt.infinity if away else fmt.infinity - 1), OF | NX
    if value == 0:
        return sign, flags
    e = max(exponent_of(value), fmt.emin)
    significand = int(value / Fraction(2) ** (e - fmt.fraction))
    return sign | ((e + fmt.emax - 1) << fmt.fraction) + significand, flags


def expected_nan(operands: list[int], fmt: Format, result: Format | None = None) -> tuple[int, int]:
    return (result or fmt).nan, NV if any(is_signaling(a, fmt) for a in operands) else 0


def expected_sum(x: Fraction, sign_x: bool, c: int, rm: int, fmt: Format) -> tuple[int, int]:
    total = x + exact(c, fmt)
    if x == 0 and exact(c, fmt) == 0 and sign_x == negative(c, fmt):
        zero = fmt.sign if sign_x else 0
    else:
        zero = fmt.sign if rm == RDN else 0
    return round_to(total, zero, rm, fmt)


def expected_add(a: int, b: int, rm: int, fmt: Format) -> tuple[int, int]:
    if is_nan(a, fmt) or is_nan(b, fmt):
        return expected_nan([a, b], fmt)
    if is_inf(a, fmt) and is_inf(b, fmt) and a != b:
        return fmt.nan, NV
    if is_inf(a, fmt) or is_inf(b, fmt):
        return (a if is_inf(a, fmt) else b), 0
    return expected_sum(exact(a, fmt), negative(a, fmt), b, rm, fmt)


def expected_mul(a: int, b: int, rm: int, fmt: Format) -> tuple[int, int]:
    sign = (a ^ b) & fmt.sign
    if is_nan(a, fmt) or is_nan(b, fmt):
        return expected_nan([a, b], fmt)
    if is_inf(a, fmt) or is_inf(b, fmt):
        if size(a, fmt) == 0 or size(b, fmt) == 0:
            return fmt.nan, NV
        return sign | fmt.infinity, 0
    return round_to(exact(a, fmt) * exact(b, fmt), sign, rm, fmt)


def expected_div(a: int, b: int, rm: int, fmt: Format) -> tuple[int, int]:
    sign = (a ^ b) & fmt.sign
    if is_nan(a, fmt) or is_nan(b, fmt):
        return expected_nan([a, b], fmt)
    if (is_inf(a, fmt) and is_inf(b, fmt)) or (size(a, fmt) == 0 and size(b, fmt) == 0):
        return fmt.nan, NV
    if is_inf(a, fmt):
        return sign | fmt.infinity, 0
    if is_inf(b, fmt):
        return sign, 0
    if size(b, fmt) == 0:
        return sign | fmt.infinity, DZ
    return round_to(exact(a, fmt) / exact(b, fmt), sign, rm, fmt)


def expected_fma(a: int, b: int, c: int, rm: int, fmt: Format) -> tuple[int, int]:
    sign = (a ^ b) & fmt.sign
    if (is_inf(a, fmt) and size(b, fmt) == 0) or (is_inf(b, fmt) and size(a, fmt) == 0):
        return fmt.nan, NV
    if is_nan(a, fmt) or is_nan(b, fmt) or is_nan(c, fmt):
        return expected_nan([a, b, c], fmt)
    if is_inf(a, fmt) or is_inf(b, fmt):
        infinity = sign | fmt.infinity
        return (fmt.nan, NV) if is_inf(c, fmt) and c != infinity else (infinity, 0)
    if is_inf(c, fmt):
        return c, 0
    return expected_sum(exact(a, fmt) * exact(b, fmt), sign != 0, c, rm, fmt)


def expected_sqrt(a: int, rm: int, fmt: Format) -> tuple[int, int]:
    if is_nan(a, fmt):
        return expected_nan([a], fmt)
    if size(a, fmt) == 0 or a == fmt.infinity:
        return a, 0
    if negative(a, fmt):
        return fmt.nan, NV
    # 80 bits more than any result has; one more that is set if the root goes on.
    scale = 2 * (fmt.emax + 200)
    scaled = exact(a, fmt) * Fraction(2) ** scale
    assert scaled.denominator == 1
    root = isqrt(scaled.numerator)
    approximation = 2 * root + (root * root != scaled.numerator)
    return round_to(Fraction(approximation, 2) / Fraction(2) ** (scale // 2), 0, rm, fmt)


def expected_to_int(a: int, rm: int, fmt: Format, signed: int, width: int) -> tuple[int, int]:
    lowest = -(1 << (width - 1)) if signed else 0
    highest = (1 << (width - signed)) - 1
    if is_nan(a, fmt) or is_inf(a, fmt):
        value, flags = (lowest if negative(a, fmt) and is_inf(a, fmt) else highest), NV
    else:
        value = to_integer(exact(a, fmt), rm)
        flags = 0 if value == exact(a, fmt) else NX
        if not lowest <= value <= highest:
            value, flags = (lowest if value < lowest else highest), NV
    if value >> (width - 1) & 1:
        value |= -1 << width
    return value & (1 << 64) - 1, flags


def expected_convert(a: int, rm: int, fmt: Format, result: Format) -> tuple[int, int]:
    sign = result.sign if negative(a, fmt) else 0
    if is_nan(a, fmt):
        return expected_nan([a], fmt, result)
    if is_inf(a, fmt):
        return sign | result.infinity, 0
    return round_to(exact(a, fmt), sign, rm, result)


def run(function: Callable[..., Any], *arguments: int) -> tuple[int, int]:
    """Result and flags of a function."""
    h = SimpleNamespace(fflags=Word(0))
    result = function(h, *arguments)
    assert result >= 0
    return int(result), int(h.fflags)


def specials(fmt: Format) -> list[int]:
    """Values at every border, of both signs."""
    one = fmt.emax << fmt.fraction
    normal = 1 << fmt.fraction
    positive = [0, 1, 2, 3, normal - 2, normal - 1, normal, normal + 1, 2 * normal - 1, 2 * normal]
    positive += [one - 1, one, one + 1, one + normal // 2, one + normal]
    positive += [fmt.infinity - normal, fmt.infinity - 2, fmt.infinity - 1, fmt.infinity]
    positive += [fmt.infinity + 1, fmt.nan - 1, fmt.nan, fmt.nan + 1, fmt.sign - 1]
    return positive + [fmt.sign | a for a in positive]


def significands(fmt: Format) -> st.SearchStrategy[int]:
    """Fractions of which few bits are set, or few are not: those make ties, carries and cancellation."""
    position = st.integers(0, fmt.fraction)
    few = st.builds(lambda i, j: ((1 << i) ^ (1 << j)) & ((1 << fmt.fraction) - 1), position, position)
    runs = st.builds(lambda i, j: abs((1 << i) - (1 << j)) & ((1 << fmt.fraction) - 1), position, position)
    return few | runs | st.integers(0, (1 << fmt.fraction) - 1)


def exponents(fmt: Format, centre: int) -> st.SearchStrategy[int]:
    """Exponent fields near one, near the ends, or anywhere."""
    top = 2 * fmt.emax
    near = st.integers(-fmt.precision - 3, fmt.precision + 3).map(lambda d: min(max(centre + d, 0), top))
    return near | st.integers(0, 3) | st.integers(top - 3, top) | st.integers(0, top)


@st.composite
def operands(draw: st.DrawFn, fmt: Format, count: int) -> list[int]:
    """Operands that have something to do with each other."""
    centre = draw(st.sampled_from((0, 1, fmt.emax // 2, fmt.emax, 3 * fmt.emax // 2, 2 * fmt.emax)))
    values = []
    for _ in range(count):
        if draw(st.integers(0, 9)) == 0:
            values.append(draw(st.sampled_from(specials(fmt))))
            continue
        sign = draw(st.sampled_from((0, fmt.sign)))
        values.append(sign | draw(exponents(fmt, centre)) << fmt.fraction | draw(significands(fmt)))
    return values


Operation = tuple[Callable[..., Any], Callable[..., tuple[int, int]], int]

OPERATIONS: dict[str, Operation] = {
    "add": (softfloat.float_add, expected_add, 2),
    "sub": (softfloat.float_sub, lambda a, b, rm, fmt: expected_add(a, b ^ fmt.sign, rm, fmt), 2),
    "mul": (softfloat.float_mul, expected_mul, 2),
    "div": (softfloat.float_div, expected_div, 2),
    "fma": (softfloat.float_fma, expected_fma, 3),
    "sqrt": (softfloat.float_sqrt, expected_sqrt, 1),
}


def check_operation(name: str, fmt: Format, values: list[int]) -> None:
    function, expected, _ = OPERATIONS[name]
    for rm in MODES:
        result = run(function, *map(Word, values), rm, fmt.bits)
        assert result == expected(*values, rm, fmt), (rm, [hex(v) for v in values])


@pytest.mark.parametrize("fmt", FORMATS, ids=("single", "double"))
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name: str, fmt: Format) -> None:
    @settings(max_examples=100, deadline=None)
    @given(operands(fmt, OPERATIONS[name][2]))
    def check(values: list[int]) -> None:
        check_operation(name, fmt, values)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("fmt", FORMATS, ids=("single", "double"))
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_long(name: str, fmt: Format) -> None:
    @settings(max_examples=1500, deadline=None)
    @given(operands(fmt, OPERATIONS[name][2]))
    def check(values: list[int]) -> None:
        check_operation(name, fmt, values)

    check()


@pytest.mark.parametrize("fmt", FORMATS, ids=("single", "double"))
@pytest.mark.parametrize("name", OPERATIONS)
def test_specials(name: str, fmt: Format) -> None:
    count = OPERATIONS[name][2]
    one = fmt.emax << fmt.fraction
    few = [
        0,
        1,
        one,
        fmt.infinity - 1,
        fmt.infinity,
        fmt.infinity + 1,
        fmt.nan,
        fmt.sign,
        fmt.sign | fmt.infinity,
    ]
    several = [*few, (1 << fmt.fraction) - 1, one + 1, one - 1, fmt.sign | one, fmt.sign | fmt.infinity - 1]
    for values in product({1: specials(fmt), 2: several, 3: few}[count], repeat=count):
        check_operation(name, fmt, list(values))


def test_roots_that_look_exact() -> None:
    """Of these many roots some go on with zeros for longer than they are computed to."""
    for n in range(2, 1000):
        a, _ = round_to(Fraction(n), 0, RNE, DOUBLE)
        assert run(softfloat.float_sqrt, Word(a), RUP, 64) == expected_sqrt(a, RUP, DOUBLE)


@pytest.mark.parametrize("fmt", FORMATS, ids=("single", "double"))
def test_rounding_up_to_infinity(fmt: Format) -> None:
    """A little more than the largest number: an overflow only if it rounds up."""
    largest = fmt.infinity - 1
    half_unit = (2 * fmt.emax - fmt.precision) << fmt.fraction
    for sign in (0, fmt.sign):
        for addend in (1, half_unit - 1, half_unit, half_unit + 1):
            check_operation("add", fmt, [sign | largest, sign | addend])
            check_operation("fma", fmt, [sign | largest, fmt.emax << fmt.fraction, sign | addend])
    wide_largest, _ = expected_convert(SINGLE.infinity - 1, RNE, SINGLE, DOUBLE)
    for addend in (1, (1 << 28) - 1, 1 << 28, (1 << 28) + 1):
        for rm in MODES:
            result = run(softfloat.float_narrow, Word(wide_largest + addend), rm)
            assert result == expected_convert(wide_largest + addend, rm, DOUBLE, SINGLE)


@pytest.mark.parametrize("fmt", FORMATS, ids=("single", "double"))
def test_nearby_results_of_fma(fmt: Format) -> None:
    """The addend is close to minus the product, so that almost everything cancels."""

    @settings(max_examples=120, deadline=None)
    @given(operands(fmt, 2), st.integers(-3, 3), st.integers(0, 1))
    def check(values: list[int], offset: int, sign: int) -> None:
        close, _ = expected_mul(*values, RNE, fmt)
        addend = (close ^ sign * fmt.sign) + offset
        check_operation("fma", fmt, [*values, addend & (2 * fmt.sign - 1)])

    check()


@pytest.mark.parametrize("fmt", FORMATS, ids=("single", "double"))
def test_quotients_near_the_subnormals(fmt: Format) -> None:
    """Results around the smallest normal number, where tininess is decided."""

    @settings(max_examples=120, deadline=None)
    @given(significands(fmt), significands(fmt), st.integers(-2, 1), st.integers(0, 1))
    def check(a: int, b: int, offset: int, sign: int) -> None:
        one = fmt.emax << fmt.fraction
        smallest = 1 << fmt.fraction
        check_operation(
            "div", fmt, [sign * fmt.sign | (smallest | a) + (smallest * (1 + offset) & -smallest), one | b]
        )
        check_operation("mul", fmt, [sign * fmt.sign | smallest | a, (one | b) + offset * smallest])

    check()


@pytest.mark.parametrize("signed", (0, 1))
@pytest.mark.parametrize("width", (32, 64))
@pytest.mark.parametrize("fmt", FORMATS, ids=("single", "double"))
def test_to_int(fmt: Format, width: int, signed: int) -> None:
    borders = [Fraction(x) for x in (0, 1, 1 << (width - 1), 1 << width, -1 << (width - 1))]
    near = [
        round_to(x + d, 0, RTZ, fmt)[0] for x in borders for d in (0, Fraction(1, 2), Fraction(-1, 2), 1, -1)
    ]
    around = [max(a + d, 0) & (2 * fmt.sign - 1) for a in near for d in (-1, 0, 1)]

    @settings(max_examples=120, deadline=None)
    @given(st.sampled_from(around) | st.sampled_from(specials(fmt)) | operands(fmt, 1).map(lambda v: v[0]))
    def check(a: int) -> None:
        for rm in MODES:
            result = run(softfloat.float_to_int, Word(a), rm, fmt.bits, signed, width)
            assert result == expected_to_int(a, rm, fmt, signed, width), rm

    check()


@pytest.mark.parametrize("signed", (0, 1))
@pytest.mark.parametrize("width", (32, 64))
@pytest.mark.parametrize("fmt", FORMATS, ids=("single", "double"))
def test_from_int(fmt: Format, width: int, signed: int) -> None:
    position = st.integers(0, width)
    sparse = st.builds(lambda i, j, k: (1 << i) + (1 << j) - (1 << k), position, position, position)

    @settings(max_examples=120, deadline=None)
    @given(sparse | st.integers(0, (1 << width) - 1))
    def check(x: int) -> None:
        x &= (1 << width) - 1
        if signed and x >> (width - 1):
            x -= 1 << width
        for rm in MODES:
            result = run(softfloat.float_from_int, Word(x & (1 << 64) - 1), rm, fmt.bits, signed, width)
            assert result == round_to(Fraction(x), 0, rm, fmt), rm

    check()


@settings(max_examples=150, deadline=None)
@given(operands(DOUBLE, 1), operands(SINGLE, 1), st.integers(-30, 30))
def test_between_formats(doubles: list[int], singles: list[int], offset: int) -> None:
    wide, _ = expected_convert(singles[0], RNE, SINGLE, DOUBLE)
    assert run(softfloat.float_widen, Word(singles[0])) == expected_convert(singles[0], RNE, SINGLE, DOUBLE)
    # One in the middle between two singles is 2**28 from each.
    near = wide + ((1 << 28) * (offset % 3) + offset)
    for a in (doubles[0], near & (1 << 64) - 1):
        for rm in MODES:
            result = run(softfloat.float_narrow, Word(a), rm)
            assert result == expected_convert(a, rm, DOUBLE, SINGLE), (rm, hex(a))


@pytest.mark.parametrize("fmt", FORMATS, ids=("single", "double"))
def test_comparisons_of_specials(fmt: Format) -> None:
    for a in specials(fmt):
        for b in specials(fmt):
            operands = (Word(a), Word(b), fmt.bits)
            signaling = NV if is_signaling(a, fmt) or is_signaling(b, fmt) else 0
            if is_nan(a, fmt) or is_nan(b, fmt):
                equal, less, least, greatest, flags = False, False, fmt.nan, fmt.nan, NV
                if not (is_nan(a, fmt) and is_nan(b, fmt)):
                    least = greatest = b if is_nan(a, fmt) else a
            else:
                flags = 0
                key_a, key_b = (
                    (2 if is_inf(v, fmt) else 1)
                    * (exact(v & ~fmt.sign, fmt) if not is_inf(v, fmt) else 1 << 2000)
                    * (-1 if negative(v, fmt) else 1)
                    for v in (a, b)
                )
                equal, less = key_a == key_b, key_a < key_b
                a_first = less or (equal and negative(a, fmt))
                least, greatest = (a, b) if a_first else (b, a)
            assert run(softfloat.float_eq, *operands) == (equal, signaling)
            assert run(softfloat.float_lt, *operands) == (less, flags)
            assert run(softfloat.float_le, *operands) == (less or equal, flags)
            assert run(softfloat.float_min, *operands) == (least, signaling)
            assert run(softfloat.float_max, *operands) == (greatest, signaling)


@pytest.mark.parametrize("fmt", FORMATS, ids=("single", "double"))
def test_classes(fmt: Format) -> None:
    normal = 1 << fmt.fraction
    for bit, ends in {
        0: (fmt.sign | fmt.infinity, fmt.sign | fmt.infinity),
        1: (fmt.sign | normal, fmt.sign | fmt.infinity - 1),
        2: (fmt.sign | 1, fmt.sign | normal - 1),
        3: (fmt.sign, fmt.sign),
        4: (0, 0),
        5: (1, normal - 1),
        6: (normal, fmt.infinity - 1),
        7: (fmt.infinity, fmt.infinity),
        8: (fmt.infinity + 1, fmt.nan - 1),
        9: (fmt.nan, fmt.sign - 1),
    }.items():
        for a in ends:
            assert softfloat.float_classify(Word(a), fmt.bits) == 1 << bit
            if bit >= 8:
                assert softfloat.float_classify(Word(a | fmt.sign), fmt.bits) == 1 << bit


@pytest.mark.parametrize("name", OPERATIONS)
def test_bits_above_a_single_do_not_matter(name: str) -> None:
    function, _, count = OPERATIONS[name]
    values = [0x3FC00000, 0xC0490FDB, 0x00000007][:count]
    for rm in MODES:
        clean = run(function, *map(Word, values), rm, 32)
        assert clean[0] >> 32 == 0
        assert run(function, *(Word(v | 0xFFFFFFFF_00000000) for v in values), rm, 32) == clean
