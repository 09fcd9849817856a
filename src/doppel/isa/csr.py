"""Control and status registers: one row each.

A row is either plain (a field of the hart with the bits that a write may change) or has a ``read`` and a
``write`` function in the language of :mod:`doppel.isa.words`. The privilege to access it and whether it is
read-only are in its number (privileged manual 2.1). :func:`csr_read` and :func:`csr_write` dispatch over
the table; the compiler makes a switch of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from doppel.isa.primitives import (
    Hart,
    flush_translations,
    instructions_retired,
    read_host_flags,
    recheck_interrupts,
    ticks,
    translation_mode_changed,
    write_host_flags,
)
from doppel.isa.privileged.constants import Cause, EnvironmentConfig, Interrupt, Mode, SatpMode, Status
from doppel.isa.privileged.pmp import ADDRESS_MASK, LOCKED, pmp_entry_locked
from doppel.isa.privileged.trap import interrupts_pending, update_timers
from doppel.isa.state import PMP_ENTRIES
from doppel.isa.words import MASK64, Trap, Word

__all__ = ["CSR_BY_NAME", "CSR_TABLE", "Csr", "check_csr", "csr_read", "csr_write", "require_fp"]

ReadFunction = Callable[[Any, Word], Word]
WriteFunction = Callable[[Any, Word, Word], None]


@dataclass(frozen=True)
class Csr:
    """One register. ``read(h, number)`` and ``write(h, number, value)`` may raise an illegal-instruction
    trap."""

    number: int
    name: str
    doc: str
    field: str = ""
    write_mask: int = MASK64
    constant: int = 0
    read: ReadFunction | None = None
    write: WriteFunction | None = None


def check_csr(h: Hart, number: Word, write: bool) -> None:
    """Raise unless the mode may access the register in that way (2.1)."""
    if h.mode < (number >> 8 & 3):
        raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)
    if write and number >> 10 == 3:
        raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)


def csr_read(h: Hart, number: int) -> Word:
    """The register's value; illegal-instruction trap if there is none of that number."""
    row = CSR_BY_NUMBER.get(int(number))
    if row is None:
        raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)
    if row.read is not None:
        return row.read(h, Word(number))
    return Word(getattr(h, row.field) if row.field else row.constant)


def csr_write(h: Hart, number: int, value: int) -> None:
    """Write the register; bits outside its write mask keep their value."""
    row = CSR_BY_NUMBER.get(int(number))
    if row is None:
        raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)
    if row.write is not None:
        row.write(h, Word(number), Word(value))
    elif row.field:
        old = getattr(h, row.field)
        setattr(h, row.field, Word(old & ~row.write_mask | value & row.write_mask))


# --- floating point (unprivileged manual 20.2; privileged 3.1.6.6) ---


def require_fp(h: Hart) -> None:
    """Raise unless the floating-point unit is on."""
    if h.mstatus & Status.FS == 0:
        raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)


def _read_fflags(h: Hart, number: Word) -> Word:
    require_fp(h)
    return h.fflags | read_host_flags(h)


def _write_fflags(h: Hart, number: Word, value: Word) -> None:
    require_fp(h)
    h.mstatus = h.mstatus | Status.FS
    h.fflags = value & 0x1F
    write_host_flags(h)


def _read_frm(h: Hart, number: Word) -> Word:
    require_fp(h)
    return h.frm


def _write_frm(h: Hart, number: Word, value: Word) -> None:
    require_fp(h)
    h.mstatus = h.mstatus | Status.FS
    h.frm = value & 7


def _read_fcsr(h: Hart, number: Word) -> Word:
    require_fp(h)
    return h.frm << 5 | h.fflags | read_host_flags(h)


def _write_fcsr(h: Hart, number: Word, value: Word) -> None:
    require_fp(h)
    h.mstatus = h.mstatus | Status.FS
    h.frm = value >> 5 & 7
    h.fflags = value & 0x1F
    write_host_flags(h)


# --- counters (privileged 3.1.10 to 3.1.12, 12.1.5) ---

CY, TM, IR = 1, 2, 4
COUNTERS = 0xFFFFFFFF


def _check_counter(h: Hart, number: Word) -> None:
    bit = Word(1) << (number & 31)
    if h.mode != Mode.M and h.mcounteren & bit == 0:
        raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)
    if h.mode == Mode.U and h.scounteren & bit == 0:
        raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)


def _cycles(h: Hart) -> Word:
    return h.cycle_offset if h.mcountinhibit & CY != 0 else instructions_retired(h) + h.cycle_offset


def _retired(h: Hart) -> Word:
    return h.instret_offset if h.mcountinhibit & IR != 0 else instructions_retired(h) + h.instret_offset


