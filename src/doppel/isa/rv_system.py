"""Zicsr (unprivileged manual chapter 6) and the privileged instructions (privileged manual 3.3, 12.2)."""

from __future__ import annotations

from doppel.isa.csr import CSR_BY_NAME, check_csr, csr_read, csr_write
from doppel.isa.instruction import Extension
from doppel.isa.primitives import (
    Hart,
    flush_address,
    flush_space,
    flush_space_address,
    flush_translations,
    jump,
    wait_for_interrupt,
)
from doppel.isa.privileged.constants import Cause, Mode, Status
from doppel.isa.privileged.trap import mret as return_from_m
from doppel.isa.privileged.trap import sret as return_from_s
from doppel.isa.words import Trap, Word

__all__ = ["PRIVILEGED", "ZICSR"]

ZICSR = Extension("Zicsr")
PRIVILEGED = Extension("Privileged")


def _swap(h: Hart, csr: Word, value: Word, read: bool) -> Word:
    check_csr(h, csr, True)
    old = Word(0)
    if read:
        old = csr_read(h, csr)
    csr_write(h, csr, value)
    return old


MIP = CSR_BY_NAME["mip"].number


def _modified(h: Hart, csr: Word, old: Word) -> Word:
    """What set and clear start from: of mip only the bits that software wrote, not what devices drive
    (3.1.9)."""
    return h.mip if csr == MIP else old


@ZICSR.instruction("csr rs1 001 rd 1110011", syntax="rd, csr, rs1")
def csrrw(h: Hart, csr: Word, rs1: Word, rd_index: Word) -> Word:
    return _swap(h, csr, rs1, rd_index != 0)


@ZICSR.instruction("csr rs1 010 rd 1110011", syntax="rd, csr, rs1")
def csrrs(h: Hart, csr: Word, rs1: Word, rs1_index: Word) -> Word:
    check_csr(h, csr, rs1_index != 0)
    old = csr_read(h, csr)
    if rs1_index != 0:
        csr_write(h, csr, _modified(h, csr, old) | rs1)
    return old


@ZICSR.instruction("csr rs1 011 rd 1110011", syntax="rd, csr, rs1")
def csrrc(h: Hart, csr: Word, rs1: Word, rs1_index: Word) -> Word:
    check_csr(h, csr, rs1_index != 0)
    old = csr_read(h, csr)
    if rs1_index != 0:
        csr_write(h, csr, _modified(h, csr, old) & ~rs1)
    return old


@ZICSR.instruction("csr zimm 101 rd 1110011", syntax="rd, csr, zimm")
def csrrwi(h: Hart, csr: Word, zimm: Word, rd_index: Word) -> Word:
    return _swap(h, csr, zimm, rd_index != 0)


@ZICSR.instruction("csr zimm 110 rd 1110011", syntax="rd, csr, zimm")
def csrrsi(h: Hart, csr: Word, zimm: Word) -> Word:
    check_csr(h, csr, zimm != 0)
    old = csr_read(h, csr)
    if zimm != 0:
        csr_write(h, csr, _modified(h, csr, old) | zimm)
    return old


@ZICSR.instruction("csr zimm 111 rd 1110011", syntax="rd, csr, zimm")
def csrrci(h: Hart, csr: Word, zimm: Word) -> Word:
    check_csr(h, csr, zimm != 0)
    old = csr_read(h, csr)
    if zimm != 0:
        csr_write(h, csr, _modified(h, csr, old) & ~zimm)
    return old


@PRIVILEGED.instruction("000000000000 00000 000 00000 1110011")
def ecall(h: Hart) -> None:
    raise Trap(Cause.ECALL_FROM_U + h.mode, 0)


@PRIVILEGED.instruction("000000000001 00000 000 00000 1110011")
def ebreak(h: Hart, pc: Word) -> None:
    raise Trap(Cause.BREAKPOINT, pc)


@PRIVILEGED.instruction("0011000 00010 00000 000 00000 1110011")
def mret(h: Hart) -> None:
    if h.mode != Mode.M:
        raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)
    jump(h, return_from_m(h))


@PRIVILEGED.instruction("0001000 00010 00000 000 00000 1110011")
def sret(h: Hart) -> None:
    if h.mode == Mode.U or (h.mode == Mode.S and h.mstatus & Status.TSR != 0):
        raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)
    jump(h, return_from_s(h))


@PRIVILEGED.instruction("0001000 00101 00000 000 00000 1110011")
def wfi(h: Hart) -> None:
    if h.mode == Mode.U or (h.mode == Mode.S and h.mstatus & Status.TW != 0):
        raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)
    wait_for_interrupt(h)


@PRIVILEGED.instruction("0001001 rs2 rs1 000 00000 1110011", name="sfence.vma", syntax="rs1, rs2")
def sfence_vma(h: Hart, rs1: Word, rs2: Word, rs1_index: Word, rs2_index: Word) -> None:
    if h.mode == Mode.U or (h.mode == Mode.S and h.mstatus & Status.TVM != 0):
        raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)
    if rs2_index == 0:
        if rs1_index == 0:
            flush_translations(h)
        else:
            flush_address(h, rs1)
    elif rs1_index == 0:
        flush_space(h, rs2)
    else:
        flush_space_address(h, rs1, rs2)
