"""IEEE 754 binary32 and binary64 arithmetic on raw bits, as the F and D extensions want it.

Every rounding mode, tininess detected after rounding, canonical NaNs (unprivileged manual, chapter "F"), and
exactly the exception flags that the standard asks for, OR-ed into ``h.fflags``. Values are raw bits in the
low ``bits`` (32 or 64, a constant) of a word; what lies above them in an argument is ignored, and zero in a
result. ``rm`` is a resolved rounding mode.

In between, a finite number is three words, its *parts*: a sign (0 or 1), an exponent in two's complement, and
a significand whose binary point is below bit 63: the value is ``significand * 2**(exponent - 63)``. Where an
exact result is cut short, its lowest bit is *jammed*: set if any bit behind it was. As long as it is two bits
or more below the format's last one, that rounds and flags as the exact result does.
"""

from __future__ import annotations

from doppel.isa.softfloat.arithmetic import float_add, float_div, float_fma, float_mul, float_sqrt, float_sub
from doppel.isa.softfloat.comparison import float_classify, float_eq, float_le, float_lt, float_max, float_min
from doppel.isa.softfloat.conversion import float_from_int, float_narrow, float_to_int, float_widen
from doppel.isa.softfloat.formats import DZ, NV, NX, OF, RDN, RMM, RNE, RTZ, RUP, UF, canonical_nan, negate

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
    "canonical_nan",
    "float_add",
    "float_classify",
    "float_div",
    "float_eq",
    "float_fma",
    "float_from_int",
    "float_le",
    "float_lt",
    "float_max",
    "float_min",
    "float_mul",
    "float_narrow",
    "float_sqrt",
    "float_sub",
    "float_to_int",
    "float_widen",
    "negate",
]
