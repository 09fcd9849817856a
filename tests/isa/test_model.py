"""The reference hart: memory, traps, interrupts, and what the engines have no oracle for."""

from __future__ import annotations

import pytest

from doppel.isa.assembler import Program, assemble, assemble_program
from doppel.isa.model import HartModel, ModelMemory
from doppel.isa.privileged.constants import Cause, EnvironmentConfig, Interrupt, Mode, Pte, SatpMode, Status
from doppel.isa.words import MASK64, Word

BASE = 0x8000_0000
SIZE = 1 << 20
DATA = BASE + 0x1_0000
TABLES = BASE + 0x4_0000
HANDLER = BASE + 0x8000


def hart_with(text: str, memory: ModelMemory | None = None) -> tuple[HartModel, Program]:
    """A hart in M mode at the beginning of a program; traps go to HANDLER."""
    memory = memory or ModelMemory(BASE, SIZE)
    program = assemble_program(text, BASE, {"DATA": DATA})
    memory.data[: len(program.code)] = program.code
    hart = HartModel(memory)
    hart.pc = Word(BASE)
    hart.mtvec = Word(HANDLER)
    return hart, program


def run(text: str, steps: int | None = None) -> HartModel:
    """Run a straight-line program to its end, or some steps of any other."""
    hart, program = hart_with(text)
    end = BASE + len(program.code)
    while steps != 0 and hart.pc != end and hart.pc != HANDLER:
        hart.step()
        steps = steps - 1 if steps is not None else None
    return hart


def allow_everything(hart: HartModel) -> None:
    """One PMP entry over all addresses, for modes below M."""
    hart.pmpcfg[0] = Word(0x1F)
    hart.pmpaddr[0] = Word((1 << 54) - 1)


def map_pages(hart: HartModel, pages: dict[int, int], flags: int) -> None:
    """Sv39 page tables with one level-0 table: virtual to physical page addresses, all below 2 MiB."""
    memory = hart.memory
    memory.write(TABLES, 8, (TABLES + 0x1000) >> 12 << 10 | Pte.V)
    memory.write(TABLES + 0x1000, 8, (TABLES + 0x2000) >> 12 << 10 | Pte.V)
    for virtual, physical in pages.items():
        memory.write(TABLES + 0x2000 + (virtual >> 12) * 8, 8, physical >> 12 << 10 | flags)
    hart.satp = Word(SatpMode.SV39 << 60 | TABLES >> 12)


def test_state_after_reset_and_as_a_copy():
    hart = HartModel(ModelMemory(BASE, SIZE), hartid=3)
    state = hart.state()
    assert state["mode"] == Mode.M and state["mhartid"] == 3 and len(state["f"]) == 32
    state["x"][5] = Word(1)
    assert hart.x[5] == 0


def test_x0_stays_zero():
    hart = run("addi zero, zero, 5; add a0, zero, zero; lui zero, 1; c.li zero, 3")
    assert hart.x[0] == 0 and hart.x[10] == 0
    assert hart.retired == 4


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_misaligned_accesses_across_pages(size: int):
    load = {1: "lbu", 2: "lhu", 4: "lwu", 8: "ld"}[size]
    store = {1: "sb", 2: "sh", 4: "sw", 8: "sd"}[size]
    hart, _ = hart_with(f"{store} a0, -1(a1); {load} a2, -1(a1)")
    hart.x[10], hart.x[11] = Word(0x1122_3344_5566_7788), Word(0x5000)
    # Virtual neighbours that are no neighbours physically.
    map_pages(hart, {0x4000: DATA + 0x3000, 0x5000: DATA}, Pte.V | Pte.R | Pte.W)
    allow_everything(hart)
    hart.mstatus = Word(hart.mstatus | Status.MPRV | Mode.S << 11)
    hart.step()
    hart.step()
    assert hart.x[12] == 0x1122_3344_5566_7788 & ((1 << 8 * size) - 1)
    assert hart.memory.read(DATA + 0x3FFF, 1) == 0x88
    assert hart.memory.read(DATA, size - 1) == (0x1122_3344_5566_77 & ((1 << 8 * (size - 1)) - 1))


def test_a_store_that_faults_halfway_stores_nothing():
    hart, _ = hart_with("sd a0, -4(a1)")
    hart.x[10], hart.x[11] = Word(MASK64), Word(0x5000)
    map_pages(hart, {0x4000: DATA}, Pte.V | Pte.R | Pte.W)
    allow_everything(hart)
    hart.mstatus = Word(hart.mstatus | Status.MPRV | Mode.S << 11)
    hart.step()
    assert (hart.mcause, hart.mtval, hart.mepc) == (Cause.STORE_PAGE_FAULT, 0x5000, BASE)
    assert hart.memory.read(DATA + 0xFFC, 4) == 0
    assert hart.retired == 0


