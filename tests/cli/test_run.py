"""``doppel run`` as a process: small programs on the bare machine, at a terminal and without one."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .elf import executable
from .support import PATIENCE, Terminal, doppel_run, environment, on_terminal

# The 16550 at 0x1000_0000: the received byte, or the one to send, at 0; line status at 5. The test finisher
# at 0x10_0000: 0x5555 powers off, 0x3333 with a status in the upper half fails.
PRELUDE = """
    .equ UART, 0x10000000
    .equ FINISHER, 0x100000
    li s0, UART
    li s1, FINISHER
"""
PRINT = """
print:
    lbu t0, 0(a0)
    beqz t0, 1f
    sb t0, 0(s0)
    addi a0, a0, 1
    j print
1:  ret
"""
# Says hello, echoes what is typed with one added to each byte, and ends with the status 3 when that is "q".
ECHO = (
    PRELUDE
    + """
    la a0, hello
    jal print
loop:
    lbu t0, 5(s0)
    andi t0, t0, 1
    beqz t0, loop
    lbu t1, 0(s0)
    li t2, 'q'
    beq t1, t2, end
    addi t1, t1, 1
    sb t1, 0(s0)
    j loop
end:
    li t0, 3 << 16 | 0x3333
    sw t0, 0(s1)
1:  j 1b
"""
    + PRINT
    + 'hello: .asciz "hello\\r\\n"'
)
POWER_OFF = (
    PRELUDE
    + "la a0, text; jal print; li t0, 0x5555; sw t0, 0(s1); 1: j 1b\n"
    + PRINT
    + 'text: .asciz "bye\\r\\n"'
)
FLOOD_SIZE = 200_000
FLOOD = (
    PRELUDE
    + f"""
    li t1, 'x'
    li t2, {FLOOD_SIZE}
1:  sb t1, 0(s0)
    addi t2, t2, -1
    bnez t2, 1b
    li t0, 0x5555
    sw t0, 0(s1)
2:  j 2b
"""
)
SILENT = "1: j 1b"

Make = Callable[[str], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(text: str) -> Path:
        path = tmp_path / "guest"
        path.write_bytes(executable(text))
        return path

    return make


def run_args(kernel: Path, *more: str) -> list[str]:
    return ["-m", "doppel.cli", "run", str(kernel), "--memory", "16M", *more]


def test_power_off(make: Make) -> None:
    result = doppel_run("run", make(POWER_OFF), "--memory", "16M")
    assert result.returncode == 0
    assert result.stdout == "bye\n"  # text mode takes the carriage return away
    # Before the last line there may be word of the engine being built.
    line = result.stderr.splitlines()[-1]
    assert re.fullmatch(
        r"doppel: \d+ instructions in \d+\.\d s \(\d+ MIPS\), \d+ exits \(device \d+.*\), "
        r"\d+(\.\d+)? % of the instructions without the monitor",
        line,
    )


def test_status_of_the_guest_and_input_from_a_pipe(make: Make) -> None:
    process = subprocess.Popen(
        [sys.executable, *run_args(make(ECHO))],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    # Ctrl-A is nothing special in a pipe.
    output, errors = process.communicate(b"abc\x01xq", timeout=PATIENCE)
    assert process.returncode == 3, errors
    assert output == b"hello\r\nbcd\x02y"


def test_statistics(make: Make) -> None:
    result = doppel_run("run", make(POWER_OFF), "--memory", "16M", "--stats")
    assert any(re.fullmatch(r"accesses to uart\S* +5", line) for line in result.stderr.splitlines())


def test_timeout(make: Make) -> None:
    result = doppel_run("run", make(SILENT), "--memory", "16M", "--timeout", "0.3")
    assert result.returncode == 124
    assert "after 0.3 seconds" in result.stderr


def test_timeout_of_a_machine_that_waits(make: Make) -> None:
    for clock in ("host", "icount"):
        result = doppel_run("run", make("1: wfi; j 1b"), "--timeout", "0.3", "--clock", clock)
        assert result.returncode == 124


def test_trap_loop_can_be_left(make: Make) -> None:
    """A guest that jumps to nowhere does not take doppel down."""
    for text in ("jr zero", "li t0, -2; jr t0", ".word 0", "csrw mtvec, zero; ecall"):
        result = doppel_run("run", make(text), "--timeout", "0.3")
        assert result.returncode == 124, result
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it(make: Make, number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, *run_args(make(ECHO))],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"hello\r\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert b"Traceback" not in errors
    # The summary tells what ran until then.
    assert b"without the monitor" in errors


def test_reader_of_the_output_goes_away(make: Make) -> None:
    """The machine does not mind, as long as it has something else to do."""
    process = subprocess.Popen(
        [sys.executable, *run_args(make(FLOOD))],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(1) == b"x"
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(PATIENCE) == 0, errors
    assert b"Traceback" not in errors


def test_slow_reader_gets_everything(make: Make) -> None:
    process = subprocess.Popen(
        [sys.executable, *run_args(make(FLOOD))],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    time.sleep(2)
    output, _ = process.communicate(timeout=PATIENCE)
    assert output == b"x" * FLOOD_SIZE
    assert process.returncode == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_without_standard_files(make: Make, tmp_path: Path, closed: str) -> None:
    """A process may be started without them; the disk must not become the console then."""
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(4096))
    command = f'exec "$0" -m doppel.cli run "$1" --disk "$2" --memory 16M {closed}'
    result = subprocess.run(
        ["sh", "-c", command, sys.executable, make(POWER_OFF), disk],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    assert disk.read_bytes() == bytes(4096)


# --- at a terminal ---


def begin(terminal: Terminal) -> list[object]:
    """Wait until the guest runs; the terminal's mode is raw then."""
    before = terminal.attributes()
    terminal.expect("hello\r\n")
    terminal.wait_raw(True)
    return before


