"""Patterns: decoding is the inverse of encoding, for every instruction and for every word."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.isa.encoding import Pattern
from doppel.isa.extensions import isa_names, isa_string, rv64gc
from doppel.isa.instruction import Instruction

SET = rv64gc()
ALL = [pytest.param(i, id=i.name) for i in SET.instructions]

# Pairs of which the first is meant when both match.
SPECIAL_CASES = {
    ("pause", "fence"),
    ("fence.tso", "fence"),
    ("c.addi16sp", "c.lui"),
    ("c.jr", "c.mv"),
    ("c.ebreak", "c.jalr"),
    ("c.ebreak", "c.add"),
    ("c.jalr", "c.add"),
}


def check(instruction: Instruction, values: dict[str, int]) -> None:
    word = instruction.pattern.encode(values)
    assert {f.name: f.extract(word) for f in instruction.pattern.fields} == values
    decoded = SET.decode(word)
    if not instruction.matches(word):
        # A reserved encoding, or that of another instruction.
        assert decoded is None or (decoded.name, instruction.name) in SPECIAL_CASES
        return
    assert decoded is not None
    if decoded is not instruction:
        assert (decoded.name, instruction.name) in SPECIAL_CASES
        return
    operands = decoded.operands(word)
    sources = instruction.bindings or {f.slot: f.name for f in instruction.pattern.fields if f.slot}
    for slot, source in sources.items():
        assert getattr(operands, slot) == (values[source] if isinstance(source, str) else source)


@pytest.mark.parametrize("instruction", ALL)
def test_decode_inverts_encode_at_the_limits_of_every_field(instruction: Instruction):
    fields = instruction.pattern.fields
    middle = {f.name: f.values()[len(f.values()) // 3] for f in fields}
    check(instruction, middle)
    for field in fields:
        values = field.values()
        # Both ends, and every bit of the value alone.
        single_bits = [v for v in (1 << n for n in range(field.width)) if v in values]
        for value in (values[0], values[-1], *single_bits):
            check(instruction, middle | {field.name: value})


@pytest.mark.parametrize("instruction", ALL)
def test_values_outside_a_field_are_rejected(instruction: Instruction):
    for field in instruction.pattern.fields:
        values = field.values()
        for wrong in (values[0] - 1, values[-1] + 1, values[0] - values.step, values[-1] + values.step):
            with pytest.raises(ValueError, match="cannot be"):
                field.insert(wrong)


@given(st.sampled_from(SET.instructions), st.data())
def test_decode_inverts_encode(instruction: Instruction, data: st.DataObject):
    check(instruction, {f.name: data.draw(st.sampled_from(f.values())) for f in instruction.pattern.fields})


def encode_inverts_decode(word: int) -> None:
    instruction = SET.decode(word)
    if instruction is not None:
        assert instruction.matches(word)
        values = {f.name: f.extract(word) for f in instruction.pattern.fields}
        assert instruction.pattern.encode(values) == word


@given(st.integers(0, (1 << 32) - 1))
def test_encode_inverts_decode(word: int):
    encode_inverts_decode(word if word & 3 == 3 else word & 0xFFFF)


def test_encode_inverts_decode_of_all_compressed_words():
    for word in range(1 << 16):
        if word & 3 != 3:
            encode_inverts_decode(word)


def test_only_the_known_patterns_overlap():
    overlaps = set()
    for a, b in combinations(SET.instructions, 2):
        if a.length == b.length and not (a.pattern.match ^ b.pattern.match) & a.pattern.mask & b.pattern.mask:
            overlaps.add((a.name, b.name))
            # The first is the more special one.
            assert a.pattern.mask & b.pattern.mask == b.pattern.mask
    assert overlaps == SPECIAL_CASES


def test_names_are_unique():
    names = [i.name for i in SET.instructions]
    assert len(names) == len(set(names))


def test_words_decode_alike_with_and_without_the_index():
    """The table by opcode loses nothing: a linear search over all instructions finds the same."""
    for i in SET.instructions:
        word = i.pattern.match
        expected = next((j for j in SET.instructions if j.length == i.length and j.matches(word)), None)
        assert SET.decode(word) is expected


@pytest.mark.parametrize(
    "word",
    [
        *(0x0000, 0x0004, 0x8000, 0x9C41, 0x9C61),
        # c.addiw, c.lwsp, c.ldsp with x0; c.lui and c.addi16sp of zero; c.jr x0; c.addi4spn of zero.
        *(0x2005, 0x4002, 0x6002, 0x6081, 0x6101, 0x8002, 0x001C),
        *(0xFFFFFFFF, 0x00000073 | 1 << 7, 0x0000_007F),
        # slliw, sraiw and roriw by 32 and more.
        *(0x0200_101B, 0x4200_501B, 0x6200_501B),
    ],
    ids=hex,
)
def test_reserved_encodings_do_not_decode(word: int):
    assert SET.decode(word) is None


@pytest.mark.parametrize("word", [0x0005, 0x0081, 0x4005, 0x6005, 0x8006, 0x0006, 0x0502, 0x9006, 0x8401])
def test_compressed_hints_decode(word: int):
    """c.addi, c.li, c.lui, c.mv, c.slli and c.add of x0; c.addi, c.slli and c.srli of zero."""
    assert SET.decode(word) is not None


@pytest.mark.parametrize(
    "text",
    [
        "imm[11:0] rs1 000 rd 001001",
        "rs1 imm 0110011",
        "Rd 0000000 00000 00000 000 00000 0110011",
        "oops[31:0]",
    ],
)
def test_what_is_not_a_pattern(text: str):
    with pytest.raises(ValueError):
        Pattern.parse(text)


def test_isa_string():
    assert isa_string().startswith("rv64imafdc_zicbom_zicboz_zicntr_")
    assert isa_string().endswith("_zba_zbb_zbs_sstc_svadu")
    assert isa_names()[:6] == ["i", "m", "a", "f", "d", "c"]
    assert len(set(isa_names())) == len(isa_names())
