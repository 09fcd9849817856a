"""doppel as a process: with pipes, and on a terminal of its own (a pty) below a very small shell."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import doppel

SOURCE = Path(doppel.__file__).parents[1]
PATIENCE = 60.0

# What a shell with job control does: it leads the session that owns the terminal and puts its one job in the
# foreground. It tells on stderr when the job stops, and ends with its exit status (128 + n for signal n).
SHELL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
os.write(2, f"child {child}\\n".encode())
while True:
    _, status = os.waitpid(child, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        os.write(2, b"stopped\\n")
        continue
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)
"""


def environment(**changes: str) -> dict[str, str]:
    """The environment for doppel: this source tree, no colours."""
    paths = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": paths, "TERM": "dumb", "COLUMNS": "200", **changes}


def doppel_run(
    *arguments: str | Path, env: dict[str, str] | None = None, **options: object
) -> subprocess.CompletedProcess[str]:
    """Run ``doppel ARGUMENTS`` to its end, with pipes."""
    return subprocess.run(
        [sys.executable, "-m", "doppel.cli", *map(str, arguments)],
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        stdin=options.pop("stdin", subprocess.DEVNULL),  # type: ignore[call-overload]
        **options,
    )


class Terminal:
    """A Python program on a terminal; what it shows is collected in ``text``."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str] | None = None) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(self.master, (40, 200))
        self.process = subprocess.Popen(
            [sys.executable, "-c", SHELL, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            env=environment(**(env or {})),
            start_new_session=True,
        )
        os.close(slave)
        self.text = ""
        assert self.process.stderr is not None
        self.child = int(self._line().split()[1])

    def _line(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline().decode()

    def attributes(self) -> list[object]:
        """The terminal's mode."""
        return termios.tcgetattr(self.master)

    @property
    def raw(self) -> bool:
        """Whether keys go through as they are."""
        flags = termios.tcgetattr(self.master)[3]
        assert isinstance(flags, int)
        return not flags & (termios.ICANON | termios.ECHO | termios.ISIG)

    def wait_raw(self, wanted: bool) -> None:
        """Wait until the terminal is in raw mode, or is not."""
        end = time.monotonic() + PATIENCE
        while self.raw != wanted:
            assert time.monotonic() < end, f"raw mode is not {wanted}; on the terminal: {self.text!r}"
            time.sleep(0.01)

    def send(self, text: str) -> None:
        """Type."""
        os.write(self.master, text.encode())

    def expect(self, text: str) -> None:
        """Read until the text has been shown, and forget what was shown up to its end."""
        end = time.monotonic() + PATIENCE
        while text not in self.text:
            left = end - time.monotonic()
            if left < 0 or not self._read(left):
                raise AssertionError(f"{text!r} was not shown but {self.text!r}")
        self.text = self.text.partition(text)[2]

    def _read(self, timeout: float) -> bool:
        if not select.select([self.master], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.text += data.decode("utf-8", "replace")
        return bool(data)

    def signal(self, number: int) -> None:
        """Send a signal to the program."""
        os.kill(self.child, number)

    def wait_stopped(self) -> None:
        """Wait until the program is stopped."""
        line = self._line()
        assert line == "stopped\n", line

    def wait(self) -> int:
        """The program's exit status; what it shows until then is collected."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < end, f"the program does not end; on the terminal: {self.text!r}"
            self._read(0.05)
        while self._read(0):
            pass
        return self.process.returncode

    @property
    def errors(self) -> str:
        """What the program wrote to stderr; for when it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def close(self) -> None:
        """End everything."""
        if self.process.poll() is None:
            os.kill(self.child, signal.SIGKILL)
            self.process.wait(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()
        os.close(self.master)


@contextmanager
def on_terminal(*arguments: str, env: dict[str, str] | None = None) -> Iterator[Terminal]:
    """A Python program, ``python ARGUMENTS``, on a terminal."""
    terminal = Terminal(arguments, env)
    try:
        yield terminal
    finally:
        terminal.close()
