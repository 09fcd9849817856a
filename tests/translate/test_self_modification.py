"""Code that changes: by its own stores, through other addresses, from outside; and too much of it.

One hart sees its stores at once, with or without FENCE.I, as the model does.
"""

from __future__ import annotations

import random

import pytest

from doppel.isa.assembler import assemble
from doppel.isa.privileged.constants import EnvironmentConfig, Mode, SatpMode, Status
from doppel.processor.exits import ExitReason

from .streams import Stream
from .support import CODE_BYTES, RAM_BASE, STOP, TIERS, Board, Pair
from .tables import PageTables
from .test_streams import pair_with, run_in_steps, translate, with_timer

PAGE = 4096
pytestmark = TIERS
SMALLEST_CODE = 16


def code(text: str) -> bytes:
    return assemble(text)


def run_to_wait(pair: Pair) -> None:
    """Run both to a WFI that nothing ends."""
    assert pair.board.run(1_000_000).reason is ExitReason.WAIT
    while not pair.model.waiting:
        pair.model.step()
    pair.check()


@pytest.mark.parametrize("seed", range(5))
def test_random_stores_into_the_program(seed: int) -> None:
    choice = random.Random(seed)
    pair = pair_with(Stream(choice, patching=0.1))
    run_in_steps(pair, choice, 5000)


