"""Names of the privileged architecture's numbers (privileged manual, chapters 3 and 12).

Numbers of which one holds are enumerations; bits that combine are plain integers, so that ``~`` complements
all 64.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Access", "Cause", "EnvironmentConfig", "Interrupt", "Mode", "Pte", "SatpMode", "Status"]


class Mode(IntEnum):
    """Privilege modes."""

    U = 0
    S = 1
    M = 3


class Access(IntEnum):
    """Kinds of memory access."""

    FETCH = 0
    LOAD = 1
    STORE = 2
    MANAGE = 3  # cache-block management: load permission suffices, faults are those of a store (CMO 2.5)


class Cause(IntEnum):
    """Exception codes of mcause and scause (3.1.15)."""

    INSTRUCTION_MISALIGNED = 0
    INSTRUCTION_ACCESS_FAULT = 1
    ILLEGAL_INSTRUCTION = 2
    BREAKPOINT = 3
    LOAD_MISALIGNED = 4
    LOAD_ACCESS_FAULT = 5
    STORE_MISALIGNED = 6
    STORE_ACCESS_FAULT = 7
    ECALL_FROM_U = 8
    ECALL_FROM_S = 9
    ECALL_FROM_M = 11
    INSTRUCTION_PAGE_FAULT = 12
    LOAD_PAGE_FAULT = 13
    STORE_PAGE_FAULT = 15


class Interrupt(IntEnum):
    """Bit numbers in mip and mie, and codes of interrupt causes (3.1.9)."""

    SSI = 1
    MSI = 3
    STI = 5
    MTI = 7
    SEI = 9
    MEI = 11


class Status:
    """Bits of mstatus (3.1.6)."""

    SIE = 1 << 1
    MIE = 1 << 3
    SPIE = 1 << 5
    MPIE = 1 << 7
    SPP = 1 << 8
    MPP = 3 << 11
    FS = 3 << 13
    MPRV = 1 << 17
    SUM = 1 << 18
    MXR = 1 << 19
    TVM = 1 << 20
    TW = 1 << 21
    TSR = 1 << 22
    UXL = 3 << 32
    SXL = 3 << 34
    SD = 1 << 63


class EnvironmentConfig:
    """Bits of menvcfg and senvcfg (3.1.18)."""

    FIOM = 1 << 0
    CBIE = 3 << 4
    CBCFE = 1 << 6
    CBZE = 1 << 7
    ADUE = 1 << 61
    STCE = 1 << 63


class SatpMode(IntEnum):
    """Translation schemes that satp can hold (12.1.11)."""

    BARE = 0
    SV39 = 8
    SV48 = 9


class Pte:
    """Bits of a page-table entry (12.3.1)."""

    V = 1 << 0
    R = 1 << 1
    W = 1 << 2
    X = 1 << 3
    U = 1 << 4
    G = 1 << 5
    A = 1 << 6
    D = 1 << 7
