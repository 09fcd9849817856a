"""The runner of test programs, on programs made here: passing, failing, hanging, and files that are none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from doppel.conformance.program import NotATestError, load_program
from doppel.conformance.report import markdown_report, summary
from doppel.conformance.runner import Result, Verdict, run_test
from doppel.conformance.suite import find_tests, missing_extension, run_suite
from doppel.errors import DoppelError
from doppel.processor.compilation import MODES, CompileMode

from .elf import EM_X86_64, RAM, executable
from .support import doppel_run

REPORT = """
report:
    la t0, tohost
    sw a0, 0(t0)
    sw zero, 4(t0)
1:  j 1b
    .balign 64
tohost: .dword 0
"""
# The old way: only the low half of the word is ever written.
PASS = "li a0, 1; la t0, tohost; 1: sw a0, 0(t0); j 1b; .balign 8; tohost: .dword 0"
FAIL = "li a0, 5 << 1 | 1\n" + REPORT
HANG = "1: j 1b\n.balign 8\ntohost: .dword 0"
TRAP_LOOP = ".word 0\n.balign 8\ntohost: .dword 0"
WAIT = "1: wfi; j 1b\n.balign 8\ntohost: .dword 0"
STRANGE = "li a0, 6\n" + REPORT
LIMIT = 1_000_000


def run(tmp_path: Path, text: str, **options: int) -> Result:
    path = tmp_path / "rv64ui-p-made"
    path.write_bytes(executable(text, **options))
    return run_test(path, LIMIT)


@pytest.mark.parametrize(
    ("text", "verdict", "detail"),
    [
        (PASS, Verdict.PASSED, ""),
        ("li a0, 1\n" + REPORT, Verdict.PASSED, ""),
        (FAIL, Verdict.FAILED, "case 5"),
        (STRANGE, Verdict.FAILED, "strange value 0x6"),
        (HANG, Verdict.TIMEOUT, "pc 0x80000000"),
        (TRAP_LOOP, Verdict.TIMEOUT, "cause"),
        (WAIT, Verdict.TIMEOUT, "waits for an interrupt"),
    ],
)
def test_verdicts(tmp_path: Path, text: str, verdict: Verdict, detail: str) -> None:
    result = run(tmp_path, text)
    assert result.verdict is verdict
    assert detail in result.detail


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("text", "verdict"), [(PASS, Verdict.PASSED), (FAIL, Verdict.FAILED)])
def test_compiling_changes_no_verdict(tmp_path: Path, mode: CompileMode, text: str, verdict: Verdict) -> None:
    path = tmp_path / "rv64ui-p-made"
    path.write_bytes(executable("li t1, 100000; 9: addi t1, t1, -1; bnez t1, 9b\n" + text))
    interpreted, result = run_test(path, LIMIT, "off"), run_test(path, LIMIT, mode)
    assert result == interpreted
    assert result.verdict is verdict


def test_the_command_takes_the_mode(tmp_path: Path) -> None:
    (tmp_path / "rv64ui-p-made").write_bytes(executable(PASS))
    for mode in MODES:
        assert doppel_run("conformance", tmp_path, "--compile", mode).stdout == "1 passed\n"
    wrong = doppel_run("conformance", tmp_path, "--compile", "cold")
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1


def test_a_test_that_takes_long_before_it_passes(tmp_path: Path) -> None:
    slow = "li t1, 200000\n1: addi t1, t1, -1; bnez t1, 1b; li a0, 1\n" + REPORT
    result = run(tmp_path, slow)
    assert result.verdict is Verdict.PASSED
    assert result.instructions > 400_000


def test_a_test_begins_in_machine_mode_with_all_registers_zero(tmp_path: Path) -> None:
    text = """
        li a0, 3 << 1 | 1
        bnez sp, report
        csrr t0, mhartid
        bnez t0, report
        li t0, 3 << 11
        csrs mstatus, t0
        li a0, 1
    """
    assert run(tmp_path, text + REPORT).verdict is Verdict.PASSED


def test_accesses_outside_memory_fault_in_the_guest(tmp_path: Path) -> None:
    text = """
        la t0, trap
        csrw mtvec, t0
        li t0, 0x10000000
        lw t0, 0(t0)
        li a0, 2 << 1 | 1
        j report
        .balign 4
    trap:
        csrr t0, mcause
        li a0, 3 << 1 | 1
        addi t0, t0, -5
        bnez t0, report
        li a0, 1
    """
    assert run(tmp_path, text + REPORT).verdict is Verdict.PASSED


def test_what_a_failing_test_prints_is_told(tmp_path: Path) -> None:
    text = """
        la t0, tohost
        li t2, 0x0101 << 48
        la s0, message
    next:
        lbu t1, 0(s0)
        beqz t1, finish
        or t1, t1, t2
        sd t1, 0(t0)
    1:  ld t1, 0(t0)
        bnez t1, 1b
        addi s0, s0, 1
        j next
    finish:
        li a0, 9 << 1 | 1
    """
    result = run(tmp_path, text + REPORT + 'message: .asciz "oh no\\n"')
    assert (result.verdict, result.detail) == (Verdict.FAILED, "case 9: oh no")


def test_a_program_linked_for_other_addresses_than_it_is_loaded_at(tmp_path: Path) -> None:
    path = tmp_path / "linked-high"
    path.write_bytes(executable(PASS, virtual=0xFFFF_FFFF_8000_0000))
    program = load_program(path)
    assert program.segments[0][0] == RAM
    assert RAM <= program.tohost < RAM + 4096


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not an ELF file"),
        (b"hello, this is a text", "not an ELF file"),
        (b"\x7fELF", "damaged"),
        (executable(PASS)[:40], "damaged"),
        (executable(PASS)[:130], "truncated|damaged"),
        (executable(PASS)[:-100], "damaged"),
        (executable(PASS, machine=EM_X86_64), "another kind of processor"),
        (executable("nop; j ."), "without the symbol tohost"),
        (b"\x7fELF" + b"\xff" * 200, "damaged|another|truncated"),
    ],
)
def test_files_that_are_no_tests(tmp_path: Path, data: bytes, complaint: str) -> None:
    path = tmp_path / "odd"
    path.write_bytes(data)
    with pytest.raises(NotATestError, match=complaint):
        load_program(path)
    assert run_test(path).verdict is Verdict.NOT_A_TEST


def test_every_truncation_and_every_changed_byte_is_survived(tmp_path: Path) -> None:
    data = executable(PASS)
    path = tmp_path / "odd"
    for index in range(0, len(data), 3):
        changed = bytearray(data)
        changed[index] ^= 0xFF
        for variant in (data[:index], bytes(changed)):
            path.write_bytes(variant)
            try:
                load_program(path)
            except NotATestError:
                continue


@pytest.mark.parametrize("address", [0x1000, 0xFFFF_FFFF_FFFF_F000, RAM + (64 << 20) - 4])
def test_a_program_for_memory_that_is_not_there(tmp_path: Path, address: int) -> None:
    path = tmp_path / "elsewhere"
    path.write_bytes(executable(PASS, address=address))
    result = run_test(path)
    assert result.verdict is Verdict.NOT_A_TEST
    assert "needs memory at" in result.detail


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("rv64ui-p-add", ""),
        ("rv64um-v-mul.elf", ""),
        ("rv64mi-p-csr", ""),
        ("rv64si-p-wfi", ""),
        ("rv64mzicbo-p-zero", ""),
        ("rv64uzba-p-sh1add", ""),
        ("rv64uzbc-p-clmul", "Zbc"),
        ("rv64ssvnapot-p-napot", "Svnapot"),
        ("rv64uv-p-vadd", "V"),
        ("hypervisor-p-2-stage_translation", "H"),
        ("hypervisor-svadu-p-x", "H"),
        ("rv32ui-p-add.elf", "RV32"),
        ("my-own-test", ""),
    ],
)
def test_what_tests_need(name: str, missing: str) -> None:
    assert missing_extension(name) == missing
    assert missing_extension("rv64uzbc-p-clmul", ["i", "zbc"]) == ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "rv64ui-p-good": PASS,
        "rv64ui-p-bad": FAIL,
        "rv64um-p-good": PASS,
        "rv64uzbc-p-clmul": FAIL,
    }.items():
        (tmp_path / name).write_bytes(executable(text))
    (tmp_path / "README").write_text("not a test")
    (tmp_path / "rv64ui-p-broken.elf").write_text("not a test either")
    (tmp_path / "dumps").mkdir()
    return tmp_path


def test_suite(folder: Path) -> None:
    seen: list[Result] = []
    results = run_suite(find_tests(folder), jobs=2, limit=LIMIT, done=seen.append)
    assert [(result.name, result.verdict) for result in results] == [
        ("rv64ui-p-bad", Verdict.FAILED),
        ("rv64ui-p-broken.elf", Verdict.NOT_A_TEST),
        ("rv64ui-p-good", Verdict.PASSED),
        ("rv64um-p-good", Verdict.PASSED),
        ("rv64uzbc-p-clmul", Verdict.NOT_APPLICABLE),
    ]
    assert sorted(seen, key=lambda result: result.name) == results
    assert summary(results) == "2 passed, 1 failed, 1 not applicable, 1 not a test"
    table = markdown_report(results).splitlines()
    assert any(re.fullmatch(r"\| rv64ui-p-bad \| failed \(case 5\) \| \d+ \|", line) for line in table)
    assert "| rv64uzbc-p-clmul | not applicable (needs Zbc) |  |" in table
    assert "| rv64ui-p | 3 | 1 passed, 1 failed, 1 not a test |" in table


def test_folders_without_tests(tmp_path: Path) -> None:
    with pytest.raises(DoppelError, match="no ELF file"):
        find_tests(tmp_path)
    with pytest.raises(DoppelError, match="cannot be read"):
        find_tests(tmp_path / "nowhere")
    with pytest.raises(DoppelError, match="cannot be read"):
        find_tests(Path(__file__))


def test_command_with_failures(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    result = doppel_run("conformance", folder, "--jobs", "2", "--write", table)
    assert result.returncode == 1
    assert "rv64ui-p-bad" in result.stdout
    assert "case 5" in result.stdout
    assert "rv64ui-p-good" not in result.stdout
    assert result.stdout.splitlines()[-1] == "2 passed, 1 failed, 1 not applicable, 1 not a test"
    assert result.stderr == ""
    assert table.read_text().startswith("2 passed, 1 failed, 1 not applicable, 1 not a test.\n")


def test_command_without_failures(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(executable(PASS))
    result = doppel_run("conformance", tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "1 passed\n", "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["/nonexistent/folder"], "cannot be read"),
        ([], "FOLDER"),
        (["--jobs", "-1", "."], "jobs"),
        (["--jobs", "many", "."], "many"),
    ],
)
def test_wrong_command_lines(arguments: list[str], complaint: str) -> None:
    result = doppel_run("conformance", *arguments)
    assert result.returncode == 2
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