def _read_mcycle(h: Hart, number: Word) -> Word:
    return _cycles(h)


def _read_minstret(h: Hart, number: Word) -> Word:
    return _retired(h)


def _read_cycle(h: Hart, number: Word) -> Word:
    _check_counter(h, number)
    return _cycles(h)


def _read_instret(h: Hart, number: Word) -> Word:
    _check_counter(h, number)
    return _retired(h)


def _read_time(h: Hart, number: Word) -> Word:
    _check_counter(h, number)
    return ticks(h)


def _read_hpmcounter(h: Hart, number: Word) -> Word:
    _check_counter(h, number)
    return Word(0)


def _write_mcycle(h: Hart, number: Word, value: Word) -> None:
    # The written value is what the next instruction reads, so this one is taken off (3.1.11).
    h.cycle_offset = value if h.mcountinhibit & CY != 0 else value - instructions_retired(h) - 1


def _write_minstret(h: Hart, number: Word, value: Word) -> None:
    h.instret_offset = value if h.mcountinhibit & IR != 0 else value - instructions_retired(h) - 1


def _write_mcountinhibit(h: Hart, number: Word, value: Word) -> None:
    cycles = _cycles(h)
    retired = _retired(h)
    h.mcountinhibit = value & (CY | IR)
    h.cycle_offset = cycles if value & CY != 0 else cycles - instructions_retired(h)
    h.instret_offset = retired if value & IR != 0 else retired - instructions_retired(h)


# --- status and environment ---

SSTATUS_WRITABLE = Status.SIE | Status.SPIE | Status.SPP | Status.FS | Status.SUM | Status.MXR
SSTATUS_READABLE = SSTATUS_WRITABLE | Status.UXL
MSTATUS_WRITABLE = (
    SSTATUS_WRITABLE
    | Status.MIE
    | Status.MPIE
    | Status.MPP
    | Status.MPRV
    | Status.TVM
    | Status.TW
    | Status.TSR
)
MISA = 2 << 62 | sum(1 << ord(letter) - ord("A") for letter in "ACDFIMSU")


def _with_dirty_summary(status: Word) -> Word:
    return status | Status.SD if status & Status.FS == Status.FS else status


def _read_mstatus(h: Hart, number: Word) -> Word:
    return _with_dirty_summary(h.mstatus)


def _read_sstatus(h: Hart, number: Word) -> Word:
    return _with_dirty_summary(h.mstatus & SSTATUS_READABLE)


def _set_status(h: Hart, status: Word) -> None:
    if status >> 11 & 3 == 2:
        status = status & ~Status.MPP | h.mstatus & Status.MPP
    changed = status ^ h.mstatus
    h.mstatus = status
    if changed & (Status.MPP | Status.MPRV | Status.SUM | Status.MXR) != 0:
        if changed & Status.MXR != 0:
            flush_translations(h)
        translation_mode_changed(h)
    if changed & status & (Status.SIE | Status.MIE) != 0:
        recheck_interrupts(h)


def _write_mstatus(h: Hart, number: Word, value: Word) -> None:
    _set_status(h, h.mstatus & ~MSTATUS_WRITABLE | value & MSTATUS_WRITABLE)


def _write_sstatus(h: Hart, number: Word, value: Word) -> None:
    _set_status(h, h.mstatus & ~SSTATUS_WRITABLE | value & SSTATUS_WRITABLE)


MENVCFG_WRITABLE = (
    EnvironmentConfig.FIOM
    | EnvironmentConfig.CBIE
    | EnvironmentConfig.CBCFE
    | EnvironmentConfig.CBZE
    | EnvironmentConfig.ADUE
    | EnvironmentConfig.STCE
)
SENVCFG_WRITABLE = (
    EnvironmentConfig.FIOM | EnvironmentConfig.CBIE | EnvironmentConfig.CBCFE | EnvironmentConfig.CBZE
)


def _legal_environment(value: Word, old: Word) -> Word:
    # CBIE 2 is reserved (CMO 3.1).
    return value & ~EnvironmentConfig.CBIE | old & EnvironmentConfig.CBIE if value >> 4 & 3 == 2 else value


def _write_menvcfg(h: Hart, number: Word, value: Word) -> None:
    h.menvcfg = _legal_environment(value & MENVCFG_WRITABLE, h.menvcfg)
    flush_translations(h)
    update_timers(h)
    recheck_interrupts(h)


def _write_senvcfg(h: Hart, number: Word, value: Word) -> None:
    h.senvcfg = _legal_environment(value & SENVCFG_WRITABLE, h.senvcfg)


# --- traps ---

