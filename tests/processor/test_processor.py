"""The seam: what a run comes to, device accesses and their answers, clocks, and processors side by side."""

from __future__ import annotations

import gc
import itertools
import time
import weakref

import pytest

from doppel.errors import DoppelError
from doppel.isa.assembler import assemble
from doppel.isa.privileged.constants import Access, Cause, Mode
from doppel.isa.state import ARCHITECTURAL_STATE
from doppel.isa.words import MASK64
from doppel.processor.exits import Exit, ExitReason
from doppel.processor.processor import TIMEBASE_HZ, Processor
from doppel.translate.engine.attention import LONGEST_BLOCK

from ..translate.support import RAM_BASE, TICK, Board, Pair

DEVICE = 0x1000_0000
LOADS = {
    "lb": (1, True),
    "lbu": (1, False),
    "lh": (2, True),
    "lhu": (2, False),
    "lw": (4, True),
    "lwu": (4, False),
}
LOADS["ld"] = (8, False)
STORES = {"sb": 1, "sh": 2, "sw": 4, "sd": 8}


def board(text: str, **options: object) -> Board:
    made = Board(size=0x1_0000, devices=True, **options)
    made.load(text)
    made.hart.state.x[10] = DEVICE
    return made


@pytest.mark.parametrize("count", [0, -1, 65, 1000])
def test_a_number_of_harts_that_cannot_be(count: int) -> None:
    made = Board(size=0x1_0000)
    with pytest.raises(DoppelError, match=f"cannot have {count} harts"):
        Processor(made.fmap, made.pool, count)


def test_many_harts() -> None:
    made = Board(64, size=0x1_0000)
    made.memory.write(RAM_BASE, assemble("csrr a0, mhartid; again: j again"))
    for hart in made.harts:
        hart.state.pc = RAM_BASE
        made.run(100, hart)
    assert [hart.state.x[10] for hart in made.harts] == list(range(64))


# --- budgets ---


@pytest.mark.parametrize("budget", [0, -1, -(1 << 40)])
def test_no_budget_no_instruction(budget: int) -> None:
    made = board("again: j again")
    assert made.hart.run(budget).reason is ExitReason.BUDGET
    assert (made.hart.state.spent, made.hart.instructions) == (0, 0)


@pytest.mark.parametrize("text", ["again: j again", "again: nop; j again", "nop; " * 3000 + "again: j again"])
def test_exactly_as_many_as_asked_for(text: str) -> None:
    made = board(text)
    spent = 0
    for budget in (
        1,
        2,
        7,
        LONGEST_BLOCK - 1,
        LONGEST_BLOCK,
        LONGEST_BLOCK + 1,
        19_999,
        20_000,
        20_001,
        100_000,
    ):
        assert made.run(budget).reason is ExitReason.BUDGET
        spent += budget
        assert made.hart.instructions == made.hart.state.spent == spent


def test_a_run_to_a_blocks_end_is_as_repeatable() -> None:
    """It overruns by less than the longest block, and always by the same."""
    seen = []
    for _ in range(2):
        made = board("nop; " * 1500 + "again: " + "nop; " * 40 + "j again")
        ends = []
        for budget in (1, 10, 100, 5000, 50_000, 3):
            assert made.run(budget, exact=False).reason is ExitReason.BUDGET
            ends.append(made.hart.state.spent)
        seen.append(ends)
        for before, after, budget in zip([0, *ends], ends, (1, 10, 100, 5000, 50_000, 3), strict=False):
            assert budget <= after - before < budget + LONGEST_BLOCK
    assert seen[0] == seen[1]


def test_slices_make_no_difference() -> None:
    """Between looks at the clock, as long or short as they are."""
    results = []
    for slice_length in (1, 100, 20_000, 1 << 40):
        made = board("again: addi a1, a1, 3; xor a2, a2, a1; bnez a1, again", slice_length=slice_length)
        made.run(30_000)
        results.append(
            (made.hart.state.pc, made.hart.state.x[11], made.hart.state.x[12], made.hart.state.spent)
        )
    assert len(set(results)) == 1


# --- devices ---


