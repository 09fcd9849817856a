"""The reference pages of instructions and CSRs."""

from __future__ import annotations

from pathlib import Path

import pytest

from doppel.isa.csr import CSR_TABLE
from doppel.isa.extensions import rv64gc
from doppel.isa.reference import PAGES, csr_page, instruction_page

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_current(name: str):
    assert (FOLDER / f"{name}.md").read_text() == PAGES[name](), (
        f"run: python -m doppel.isa.reference {name} > docs/reference/{name}.md"
    )


def test_every_instruction_is_on_it():
    lines = instruction_page().splitlines()
    for instruction in rv64gc().instructions:
        heads = [line for line in lines if line.split(" ")[0] == instruction.name]
        assert any(instruction.pattern.text in head for head in heads), instruction.name


def test_meanings():
    page = instruction_page()
    assert "    if rs1 == rs2:\n        branch(h, imm)\n" in page
    assert "    where bits = 32\n" in page
    assert "    addi rd', sp, nzuimm\n" in page
    assert "    jalr ra, 0(rs1)\n" in page


def test_every_csr_is_on_it():
    names = {row.name: row for row in CSR_TABLE}
    lines = [line for line in csr_page().splitlines() if line.startswith("| 0x")]
    covered = 0
    for line in lines:
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        ends = [names[name.strip("` ")] for name in cells[1].replace(" to ", ",").split(",")]
        first, last = ends[0], ends[-1]
        assert cells[0].startswith(f"{first.number:#05x}") and cells[0].endswith(f"{last.number:#05x}")
        covered += len(ends) if " to " not in cells[1] else last.number - first.number + 1
        assert cells[2] == ("U", "S", "", "M")[first.number >> 8 & 3] + (
            ", read" if first.number >> 10 == 3 else ", read and write"
        )
    assert covered == len(CSR_TABLE)


def test_what_writes_change():
    page = csr_page()
    assert "| 0x302 | `medeleg` | M, read and write | exceptions delegated to S | 0xb3ff |" in page
    assert "| nothing: it is 0x800000000014112d |" in page
    assert "stvec\n    write:\n        h.stvec = value & ~2\n" in page
