"""Which extensions the guest's computer has, and how it tells software about them."""

from __future__ import annotations

from doppel.isa.instruction import Extension, InstructionSet
from doppel.isa.rv_a import A
from doppel.isa.rv_b import ZBA, ZBB, ZBS, ZICOND
from doppel.isa.rv_c import C
from doppel.isa.rv_d import D
from doppel.isa.rv_f import F
from doppel.isa.rv_i import ZIFENCEI, ZIHINTPAUSE, I
from doppel.isa.rv_m import M
from doppel.isa.rv_system import PRIVILEGED, ZICSR
from doppel.isa.rv_zicbo import ZICBOM, ZICBOZ

__all__ = ["EXTENSIONS", "isa_names", "isa_string", "rv64gc"]

# Extensions that bring CSRs and behaviour, but no instructions.
ZICNTR = Extension("Zicntr")
SSTC = Extension("Sstc")
SVADU = Extension("Svadu")

# Zihintpause comes before I, because pause is an encoding of fence.
EXTENSIONS = (
    ZIHINTPAUSE,
    I,
    M,
    A,
    F,
    D,
    C,
    ZICSR,
    ZIFENCEI,
    ZICNTR,
    ZICOND,
    ZBA,
    ZBB,
    ZBS,
    ZICBOM,
    ZICBOZ,
    SSTC,
    SVADU,
    PRIVILEGED,
)

# The manual's order of single-letter extensions, by which Zxy sorts too (unprivileged manual, "ISA Extension
# Naming Conventions").
CANONICAL_ORDER = "imafdqlcbkjtpvnh"


def rv64gc() -> InstructionSet:
    """The instruction set of the guest's harts: RV64GC and all else in :data:`EXTENSIONS`."""
    return InstructionSet(list(EXTENSIONS))


def isa_names() -> list[str]:
    """The extensions in canonical order and lower case, as in the device tree's ``riscv,isa-extensions``."""
    return sorted((e.name.lower() for e in EXTENSIONS if e is not PRIVILEGED), key=_canonical_key)


def isa_string() -> str:
    """The ISA string, as in the device tree's ``riscv,isa``."""
    names = isa_names()
    letters = "".join(name for name in names if len(name) == 1)
    return "_".join(["rv64" + letters, *(name for name in names if len(name) > 1)])


def _canonical_key(name: str) -> tuple[int, int, str]:
    if len(name) == 1:
        return 0, CANONICAL_ORDER.index(name), name
    if name.startswith("z"):
        return 1, CANONICAL_ORDER.index(name[1]), name
    return 2, 0, name