@pytest.mark.parametrize("seed", range(3))
def test_in_one_go(seed: int) -> None:
    """With more stores than a page bears as code."""
    choice = random.Random(100 + seed)
    pair = pair_with(Stream(choice, size=150, patching=0.3))
    assert pair.run(10_000).reason is ExitReason.BUDGET


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mode", [SatpMode.SV39, SatpMode.SV48], ids=lambda m: m.name)
def test_through_an_alias(seed: int, mode: SatpMode) -> None:
    choice = random.Random(200 + seed)
    pair = pair_with(Stream(choice, patching=0.1))
    translate(pair, mode)
    pair.set_x(x26=0x4000_0000 - RAM_BASE)
    run_in_steps(pair, choice, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_at_length(seed: int) -> None:
    choice = random.Random(1000 + seed)
    board = Board(code_bytes=0) if seed % 4 == 3 else None
    pair = pair_with(Stream(choice, size=800, chunk=60, patching=(0.02, 0.1, 0.3)[seed % 3]), board)
    if seed % 2:
        with_timer(pair)
    if seed % 5 == 4:
        translate(pair, (SatpMode.SV39, SatpMode.SV48)[seed & 1])
        pair.set_x(x26=0x4000_0000 - RAM_BASE)
    run_in_steps(pair, choice, 20_000, soft=seed % 2 == 0)


def test_little_room_for_decoded_code(tier: str) -> None:
    """More pages of code than there is room for: the board discards them all, again and again."""
    discarded = 0
    for seed in range(2, 4):
        choice = random.Random(300 + seed)
        board = Board(code_bytes=0)
        pair = pair_with(Stream(choice, size=400, chunk=8, patching=0.02), board)
        assert pair.run(10_000 if tier == "off" else 4_000).reason is ExitReason.BUDGET
        discarded += board.exits.count(ExitReason.CODE_FULL)
    assert discarded > 10


@pytest.mark.parametrize("behind", range(1, 9))
@pytest.mark.parametrize("fence", [False, True])
def test_the_next_instructions(behind: int, fence: bool) -> None:
    """A store to an instruction that follows closely, after both have run before as they were."""
    text = f"""
        li s1, 3
    again:
        la a1, here
        lw a2, (s0)
        sw a2, (a1)
        {"fence.i" if fence else ""}
        {"c.addi a3, 1; " * behind}
    here:
        addi a4, a4, 1
        addi a5, a5, 1
        xori s0, s0, 4
        addi s1, s1, -1
        bnez s1, again
        wfi
    """
    pair = Pair()
    table = RAM_BASE + 0x8000
    pair.load(text)
    pair.write(table, code("addi a4, a4, 64") + code("addi a4, a4, 1"))
    pair.set_x(x8=table)
    # Once without looking, so that it is decoded, pairs and all.
    run_to_wait(pair)
    assert pair.native.state.x[14] == 64 + 1 + 64


@pytest.mark.parametrize("stores", [1, 2, 63, 64, 65, 66, 200])
def test_every_store_into_a_line_of_code_counts(stores: int) -> None:
    """Each changes the instruction behind it, also the one with which the page begins to count as data."""
    body = "".join(
        f"""
        la a0, target{n}
        add a0, a0, s1
        sw a1, (a0)
        target{n}: nop
        """
        for n in range(stores)
    )
    # The first time round the stores go elsewhere, so that all is decoded.
    pair = Pair()
    pair.load(f"li s1, 0x10000; again: {body} bnez s1, 1f; wfi; 1: li s1, 0; j again")
    pair.set_x(x11=int.from_bytes(code("addi a2, a2, 1"), "little"))
    run_to_wait(pair)
    assert pair.native.state.x[12] == stores


def test_a_page_that_is_data_by_now_is_code_again() -> None:
    """Code and data in turns in one page: written, run, written a thousand times, run."""
    text = """
        li s1, 20
    again:
        la a0, page
        li a1, 300
        la a2, template
    fill:
        lw a3, (a2)
        sw a3, (a0)
        sw s1, 4(a0)
        addi a1, a1, -1
        bnez a1, fill
        sw a3, 4(a0)
        lw a3, 4(a2)
        sw a3, 8(a0)
        jalr a0
        addi s1, s1, -1
        bnez s1, again
        wfi
    template:
        addi a4, a4, 1
        ret
    .balign 4096
    page:
        .zero 4096
    """
    pair = Pair()
    pair.load(text)
    run_to_wait(pair)
    assert pair.native.state.x[14] == 40


@pytest.mark.parametrize("part", ["first half", "second half", "both"])
def test_an_instruction_that_straddles_two_pages(part: str) -> None:
    """It is put together again whichever of the pages changes."""
    text = """
        li s1, 2
    again:
        jal straddling
        la a0, there
        {stores}
        jal straddling
        addi s1, s1, -1
        bnez s1, again
        wfi
    .balign 4096
        .zero 4086
    straddling:
        addi a4, a4, 1
        addi a5, a5, 1
    there:
        addi a2, a2, 1
        ret
    """
    new = int.from_bytes(code("addi a3, a3, 33"), "little")
    stores = {
        "first half": f"li a1, {new & 0xFFFF}; sh a1, (a0)",
        "second half": f"li a1, {new >> 16}; sh a1, 2(a0)",
        "both": f"li a1, {new}; sw a1, (a0)",
    }[part]
    pair = Pair()
    program = pair.load(text.format(stores=stores))
    assert program.symbols["there"] % PAGE == PAGE - 2
    run_to_wait(pair)


@pytest.mark.parametrize(
    "store", ["sd a1, (a0)", "amoswap.d a2, a1, (a0)", "cbo.zero (a0)", "lr.d a2, (a0); sc.d a2, a1, (a0)"]
)
def test_every_kind_of_store(store: str) -> None:
    pair = Pair()
    pair.load(
        f"""
            la a0, target
            li a1, {int.from_bytes(code("addi a4, a4, 8") + code("ret"), "little"):#x}
            jal target
            {store}
            jal target
            wfi
        .balign 64
        target:
            addi a4, a4, 1
            ret
        .balign 64
        """
    )
    pair.set(mtvec=RAM_BASE + 0x800)
    pair.write(RAM_BASE + 0x800, code("wfi"))
    run_to_wait(pair)
    assert pair.native.state.x[14] == (1 if "cbo" in store else 9)


def test_a_walk_that_sets_bits_in_code() -> None:
    """A page table in the page that is executed: its entry is an instruction, and the walk changes it."""
    pair = Pair()
    entry_at = RAM_BASE + 0x1000 + 8 * 0x20
    tables = PageTables(RAM_BASE + 0x4000, SatpMode.SV39, pair.write)
    tables.map(RAM_BASE, RAM_BASE, level=1)
    tables.set(tables.entry_address(0x4002_0000, 1), RAM_BASE + 0x1000 >> 2 | 1)
    pair.write(entry_at, (RAM_BASE + 0x8000 >> 2 | 0x17).to_bytes(8, "little"))
    pair.load("c.nop; ld a1, (a0); ld a1, (a0); wfi", RAM_BASE + 0x1000)
    pair.allow_everything()
    pair.set(satp=tables.satp, mtvec=RAM_BASE + 0x800, mstatus=Status.MPRV | Mode.S << 11 | Status.SUM)
    pair.set_x(x10=0x4002_0000)
    pair.write(RAM_BASE + 0x800, code("wfi"))
    for _ in range(2):
        pair.set(pc=RAM_BASE + 0x1000)
        run_to_wait(pair)
        pair.native.state.waiting, pair.model.waiting = 0, False


def test_a_walk_that_changes_the_next_instruction() -> None:
    """As above, and the entry is what is executed next: AUIPC, until the walk sets A."""
    pair = Pair()
    entry_at = RAM_BASE + 0x1000 + 8 * 0x20
    tables = PageTables(RAM_BASE + 0x4000, SatpMode.SV39, pair.write)
    tables.map(RAM_BASE, RAM_BASE, level=1)
    tables.set(tables.entry_address(0x4002_0000, 1), RAM_BASE + 0x1000 >> 2 | 1)
    pair.write(entry_at, (RAM_BASE + 0x8000 >> 2 | 0x17).to_bytes(8, "little"))
    pair.load("ld a1, (a0)", entry_at - 4)
    pair.allow_everything()
    status = Status.MPRV | Mode.S << 11 | Status.SUM
    pair.set(satp=tables.satp, mtvec=RAM_BASE + 0x800, menvcfg=EnvironmentConfig.ADUE)
    pair.write(RAM_BASE + 0x800, code("wfi"))
    # First a load of something else, so that what follows is decoded or compiled as it is before the walk.
    for address in (RAM_BASE, 0x4002_0000):
        pair.set_x(x10=address)
        pair.set(pc=entry_at - 4, mstatus=status, mode=Mode.M)
        run_to_wait(pair)
        pair.native.state.waiting, pair.model.waiting = 0, False
    assert pair.native.state.mepc == entry_at


def test_memory_written_from_outside() -> None:
    """As a device does it (DMA), while the hart is out of native code."""
    pair = Pair()
    pair.load("again: addi a0, a0, 1; addi a1, a1, 1; j again")
    pair.run(3000)
    for value in range(2, 80):
        pair.write(RAM_BASE, code(f"addi a0, a0, {value}"))
        pair.run(2100 if value % 8 == 0 else 5)
    assert pair.native.state.x[10] != pair.native.state.x[11]


def test_memory_written_from_outside_across_pages() -> None:
    pair = Pair()
    first, second = RAM_BASE + 0x1000 - 8, RAM_BASE + 0x1000
    pair.load(
        "again: jal x1, 1f; jal x1, 2f; j again; .zero 4068; 1: addi a0, a0, 1; ret; 2: addi a1, a1, 1; ret"
    )
    pair.run(4000)
    pair.write(first, code("addi a0, a0, 5; ret; addi a1, a1, 5"))
    assert second - first == 8
    pair.run(4000)


def test_a_device_that_changes_the_code_that_asked_it() -> None:
    """The instruction behind a device access is changed while the access is served."""
    board = Board(devices=True)
    board.load("again: sd x0, (x0); addi a0, a0, 1; j again")
    for value in range(1, 100):
        exit = board.run(10_000)
        assert (exit.reason, exit.address) == (ExitReason.DEVICE, 0)
        board.memory.write(RAM_BASE + 4, code(f"addi a0, a0, {value}"))
        board.hart.answer(0)
    assert board.run(10_000).reason is ExitReason.DEVICE
    assert board.hart.state.x[10] == sum(range(1, 100))


def test_code_full_is_an_exit_and_not_the_end(tier: str) -> None:
    board = Board(code_bytes=0, size=1 << 20)
    pages = 40
    # Each page jumps to the next, the last to the first.
    for number in range(pages):
        target = RAM_BASE + (number + 1) % pages * PAGE
        board.memory.write(RAM_BASE + number * PAGE, assemble(f"j {target}", RAM_BASE + number * PAGE))
    board.hart.state.pc = RAM_BASE
    budget = 100_000 if tier == "off" else 2_900
    assert board.run(budget).reason is ExitReason.BUDGET
    assert board.hart.instructions == budget
    full = board.exits.count(ExitReason.CODE_FULL)
    assert full > 10
    assert CODE_BYTES > SMALLEST_CODE * PAGE


def test_discarding_code_keeps_pages_read_only() -> None:
    """A page that the f-map does not let harts write stays so."""
    board = Board()
    board.load("again: j again")
    board.run(100)
    page = RAM_BASE // PAGE
    board.fmap.map(page, board.fmap.frame(page), writable=False)
    board.processor.discard_code()
    board.run(100)
    board.processor.discard_code()
    raw = memoryview(board.fmap._map).cast("Q")
    assert raw[page] & 2 == 0
    raw.release()


def test_stop_stands_for_an_exit() -> None:
    assert code("sd x0, (x0)") == STOP
