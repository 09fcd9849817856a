"""Address translation and protection natively and by the model: results, faults, A and D bits, and what is
cached.

A scenario changes page tables, CSRs and protection in any order, each with the fence that it needs, and
accesses memory in between. Everything but a change of page tables takes effect by itself. There are two trees
of page tables, each in use under any number of ASIDs.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.isa.assembler import assemble
from doppel.isa.privileged.constants import EnvironmentConfig, Mode, Pte, SatpMode, Status
from doppel.isa.words import MASK64
from doppel.processor.exits import ExitReason

from .support import COMPILED, RAM_BASE, Board, Pair
from .tables import ALL, PageTables

TREES = (RAM_BASE + 0x4_0000, RAM_BASE + 0x6_0000)
TABLES = TREES[0]
ASIDS = (0, 0, 1, 2, 3, 0x8000, 0xFFFF)
HANDLER = RAM_BASE + 0x800
# Frames that are no neighbours, the last with code, and one that is not memory.
FRAMES = (RAM_BASE + 0x1_0000, RAM_BASE + 0x1_2000, RAM_BASE + 0x1_4000)
CODE_FRAME = RAM_BASE + 0x1_6000
NOWHERE = 0x4000_0000
# Neighbours, both halves, the upper end, and addresses that only Sv48 or nobody has.
PAGES = (
    0x5000,
    0x6000,
    0x4000_0000,
    0x3F_FFFF_F000,
    MASK64 - 0xFFF,
    0x7FFF_FFFF_F000,
    1 << 38,
    1 << 47,
    1 << 55,
)
OFFSETS = (0, 8, 0x7FC, 0x800, 0xFF8, 0xFF9, 0xFFC, 0xFFE, 0xFFF)
# An ecall at every second halfword, so that one straddles the end of the page.
ECALLS = bytes.fromhex("0000" + "73000000" * 1023 + "7300")
ACCESSES = (
    *("lb a1, (a0)", "lhu a1, (a0)", "lw a1, (a0)", "ld a1, (a0)"),
    *("sb a2, (a0)", "sh a2, (a0)", "sw a2, (a0)", "sd a2, (a0)"),
    *("amoadd.d a1, a2, (a0)", "amoswap.w a1, a2, (a0)", "lr.d a1, (a0)", "sc.d a1, a2, (a0)"),
    *("cbo.zero (a0)", "cbo.clean (a0)", "cbo.flush (a0)"),
)
WRITES = {
    "satp": "csrw satp, a0",
    "menvcfg": "csrw menvcfg, a0",
    "mstatus": "csrw mstatus, a0",
    "pmpcfg0": "csrw pmpcfg0, a0",
    "pmpaddr0": "csrw pmpaddr0, a0",
    "pmpaddr1": "csrw pmpaddr1, a0",
    "pmpaddr2": "csrw pmpaddr2, a0",
    "sfence": "sfence.vma",
    "sfence of an address": "sfence.vma a0",
    "sfence of an ASID": "sfence.vma zero, a3",
    "sfence of an address and an ASID": "sfence.vma a0, a3",
    "mret": "mret",
}


@dataclass(frozen=True)
class Entry:
    """Change the entry for ``page`` at ``level`` in a tree, then fence: one address or all of them, and all
    address spaces or those that the tree has been used for."""

    tree: int
    page: int
    level: int
    bits: int
    everything: bool
    by_asid: bool


@dataclass(frozen=True)
class Switch:
    """Take up a tree as the address space with an ASID, without a fence."""

    tree: int
    asid: int


@dataclass(frozen=True)
class Root:
    """Take up anything as the root of page tables."""

    satp: int


@dataclass(frozen=True)
class Write:
    """Write a CSR."""

    register: str
    value: int


@dataclass(frozen=True)
class Access:
    """Load or store, in M mode or as another mode by MPRV."""

    text: str
    address: int


@dataclass(frozen=True)
class Fetch:
    """Return to a mode at an address, to meet an ecall there."""

    mode: Mode
    address: int


TEXTS = (*WRITES.values(), *ACCESSES)
PIECES = {text: RAM_BASE + 0x1000 + 8 * number for number, text in enumerate(TEXTS)}
PIECES_CODE = b"".join(assemble(f"{text}; wfi") for text in TEXTS)
CONTENTS = [bytes((number + 1) * 17 + i * 7 & 0xFF for i in range(4096)) for number in range(len(FRAMES))]


Step = Entry | Switch | Root | Write | Access | Fetch


class Scenario:
    """A pair in M mode that runs one short piece of code after the other."""

    def __init__(self, mode: SatpMode) -> None:
        self.pair = Pair(Board(size=0x8_0000))
        self.pair.write(min(PIECES.values()), PIECES_CODE)
        self.pair.write(HANDLER, assemble("wfi"))
        self.pair.write(CODE_FRAME, ECALLS)
        for frame, content in zip(FRAMES, CONTENTS, strict=True):
            self.pair.write(frame, content)
        self.trees = [PageTables(base, mode, self.pair.write) for base in TREES]
        # Under which ASIDs each tree has been used, and whether parts of any have been used as roots.
        self.asids: list[set[int]] = [set(), set()]
        self.odd_roots = False
        self.pair.set(mtvec=HANDLER, mepc=0)
        self.pair.set_x(x12=0x1122_3344_5566_7788)
        self.write("pmpaddr2", MASK64)
        self.write("pmpcfg0", 0x1F << 16)
        self.do(Switch(0, 0))

    def run(self, text: str, a0: int = 0, a3: int = 0) -> None:
        """Run a piece up to its end or its trap, both of which stop in WFI."""
        pair = self.pair
        pair.native.state.waiting, pair.model.waiting = 0, False
        pair.set(pc=PIECES[text], mode=Mode.M)
        pair.set_x(x10=a0, x13=a3)
        exit = pair.board.run(5000)
        assert exit.reason is ExitReason.WAIT, exit
        for _ in range(10):
            if pair.model.waiting:
                break
            pair.model.step()
        pair.check()

    def write(self, register: str, value: int = 0) -> None:
        self.run(WRITES[register], value)

    def fence(self, tree: int, page: int | None, by_asid: bool) -> None:
        """What has been changed of a tree, at one page or anywhere, takes effect."""
        if self.odd_roots:
            self.run(WRITES["sfence"])
        elif not by_asid:
            self.run(WRITES["sfence" if page is None else "sfence of an address"], page or 0)
        else:
            for asid in self.asids[tree]:
                # The bits above the ASID are ignored (12.2.1).
                text = "sfence of an ASID" if page is None else "sfence of an address and an ASID"
                self.run(WRITES[text], page or 0, 0xABCD << 16 | asid)

    def do(self, step: Step) -> None:
        match step:
            case Entry(tree, page, level, bits, everything, by_asid):
                tables = self.trees[tree]
                level = min(level, tables.levels - 1)
                links = tables.links
                address = tables.entry_address(page, level)
                above = level > 0 or tables.links > links
                tables.set(address, bits)
                # A fence of one address covers its leaf entry. What an entry further up maps or leads to is
                # more than that address, so it needs a fence of everything (privileged manual, SFENCE.VMA).
                self.fence(tree, None if everything or above else page, by_asid)
            case Switch(tree, asid):
                self.asids[tree].add(asid)
                self.write("satp", self.trees[tree].satp | asid << 44)
            case Root(satp):
                self.odd_roots = True
                self.run(WRITES["sfence"])
                self.write("satp", satp)
            case Write(register, value):
                self.write(register, value)
            case Access(text, address):
                self.run(text, address & MASK64)
            case Fetch(mode, address):
                self.pair.set(mepc=address & MASK64 & ~1)
                status = self.pair.native.state.mstatus & ~Status.MPP | mode << 11
                self.write("mstatus", status)
                self.run("mret")

    def close(self) -> None:
        self.pair.board.close()

    @property
    def trap(self) -> tuple[int, int]:
        """Cause and value of the last trap."""
        return self.pair.native.state.mcause, self.pair.native.state.mtval

    @property
    def a1(self) -> int:
        return int(self.pair.native.state.x[11])


# --- strategies ---

flags = st.one_of(
    st.sampled_from(
        [ALL, ALL | Pte.U, ALL & ~Pte.A, ALL & ~Pte.D, Pte.V | Pte.R, Pte.V | Pte.X | Pte.A, Pte.V]
    ),
    st.integers(0, 255).map(lambda bits: bits | Pte.V),
    st.integers(0, 1023),
)
targets = st.one_of(
    st.sampled_from([*FRAMES, CODE_FRAME]),
    st.sampled_from([RAM_BASE, TABLES, NOWHERE, 0, (1 << 56) - 4096, RAM_BASE + 0x20_0000]),
)
reserved = st.one_of(*[st.just(0)] * 6, st.integers(54, 63).map(lambda bit: 1 << bit))
pages = st.sampled_from(PAGES)
entries = st.builds(
    lambda tree, page, level, target, flag, high, everything, by_asid: Entry(
        tree, page, level, target >> 2 | flag | high, everything, by_asid
    ),
    st.sampled_from([0, 0, 1]),
    pages,
    st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3]),
    targets,
    flags,
    reserved,
    st.booleans(),
    st.booleans(),
)
switches = st.builds(Switch, st.integers(0, 1), st.sampled_from(ASIDS))
roots = st.builds(
    lambda mode, offset, asid: Root(mode << 60 | asid << 44 | TABLES + offset >> 12),
    st.sampled_from([*map(int, SatpMode), 10]),
    st.sampled_from([0, 0, 0, 0x1000, NOWHERE]),
    st.sampled_from(ASIDS),
)
status_bits = st.builds(
    lambda sum_, mxr, mprv, mpp: sum_ * Status.SUM | mxr * Status.MXR | mprv * Status.MPRV | mpp << 11,
    st.integers(0, 1),
    st.integers(0, 1),
    st.sampled_from([1, 1, 1, 0]),
    st.sampled_from([0, 1, 1, 3]),
)
boundaries = st.builds(
    lambda frame, offset: frame + offset >> 2,
    st.sampled_from([*FRAMES, CODE_FRAME, TABLES]),
    st.sampled_from([0, 4, 0x7FC, 0x800, 0xFFC, 0x1000]),
)
naturally_aligned = st.builds(
    lambda frame, size: frame >> 2 | (1 << size) - 1,
    st.sampled_from([*FRAMES, CODE_FRAME, TABLES]),
    st.integers(0, 12),
)
protection = st.integers(0, 7).flatmap(
    lambda rwx: st.sampled_from([0, 8, 16, 24]).map(lambda kind: rwx | kind if rwx & 3 != 2 else 0)
)
writes = st.one_of(
    st.builds(Write, st.just("mstatus"), status_bits),
    st.builds(Write, st.just("mstatus"), status_bits),
    st.builds(Write, st.sampled_from(["pmpaddr0", "pmpaddr1"]), boundaries | naturally_aligned),
    st.builds(lambda a, b: Write("pmpcfg0", a | b << 8 | 0x1F << 16), protection, protection),
    st.builds(
        Write,
        st.just("menvcfg"),
        st.sampled_from([EnvironmentConfig.ADUE, 0, EnvironmentConfig.ADUE]).map(int),
    ),
)
addresses = st.builds(lambda page, offset: page + offset, pages, st.sampled_from(OFFSETS))
accesses = st.builds(Access, st.sampled_from(ACCESSES), addresses)
fetches = st.builds(Fetch, st.sampled_from([Mode.S, Mode.U]), addresses)
# A page that is in use, somewhere else from then on, perhaps while another address space is current.
moves = st.builds(
    lambda tree, asid, away, frame, everything, by_asid: [
        Write("mstatus", Status.MPRV | Mode.S << 11),
        Switch(tree, asid),
        Access("sd a2, (a0)", PAGES[0]),
        *([Switch(1 - tree, asid ^ 2)] if away else []),
        Entry(tree, PAGES[0], 0, frame >> 2 | ALL, everything, by_asid),
        *([Switch(tree, asid)] if away else []),
        Access("sd a2, (a0)", PAGES[0] + 8),
    ],
    st.integers(0, 1),
    st.sampled_from(ASIDS),
    st.booleans(),
    st.sampled_from(FRAMES),
    st.booleans(),
    st.booleans(),
)
single = st.one_of(entries, accesses, accesses, fetches, writes, switches).map(lambda step: [step])
ordinary = st.one_of(single, single, single, moves)
scenarios = st.one_of(
    st.lists(ordinary, min_size=4, max_size=20),
    st.lists(st.one_of(ordinary, ordinary, roots.map(lambda step: [step])), min_size=4, max_size=20),
).map(lambda pieces: [step for piece in pieces for step in piece])


def run_scenario(mode: SatpMode, steps: list[Step]) -> None:
    scenario = Scenario(mode)
    scenario.write("mstatus", Status.MPRV | Mode.S << 11)
    # Something to begin with: two pages that work.
    scenario.do(Entry(0, PAGES[0], 0, FRAMES[0] >> 2 | ALL, True, False))
    scenario.do(Entry(0, PAGES[1], 0, FRAMES[1] >> 2 | Pte.V | Pte.R | Pte.W | Pte.X, True, False))
    scenario.do(Entry(0, PAGES[3], 0, CODE_FRAME >> 2 | ALL | Pte.U, True, False))
    scenario.do(Entry(1, PAGES[0], 0, FRAMES[2] >> 2 | ALL, True, False))
    for step in steps:
        scenario.do(step)
    scenario.close()


@COMPILED
@pytest.mark.parametrize("mode", [SatpMode.SV39, SatpMode.SV48], ids=lambda m: m.name)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(steps=scenarios)
def test_walks_of_compiled_code_agree_with_the_model(mode: SatpMode, steps: list[Step]) -> None:
    run_scenario(mode, steps)


@pytest.mark.parametrize("mode", [SatpMode.SV39, SatpMode.SV48], ids=lambda m: m.name)
@settings(max_examples=300, deadline=None, derandomize=True)
@given(steps=scenarios)
def test_walks_agree_with_the_model(mode: SatpMode, steps: list[Step]) -> None:
    run_scenario(mode, steps)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [SatpMode.SV39, SatpMode.SV48], ids=lambda m: m.name)
@settings(max_examples=2500, deadline=None)
@given(steps=scenarios)
def test_walks_agree_with_the_model_at_length(mode: SatpMode, steps: list[Step]) -> None:
    run_scenario(mode, steps)