@pytest.mark.parametrize("name", LOADS)
def test_a_load_from_a_device(name: str) -> None:
    size, signed = LOADS[name]
    for answer in (0, 1, 0x80, 0x8000, 0x8000_0000, MASK64, 0x1122_3344_5566_7788):
        made = board(f"{name} a1, 8(a0); again: j again")
        for _ in range(2):
            # As long as nobody answers, the instruction is still to come.
            assert made.run(10) == Exit(ExitReason.DEVICE, DEVICE + 8, size, Access.LOAD, 0)
            assert (made.hart.state.pc, made.hart.instructions) == (RAM_BASE, 0)
        made.hart.answer(answer & (1 << 8 * size) - 1)
        assert made.run(1).reason is ExitReason.BUDGET
        value = answer & (1 << 8 * size) - 1
        if signed and value >> 8 * size - 1:
            value |= MASK64 << 8 * size & MASK64
        assert (made.hart.state.x[11], made.hart.instructions) == (value, 1)


@pytest.mark.parametrize("name", STORES)
def test_a_store_to_a_device(name: str) -> None:
    made = board(f"{name} a1, 16(a0); again: j again")
    made.hart.state.x[11] = 0x1122_3344_5566_7788
    exit = made.run(10)
    size = STORES[name]
    mask = (1 << 8 * size) - 1
    assert exit[:4] == (ExitReason.DEVICE, DEVICE + 16, size, Access.STORE)
    assert exit.value & mask == 0x1122_3344_5566_7788 & mask
    made.hart.answer(0)
    assert made.run(1).reason is ExitReason.BUDGET
    assert made.hart.instructions == 1


@pytest.mark.parametrize("text", ["ld a1, (a0)", "sd a1, (a0)"])
def test_an_access_that_reaches_nothing(text: str) -> None:
    made = board(text)
    made.hart.state.mtvec = RAM_BASE + 0x100
    assert made.run(10).reason is ExitReason.DEVICE
    made.hart.fault()
    assert made.run(1).reason is ExitReason.BUDGET
    state = made.hart.state
    cause = Cause.LOAD_ACCESS_FAULT if text.startswith("ld") else Cause.STORE_ACCESS_FAULT
    assert (state.mcause, state.mtval, state.mepc, state.pc) == (cause, DEVICE, RAM_BASE, RAM_BASE + 0x100)
    assert made.hart.instructions == 0


@pytest.mark.parametrize(
    "text",
    ["amoadd.w a1, a1, (a0)", "lr.d a1, (a0)", "cbo.zero (a0)", "ld a1, -4(a2)", "sw a1, -2(a2)", "jr a0"],
)
def test_what_devices_are_not_asked(text: str) -> None:
    """Atomics, blocks, instructions, and accesses that are only partly theirs are faults without an exit."""
    pair = Pair(Board(size=0x1_0000, devices=True))
    pair.load(f"nop; {text}")
    pair.write(RAM_BASE + 0x100, assemble("again: j again"))
    pair.set(mtvec=RAM_BASE + 0x100)
    # The end of memory, behind which nothing is.
    pair.set_x(x10=DEVICE, x12=RAM_BASE + 0x1_0000)
    assert pair.run(3).reason is ExitReason.BUDGET
    assert pair.native.state.mcause in (
        Cause.LOAD_ACCESS_FAULT,
        Cause.STORE_ACCESS_FAULT,
        Cause.INSTRUCTION_ACCESS_FAULT,
    )


def test_an_answer_survives_exits_in_between() -> None:
    """Requests and empty budgets may come between it and its instruction, but no interrupt."""
    made = board("lw a1, (a0); lw a2, (a0); again: j again")
    assert made.run(10).reason is ExitReason.DEVICE
    made.hart.answer(7)
    made.hart.set_lines(1 << 7, True)
    made.hart.state.mie, made.hart.state.mstatus, made.hart.state.mtvec = 1 << 7, 8, RAM_BASE + 0x100
    made.hart.stop()
    assert made.run(10).reason is ExitReason.STOPPED
    assert made.run(0).reason is ExitReason.BUDGET
    assert made.run(1).reason is ExitReason.BUDGET
    assert (made.hart.state.x[11], made.hart.state.pc) == (7, RAM_BASE + 4)
    # Now the interrupt, and after it the second access for which there is no answer yet.
    made.memory.write(RAM_BASE + 0x100, assemble("csrw mie, x0; mret"))
    exit = made.run(10)
    assert (exit.reason, made.hart.state.pc, made.hart.state.x[12]) == (ExitReason.DEVICE, RAM_BASE + 4, 0)


