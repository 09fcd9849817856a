"""Names that assembly text uses: registers of the standard calling convention, and rounding modes."""

from __future__ import annotations

__all__ = ["F_NAMES", "ROUNDING_MODES", "X_NAMES", "f_register", "x_register"]

X_NAMES = (
    *("zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1"),
    *(f"a{n}" for n in range(8)),
    *(f"s{n}" for n in range(2, 12)),
    *(f"t{n}" for n in range(3, 7)),
)
F_NAMES = (
    *(f"ft{n}" for n in range(8)),
    *("fs0", "fs1"),
    *(f"fa{n}" for n in range(8)),
    *(f"fs{n}" for n in range(2, 12)),
    *(f"ft{n}" for n in range(8, 12)),
)
# The numbers of the rm field (unprivileged manual, chapter "F").
ROUNDING_MODES = {"rne": 0, "rtz": 1, "rdn": 2, "rup": 3, "rmm": 4, "dyn": 7}

_X_NUMBERS = {name: number for number, name in enumerate(X_NAMES)}
_X_NUMBERS |= {f"x{number}": number for number in range(32)} | {"fp": 8}
_F_NUMBERS = {name: number for number, name in enumerate(F_NAMES)}
_F_NUMBERS |= {f"f{number}": number for number in range(32)}


def x_register(name: str) -> int | None:
    """The number of an integer register, or None if that is no register's name."""
    return _X_NUMBERS.get(name)


def f_register(name: str) -> int | None:
    """The number of a floating-point register, or None if that is no register's name."""
    return _F_NUMBERS.get(name)