def test_typing(make: Make) -> None:
    with on_terminal(*run_args(make(ECHO))) as terminal:
        before = terminal.attributes()
        terminal.expect("hello\r\n")
        assert terminal.raw
        terminal.send("HAL")
        terminal.expect("IBM")
        # Ctrl-C, Ctrl-Z and Ctrl-D are the guest's.
        terminal.send("\x03\x1a\x04")
        terminal.expect("\x04\x1b\x05")
        terminal.send("\x01a\x01\x01")
        terminal.expect("\x02\x02")
        terminal.send("q")
        assert terminal.wait() == 3
        assert terminal.attributes() == before
        assert "without the monitor" in terminal.errors


def test_leave_key(make: Make) -> None:
    with on_terminal(*run_args(make(ECHO))) as terminal:
        before = begin(terminal)
        terminal.send("\x01x")
        assert terminal.wait() == 0
        assert terminal.attributes() == before


def test_leaving_a_guest_that_never_reads(make: Make) -> None:
    with on_terminal(*run_args(make(SILENT))) as terminal:
        terminal.wait_raw(True)
        terminal.send("x" * 3000 + "\x01x")
        assert terminal.wait() == 0


def test_help_key(make: Make) -> None:
    with on_terminal(*run_args(make(ECHO))) as terminal:
        begin(terminal)
        terminal.send("\x01h")
        terminal.expect("Ctrl-A x       end the machine and leave\r\n")
        terminal.send("A")
        terminal.expect("B")


def test_monitor_prompt(make: Make) -> None:
    with on_terminal(*run_args(make(ECHO))) as terminal:
        before = begin(terminal)
        terminal.send("\x01c")
        terminal.expect("(doppel) ")
        # readline may have its own raw mode while it waits; what it leaves behind is what counts.
        terminal.send("registers\n")
        terminal.expect("hart 0  pc 0x00000000800000")
        terminal.expect("(doppel) ")
        terminal.send("set t1 0x40\n")
        terminal.expect("t1 0000000000000040")
        terminal.send("x/s hello\n")
        terminal.expect("'hello\\r\\n'")
        terminal.send("nonsense\n")
        terminal.expect("there is no command 'nonsense'")
        terminal.send("continue\n")
        terminal.wait_raw(True)
        terminal.send("A")
        terminal.expect("B")
        # Whatever is typed right behind the key is for the prompt.
        terminal.send("\x01creset\n")
        terminal.expect("<start>" if "<start>" in terminal.text else "=> 0x0000000080000000")
        terminal.send("c\n")
        terminal.expect("hello\r\n")
        terminal.wait_raw(True)
        terminal.send("\x01cquit\n")
        assert terminal.wait() == 0
        assert terminal.attributes() == before


def test_end_of_input_at_the_prompt_goes_on(make: Make) -> None:
    with on_terminal(*run_args(make(ECHO))) as terminal:
        begin(terminal)
        terminal.send("\x01c")
        terminal.expect("(doppel) ")
        terminal.send("\x04")
        terminal.wait_raw(True)
        terminal.send("q")
        assert terminal.wait() == 3


@pytest.mark.parametrize("at_prompt", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_at_a_terminal(make: Make, number: int, at_prompt: bool) -> None:
    with on_terminal(*run_args(make(ECHO))) as terminal:
        before = begin(terminal)
        if at_prompt:
            terminal.send("\x01c")
            terminal.expect("(doppel) ")
            # A signal between the prompt and readline's select() would be seen only with the next key.
            time.sleep(0.5)
        terminal.signal(number)
        assert terminal.wait() == 128 + number
        assert terminal.attributes() == before


def test_stopped_and_continued(make: Make) -> None:
    with on_terminal(*run_args(make(ECHO))) as terminal:
        before = begin(terminal)
        terminal.signal(signal.SIGTSTP)
        terminal.wait_stopped()
        assert terminal.attributes() == before
        terminal.signal(signal.SIGCONT)
        terminal.wait_raw(True)
        terminal.send("A")
        terminal.expect("B")
        terminal.send("q")
        assert terminal.wait() == 3
        assert terminal.attributes() == before


def test_input_from_a_pipe_and_output_to_a_terminal(make: Make) -> None:
    """Without a keyboard Ctrl-C is the way out."""
    program = f"""
import signal, subprocess, sys
signal.signal(signal.SIGINT, lambda number, frame: None)
sys.exit(subprocess.call([sys.executable, *{run_args(make(ECHO))!r}], stdin=subprocess.DEVNULL))
"""
    with on_terminal("-c", program) as terminal:
        terminal.expect("hello\r\n")
        assert not terminal.raw
        time.sleep(0.2)
        terminal.send("\x03")
        assert terminal.wait() == 130