def test_device_addresses_are_physical() -> None:
    """Behind the page tables, whatever the virtual address was; misaligned ones come as they are."""
    made = board("ld a1, 3(a0)")
    state = made.hart.state
    root = RAM_BASE + 0x2000
    made.memory.write_u64(root + 8 * 2, (RAM_BASE >> 30 << 30) >> 2 | 0xCF)
    made.memory.write_u64(root + 8 * 5, 0xCF)
    state.satp, state.mode = 8 << 60 | root >> 12, Mode.S
    state.pmpcfg[0], state.pmpaddr[0] = 0x1F, (1 << 54) - 1
    state.x[10] = 0x1_4000_0000 + DEVICE
    assert made.run(10) == Exit(ExitReason.DEVICE, DEVICE + 3, 8, Access.LOAD, 0)


# --- clocks ---


def test_the_instruction_clock() -> None:
    for per_tick in (1, 10, 1000):
        made = board("again: csrr a1, time; j again", instructions_per_tick=per_tick)
        for budget in (1, 999, 5000):
            made.run(budget)
            assert made.processor.ticks() == made.hart.state.spent // per_tick
            assert made.processor.ticks() - made.hart.state.x[11] <= 2 // per_tick + 1
    assert TICK == 10


def test_the_host_clock() -> None:
    made = board("csrr a1, time", clock="host")
    before = made.processor.ticks()
    time.sleep(0.05)
    made.run(1)
    after = made.processor.ticks()
    assert before + TIMEBASE_HZ // 25 < made.hart.state.x[11] <= after < before + 60 * TIMEBASE_HZ


# --- reset, and more than one ---


def test_reset_brings_back_the_beginning() -> None:
    made = board("again: addi a1, a1, 1; fcvt.d.l f1, a1; csrw mscratch, a1; j again")
    made.hart.state.mstatus |= 3 << 13
    made.run(500)
    made.hart.state.pmpaddr[3], made.hart.state.satp = 5, 8 << 60
    made.hart.answer(3)
    spent = made.hart.state.spent
    made.hart.reset()
    for field in ARCHITECTURAL_STATE:
        value = getattr(made.hart.state, field.name)
        assert (list(value) == [field.reset] * field.count) if field.count else (value == field.reset), (
            field.name
        )
    # Counters go on, and so does the machine, from wherever it is put.
    assert made.hart.state.spent == spent == 500
    made.hart.state.pc = RAM_BASE
    made.run(1)
    assert made.hart.state.x[11] == 1


def test_reset_keeps_the_number_of_the_hart() -> None:
    made = Board(3, size=0x1_0000)
    for hart in made.harts:
        hart.reset()
    assert [hart.state.mhartid for hart in made.harts] == [0, 1, 2]


def test_two_processors_do_not_know_of_each_other() -> None:
    first, second = board("again: addi a1, a1, 1; j again"), board("again: addi a1, a1, 2; j again")
    for one, other in itertools.repeat((first, second), 5):
        one.run(100)
        other.run(100)
        one.memory.write(RAM_BASE, assemble("addi a1, a1, 1"))
    assert (first.hart.state.x[11], second.hart.state.x[11]) == (250, 500)
    first.close()
    second.run(100)
    assert second.hart.state.x[11] == 600


def test_pages_that_go_and_come_back() -> None:
    """A pager takes a page's frame away; the next accesses fault, a load and then a store, and go on."""
    made = board("again: ld a1, (a2); addi a1, a1, 1; sd a1, (a2); j again")
    data = RAM_BASE + 0x4000
    made.hart.state.x[12] = data
    made.run(4 * 100)
    for _ in range(20):
        page = data >> 12
        contents = made.memory.read(page << 12, 4096)
        frame = made.fmap.frame(page)
        made.fmap.unmap(page)
        made.processor.flush_translations()
        exit = made.hart.run(4)
        assert (exit.reason, exit.address, exit.access) == (ExitReason.VM_FAULT, data, Access.LOAD)
        made.pool.view[frame : frame + 4096] = contents
        made.fmap.map(page, frame, writable=False)
        exit = made.hart.run(4)
        assert (exit.reason, exit.address, exit.access) == (ExitReason.VM_FAULT, data, Access.STORE)
        made.fmap.map(page, frame)
        made.processor.flush_translations()
        made.run(2 + 4 * 10)
    assert made.memory.read_u64(data) >= 100 + 20 * 10


def test_memory_goes_with_the_last_reference() -> None:
    made = board("again: j again")
    made.run(10)
    gone = weakref.ref(made.processor)
    made.close()
    del made
    gc.collect()
    assert gone() is None