DELEGABLE_EXCEPTIONS = 0xB3FF
S_INTERRUPTS = 1 << Interrupt.SSI | 1 << Interrupt.STI | 1 << Interrupt.SEI
ALL_INTERRUPTS = S_INTERRUPTS | 1 << Interrupt.MSI | 1 << Interrupt.MTI | 1 << Interrupt.MEI
SSI = 1 << Interrupt.SSI


def _write_mtvec(h: Hart, number: Word, value: Word) -> None:
    h.mtvec = value & ~2


def _write_stvec(h: Hart, number: Word, value: Word) -> None:
    h.stvec = value & ~2


def _write_mideleg(h: Hart, number: Word, value: Word) -> None:
    h.mideleg = value & S_INTERRUPTS
    recheck_interrupts(h)


def _write_mie(h: Hart, number: Word, value: Word) -> None:
    h.mie = value & ALL_INTERRUPTS
    recheck_interrupts(h)


def _read_sie(h: Hart, number: Word) -> Word:
    return h.mie & h.mideleg


def _write_sie(h: Hart, number: Word, value: Word) -> None:
    h.mie = h.mie & ~h.mideleg | value & h.mideleg
    recheck_interrupts(h)


def _read_mip(h: Hart, number: Word) -> Word:
    update_timers(h)
    return interrupts_pending(h)


def _write_mip(h: Hart, number: Word, value: Word) -> None:
    h.mip = value & S_INTERRUPTS
    recheck_interrupts(h)


def _read_sip(h: Hart, number: Word) -> Word:
    update_timers(h)
    return interrupts_pending(h) & h.mideleg


def _write_sip(h: Hart, number: Word, value: Word) -> None:
    writable = h.mideleg & SSI
    h.mip = h.mip & ~writable | value & writable
    recheck_interrupts(h)


def _check_stimecmp(h: Hart) -> None:
    # Sstc 2.1: S needs menvcfg.STCE and mcounteren.TM.
    if h.mode != Mode.M and (h.menvcfg & EnvironmentConfig.STCE == 0 or h.mcounteren & TM == 0):
        raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)


def _read_stimecmp(h: Hart, number: Word) -> Word:
    _check_stimecmp(h)
    return h.stimecmp


def _write_stimecmp(h: Hart, number: Word, value: Word) -> None:
    _check_stimecmp(h)
    h.stimecmp = value
    update_timers(h)
    recheck_interrupts(h)


# --- address translation and protection ---


def _check_satp(h: Hart) -> None:
    if h.mode == Mode.S and h.mstatus & Status.TVM != 0:
        raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)


def _read_satp(h: Hart, number: Word) -> Word:
    _check_satp(h)
    return h.satp


def _write_satp(h: Hart, number: Word, value: Word) -> None:
    """A write of an unsupported mode has no effect at all (12.1.11); all 16 bits of the ASID are there."""
    _check_satp(h)
    scheme = value >> 60
    if scheme == SatpMode.BARE or scheme == SatpMode.SV39 or scheme == SatpMode.SV48:
        h.satp = value
        translation_mode_changed(h)


FIRST_PMPADDR = 0x3B0


def _read_pmpcfg(h: Hart, number: Word) -> Word:
    first = (number & 0xE) << 2
    value = Word(0)
    offset = Word(0)
    while offset < 8:
        value = value | h.pmpcfg[first + offset] << (8 * offset)
        offset = offset + 1
    return value


def _write_pmpcfg(h: Hart, number: Word, value: Word) -> None:
    first = (number & 0xE) << 2
    offset = Word(0)
    while offset < 8:
        config = value >> (8 * offset) & 0x9F
        # W without R is reserved (3.7.1.1).
        if h.pmpcfg[first + offset] & LOCKED == 0 and config & 3 != 2:
            h.pmpcfg[first + offset] = config
        offset = offset + 1
    flush_translations(h)


def _read_pmpaddr(h: Hart, number: Word) -> Word:
    return h.pmpaddr[number - FIRST_PMPADDR]


def _write_pmpaddr(h: Hart, number: Word, value: Word) -> None:
    if not pmp_entry_locked(h, number - FIRST_PMPADDR):
        h.pmpaddr[number - FIRST_PMPADDR] = value & ADDRESS_MASK
        flush_translations(h)


EVEN = MASK64 - 1

