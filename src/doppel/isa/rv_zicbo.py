"""Zicbom and Zicboz: cache-block operations, on 64-byte blocks (unprivileged manual, chapter "CMO").

Memory is coherent here, so managing a block comes down to the checks; invalidating without writing back first
would give a guest no more than the permitted flush does.
"""

from __future__ import annotations

from doppel.isa.instruction import Extension
from doppel.isa.primitives import Hart, zero_block
from doppel.isa.privileged.constants import Access, Cause, EnvironmentConfig, Mode
from doppel.isa.privileged.pmp import pmp_allows
from doppel.isa.privileged.translation import data_mode, translate
from doppel.isa.words import Trap, Word

__all__ = ["BLOCK_SIZE", "ZICBOM", "ZICBOZ"]

ZICBOM = Extension("Zicbom")
ZICBOZ = Extension("Zicboz")

BLOCK_SIZE = 64
BLOCK = "(rs1)"


def require_enabled(h: Hart, enable: Word) -> None:
    """Raise an illegal-instruction exception unless the environment of the mode enables the operation."""
    if h.mode == Mode.M:
        return
    if h.menvcfg & enable == 0 or (h.mode == Mode.U and h.senvcfg & enable == 0):
        raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)


def manage_block(h: Hart, address: Word) -> None:
    """Check that a block-management operation may reach the block that contains the address."""
    mode = data_mode(h)
    physical, _entry, _level = translate(h, address, Word(Access.MANAGE), mode)
    block = physical & ~(BLOCK_SIZE - 1)
    if not pmp_allows(h, block, Word(BLOCK_SIZE), Word(Access.LOAD), mode):
        raise Trap(Cause.STORE_ACCESS_FAULT, address)


@ZICBOM.instruction("000000000000 rs1 010 00000 0001111", syntax=BLOCK)
def cbo_inval(h: Hart, rs1: Word) -> None:
    require_enabled(h, Word(EnvironmentConfig.CBIE))
    manage_block(h, rs1)


@ZICBOM.instruction("000000000001 rs1 010 00000 0001111", syntax=BLOCK)
def cbo_clean(h: Hart, rs1: Word) -> None:
    require_enabled(h, Word(EnvironmentConfig.CBCFE))
    manage_block(h, rs1)


@ZICBOM.instruction("000000000010 rs1 010 00000 0001111", syntax=BLOCK)
def cbo_flush(h: Hart, rs1: Word) -> None:
    require_enabled(h, Word(EnvironmentConfig.CBCFE))
    manage_block(h, rs1)


@ZICBOZ.instruction("000000000100 rs1 010 00000 0001111", syntax=BLOCK)
def cbo_zero(h: Hart, rs1: Word) -> None:
    require_enabled(h, Word(EnvironmentConfig.CBZE))
    zero_block(h, rs1)
