"""Running the harts: a thread for each, or all of them in turn on one thread.

Whatever runs the harts, :meth:`Execution.run` returns when :meth:`Execution.halt` was called, and until
then keeps every started hart executing. Work that needs all harts out of native code is done in
:meth:`Threads._exclusively`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Condition, Lock, Thread

from doppel.machine.exits import ExitHandler, GuestFailure, Next
from doppel.processor.exits import ExitReason
from doppel.processor.processor import Hart
from doppel.translate.exits import Request

__all__ = ["Execution", "Threads", "wait_until"]

# A hart answers a request at its next block end, mostly within a microsecond; one that lost its processor
# needs longer.
_SHORTEST_WAIT, _LONGEST_WAIT = 5e-6, 1e-3


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that other threads' native code does soon, leaving them the processor."""
    pause = 0.0
    while not condition():
        time.sleep(pause)
        pause = min(max(2 * pause, _SHORTEST_WAIT), _LONGEST_WAIT)


def _took_up(hart: Hart, request: int) -> bool:
    """Whether a hart has taken up a request, or will before its next instruction."""
    return not hart.state.requests & request or hart.waiting or not hart.running


class Execution(ABC):
    """Which harts are started, and what they are asked from outside.

    ``discard_code`` frees the room of all decoded code; no hart is in native code when it is called.
    """

    def __init__(self, harts: Sequence[Hart], handler: ExitHandler, discard_code: Callable[[], None]) -> None:
        self.harts = harts
        self.handler = handler
        self.discard_code = discard_code
        self.halting = False
        self.changed = Condition(Lock())
        self.threads: list[Thread] = []
        """The threads that run harts, beside the one that called :meth:`run`."""
        self._started = [False] * len(harts)

    @abstractmethod
    def run(self) -> None:
        """Execute until :meth:`halt`; raises what a hart failed with, mostly GuestFailure."""

    @abstractmethod
    def fence(self, harts: Iterable[int], caller: int) -> None:
        """Have the harts forget cached translations; returns when all have. Called by the hart ``caller``."""

    def halt(self) -> None:
        """Make the current or next :meth:`run` return soon, from any thread."""
        with self.changed:
            self.halting = True
            self.changed.notify_all()
        for hart in self.harts:
            hart.stop()

    def go_on(self) -> None:
        """Take :meth:`halt` back. Nothing may be running."""
        self.halting = False

    @abstractmethod
    def wake(self) -> None:
        """A hart may have something to do now. Called from any thread."""

    def started(self, hart: int) -> bool:
        """Whether the hart executes instructions, or could if it were not waiting."""
        return self._started[hart]

    def start(self, hart: int, prepare: Callable[[], None]) -> bool:
        """Have a stopped hart execute from the state that ``prepare`` gives it; False if it is not stopped.

        ``prepare`` may not wait for a lock.
        """
        with self.changed:
            if self._started[hart]:
                return False
            prepare()
            self._started[hart] = True
            self.changed.notify_all()
        return True

    def stop(self, hart: int) -> None:
        """A hart stops when the exit that it is in has been served; only its own thread may say so."""
        self._started[hart] = False

    def stop_all(self) -> None:
        """As after power-on. Nothing may be running."""
        for hart in self.harts:
            self._started[hart.index] = False

    def interrupt(self, harts: Iterable[int]) -> None:
        """Make the supervisor software interrupt pending."""
        for index in harts:
            self.harts[index].request(Request.SOFTWARE)
        self.wake()


class Threads(Execution):
    """A thread for each hart, so that they run at the same time where the host has processors for them."""

    def __init__(self, harts: Sequence[Hart], handler: ExitHandler, discard_code: Callable[[], None]) -> None:
        super().__init__(harts, handler, discard_code)
        self._exclusive = Lock()
        self._gate_closed = False
        self._error: BaseException | None = None

    def run(self) -> None:
        """Start the threads and wait for their end."""
        self._error = None
        threads = [
            Thread(target=self._thread, args=(hart,), name=f"hart {hart.index}", daemon=True)
            for hart in self.harts
        ]
        try:
            for thread in threads:
                self.threads.append(thread)
                thread.start()
        except RuntimeError as error:
            self.threads.pop()
            self._error = GuestFailure(f"the host does not give the machine its threads: {error}")
            self.halt()
        while self.threads:
            self.threads[-1].join()
            self.threads.pop()
        if self._error is not None:
            raise self._error

    def _thread(self, hart: Hart) -> None:
        try:
            self._run(hart)
        except BaseException as error:
            self._error = self._error or error
            self.halt()

    def _run(self, hart: Hart) -> None:
        run, device, counts = hart.run, self.handler.device, self.handler.counts[hart.index]
        accessed = ExitReason.DEVICE
        while self._wait_started(hart.index):
            while True:
                exit = run()
                reason = exit.reason
                counts[reason] += 1
                if reason is accessed:
                    device(hart, exit)
                    continue
                following = self.handler.other(hart, exit)
                if following is Next.STOPPED:
                    self._wait_at_gate()
                elif following is Next.DISCARD:
                    self._exclusively(self.discard_code)
                if self.halting or not self._started[hart.index]:
                    break

    def _wait_started(self, index: int) -> bool:
        """Wait while the hart is stopped; False if the machine is to halt."""
        with self.changed:
            self.changed.wait_for(lambda: self.halting or self._started[index])
            return not self.halting

    def _wait_at_gate(self) -> None:
        if self._gate_closed:
            with self.changed:
                self.changed.wait_for(lambda: not self._gate_closed)

    def _exclusively(self, work: Callable[[], None]) -> None:
        """Work while no hart is in native code.

        A hart that was just about to enter it finds the request to stop and leaves without having done
        anything.
        """
        with self._exclusive:
            self._gate_closed = True
            try:
                for hart in self.harts:
                    hart.stop()
                wait_until(lambda: not any(hart.running for hart in self.harts))
                work()
            finally:
                with self.changed:
                    self._gate_closed = False
                    self.changed.notify_all()

    def wake(self) -> None:
        """Harts wait in native code, and whoever gives them something to do wakes them there."""

    def fence(self, harts: Iterable[int], caller: int) -> None:
        """Complete when every hart that is in native code has served a request made after the flush was
        taken up.

        A hart takes up all its requests at once and serves them then, so the second request being taken
        up means that the first has been served. A hart outside native code serves requests when it enters
        it, and one in WFI when it wakes up, which a flush is no reason for; that also makes it impossible for
        two harts to wait for each other here.
        """
        targets = [self.harts[index] for index in harts]
        for request in (Request.FLUSH, Request.ATTEND):
            for hart in targets:
                hart.request(request)
            for hart in targets:
                if hart.index != caller:
                    wait_until(partial(_took_up, hart, request))
            targets = [hart for hart in targets if not hart.waiting]
