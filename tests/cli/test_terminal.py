"""Raw mode comes and goes with the program, however that ends."""

from __future__ import annotations

import signal

import pytest

from .support import on_terminal

BEGIN = """
import os, sys, time
from doppel.cli.terminal import RawMode, Terminated, signals_as_exceptions
"""


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("", 0),
        ("sys.exit(7)", 7),
        ("raise RuntimeError('oops')", 1),
        ("raise KeyboardInterrupt", 130),
    ],
)
def test_restored_at_the_end(ending: str, status: int) -> None:
    program = (
        BEGIN
        + f"""
with RawMode(0):
    os.write(1, b"raw")
    os.read(0, 1)
    {ending}
"""
    )
    with on_terminal("-c", program) as terminal:
        before = terminal.attributes()
        terminal.expect("raw")
        assert terminal.raw
        terminal.send("x")
        assert terminal.wait() == status
        assert terminal.attributes() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_restored_after_a_signal(number: int) -> None:
    program = (
        BEGIN
        + """
try:
    with signals_as_exceptions(), RawMode(0):
        os.write(1, b"raw")
        time.sleep(60)
except Terminated as error:
    sys.exit(100 + error.signal)
"""
    )
    with on_terminal("-c", program) as terminal:
        before = terminal.attributes()
        terminal.expect("raw")
        assert terminal.raw
        terminal.signal(number)
        assert terminal.wait() == 100 + number
        assert terminal.attributes() == before


def test_restored_when_the_block_is_never_left() -> None:
    program = (
        BEGIN
        + """
mode = RawMode(0)
mode.__enter__()
os.write(1, b"raw")
os.read(0, 1)
"""
    )
    with on_terminal("-c", program) as terminal:
        before = terminal.attributes()
        terminal.expect("raw")
        terminal.send("x")
        assert terminal.wait() == 0
        assert terminal.attributes() == before


def test_left_while_the_process_is_stopped() -> None:
    program = (
        BEGIN
        + """
with RawMode(0):
    os.write(1, b"raw")
    while os.read(0, 1) != b"x":
        os.write(1, b"again")
"""
    )
    with on_terminal("-c", program) as terminal:
        before = terminal.attributes()
        terminal.expect("raw")
        for _ in range(2):
            terminal.signal(signal.SIGTSTP)
            terminal.wait_stopped()
            assert terminal.attributes() == before
            terminal.signal(signal.SIGCONT)
            terminal.wait_raw(True)
            terminal.send("y")
            terminal.expect("again")
        terminal.send("x")
        assert terminal.wait() == 0
        assert terminal.attributes() == before


def test_keys_go_through_as_they_are() -> None:
    program = (
        BEGIN
        + """
with RawMode(0):
    os.write(1, b"raw")
    data = b""
    while not data.endswith(b"!"):
        data += os.read(0, 100)
    os.write(1, repr(data).encode() + b"\\n.")
"""
    )
    with on_terminal("-c", program) as terminal:
        terminal.expect("raw")
        terminal.send("\x03\x1a\x11\x13\x04\r\n\x16\x7f!")
        # Neither is the newline in the output turned into anything.
        terminal.expect(repr(b"\x03\x1a\x11\x13\x04\r\n\x16\x7f!") + "\n.")


def test_switched_off_and_on_within() -> None:
    program = (
        BEGIN
        + """
with RawMode(0) as mode:
    for switch in (mode.leave, mode.leave, mode.enter, mode.enter):
        switch()
        os.write(1, b"switched")
        os.read(0, 1)
"""
    )
    with on_terminal("-c", program) as terminal:
        for raw in (False, False, True, True):
            terminal.expect("switched")
            assert terminal.raw == raw
            terminal.send("\n")
        assert terminal.wait() == 0


def test_nothing_to_do_without_a_terminal() -> None:
    import os

    from doppel.cli.terminal import RawMode, size

    reading, writing = os.pipe()
    try:
        with RawMode(reading) as mode:
            assert not mode.possible
            mode.leave()
            mode.enter()
        assert size(reading) is None
    finally:
        os.close(reading)
        os.close(writing)
