"""The console on standard input and output, and the keys that doppel takes for itself."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Queue

import pytest

from doppel.cli import console as console_module
from doppel.cli.console import TerminalConsole
from doppel.cli.keys import EscapeFilter, Key


def typed(data: bytes) -> list[bytes | Key]:
    keys = EscapeFilter()
    return [result for byte in data if (result := keys.put(byte)) != b""]


@pytest.mark.parametrize(
    ("data", "results"),
    [
        (b"ab\x00\xff", [b"a", b"b", b"\x00", b"\xff"]),
        (b"\x01x", [Key.LEAVE]),
        (b"\x01X", [Key.LEAVE]),
        (b"\x01c\x01h", [Key.MONITOR, Key.HELP]),
        (b"\x01\x01", [b"\x01"]),
        (b"\x01a", [b"\x01"]),
        (b"\x01\x01x", [b"\x01", b"x"]),
        (b"\x01\x01\x01x", [b"\x01", Key.LEAVE]),
        (b"\x01?q", [Key.HELP, b"q"]),
        (b"\x01\xe9x", [Key.HELP, b"x"]),
        (b"xch\x01", [b"x", b"c", b"h"]),
    ],
)
def test_keys(data: bytes, results: list[bytes | Key]) -> None:
    assert typed(data) == results


@dataclass
class Pipes:
    to_console: int
    from_console: int
    make: Callable[..., TerminalConsole]

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = os.read(self.from_console, size - len(data))
            assert piece, f"the output ends after {data!r}"
            data += piece
        return data


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    input_read, input_write = os.pipe()
    output_read, output_write = os.pipe()
    made: list[TerminalConsole] = []

    def make(on_key: Callable[[Key], None] | None = None, **options: bool) -> TerminalConsole:
        made.append(TerminalConsole(input_read, output_write, on_key, **options))
        return made[0]

    yield Pipes(input_write, output_read, make)
    for fd in (output_read, input_write):
        with contextlib.suppress(OSError):
            os.close(fd)
    for console in made:
        console.close()
    os.close(input_read)
    os.close(output_write)


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_output_arrives_in_order(pipes: Pipes) -> None:
    console = pipes.make()
    for number in range(1000):
        console.write(f"{number}\n".encode())
    expected = "".join(f"{number}\n" for number in range(1000)).encode()
    assert pipes.read(len(expected)) == expected
    console.drain()


def test_output_never_waits_and_is_lost_beyond_a_limit(pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "OUTPUT_LIMIT", 1 << 20)
    console = pipes.make()
    piece = bytes(1000)
    before = time.monotonic()
    for _ in range(2000):
        console.write(piece)
    assert time.monotonic() - before < 10
    assert console.lost > 0
    kept = 2_000_000 - console.lost
    assert pipes.read(kept) == bytes(kept)
    console.drain()


def test_output_without_a_reader_is_dropped(pipes: Pipes) -> None:
    console = pipes.make()
    os.close(pipes.from_console)
    console.write(b"nobody reads this")
    console.drain()
    console.write(b"nor this")
    console.drain()


def test_close_writes_what_is_left(pipes: Pipes) -> None:
    console = pipes.make(plain_lines=True)
    console.write(b"one\r\ntwo\r")
    console.write(b"\nthree\r")
    console.close()
    console.close()
    assert pipes.read(14) == b"one\ntwo\nthree\r"


def test_messages_end_lines_for_a_raw_terminal(pipes: Pipes) -> None:
    pipes.make().say("a\nb\n")
    assert pipes.read(6) == b"a\r\nb\r\n"


def test_input_from_a_pipe_is_not_searched_for_keys(pipes: Pipes) -> None:
    console = pipes.make()
    console.start_input()
    os.write(pipes.to_console, b"\x01x\x01c")
    wait_for(lambda: console.waiting == 4)
    assert console.read(10) == b"\x01x\x01c"


def test_input_waits_for_the_guest(pipes: Pipes) -> None:
    """A pipe is not read much faster than the guest reads, and nothing gets lost."""
    console = pipes.make()
    console.start_input()
    data = os.urandom(1 << 20)
    received = bytearray()
    view = memoryview(data)
    os.set_blocking(pipes.to_console, False)
    while len(received) < len(data):
        try:
            if view:
                view = view[os.write(pipes.to_console, view) :]
        except BlockingIOError:
            time.sleep(0.001)
        assert console.waiting <= 65536 + 4096
        received += console.read(8192)
    assert received == data


def test_end_of_input_is_silence(pipes: Pipes) -> None:
    console = pipes.make()
    console.start_input()
    os.write(pipes.to_console, b"last")
    os.close(pipes.to_console)
    wait_for(lambda: console.waiting == 4)
    console.stop_input()
    console.start_input()
    assert console.read(10) == b"last"


def test_what_follows_the_monitor_key_is_left_unread(pipes: Pipes) -> None:
    keys: Queue[Key] = Queue()
    console = pipes.make(keys.put)
    console.start_input()
    os.write(pipes.to_console, b"ab\x01creg\n")
    assert keys.get(timeout=20) is Key.MONITOR
    console.stop_input()
    assert console.read(10) == b"ab"
    assert os.read(console._input_fd, 100) == b"reg\n"
    console.start_input()
    os.write(pipes.to_console, b"cd\x01h\x01x")
    assert [keys.get(timeout=20), keys.get(timeout=20)] == [Key.HELP, Key.LEAVE]
    assert console.read(10) == b"cd"


def test_the_leave_key_gets_through_to_a_guest_that_does_not_read(
    pipes: Pipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_module, "TYPED_LIMIT", 100)
    keys: Queue[Key] = Queue()
    console = pipes.make(keys.put)
    console.start_input()
    os.write(pipes.to_console, b"a" * 1000 + b"\x01x")
    assert keys.get(timeout=20) is Key.LEAVE
    assert console.waiting == 100
