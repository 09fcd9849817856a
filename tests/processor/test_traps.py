"""Traps and interrupts natively, against the model: who takes them, where to, in which order, and when."""

from __future__ import annotations

import random

import pytest

from doppel.isa.assembler import assemble
from doppel.isa.privileged.constants import Cause, EnvironmentConfig, Interrupt, Mode, SatpMode, Status
from doppel.processor.exits import ExitReason
from doppel.translate.engine.attention import LONGEST_BLOCK
from doppel.translate.exits import Request

from ..translate.support import RAM_BASE, RAM_SIZE, TICK, Board, Pair
from ..translate.tables import PageTables

M_HANDLER, S_HANDLER = RAM_BASE + 0x1000, RAM_BASE + 0x2000
DATA = RAM_BASE + 0x4000
STATUS = 0xA_0000_0000
NEVER = (1 << 64) - 1

# What traps, with a0 from ADDRESSES; an ecall has the cause of its mode.
EXCEPTIONS = {
    Cause.ILLEGAL_INSTRUCTION: ".word 0xffffffff",
    Cause.BREAKPOINT: "ebreak",
    Cause.LOAD_MISALIGNED: "lr.w a1, (a0)",
    Cause.LOAD_ACCESS_FAULT: "ld a1, (a0)",
    Cause.STORE_MISALIGNED: "amoadd.d a1, a1, (a0)",
    Cause.STORE_ACCESS_FAULT: "sd a1, (a0)",
    Cause.ECALL_FROM_U: "ecall",
    Cause.LOAD_PAGE_FAULT: "ld a1, (a0)",
    Cause.STORE_PAGE_FAULT: "sd a1, (a0)",
    Cause.INSTRUCTION_PAGE_FAULT: "jr a0",
    Cause.INSTRUCTION_ACCESS_FAULT: "jr a0",
}
ADDRESSES = {
    Cause.LOAD_MISALIGNED: DATA + 2,
    Cause.STORE_MISALIGNED: DATA + 4,
    Cause.LOAD_ACCESS_FAULT: 0x6000,
    Cause.STORE_ACCESS_FAULT: 0x6000,
    Cause.INSTRUCTION_ACCESS_FAULT: 0x6000,
    Cause.LOAD_PAGE_FAULT: 0x7000,
    Cause.STORE_PAGE_FAULT: 0x7000,
    Cause.INSTRUCTION_PAGE_FAULT: 0x7000,
}


def paged_pair() -> Pair:
    """RAM at its own address for S and for U, address 0x6000 nowhere in memory, 0x7000 unmapped."""
    pair = Pair(Board(size=RAM_SIZE))
    tables = PageTables(RAM_BASE + 0x8_0000, SatpMode.SV39, pair.write)
    tables.map(RAM_BASE, RAM_BASE, pages=128)
    tables.map(0x6000, 0x6000)
    pair.allow_everything()
    pair.set(satp=tables.satp, mtvec=M_HANDLER, stvec=S_HANDLER)
    for handler in (M_HANDLER, S_HANDLER):
        pair.write(handler, assemble("again: j again"))
    return pair


@pytest.mark.parametrize("cause", EXCEPTIONS, ids=lambda c: c.name)
@pytest.mark.parametrize("exact", [True, False])
def test_delegation_of_exceptions(cause: Cause, exact: bool) -> None:
    """One by one, and in a block."""
    for mode in (Mode.S, Mode.M):
        for medeleg in (0, 1 << cause, 0xB3FF & ~(1 << cause), 0xB3FF):
            pair = paged_pair()
            pair.load(EXCEPTIONS[cause])
            pair.set(mode=mode, medeleg=medeleg, mstatus=STATUS | Status.SIE | Status.MIE)
            pair.set_x(x10=ADDRESSES.get(cause, 0))
            pair.run(8, exact=exact)
            took = Cause.ECALL_FROM_U + mode if cause == Cause.ECALL_FROM_U else cause
            if mode == Mode.S:
                state = pair.native.state
                assert took == (state.scause if medeleg >> took & 1 else state.mcause)
            pair.board.close()


@pytest.mark.parametrize("number", [*Interrupt], ids=lambda i: i.name)
@pytest.mark.parametrize("vectored", [0, 1])
def test_interrupts_one_by_one(number: Interrupt, vectored: int) -> None:
    """In each mode, delegated or not, enabled or not, to the vector's place or its base."""
    pair = Pair(Board(size=0x1_0000))
    pair.allow_everything()
    for handler in (M_HANDLER, S_HANDLER):
        pair.write(handler, assemble("again: j again"))
    for mode in Mode:
        for mideleg in (0, 0x222):
            for status in (0, Status.MIE, Status.SIE, Status.MIE | Status.SIE):
                pair.load("again: j again")
                pair.set(mode=mode, mideleg=mideleg, mstatus=STATUS | status, mie=1 << number)
                pair.set(mtvec=M_HANDLER | vectored, stvec=S_HANDLER | vectored)
                pair.native.set_lines(1 << number, True)
                pair.set(lines=1 << number)
                pair.run(1)
                pair.native.set_lines(1 << number, False)
                pair.set(lines=0)
                pair.run(1)