CSR_TABLE: tuple[Csr, ...] = (
    Csr(0x001, "fflags", "floating-point accrued exceptions", read=_read_fflags, write=_write_fflags),
    Csr(0x002, "frm", "floating-point dynamic rounding mode", read=_read_frm, write=_write_frm),
    Csr(0x003, "fcsr", "floating-point control and status", read=_read_fcsr, write=_write_fcsr),
    Csr(0xC00, "cycle", "cycles (one an instruction)", read=_read_cycle),
    Csr(0xC01, "time", "time in timebase ticks", read=_read_time),
    Csr(0xC02, "instret", "instructions retired", read=_read_instret),
    *(Csr(0xC00 + n, f"hpmcounter{n}", "no event counted", read=_read_hpmcounter) for n in range(3, 32)),
    Csr(0x100, "sstatus", "S status", read=_read_sstatus, write=_write_sstatus),
    Csr(0x104, "sie", "S interrupt enables", read=_read_sie, write=_write_sie),
    Csr(0x105, "stvec", "S trap vector", field="stvec", write=_write_stvec),
    Csr(0x106, "scounteren", "counters U may read", field="scounteren", write_mask=COUNTERS),
    Csr(0x10A, "senvcfg", "environment of U", field="senvcfg", write=_write_senvcfg),
    Csr(0x140, "sscratch", "S scratch", field="sscratch"),
    Csr(0x141, "sepc", "S exception pc", field="sepc", write_mask=EVEN),
    Csr(0x142, "scause", "S trap cause", field="scause"),
    Csr(0x143, "stval", "S trap value", field="stval"),
    Csr(0x144, "sip", "S interrupts pending", read=_read_sip, write=_write_sip),
    Csr(0x14D, "stimecmp", "S timer comparison", read=_read_stimecmp, write=_write_stimecmp),
    Csr(0x180, "satp", "S address translation and protection", read=_read_satp, write=_write_satp),
    Csr(0xF11, "mvendorid", "vendor: not implemented"),
    Csr(0xF12, "marchid", "architecture: not assigned"),
    Csr(0xF13, "mimpid", "implementation", constant=1),
    Csr(0xF14, "mhartid", "hart number", field="mhartid"),
    Csr(0xF15, "mconfigptr", "configuration structure: none"),
    Csr(0x300, "mstatus", "M status", read=_read_mstatus, write=_write_mstatus),
    Csr(0x301, "misa", "RV64 with extensions ACDFIMSU", constant=MISA),
    Csr(0x302, "medeleg", "exceptions delegated to S", field="medeleg", write_mask=DELEGABLE_EXCEPTIONS),
    Csr(0x303, "mideleg", "interrupts delegated to S", field="mideleg", write=_write_mideleg),
    Csr(0x304, "mie", "interrupt enables", field="mie", write=_write_mie),
    Csr(0x305, "mtvec", "M trap vector", field="mtvec", write=_write_mtvec),
    Csr(0x306, "mcounteren", "counters S may read", field="mcounteren", write_mask=COUNTERS),
    Csr(0x30A, "menvcfg", "environment of S", field="menvcfg", write=_write_menvcfg),
    Csr(
        0x320, "mcountinhibit", "counters that stand still", field="mcountinhibit", write=_write_mcountinhibit
    ),
    *(Csr(0x320 + n, f"mhpmevent{n}", "no event") for n in range(3, 32)),
    Csr(0x340, "mscratch", "M scratch", field="mscratch"),
    Csr(0x341, "mepc", "M exception pc", field="mepc", write_mask=EVEN),
    Csr(0x342, "mcause", "M trap cause", field="mcause"),
    Csr(0x343, "mtval", "M trap value", field="mtval"),
    Csr(0x344, "mip", "interrupts pending", read=_read_mip, write=_write_mip),
    *(
        Csr(0x3A0 + n, f"pmpcfg{n}", "protection configuration", read=_read_pmpcfg, write=_write_pmpcfg)
        for n in range(0, PMP_ENTRIES // 4, 2)
    ),
    *(
        Csr(
            FIRST_PMPADDR + n,
            f"pmpaddr{n}",
            "protection address 55:2",
            read=_read_pmpaddr,
            write=_write_pmpaddr,
        )
        for n in range(PMP_ENTRIES)
    ),
    Csr(0x7A0, "tselect", "trigger select: there are none", field="tselect", write_mask=0),
    Csr(0x7A1, "tdata1", "trigger type 0: none"),
    Csr(0x7A2, "tdata2", "no trigger"),
    Csr(0x7A3, "tdata3", "no trigger"),
    Csr(0xB00, "mcycle", "cycles", read=_read_mcycle, write=_write_mcycle),
    Csr(0xB02, "minstret", "instructions retired", read=_read_minstret, write=_write_minstret),
    *(Csr(0xB00 + n, f"mhpmcounter{n}", "no event counted") for n in range(3, 32)),
)
CSR_BY_NUMBER = {row.number: row for row in CSR_TABLE}
CSR_BY_NAME = {row.name: row for row in CSR_TABLE}
