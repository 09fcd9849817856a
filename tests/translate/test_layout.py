"""One layout: what ctypes sees is what native code addresses."""

from __future__ import annotations

import ctypes

import pytest

from doppel.isa.assembler import assemble
from doppel.isa.state import ARCHITECTURAL_STATE
from doppel.processor.processor import HartState, MachineState
from doppel.translate.layout import CODE_PAGE, HART, ITLB, MACHINE, MAX_HARTS, RECORD, TLB, Layout

from .support import RAM_BASE, Board

SIZES = {"u64": 8, "u32": 4, "u8": 1, "ptr": 8}
LAYOUTS = [(HART, HartState), (MACHINE, MachineState)]


@pytest.mark.parametrize(("layout", "structure"), LAYOUTS, ids=["hart", "machine"])
def test_ctypes_has_the_layouts_offsets(layout: Layout, structure: type[ctypes.Structure]) -> None:
    assert ctypes.sizeof(structure) == layout.size
    for name, field in layout.fields.items():
        member = getattr(structure, name)
        assert (member.offset, member.size) == (field.offset, field.size), name
        assert field.size == SIZES[field.type] * max(1, field.count)


@pytest.mark.parametrize(("layout", "structure"), LAYOUTS, ids=["hart", "machine"])
def test_fields_are_aligned_and_apart(layout: Layout, structure: type[ctypes.Structure]) -> None:
    end = 0
    for field in layout.fields.values():
        assert field.offset >= end, field
        assert field.offset % (64 if field.size >= 64 else field.element_size) == 0, field
        end = field.offset + field.size
    assert end <= layout.size < end + 64
    assert layout.size % 64 == 0
    assert all(field.doc for field in layout.fields.values())


def test_architectural_state_comes_first() -> None:
    names = [field.name for field in ARCHITECTURAL_STATE]
    assert list(HART.fields)[: len(names)] == names
    for field in ARCHITECTURAL_STATE:
        assert (HART[field.name].type, HART[field.name].count) == (field.type, field.count)
    assert HART["x"].offset == 0


def test_a_layout_of_ones_own() -> None:
    layout = Layout("Own", [("a", "u8", 0, ""), ("b", "u32", 0, ""), ("c", "u8", 3, ""), ("d", "u64", 8, "")])
    assert [f.offset for f in layout.fields.values()] == [0, 4, 8, 64]
    assert layout.size == 128
    own = layout.structure()()
    own.a, own.b, own.c[2], own.d[7] = 1, 2, 3, 4
    raw = bytes(own)
    assert (raw[0], raw[4], raw[10], raw[120]) == (1, 2, 3, 4) and len(raw) == 128
    with pytest.raises(KeyError):
        layout["e"]


def test_tables_of_the_engine_fit_their_fields() -> None:
    assert HART["tlb"].size == TLB.arrays * TLB.entries * TLB.entry_size
    assert HART["itlb"].size == ITLB.arrays * ITLB.entries * ITLB.entry_size
    assert MACHINE["harts"].count == MAX_HARTS
    for table in (TLB, ITLB):
        assert table.entries & (table.entries - 1) == 0
        assert table.entry_size & (table.entry_size - 1) == 0
    # A page of records: one for every halfword, and the one behind.
    assert CODE_PAGE.records == 4096 // 2 + 1
    assert RECORD.per_byte * 2 == RECORD.size
    assert CODE_PAGE.host >= CODE_PAGE.records * RECORD.size
    assert CODE_PAGE.size % RECORD.size == 0
    # The scratch records, each of two halfwords' distance, fit too.
    assert HART["scratch"].size >= 4 * RECORD.size


def test_every_field_of_a_hart_is_its_own() -> None:
    """Set each to something else through ctypes: all of them are still that afterwards."""
    state = HartState()
    expected = {}
    for number, (name, field) in enumerate(HART.fields.items()):
        mask = (1 << 8 * field.element_size) - 1
        value = (number + 1) * 0x0123_4567_89AB_CDEF & mask
        if field.count:
            getattr(state, name)[:] = [value] * field.count
            expected[name] = [value] * field.count
        else:
            setattr(state, name, value)
            expected[name] = value
    for name, value in expected.items():
        assert (list(getattr(state, name)) if HART[name].count else getattr(state, name)) == value


def test_native_code_sees_what_ctypes_sets() -> None:
    """Registers at both ends of their arrays, CSRs in between."""
    board = Board(size=0x1_0000)
    state = board.hart.state
    board.memory.write(
        RAM_BASE,
        assemble("csrr x31, mscratch; csrw sepc, x1; csrr x30, pmpaddr15; csrr x29, pmpcfg2; sd x31, (x2)"),
    )
    state.mscratch, state.pmpaddr[15], state.pmpcfg[15] = 0x1111, 0x2222, 0x1B
    state.x[1], state.x[2], state.pc = 0x3334, RAM_BASE + 0x100, RAM_BASE
    board.run(5)
    assert (state.x[31], state.sepc, state.x[30], state.x[29] >> 56) == (0x1111, 0x3334, 0x2222, 0x1B)
    assert board.memory.read_u64(RAM_BASE + 0x100) == 0x1111
