"""A machine and the person at its console: until the machine ends, or somebody ends it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING

from doppel.cli.keys import HELP, Key

if TYPE_CHECKING:
    from doppel.cli.console import TerminalConsole
    from doppel.cli.terminal import RawMode
    from doppel.machine import Machine, Outcome

__all__ = ["ConsoleSession"]


class ConsoleSession:
    """Runs a booted machine. ``events`` is where the console puts keys, ``symbols`` are for the monitor."""

    def __init__(
        self,
        machine: Machine,
        console: TerminalConsole,
        terminal: RawMode,
        events: Queue[Key | Outcome],
        symbols: Mapping[str, int],
    ) -> None:
        self._machine = machine
        self._console = console
        self._terminal = terminal
        self._events = events
        self._symbols = symbols

    def run(self, timeout: float | None = None) -> Outcome | None:
        """Until the guest ends (its outcome) or somebody leaves (None).

        Raises:
            TimeoutError: after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        self._machine.start()
        self._watch()
        self._console.start_input()
        while True:
            match self._next_event(deadline):
                case Key.LEAVE:
                    return None
                case Key.MONITOR:
                    if not self._monitor():
                        return None
                case Key.HELP:
                    self._console.say("\n" + HELP)
                case outcome:
                    if outcome is self._machine.outcome:
                        return outcome
                    # The machine was reset at the monitor prompt after it had ended.
                    self._watch()

    def _next_event(self, deadline: float | None) -> Key | Outcome:
        try:
            if deadline is None:
                return self._events.get()
            return self._events.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            raise TimeoutError from None

    def _watch(self) -> None:
        Thread(target=lambda: self._events.put(self._machine.wait()), name="outcome", daemon=True).start()

    def _monitor(self) -> bool:
        """The monitor prompt; whether the machine goes on."""
        from doppel.cli.monitor.prompt import prompt
        from doppel.cli.monitor.session import Session

        self._machine.pause()
        self._console.stop_input()
        self._console.drain()
        self._terminal.leave()
        if not prompt(Session(self._machine, self._symbols)):
            return False
        self._terminal.enter()
        self._console.start_input()
        if self._machine.outcome is None:
            self._machine.resume()
        return True
