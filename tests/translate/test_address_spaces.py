"""What a hart keeps of several address spaces, and what fences take of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from doppel.isa.assembler import assemble
from doppel.isa.privileged.constants import Mode, SatpMode
from doppel.translate.layout import CONTEXTS

from .support import RAM_BASE, Board, Pair
from .tables import PageTables

PAGE = 0x5000
FRAMES = RAM_BASE + 0x1_0000
TREES = RAM_BASE + 0x4_0000
TREE_SIZE = 0x4000
CODE = RAM_BASE
CODE_PAGE = 0x7000


class Spaces:
    """Trees of page tables, each with an ASID and a frame of its own at the same virtual address."""

    def __init__(self, count: int) -> None:
        self.pair = Pair(Board(size=0x10_0000))
        self.pair.allow_everything()
        self.trees = []
        for number in range(count):
            tree = PageTables(TREES + number * TREE_SIZE, SatpMode.SV39, self.pair.write)
            tree.map(PAGE, FRAMES + number * 0x1000)
            self.pair.write(FRAMES + number * 0x1000, (1000 + number).to_bytes(8, "little"))
            self.trees.append(tree)
        self.pair.set(mstatus=1 << 17 | Mode.S << 11)

    def satp(self, number: int) -> int:
        return self.trees[number].satp | (number + 1) << 44

    def execute(self, text: str, **registers: int) -> None:
        self.pair.native.state.waiting, self.pair.model.waiting = 0, False
        self.pair.write(CODE, assemble(text + "; wfi"))
        self.pair.set(pc=CODE, mode=Mode.M)
        self.pair.set_x(**registers)
        self.pair.board.run(1000)
        while not self.pair.model.waiting:
            self.pair.model.step()
        self.pair.check()

    def load(self, number: int) -> tuple[int, int]:
        """What is read in an address space, and how many TLB misses that costs."""
        state = self.pair.native.state
        misses = state.tlb_misses
        self.execute("csrw satp, a2; ld a1, (a0)", x10=PAGE, x12=self.satp(number))
        return int(state.x[11]), state.tlb_misses - misses


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    made = Spaces(CONTEXTS + 3)
    yield made
    made.pair.board.close()


def test_translations_survive_in_as_many_address_spaces_as_fit(spaces: Spaces) -> None:
    # One is that of satp as it was at reset.
    few = range(CONTEXTS - 1)
    for number in few:
        assert spaces.load(number) == (1000 + number, 1)
    for number in reversed(few):
        assert spaces.load(number) == (1000 + number, 0)


def test_the_one_that_was_left_longest_ago_gives_way(spaces: Spaces) -> None:
    for number in range(CONTEXTS):
        spaces.load(number)
    assert spaces.load(0)[1] == 0
    assert spaces.load(CONTEXTS)[1] == 1
    assert spaces.load(0)[1] == 0
    assert spaces.load(1) == (1001, 1)


def test_more_address_spaces_than_fit_are_never_confused(spaces: Spaces) -> None:
    for number in [*range(len(spaces.trees)), *range(0, len(spaces.trees), 3), *range(len(spaces.trees))]:
        assert spaces.load(number)[0] == 1000 + number


FENCES = {
    "sfence.vma": "012",
    "sfence.vma a0": "012",
    "sfence.vma zero, a3": "1",
    "sfence.vma a0, a3": "1",
    "sfence.vma a4, a3": "",
    "sfence.vma a4": "",
}


@pytest.mark.parametrize("text", FENCES)
def test_a_fence_reaches_the_address_spaces_that_it_names(spaces: Spaces, text: str) -> None:
    for number in range(3):
        spaces.load(number)
        spaces.trees[number].map(PAGE, FRAMES + (number + 5) * 0x1000)
    spaces.execute(text, x10=PAGE, x13=2, x14=PAGE + 0x1000)
    # The model caches nothing, so what is still cached shows natively only.
    for number in range(3):
        spaces.pair.native.state.waiting = 0
        spaces.pair.write(CODE, assemble("csrw satp, a2; ld a1, (a0); wfi"))
        spaces.pair.set(pc=CODE, mode=Mode.M)
        spaces.pair.set_x(x10=PAGE, x12=spaces.satp(number))
        spaces.pair.board.run(1000)
        fenced = str(number) in FENCES[text]
        assert spaces.pair.native.state.x[11] == 1000 + number + (5 if fenced else 0)


def test_a_fence_of_part_of_a_superpage_takes_all_of_it(spaces: Spaces) -> None:
    tree = spaces.trees[0]
    big = 0x4000_0000
    tree.map(big, RAM_BASE, level=2)
    spaces.execute("csrw satp, a2; ld a1, (a0)", x10=big + 0x1_0000, x12=spaces.satp(0))
    assert spaces.pair.native.state.x[11] == 1000
    tree.set(tree.entry_address(big, 2), 0)
    spaces.execute("sfence.vma a0, a3", x10=big + 0x2_0000, x13=1)
    spaces.pair.set(mtvec=CODE + 0x100)
    spaces.pair.write(CODE + 0x100, assemble("wfi"))
    spaces.execute("ld a1, (a0)", x10=big + 0x1_0000)
    assert spaces.pair.native.state.mcause == 13


def test_the_next_instruction_comes_from_the_new_address_space(spaces: Spaces) -> None:
    pair = spaces.pair
    for number in range(2):
        frame = FRAMES + (number + 5) * 0x1000
        pair.write(frame, assemble(f"csrw satp, a2; li a1, {number + 1}; ecall"))
        spaces.trees[number].map(CODE_PAGE, frame)
    pair.set(mtvec=CODE + 0x100, mstatus=Mode.S << 11, mepc=CODE_PAGE)
    pair.write(CODE + 0x100, assemble("wfi"))
    for first, second in [(0, 1), (1, 0), (0, 0), (0, 1)]:
        pair.set(satp=spaces.satp(first), mstatus=Mode.S << 11, mepc=CODE_PAGE)
        spaces.execute("mret", x12=spaces.satp(second))
        assert pair.native.state.x[11] == second + 1


def test_bare_is_an_address_space_of_its_own(spaces: Spaces) -> None:
    assert spaces.load(0) == (1000, 1)
    spaces.execute("csrw satp, zero; ld a1, (a0)", x10=FRAMES + 0x1000)
    assert spaces.pair.native.state.x[11] == 1001
    assert spaces.load(0) == (1000, 0)
    spaces.execute("csrw satp, a2; ld a1, (a0)", x10=FRAMES + 0x2000, x12=7 << 44)
    assert spaces.pair.native.state.x[11] == 1002