@pytest.mark.parametrize("seed", range(4))
def test_priorities_and_delegation_of_any_set(seed: int) -> None:
    choice = random.Random(seed)
    pair = Pair(Board(size=0x1_0000))
    pair.allow_everything()
    for handler in (M_HANDLER, S_HANDLER):
        pair.write(handler, assemble("again: j again"))
    for _ in range(250):
        pair.load("again: nop; j again")
        pair.set(
            mode=choice.choice(list(Mode)),
            mideleg=choice.getrandbits(12) & 0x222,
            mie=choice.getrandbits(12) & 0xAAA,
        )
        pair.set(mip=choice.getrandbits(12) & 0x222, lines=choice.getrandbits(12) & 0xAAA)
        pair.set(mstatus=STATUS | choice.getrandbits(4) & 0xA, mtvec=M_HANDLER | choice.getrandbits(1))
        pair.set(stvec=S_HANDLER | choice.getrandbits(1), menvcfg=choice.choice((0, EnvironmentConfig.STCE)))
        pair.set(stimecmp=choice.choice((0, NEVER)), mtimecmp=choice.choice((0, NEVER)))
        pair.run(choice.choice((1, 2, 5)))


INTERRUPTED = """
    li t0, 0x80
    csrw mie, t0
    csrsi mstatus, 8
again:
    addi a0, a0, 1
    addi a1, a1, 3
    xor a2, a0, a1
    beqz x0, over
    nop
over:
    add a3, a3, a2
    j again
"""
TIMED = {
    # The M timer's comparison is a register of the ACLINT, which nobody changes here: each interrupt is
    # masked.
    "mtimecmp": "csrrw a4, mscratch, x0\n csrr a5, minstret\n csrw mie, x0\n mret",
    "stimecmp": "csrr a4, time\n addi a4, a4, 61\n csrw stimecmp, a4\n csrr a5, minstret\n mret",
}


@pytest.mark.parametrize("timer", TIMED)
def test_timer_interrupts_come_at_exact_counts(timer: str) -> None:
    """At the same instruction as in the model, however the run is divided."""
    for budgets in ([9000], [1] * 700 + [3000], [LONGEST_BLOCK, 5, 3000], [123] * 30):
        pair = Pair(Board(size=0x1_0000))
        pair.load(INTERRUPTED.replace("0x80", "0x80" if timer == "mtimecmp" else "0x20"))
        pair.write(M_HANDLER, assemble(TIMED[timer]))
        pair.set(mtvec=M_HANDLER, menvcfg=EnvironmentConfig.STCE, **{timer: 53})
        for budget in budgets:
            assert pair.run(budget).reason is ExitReason.BUDGET
        assert pair.native.state.interrupts == (
            1 if timer == "mtimecmp" else (pair.model.spent // 10 - 53) // 61 + 1
        )
        # Due in tick 53, that is before the instruction that would be number 530.
        if timer == "mtimecmp":
            assert pair.native.state.x[15] == 53 * TICK + 1


def state_of(board: Board) -> tuple[object, ...]:
    state = board.hart.state
    fields = (
        state.pc,
        state.spent,
        state.traps,
        state.mode,
        state.mstatus,
        state.mepc,
        state.mcause,
        state.icount_skew,
    )
    return (*fields, *state.x[:32], hash(board.memory.read(RAM_BASE, 0x1_0000)))


def test_two_runs_of_a_program_are_the_same_at_every_exit() -> None:
    """With interrupts, waiting, traps and stores into code, exact runs and runs to a block's end."""
    text = f"""
        la t0, handler
        csrw mtvec, t0
        li t0, 0x20
        csrw mie, t0
        csrsi mstatus, 8
        li s0, {DATA}
    again:
        addi a0, a0, 1
        sd a0, (s0)
        andi a1, a0, 63
        bnez a1, 1f
        wfi
    1:  andi a1, a0, 127
        bnez a1, 2f
        la a3, 3f
        lw a2, (a3)
        la a3, 4f
        sw a2, (a3)
    2:  ecall
    4:  addi a4, a4, 1
        j again
    3:  addi a4, a4, 2
    .balign 4
    handler:
        csrr t1, mcause
        bltz t1, 5f
        csrr t1, mepc
        addi t1, t1, 4
        csrw mepc, t1
        mret
    5:  csrr t1, time
        addi t1, t1, 29
        csrw stimecmp, t1
        mret
    """
    text = text.replace("lw a2, 3f", "la a3, 3f\n lw a2, (a3)").replace(
        "sw a2, 4f, a3", "la a3, 4f\n sw a2, (a3)"
    )
    runs = []
    for _ in range(2):
        choice = random.Random(5)
        board = Board(size=0x1_0000)
        board.load(text)
        board.hart.state.menvcfg = EnvironmentConfig.STCE
        board.hart.state.stimecmp = 10
        seen = []
        for _ in range(150):
            exit = board.run(choice.choice((1, 10, 300, 5000)), exact=choice.random() < 0.5)
            seen.append((exit.reason, *state_of(board)))
        runs.append(seen)
        assert board.hart.state.interrupts > 20
    assert runs[0] == runs[1]


@pytest.mark.parametrize("text", ["j nowhere", ".word 0", "ecall", "lw a0, (x0)", "ebreak"])
@pytest.mark.parametrize("handler", [0, 0x8000_1000])
def test_a_loop_of_traps_ends_with_the_budget(text: str, handler: int) -> None:
    """A handler that is not there, or one that traps itself at once."""
    pair = Pair(Board(size=0x1_0000))
    pair.load(text.replace("nowhere", f"{RAM_BASE - 0x1000}"))
    pair.write(M_HANDLER, bytes(4))
    pair.set(mtvec=handler)
    for budget in (1, 10, 1000, LONGEST_BLOCK + 500):
        assert pair.run(budget).reason is ExitReason.BUDGET
    assert pair.native.instructions <= 1
    board = pair.board
    assert board.run(1_000_000).reason is ExitReason.BUDGET
    assert board.run(1_000_000, exact=False).reason is ExitReason.BUDGET


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        (".word 0xffffffff", 0xFFFFFFFF),
        (".half 0, 0xffff", 0),
        (".half 0x8002, 0xffff", 0x8002),
        ("csrw 0xc00, a0", 0xC0051073),
        ("csrr a0, 0x5c0", 0x5C002573),
        ("fadd.s f1, f2, f3, rne", 0x003100D3),
        ("mret", 0x30200073),
        ("c.fld fa0, 8(a0)", 0x2508),
    ],
)
@pytest.mark.parametrize("offset", [0, 0xFFC, 0xFFE])
def test_the_value_of_an_illegal_instruction_is_the_instruction(text: str, bits: int, offset: int) -> None:
    """Wherever it stands, also across the end of a page, run alone or in a block."""
    pair = Pair(Board(size=0x1_0000))
    code = assemble(f"c.nop; c.nop; {text}")
    assert code[4 : 4 + (4 if bits & 3 == 3 else 2)] == bits.to_bytes(4 if bits & 3 == 3 else 2, "little")
    start = RAM_BASE + 0x1000 + offset - 4
    pair.write(start, code)
    pair.allow_everything()
    for budget in (3, LONGEST_BLOCK + 10):
        pair.write(RAM_BASE + 0x4000, assemble("again: j again"))
        pair.set(pc=start, mode=Mode.S, mtvec=RAM_BASE + 0x4000, mtval=1, mcause=0, mstatus=STATUS)
        pair.run(budget)
        assert (pair.native.state.mcause, pair.native.state.mtval) == (Cause.ILLEGAL_INSTRUCTION, bits)


