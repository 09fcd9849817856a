"""The console as a program uses it."""

from __future__ import annotations

import re
import threading
import time

import pytest

from doppel.devices.backends.characters import Buffer
from doppel.errors import DoppelError
from doppel.machine import console as console_module
from doppel.machine.console import Console

from .support import PATIENCE, POWEROFF, supervised


def _console(backend: Buffer | None = None, ended: list[str] | None = None) -> Console:
    reasons: list[str] = [] if ended is None else ended
    return Console(backend, lambda: reasons[0] if reasons else None)


def test_expect_goes_from_match_to_match() -> None:
    console = _console()
    console.write(b"one two one ")
    assert console.expect("one", 0).span() == (0, 3)
    assert console.expect(re.compile("o(n)e"), 0)[1] == "n"
    with pytest.raises(TimeoutError, match="'one'"):
        console.expect("one", 0)
    console.write(b"two")
    assert console.expect("two", 0)
    assert console.text == "one two one two"


def test_expect_waits_for_output() -> None:
    console = _console()
    timer = threading.Timer(0.1, console.write, (b"there",))
    timer.start()
    began = time.monotonic()
    console.expect("there", PATIENCE)
    assert 0.05 < time.monotonic() - began < PATIENCE / 2
    timer.join()


def test_a_timeout_shows_the_last_lines() -> None:
    console = _console()
    with pytest.raises(TimeoutError, match="it showed nothing"):
        console.expect("x", 0.01)
    console.write(b"booting\r\npanic\r\n")
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"'login:' within 0\.1 s; its last lines:\nbooting\npanic"):
        console.expect("login:", 0.1)
    assert time.monotonic() - began >= 0.1


def test_the_end_of_the_machine_ends_the_wait() -> None:
    reasons: list[str] = []
    console = _console(ended=reasons)

    def end() -> None:
        console.write(b"last words")
        reasons.append("the machine ended (failed)")
        console.notify_end()

    timer = threading.Timer(0.05, end)
    timer.start()
    with pytest.raises(DoppelError, match=r"did not show 'login:': the machine ended.*last words"):
        console.expect("login:", PATIENCE)
    timer.join()
    # What it said before still counts.
    assert console.expect("words", 0)


def test_skipping_what_was_said() -> None:
    console = _console()
    console.write(b"old new")
    console.skip()
    with pytest.raises(TimeoutError):
        console.expect("old", 0)
    console.write(b" old")
    console.expect("old", 0)


def test_characters_that_come_in_pieces() -> None:
    console = _console()
    for byte in "grün €\n".encode():
        console.write(bytes((byte,)))
    console.write(b"\xff")
    assert console.text == "grün €\n\ufffd"


def test_very_long_output_keeps_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "_LIMIT", 1000)
    console = _console()
    console.write(b"first ")
    console.expect("first", 0)
    for number in range(1000):
        console.write(f"line {number}\n".encode())
        if number % 10 == 0:
            assert console.expect(f"line {number}\n", 0)
    assert len(console.text) <= 1000
    assert console.text.endswith("line 999\n")
    assert console.expect("line 999", 0)
    with pytest.raises(TimeoutError):
        console.expect("line 998", 0)


def test_much_output_is_searched_in_reasonable_time() -> None:
    console = _console()
    line = b"x" * 79 + b"\n"

    def flood() -> None:
        for _ in range(20_000):
            console.write(line)
        console.write(b"done")

    thread = threading.Thread(target=flood)
    thread.start()
    console.expect("do(ne)", PATIENCE)
    thread.join()


def test_a_backend_sees_everything_and_is_heard() -> None:
    backend = Buffer()
    console = _console(backend)
    woken: list[int] = []
    console.connect(lambda: woken.append(console.waiting))
    console.write(b"out")
    assert bytes(backend.output) == b"out"
    backend.feed(b"typed")
    console.send("sent")
    assert woken == [5, 9]
    # What the program sends comes first; a limit holds across both.
    assert console.read(6) == b"sentty"
    assert console.waiting == 3
    assert console.read(100) == b"ped"


def test_input_that_waits_when_the_serial_port_is_connected() -> None:
    console = _console()
    console.send(b"early")
    woken: list[bool] = []
    console.connect(lambda: woken.append(True))
    assert woken == [True]


def test_both_directions_through_a_guest() -> None:
    # Sends back what it receives, one more than it was, up to a dot.
    text = """
        li s0, UART
        li s1, '.'
    1:  lbu t0, 5(s0)
        andi t0, t0, 1
        beqz t0, 1b
        lbu t0, 0(s0)
        beq t0, s1, 2f
        addi t0, t0, 1
        sb t0, 0(s0)
        j 1b
    2:
    """
    backend = Buffer()
    with supervised(text + POWEROFF, console=backend) as machine:
        machine.start()
        machine.console.send("HAL")
        machine.console.expect("IBM", PATIENCE)
        backend.feed(b"a" * 100)
        machine.console.expect("b{100}", PATIENCE)
        machine.console.send(".")
        assert machine.wait(PATIENCE).kind == "poweroff"
        assert machine.console.text == backend.output.decode() == "IBM" + "b" * 100
        with pytest.raises(DoppelError, match="poweroff"):
            machine.console.expect("more", PATIENCE)
