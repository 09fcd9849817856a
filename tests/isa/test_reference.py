"""The instruction reference page."""

from __future__ import annotations

from pathlib import Path

from doppel.isa.extensions import rv64gc
from doppel.isa.reference import reference_page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "instructions.md"


def test_the_page_is_current():
    assert PAGE.read_text() == reference_page(), (
        "run: python -m doppel.isa.reference > docs/reference/instructions.md"
    )


def test_every_instruction_is_on_it():
    lines = reference_page().splitlines()
    for instruction in rv64gc().instructions:
        heads = [line for line in lines if line.split(" ")[0] == instruction.name]
        assert any(instruction.pattern.text in head for head in heads), instruction.name


def test_meanings():
    page = reference_page()
    assert "    if rs1 == rs2:\n        branch(h, imm)\n" in page
    assert "    where bits = 32\n" in page
    assert "    addi rd', sp, nzuimm\n" in page
    assert "    jalr ra, 0(rs1)\n" in page