def test_software_interrupts_from_another_hart() -> None:
    """Request.SOFTWARE sets SSIP, which the guest clears itself."""
    board = Board(size=0x1_0000)
    board.load("again: csrr a0, mip; csrci sip, 2; csrr a1, mip; j again")
    board.hart.state.mideleg = 2
    board.hart.request(Request.SOFTWARE)
    board.run(3)
    assert (board.hart.state.x[10], board.hart.state.x[11]) == (2, 0)
    board.run(4000)
    assert board.hart.state.x[10] == 0


@pytest.mark.parametrize("mode", [Mode.S, Mode.U])
def test_the_impure_interface_leaves_on_traps_to_machine_mode(mode: Mode) -> None:
    board = Board(size=0x1_0000, supervisor_calls=True)
    state = board.hart.state
    state.pmpcfg[0], state.pmpaddr[0] = 0x1F, (1 << 54) - 1
    board.load("nop; ecall; nop; .word 0; ld a0, (a0); again: j again")
    state.mode, state.medeleg, state.stvec = mode, 0, S_HANDLER
    exit = board.run(100)
    assert (exit.reason, exit.value) == (ExitReason.TRAP, Cause.ECALL_FROM_U + mode)
    assert (state.pc, state.mode, state.spent, board.hart.instructions) == (RAM_BASE + 4, mode, 2, 1)
    state.pc += 4
    exit = board.run(100)
    assert (exit.reason, exit.value, exit.address) == (ExitReason.TRAP, Cause.ILLEGAL_INSTRUCTION, 0)
    assert state.pc == RAM_BASE + 12
    state.pc += 4
    state.x[10] = 0x1234
    exit = board.run(100)
    assert (exit.reason, exit.value, exit.address) == (ExitReason.TRAP, Cause.LOAD_ACCESS_FAULT, 0x1234)
    # What is delegated never gets out.
    state.medeleg = 0xB3FF
    board.memory.write(S_HANDLER, assemble("again: j again"))
    assert board.run(3000).reason is ExitReason.BUDGET
    assert (state.scause, state.mode) == (Cause.LOAD_ACCESS_FAULT, Mode.S)
