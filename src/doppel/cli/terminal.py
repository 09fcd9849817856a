"""The host's terminal in raw mode: every key goes through, and the old mode comes back in any case."""

from __future__ import annotations

import atexit
import os
import signal
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["STDIN", "STDOUT", "RawMode", "Terminated", "is_terminal", "signals_as_exceptions", "size"]

STDIN, STDOUT = 0, 1
_FATAL = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
# Indices of tcgetattr's list.
_IFLAG, _OFLAG, _CFLAG, _LFLAG, _CC = 0, 1, 2, 3, 6

Attributes = list[Any]


class Terminated(BaseException):
    """Another process, or somebody at another terminal, wants doppel to end; ``signal`` says how."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.strsignal(number))
        self.signal = number


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Have SIGTERM, SIGHUP and SIGINT raise :class:`Terminated` in the main thread, so that all is tidied up.

    Only the first one does; those that come while that is under way change nothing. Signals that the process
    was started to ignore, as by nohup(1), stay ignored.
    """
    raised = False

    def receive(number: int, frame: FrameType | None) -> None:
        nonlocal raised
        if not raised:
            raised = True
            raise Terminated(number)

    before = {number: handler for number in _FATAL if (handler := signal.getsignal(number)) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_terminal(fd: int) -> bool:
    """Whether the descriptor is open, and a terminal."""
    try:
        return os.isatty(fd)
    except OSError:
        return False


def size(fd: int) -> tuple[int, int] | None:
    """Rows and columns of the terminal, or None if it is none or does not know."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return None
    return (rows, columns) if rows and columns else None


class RawMode:
    """Raw mode for the terminal at a file descriptor; nothing at all if that is no terminal.

    A context manager, within which :meth:`leave` and :meth:`enter` switch it off and on. While it is on it is
    also left when the process stops (SIGTSTP), entered again when that goes on (SIGCONT), and left at the
    latest when Python ends. Output is not processed either: lines need a carriage return.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._on = False
        self._original: Attributes | None = termios.tcgetattr(fd) if is_terminal(fd) else None
        self._handlers: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    @property
    def possible(self) -> bool:
        """Whether there is a terminal."""
        return self._original is not None

    def __enter__(self) -> RawMode:
        if self._original is not None:
            atexit.register(self.leave)
            for number, handler in ((signal.SIGTSTP, self._stop), (signal.SIGCONT, self._go_on)):
                self._handlers[number] = signal.signal(number, handler)
            self.enter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.leave()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        atexit.unregister(self.leave)

    def enter(self) -> None:
        """Switch raw mode on."""
        if self._original is not None:
            self._on = True
            self._apply(_raw(self._original))

    def leave(self) -> None:
        """Switch it off."""
        if self._original is not None and self._on:
            self._on = False
            self._apply(self._original)

    def _apply(self, attributes: Attributes) -> None:
        try:
            # From the background this would stop the process with SIGTTOU.
            if os.tcgetpgrp(self._fd) == os.getpgrp():
                termios.tcsetattr(self._fd, termios.TCSANOW, attributes)
        except (termios.error, OSError):
            # The terminal is gone: nothing is left to restore.
            return

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._on and self._original is not None:
            self._apply(self._original)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        # Here the process stands still until SIGCONT.
        signal.signal(signal.SIGTSTP, self._stop)

    def _go_on(self, number: int, frame: FrameType | None) -> None:
        if self._on and self._original is not None:
            self._apply(_raw(self._original))


def _raw(original: Attributes) -> Attributes:
    """As cfmakeraw(3) has it."""
    raw = list(original)
    raw[_IFLAG] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    raw[_OFLAG] &= ~termios.OPOST
    raw[_LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    raw[_CFLAG] = raw[_CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    raw[_CC] = list(raw[_CC])
    raw[_CC][termios.VMIN], raw[_CC][termios.VTIME] = 1, 0
    return raw
