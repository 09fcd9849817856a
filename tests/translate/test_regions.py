"""Where compiled regions could go wrong and the interpreter not: accesses that share a look into the TLB,
pages that are protected in parts, floating point that is turned off between two blocks.
"""

from __future__ import annotations

import pytest

from doppel.isa.assembler import assemble
from doppel.isa.privileged.constants import Mode, SatpMode, Status
from doppel.processor.exits import ExitReason

from .support import ALL_ADDRESSES, COMPILED, PMP_EVERYTHING, RAM_BASE, Pair
from .tables import ALL, PageTables

pytestmark = COMPILED
PAGE = RAM_BASE + 0x8000
HANDLER = RAM_BASE + 0x1000
# Counts in s11, and goes on behind what trapped.
OVER = "addi s11, s11, 1; csrr t6, mepc; addi t6, t6, 4; csrw mepc, t6; mret"


def pair_with(text: str, mode: Mode = Mode.M) -> Pair:
    pair = Pair()
    pair.load(text)
    pair.write(HANDLER, assemble(OVER, HANDLER))
    pair.write(PAGE - 4096, bytes(number * 29 & 0xFF for number in range(3 * 4096)))
    pair.allow_everything()
    pair.set(mtvec=HANDLER, mstatus=0xA_0000_0000, mode=mode)
    return pair


def run(pair: Pair) -> None:
    """In several runs, so that there is something to compile between them, and what was met is met again."""
    for budget in (40, 200, 200, 300):
        # To the end of a block: towards an exact end all is executed one by one.
        assert pair.run(budget, exact=False).reason is ExitReason.BUDGET


ACCESSES = {
    "loads": "ld a1, 0(s0); ld a2, -8(s0); lw a3, 4(s0); lbu a4, -1(s0)",
    "stores": "sd a1, 0(s0); sd a2, -8(s0); sw a3, 4(s0); sb a4, -1(s0)",
    "a store, then loads": "sd s11, 0(s0); ld a2, -8(s0); lwu a3, -16(s0)",
    "loads, then stores": "ld a1, 8(s0); lw a2, -16(s0); sd a1, -8(s0); sw a2, 4(s0)",
    "a wide one behind": "lb a1, -1(s0); lh a2, 2(s0); ld a3, -8(s0); sd a3, 8(s0)",
    "floats": "fld fa0, 0(s0); fsd fa0, -8(s0); flw fa1, 4(s0); fsw fa1, -16(s0)",
    "far apart": "ld a1, 504(s0); ld a2, -504(s0); sd a1, -496(s0); sd a2, 496(s0)",
}
BODY = "again: {}; addi s1, s1, 1; xor s2, s2, a2; j again"


@pytest.mark.parametrize(("lower", "upper"), [(0, 3), (3, 0), (1, 3), (3, 1)])
@pytest.mark.parametrize("name", ACCESSES)
def test_a_page_that_is_protected_in_parts(name: str, lower: int, upper: int) -> None:
    """Accesses with one base register on both sides of the border between its halves."""
    pair = pair_with(BODY.format(ACCESSES[name]), Mode.S)
    halves = [PAGE >> 2 | 0xFF, (PAGE + 0x800) >> 2 | 0xFF]
    pair.set(pmpcfg=[0x18 | lower, 0x18 | upper, PMP_EVERYTHING], pmpaddr=[*halves, ALL_ADDRESSES])
    pair.set(mstatus=0xA_0000_0000 | Status.FS)
    pair.set_x(x8=PAGE + 0x800)
    run(pair)


@pytest.mark.parametrize(
    ("first", "second"),
    [(0, ALL), (ALL, 0), (ALL, ALL), (ALL, ALL & ~4), (ALL & ~4, ALL), (ALL, ALL & ~0xC0)],
)
@pytest.mark.parametrize("name", ACCESSES)
def test_a_border_between_pages(name: str, first: int, second: int) -> None:
    """The same, where the halves are pages of which one may be absent or read-only."""
    pair = pair_with(BODY.format(ACCESSES[name]), Mode.S)
    tables = PageTables(RAM_BASE + 0x4_0000, SatpMode.SV39, pair.write)
    tables.map(RAM_BASE, RAM_BASE, pages=16)
    tables.map(0x4000_0000, PAGE, first)
    tables.map(0x4000_1000, PAGE - 4096, second)
    pair.set(satp=tables.satp, mstatus=0xA_0000_0000 | Status.FS)
    pair.set_x(x8=0x4000_1000)
    run(pair)


@pytest.mark.parametrize("name", ACCESSES)
@pytest.mark.parametrize("base", [8, 3, RAM_BASE - PAGE - 4, 8 - PAGE])
def test_bases_of_all_kinds(name: str, base: int) -> None:
    """Aligned and not, outside memory, in the code itself, and where addresses wrap around."""
    pair = pair_with(BODY.format(ACCESSES[name]) + "\n" + ".zero 64")
    pair.set(mstatus=0xA_0000_0000 | Status.FS)
    pair.set_x(x8=PAGE + base)
    run(pair)


@pytest.mark.parametrize("state", range(4))
def test_floating_point_that_another_block_turns_off(state: int) -> None:
    """In a loop: a block that computes, one that changes FS and the rounding mode, one that computes."""
    pair = pair_with(
        f"""
        li s3, 0x6000
        li s4, {state << 13}
        again:
            fadd.d fa0, fa0, fa1
            fmul.s fa2, fa2, fa1
            addi s1, s1, 1
            andi t0, s1, 7
            bnez t0, there
            csrc mstatus, s3
            csrs mstatus, s4
            andi t0, s1, 31
            csrw frm, t0
        there:
            fdiv.d fa3, fa0, fa4
            fcvt.w.d a0, fa3
            fsgnjn.d fa5, fa3, fa0
            csrr a1, fflags
            andi t0, s1, 63
            bnez t0, again
            csrs mstatus, s3
            csrwi fcsr, 0
            j again
        """
    )
    pair.set(mstatus=0xA_0000_0000 | Status.FS)
    pair.set(f=[number * 0x0123_4567_89AB_CDEF & (1 << 64) - 1 for number in range(32)])
    run(pair)


def test_flags_of_results_that_nobody_uses() -> None:
    pair = pair_with(
        """
        again: fdiv.d fa0, fa1, fa2; fmv.d.x fa0, x0; addi s1, s1, 1; beqz s1, again
        csrr a0, fflags; j again
        """
    )
    pair.set(mstatus=0xA_0000_0000 | Status.FS)
    pair.set(f=[0] * 11 + [0x3FF0 << 48, 0])
    run(pair)
    assert pair.native.state.x[10] == 8
