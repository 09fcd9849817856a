"""The commands of the monitor prompt, on a small program that runs without any firmware."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from doppel.cli.monitor.commands import COMMANDS, Resume, execute
from doppel.cli.monitor.formats import Form, items, parse_form
from doppel.cli.monitor.prompt import PROMPT, prompt
from doppel.cli.monitor.session import MonitorError, Session
from doppel.errors import DoppelError
from doppel.guests.kernel import load_kernel
from doppel.machine import BARE, Machine

from .elf import RAM, executable

# Counts in a0 for ever; next to the loop stands some data.
PROGRAM = """
start:
    li sp, 0x80010000
    la s0, message
loop:
    addi a0, a0, 1
    j loop
    .balign 16
message:
    .asciz "hello"
    .balign 16
numbers:
    .dword 0x1122334455667788, -2
    .balign 4096
# Sv39: the gigabyte at 0x4000_0000 is the one at 0x8000_0000, readable and executable but not for users, and
# nothing has its accessed bit set.
root:
    .dword 0, 0x80000000 >> 12 << 10 | 0xf, 0
"""
VIRTUAL = 0x4000_0000


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kernel") / "counter"
    path.write_bytes(executable(PROGRAM))
    return path


@pytest.fixture
def session(kernel: Path) -> Iterator[Session]:
    with Machine(16 << 20, 2, firmware=BARE) as machine:
        loaded = load_kernel(kernel)
        machine.boot(loaded)
        yield Session(machine, loaded.symbols)


def do(session: Session, line: str) -> str:
    return "\n".join(execute(session, line))


def refused(session: Session, line: str) -> str:
    with pytest.raises((MonitorError, DoppelError)) as error:
        do(session, line)
    return str(error.value)


def test_registers(session: Session) -> None:
    session.machine.harts[0].registers["a5"] = 0x1234
    text = do(session, "registers")
    assert text.startswith("hart 0  pc 0x0000000080000000 <start>  mode M  0 instructions\n")
    assert "  a5 0000000000001234" in text
    assert len(text.splitlines()) == 9
    assert "hart 1" in do(session, "reg 1")
    assert session.hart_index == 1
    assert "ft0 0000000000000000" in do(session, "fregisters 0")
    assert "0 to 1" in refused(session, "registers 2")
    assert "0 to 1" in refused(session, "hart -1")
    assert "not a number" in refused(session, "hart x")


def test_step_and_trace(session: Session) -> None:
    assert do(session, "step").startswith("=> 0x00000000800")
    assert session.hart.instructions == 1
    # li and la take some instructions; the loop has two.
    do(session, "step 20")
    count = session.hart.registers["a0"]
    before = session.hart.instructions
    lines = do(session, "trace 4").splitlines()
    assert len(lines) == 5
    assert sum("addi a0, a0, 1" in line for line in lines) in (2, 3)
    assert all("<loop" in line for line in lines)
    assert session.hart.registers["a0"] == count + 2
    assert session.hart.instructions == before + 4
    assert "too many or too few" in refused(session, "step 0")
    assert "too many or too few" in refused(session, "trace 1000000000")
    assert "not a number" in refused(session, "step many")


def test_step_after_running(session: Session) -> None:
    session.machine.start()
    session.machine.pause()
    before = session.hart.instructions
    do(session, "step 10")
    assert session.hart.instructions == before + 10


def test_csr(session: Session) -> None:
    assert do(session, "csr mhartid") == "      mhartid 0000000000000000  hart number"
    assert do(session, "csr MSCRATCH 0x1234").startswith("     mscratch 0000000000001234")
    assert session.hart.csr["mscratch"] == 0x1234
    text = do(session, "csr")
    assert "     mscratch 0000000000001234" in text
    assert "misa" in text
    assert "mhartid" not in text
    assert "no register" in refused(session, "csr nothing")
    assert "read-only" in refused(session, "csr mhartid 1")


def test_set(session: Session) -> None:
    do(session, "set a0 0x10")
    do(session, "set $x11 a0 + 1")
    do(session, "set fp 7")
    do(session, "set ft0 0x3ff0000000000000")
    registers = session.hart.registers
    assert [registers[name] for name in ("a0", "a1", "s0", "ft0")] == [0x10, 0x11, 7, 0x3FF0000000000000]
    assert "<loop>" in do(session, "set pc loop")
    assert session.hart.pc == session.symbols["loop"]
    assert "no register that can be changed" in refused(session, "set zero 1")
    assert "no register that can be changed" in refused(session, "set nothing 1")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("x/xg numbers", ": 0x1122334455667788"),
        ("x/2dg numbers", ": 1234605616436508552 -2"),
        ("x/ug numbers+8", ": 18446744073709551614"),
        ("x/4xb numbers", ": 0x88 0x77 0x66 0x55"),
        ("x/2xh numbers", ": 0x7788 0x5566"),
        ("x/xw numbers", ": 0x55667788"),
        ("x/ow numbers", ": 0o12531473610"),
        ("x/tb numbers", ": 0b10001000"),
        ("x/2c message", ": 'h' 'e'"),
        ("x/c message+5", ": '\\x00'"),
        ("x/s message", ": 'hello'"),
        ("xp/s message", ": 'hello'"),
        ("x/s (numbers - 16)", ": 'hello'"),
        ("examine/s message", ": 'hello'"),
        ("x/i loop", "<loop>: 00150513  addi a0, a0, 1"),
    ],
)
def test_examine(session: Session, line: str, shown: str) -> None:
    assert do(session, line).endswith(shown)


def test_examine_goes_on_where_it_ended(session: Session) -> None:
    do(session, "x/xg numbers")
    assert do(session, "x").endswith(": 0xfffffffffffffffe")
    do(session, "x/i loop")
    assert "jal zero" in do(session, "x")
    assert len(do(session, "x/64xb start").splitlines()) == 4


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("x 0x10000000", "no memory at 0x10000000"),
        ("x/4xg 0x80fffff8", "no memory at 0x81000000"),
        ("x nobody", "nobody"),
        ("x 1 +", "not an expression"),
        ("x 1/0", "division by zero"),
        ("x %hi(start)", "no such operator"),
        ("x/q 0", "neither a format"),
        ("x/0 0", "too many or too few"),
        ("x/99999 0", "too many or too few"),
        ("x/X 0", "not a form"),
        ("x " + "(" * 5000, "expression"),
        ("registers/4", "usage"),
        ("store 1", "usage"),
        ("store/q start 1", "not a unit"),
        ("store/b start 256", "does not fit"),
        ("store/b start -129", "does not fit"),
        ("store 0x10000000 1", "no memory"),
        ("disassemble start 0", "too many or too few"),
        ("disassemble 0x1000", "no memory"),
        ("info", "usage"),
        ("info everything", "info knows"),
        ("nonsense", "no command"),
        ("st", "can mean step, store, storep"),
        ("help nonsense", "no command"),
    ],
)
def test_wrong_lines(session: Session, line: str, complaint: str) -> None:
    assert complaint in refused(session, line)


def test_store(session: Session) -> None:
    memory = session.machine.memory
    assert do(session, "store/g numbers 1 -1 a0") == f"24 bytes at {session.symbols['numbers']:#x}"
    assert memory.read(session.symbols["numbers"], 24) == ((1).to_bytes(8, "little") + b"\xff" * 8 + bytes(8))
    do(session, "store numbers 0x01020304")
    do(session, "store/b numbers+4 255 -128")
    do(session, "store/h numbers+6 0xabcd")
    assert memory.read(session.symbols["numbers"], 8) == b"\x04\x03\x02\x01\xff\x80\xcd\xab"
    do(session, "storep/w message 0")
    assert do(session, "x/s message").endswith("''")


def test_nothing_is_stored_if_part_of_it_cannot_be(session: Session) -> None:
    last = RAM + (16 << 20) - 8
    refused(session, f"store/g {last} 5 6")
    assert session.machine.memory.read(last, 8) == bytes(8)


def test_stored_instructions_are_executed(session: Session) -> None:
    do(session, "step 30")
    # addi a0, a0, 16 in place of addi a0, a0, 1
    do(session, "store loop 0x01050513")
    before = session.hart.registers["a0"]
    do(session, "step 20")
    assert session.hart.registers["a0"] == before + 160


def test_disassemble(session: Session) -> None:
    lines = do(session, "disassemble loop 2").splitlines()
    assert re.fullmatch(r"   0x[0-9a-f]{16} <loop>: 00150513  addi a0, a0, 1", lines[0])
    assert re.fullmatch(r"   0x[0-9a-f]{16} <loop\+4>: ffdff06f  jal zero, 0x[0-9a-f]+", lines[1])
    assert do(session, "dis start 1").startswith("=> ")
    session.next_address = None
    assert len(do(session, "disassemble").splitlines()) == 8


def test_virtual_addresses(session: Session) -> None:
    hart = session.hart
    # In M mode addresses are physical, whatever satp says.
    hart.csr["satp"] = 8 << 60 | session.symbols["root"] >> 12
    assert "no memory" in refused(session, "x 0x40000000")
    # mret to S mode at the virtual address of the loop.
    hart.csr["pmpaddr0"] = (1 << 54) - 1
    hart.csr["pmpcfg0"] = 0x1F
    hart.csr["mstatus"] = 1 << 11
    hart.csr["menvcfg"] = 1 << 61
    hart.csr["mepc"] = session.symbols["loop"] - RAM + VIRTUAL
    do(session, "store start 0x30200073")
    do(session, "step")
    assert hart.mode.name == "S"
    offset = session.symbols["message"] - RAM
    before = session.machine.memory.read(session.symbols["root"], 24)
    assert do(session, f"x/s {VIRTUAL + offset:#x}").endswith("'hello'")
    assert do(session, f"translate {VIRTUAL:#x}").endswith("physical address 0x80000000")
    assert "nothing mapped at 0x80000000" in refused(session, "x 0x80000000")
    assert "nothing mapped" in refused(session, "x 0x8000000000000000")
    assert do(session, "xp/s message").endswith("'hello'")
    do(session, f"store/b {VIRTUAL + offset} 0x4a")
    assert do(session, "xp/s message").endswith("'Jello'")
    # Looking on is not an access: the page tables are as they were.
    assert session.machine.memory.read(session.symbols["root"], 24) == before
    # Neither does it matter what the tables say about writing, or where they lie.
    hart.csr["satp"] = 8 << 60 | 0x10000
    assert "nothing mapped" in refused(session, "x 0x40000000")
    hart.csr["satp"] = 0
    assert do(session, "x/s message").endswith("'Jello'")


def test_reset(session: Session) -> None:
    do(session, "store message 0")
    do(session, "step 30")
    assert "<start>" in do(session, "reset")
    assert session.hart.registers["a0"] == 0
    assert do(session, "x/s message").endswith("'hello'")


def test_info(session: Session) -> None:
    assert "uart" in do(session, "info devices")
    assert len(do(session, "info harts").splitlines()) == 2
    assert "instructions" in do(session, "info machine")
    assert "0x0080000000-0x0080ffffff  16 MiB" in do(session, "info memory")
    assert do(session, "info mem") == do(session, "info memory")


def test_help_knows_every_command(session: Session) -> None:
    text = do(session, "help")
    for name in COMMANDS:
        assert re.search(rf"\b{name}\b", text), name
    assert do(session, "help step").startswith("step [N] ")
    assert do(session, "help begin") == do(session, "help continue")


@pytest.mark.parametrize(
    ("line", "leave"), [("continue", False), ("c", False), ("begin", False), ("quit", True), ("stop", True)]
)
def test_ways_out(session: Session, line: str, leave: bool) -> None:
    with pytest.raises(Resume) as resume:
        do(session, line)
    assert resume.value.leave == leave


def test_prompt(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []
    lines = iter(["step", "", "", "bogus", "x/2i loop", "", "quit"])

    def read(text: str) -> str:
        asked.append(text)
        return next(lines)

    assert prompt(session, read) is False
    assert asked == [PROMPT] * 7
    shown = capsys.readouterr().out
    assert "there is no command 'bogus'" in shown
    # An empty line repeats a step, and goes on with memory.
    assert session.hart.instructions == 3
    assert shown.count("addi a0, a0, 1") == 1


def test_end_of_input_goes_on(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    def read(text: str) -> str:
        raise EOFError

    assert prompt(session, read) is True


def test_interrupt_at_the_prompt_forgets_the_line(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: Iterator[str | None] = iter([None, "continue"])

    def read(text: str) -> str:
        answer = next(answers)
        if answer is None:
            raise KeyboardInterrupt
        return answer

    assert prompt(session, read) is True


def test_forms() -> None:
    assert parse_form("", "x", 4) == Form(1, "x", 4)
    assert parse_form("3dg", "x", 4) == Form(3, "d", 8)
    assert parse_form("gd", "x", 4) == Form(1, "d", 8)
    assert parse_form("5s", "x", 8) == Form(5, "s", 1)
    assert items(b"\xff\x7f", Form(2, "d", 1)) == ["-1", "127"]
    assert items(b"\xff\x7f", Form(1, "o", 2)) == ["0o77777"]