@pytest.mark.parametrize(
    ("text", "cause", "value"),
    [
        (".word 0xffffffff", Cause.ILLEGAL_INSTRUCTION, 0xFFFFFFFF),
        (".half 0x8002, 0xffff", Cause.ILLEGAL_INSTRUCTION, 0x8002),
        (".word 0", Cause.ILLEGAL_INSTRUCTION, 0),
        ("csrr a0, 0x5c0", Cause.ILLEGAL_INSTRUCTION, 0x5C002573),
        ("ebreak", Cause.BREAKPOINT, BASE),
        ("c.ebreak", Cause.BREAKPOINT, BASE),
        ("ecall", Cause.ECALL_FROM_M, 0),
        ("lw a0, 16(zero)", Cause.LOAD_ACCESS_FAULT, 16),
        ("sb a0, 16(zero)", Cause.STORE_ACCESS_FAULT, 16),
        ("amoadd.w a0, a0, (zero)", Cause.STORE_ACCESS_FAULT, 0),
        ("cbo.zero (zero)", Cause.STORE_ACCESS_FAULT, 0),
    ],
)
def test_exceptions(text: str, cause: Cause, value: int):
    hart = run(text)
    assert (hart.mcause, hart.mtval, hart.mepc, hart.pc) == (cause, value, BASE, HANDLER)
    assert hart.mstatus >> 11 & 3 == Mode.M
    assert hart.retired == 0


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("lr.w a0, (a1)", Cause.LOAD_MISALIGNED),
        ("lr.d a0, (a1)", Cause.LOAD_MISALIGNED),
        ("sc.w a0, a0, (a1)", Cause.STORE_MISALIGNED),
        ("amoadd.d a0, a0, (a1)", Cause.STORE_MISALIGNED),
    ],
)
def test_misaligned_atomics(text: str, cause: Cause):
    hart, _ = hart_with(text)
    hart.x[11] = Word(DATA + 2)
    hart.step()
    assert (hart.mcause, hart.mtval) == (cause, DATA + 2)


def test_fetch_of_nothing():
    hart, _ = hart_with("jr a0")
    hart.x[10] = Word(0x123)
    hart.step()
    assert hart.pc == 0x122
    hart.step()
    assert (hart.mcause, hart.mtval, hart.mepc) == (Cause.INSTRUCTION_ACCESS_FAULT, 0x122, 0x122)


def test_an_instruction_whose_second_half_faults():
    hart, _ = hart_with("nop")
    hart.memory.data[0xFFE:0x1000] = assemble("nop")[:2]
    map_pages(hart, {0x4000: BASE}, Pte.V | Pte.X | Pte.R)
    allow_everything(hart)
    hart.mode, hart.pc = Word(Mode.S), Word(0x4FFE)
    hart.step()
    assert (hart.mcause, hart.mepc, hart.mtval) == (Cause.INSTRUCTION_PAGE_FAULT, 0x4FFE, 0x5000)
    # A compressed one in the same place does not look at the next page.
    hart.memory.data[0xFFE:0x1000] = assemble("c.nop")
    hart.mode, hart.pc = Word(Mode.S), Word(0x4FFE)
    hart.step()
    assert hart.pc == 0x5000


def test_compressed_links_are_two_bytes_on():
    hart, _ = hart_with("c.jalr a0")
    hart.x[10] = Word(BASE + 0x100)
    hart.step()
    assert (hart.pc, hart.x[1]) == (BASE + 0x100, BASE + 2)


def test_stores_are_fetched():
    hart = run("la a0, there; lw a1, (a0); la a2, here; sw a1, (a2); here: li a3, 1; there: li a3, 2", 9)
    assert hart.x[13] == 2


def test_division():
    """The cases that have no quotient (unprivileged manual, chapter "M")."""
    least = 1 << 63
    hart, _ = hart_with("div a2, a0, a1; rem a3, a0, a1; divu a4, a0, a1; remu a5, a0, a1; divw a6, a0, a1")
    hart.x[10], hart.x[11] = Word(least), Word(0)
    for _ in range(5):
        hart.step()
    assert hart.x[12:17] == [MASK64, least, MASK64, least, MASK64]
    hart.pc, hart.x[11] = Word(BASE), Word(MASK64)
    for _ in range(5):
        hart.step()
    assert hart.x[12:17] == [least, 0, 0, least, 0]


def test_another_store_does_not_break_a_reservation_but_another_value_does():
    text = "lr.d a0, (a1); sd a2, (a1); sc.d a3, a4, (a1); ld a5, (a1)"
    for stored, failed in ((7, 0), (8, 1)):
        hart, _ = hart_with(text)
        hart.memory.write(DATA, 8, 7)
        hart.x[11], hart.x[12], hart.x[14] = Word(DATA), Word(stored), Word(9)
        for _ in range(4):
            hart.step()
        assert (hart.x[13], hart.x[15]) == (failed, stored if failed else 9)


