"""The listings of what becomes of guest code."""

from __future__ import annotations

import subprocess
import sys

import pytest

from doppel.isa.assembler import AssemblyError
from doppel.translate.regions.show import main, show

LOOP = """
loop:
    ld a3, 0(a0)
    addi a0, a0, 8
    add a2, a2, a3
    bne a0, a1, loop
    ret
"""


def test_all_stages_of_a_loop() -> None:
    listings = dict(show(LOOP))
    assert list(listings) == ["guest instructions", "LLVM IR", "LLVM IR, optimized", "host instructions"]
    guest = listings["guest instructions"].splitlines()
    assert len(guest) == 5
    assert guest[0].split(maxsplit=2) == ["0:", "00053683", "ld a3, 0(a0)"]
    assert "alloca" in listings["LLVM IR"]
    assert "alloca" not in listings["LLVM IR, optimized"]
    assert " phi i64 " in listings["LLVM IR, optimized"]
    assert listings["LLVM IR"].endswith("\n}")
    assert listings["host instructions"].startswith("region:")
    assert ".cfi" not in listings["host instructions"]


def test_a_clock_that_counts_instructions_looks_at_each_branch() -> None:
    branches = "beqz a0, 1f; addi a1, a1, 1; 1: addi a2, a2, 1; ret"
    often, seldom = (dict(show(branches, every_branch=flag))["LLVM IR"] for flag in (True, False))
    assert often.count("attend") > seldom.count("attend")


def test_what_the_interpreter_executes() -> None:
    assert dict(show("wfi"))["region"].startswith("none")


def test_more_than_a_page() -> None:
    with pytest.raises(AssemblyError, match="page"):
        list(show(".balign 4\n" + "nop\n" * 1025))


def test_the_command(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["show", "/nowhere/loop.s"])
    assert main() == 2
    assert "/nowhere/loop.s" in capsys.readouterr().err


def test_the_command_reads_standard_input() -> None:
    command = [sys.executable, "-m", "doppel.translate.regions.show", "--icount"]
    result = subprocess.run(command, input=LOOP, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("== guest instructions\n")
    wrong = subprocess.run(command, input="no instruction", capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1
