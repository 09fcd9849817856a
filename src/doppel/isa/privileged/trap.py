"""Trap entry, trap return and interrupt selection (privileged manual 3.1.6 to 3.1.9, 3.1.14, 3.3.2)."""

from __future__ import annotations

from doppel.isa.primitives import Hart, recheck_interrupts, ticks, translation_mode_changed
from doppel.isa.privileged.constants import EnvironmentConfig, Interrupt, Mode, Status
from doppel.isa.words import Word

__all__ = [
    "INTERRUPT",
    "NO_INTERRUPT",
    "interrupts_pending",
    "mret",
    "pending_interrupt",
    "sret",
    "take_trap",
    "update_timers",
]

INTERRUPT = 1 << 63
NO_INTERRUPT = 0
NO_RESERVATION = (1 << 64) - 1
STI, MTI = 1 << Interrupt.STI, 1 << Interrupt.MTI


def update_timers(h: Hart) -> None:
    """Compare the timers with the time: ``h.timer_lines`` has STIP and MTIP (Sstc 2; ACLINT MTIMER)."""
    now = ticks(h)
    lines = Word(0)
    if h.menvcfg & EnvironmentConfig.STCE != 0 and now >= h.stimecmp:
        lines = lines | STI
    if now >= h.mtimecmp:
        lines = lines | MTI
    h.timer_lines = lines


def interrupts_pending(h: Hart) -> Word:
    """The value of mip."""
    software = h.mip
    if h.menvcfg & EnvironmentConfig.STCE != 0:
        software = software & ~STI
    return software | h.lines | h.timer_lines


def pending_interrupt(h: Hart) -> Word:
    """The cause of the interrupt to take now, or NO_INTERRUPT (0); M before S, then by the order of 3.1.9."""
    pending = interrupts_pending(h) & h.mie
    if pending == 0:
        return Word(NO_INTERRUPT)
    chosen = pending & ~h.mideleg
    if h.mode == Mode.M and h.mstatus & Status.MIE == 0:
        chosen = Word(0)
    if chosen == 0 and (h.mode == Mode.U or (h.mode == Mode.S and h.mstatus & Status.SIE != 0)):
        chosen = pending & h.mideleg
    if chosen == 0:
        return Word(NO_INTERRUPT)
    if chosen & 1 << Interrupt.MEI != 0:
        return Word(INTERRUPT | Interrupt.MEI)
    if chosen & 1 << Interrupt.MSI != 0:
        return Word(INTERRUPT | Interrupt.MSI)
    if chosen & MTI != 0:
        return Word(INTERRUPT | Interrupt.MTI)
    if chosen & 1 << Interrupt.SEI != 0:
        return Word(INTERRUPT | Interrupt.SEI)
    if chosen & 1 << Interrupt.SSI != 0:
        return Word(INTERRUPT | Interrupt.SSI)
    return Word(INTERRUPT | Interrupt.STI)


def delegated(h: Hart, cause: Word) -> bool:
    """Whether a trap goes to S mode (3.1.8)."""
    delegation = h.medeleg
    if cause & INTERRUPT != 0:
        delegation = h.mideleg
    return h.mode != Mode.M and delegation >> (cause & 63) & 1 != 0


def take_trap(h: Hart, cause: Word, value: Word) -> None:
    """Enter the trap handler; ``h.pc`` is the address that goes to the exception pc.

    A reservation does not survive: what runs next must not complete somebody else's LR/SC pair.
    """
    h.reserved_address = Word(NO_RESERVATION)
    vectored = Word(0)
    if cause & INTERRUPT != 0:
        vectored = (cause & 63) << 2
    status = h.mstatus
    if delegated(h, cause):
        h.scause = cause
        h.sepc = h.pc
        h.stval = value
        enabled = status & Status.SIE
        status = status & ~(Status.SIE | Status.SPIE | Status.SPP) | enabled << 4 | h.mode << 8
        h.mode = Word(Mode.S)
        h.pc = h.stvec & ~3
        if h.stvec & 1 != 0:
            h.pc = h.pc + vectored
    else:
        h.mcause = cause
        h.mepc = h.pc
        h.mtval = value
        enabled = status & Status.MIE
        status = status & ~(Status.MIE | Status.MPIE | Status.MPP) | enabled << 4 | h.mode << 11
        h.mode = Word(Mode.M)
        h.pc = h.mtvec & ~3
        if h.mtvec & 1 != 0:
            h.pc = h.pc + vectored
    h.mstatus = status
    translation_mode_changed(h)


def mret(h: Hart) -> Word:
    """Return from M: restores the mode and the interrupt enable, gives the address to go on at (3.1.6.1)."""
    status = h.mstatus
    previous = status >> 11 & 3
    enabled = status & Status.MPIE
    status = status & ~(Status.MIE | Status.MPP) | Status.MPIE | enabled >> 4
    if previous != Mode.M:
        status = status & ~Status.MPRV
    h.mstatus = status
    h.mode = previous
    translation_mode_changed(h)
    recheck_interrupts(h)
    return h.mepc


def sret(h: Hart) -> Word:
    """Return from S, likewise (12.1.1.1)."""
    status = h.mstatus
    previous = status >> 8 & 1
    enabled = status & Status.SPIE
    status = status & ~(Status.SIE | Status.SPP | Status.MPRV) | Status.SPIE | enabled >> 4
    h.mstatus = status
    h.mode = previous
    translation_mode_changed(h)
    recheck_interrupts(h)
    return h.sepc