def test_two_harts_share_memory():
    memory = ModelMemory(BASE, SIZE)
    first, _ = hart_with("amoadd.d a0, a1, (a2)", memory)
    second, _ = hart_with("amoadd.d a0, a1, (a2)", memory)
    for hart in (first, second):
        hart.x[11], hart.x[12] = Word(5), Word(DATA)
        hart.step()
    assert (first.x[10], second.x[10], memory.read(DATA, 8)) == (0, 5, 10)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("cbo.inval (a0)", EnvironmentConfig.CBIE),
        ("cbo.clean (a0)", EnvironmentConfig.CBCFE),
        ("cbo.flush (a0)", EnvironmentConfig.CBCFE),
        ("cbo.zero (a0)", EnvironmentConfig.CBZE),
    ],
)
def test_cache_blocks_need_permission_of_the_environment(mode: Mode, text: str, bits: int):
    for menvcfg, senvcfg in ((0, 0), (bits, 0), (0, bits), (bits, bits)):
        hart, _ = hart_with(text)
        allow_everything(hart)
        hart.mode, hart.x[10] = Word(mode), Word(DATA + 0x47)
        hart.menvcfg, hart.senvcfg = Word(menvcfg), Word(senvcfg)
        hart.memory.data[0x1_0000:0x1_0100] = b"\xff" * 0x100
        hart.step()
        needed = {Mode.M: 0, Mode.S: menvcfg ^ bits, Mode.U: (menvcfg & senvcfg) ^ bits}[mode]
        assert (hart.mcause == Cause.ILLEGAL_INSTRUCTION) == bool(needed)
        assert hart.mtval == (int.from_bytes(assemble(text), "little") if needed else 0)
        zeroed = not needed and text.startswith("cbo.zero")
        expected = b"\xff" * 0x40 + (bytes(0x40) if zeroed else b"\xff" * 0x40) + b"\xff" * 0x80
        assert hart.memory.data[0x1_0000:0x1_0100] == expected


def test_managing_a_block_needs_a_readable_page_and_faults_like_a_store():
    for flags, fault in ((Pte.V | Pte.R, False), (Pte.V | Pte.X, True), (Pte.V | Pte.R | Pte.U, True)):
        hart, _ = hart_with("cbo.flush (a0)")
        map_pages(hart, {0x4000: DATA, 0x5000: BASE}, flags)
        allow_everything(hart)
        hart.mstatus = Word(hart.mstatus | Status.MPRV | Mode.S << 11)
        hart.x[10] = Word(0x4044)
        hart.step()
        assert (hart.mcause, hart.mtval) == ((Cause.STORE_PAGE_FAULT, 0x4044) if fault else (0, 0))
        # Read, but not written: accessed, and not dirty.
        entry = hart.memory.read(TABLES + 0x2000 + 4 * 8, 8)
        assert (entry & (Pte.A | Pte.D)) == (0 if fault else Pte.A)


def test_waiting_for_an_interrupt():
    hart, _ = hart_with("wfi; li a0, 1; li a1, 2")
    hart.step()
    for _ in range(3):
        hart.step()
        assert (hart.waiting, hart.retired) == (True, 1)
    # Enabled in mie, masked in mstatus: it wakes without a trap.
    hart.mie = Word(1 << Interrupt.MTI)
    hart.time = hart.mtimecmp = Word(100)
    hart.step()
    assert (hart.waiting, hart.x[10], hart.pc) == (False, 1, BASE + 8)
    hart.mstatus = Word(hart.mstatus | Status.MIE)
    hart.memory.data[0x8000:0x8004] = assemble("li a2, 3")
    hart.step()
    assert (hart.mcause, hart.mepc) == (1 << 63 | Interrupt.MTI, BASE + 8)
    # The handler's first instruction belongs to the same step.
    assert (hart.x[12], hart.x[11], hart.retired) == (3, 0, 3)


def test_program_in_user_mode_calls_the_supervisor():
    hart, program = hart_with(
        """
            la t0, user
            csrw mepc, t0
            li t0, 1 << 8
            csrw medeleg, t0
            la t0, supervisor
            csrw stvec, t0
            csrw mstatus, zero
            mret
        user:
            li a0, 42
            ecall
        .align 2
        supervisor:
            csrr a1, scause
            csrr a2, sepc
            csrr a3, mscratch
        """
    )
    allow_everything(hart)
    while hart.pc != HANDLER:
        hart.step()
    assert (hart.x[10], hart.x[11]) == (42, Cause.ECALL_FROM_U)
    assert hart.x[12] == program.symbols["user"] + 4
    assert (hart.mcause, hart.mstatus >> 11 & 3) == (Cause.ILLEGAL_INSTRUCTION, Mode.S)


def test_floating_point_registers_and_compressed_loads():
    hart, _ = hart_with("c.fld fa0, 8(a0); c.fsdsp fa0, 16(sp); fadd.d fa1, fa0, fa0; fsd fa1, 24(sp)")
    hart.mstatus = Word(hart.mstatus | Status.FS)
    hart.x[10], hart.x[2] = Word(DATA), Word(DATA + 0x100)
    hart.memory.write(DATA + 8, 8, 0x3FF8_0000_0000_0000)
    for _ in range(4):
        hart.step()
    assert hart.memory.read(DATA + 0x110, 8) == 0x3FF8_0000_0000_0000
    assert hart.memory.read(DATA + 0x118, 8) == 0x4008_0000_0000_0000
    assert hart.f[11] == 0x4008_0000_0000_0000
