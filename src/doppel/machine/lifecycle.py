"""The life of a machine: it is started, paused, reset, and comes to an end.

One thread at a time conducts: it runs the harts until something happens, and then does what that takes.
Everybody else only says what is to happen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Condition, Thread, current_thread
from typing import Literal

from doppel.errors import DoppelError
from doppel.machine.execution import Execution
from doppel.machine.exits import GuestFailure

__all__ = ["Lifecycle", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """How a machine ended.

    ``poweroff``: the guest powered it off, with the exit code ``status``. ``reboot``: the guest asked for
    a reset that the machine was told not to do. ``stopped``: somebody stopped it from outside.
    ``failed``: it could not go on; ``message`` says why and ``error`` is the exception behind that, if
    there was one.
    """

    kind: Literal["poweroff", "reboot", "stopped", "failed"]
    status: int = 0
    message: str = ""
    error: BaseException | None = field(default=None, compare=False, repr=False)


class Lifecycle:
    """``power_on`` brings the machine into the state in which it begins. ``flush`` is called just before the
    end, to hand over the last output, and ``on_end`` just after it.
    """

    def __init__(
        self,
        execution: Execution,
        power_on: Callable[[], None],
        flush: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self._execution = execution
        self._power_on = power_on
        self._flush = flush
        self._on_end = on_end
        self._changed = Condition()
        self._conductor: Thread | None = None
        self.running = False
        """Whether somebody runs the harts."""
        self._event: Outcome | None = None
        self._restart = False
        self._pausing = False
        self._began = 0.0
        self._seconds = 0.0
        self.outcome: Outcome | None = None

    @property
    def seconds(self) -> float:
        """How long the machine has been running."""
        with self._changed:
            return self._seconds + (time.monotonic() - self._began if self.running else 0.0)

    # --- what is to happen, from any thread ---

    def end(self, outcome: Outcome) -> None:
        """Let the machine end; of several reasons the first one counts. Does not wait."""
        with self._changed:
            self._event = self._event or outcome
        self._execution.halt()

    def restart(self) -> None:
        """Let the machine begin anew. Does not wait."""
        with self._changed:
            self._restart = True
        self._execution.halt()

    def start(self) -> None:
        """Run, or go on after a pause."""
        with self._changed:
            if self.outcome is not None:
                raise DoppelError(f"the machine has ended ({self.outcome.kind})", "reset or boot it first")
            if self.running:
                return
            self._pausing = False
            self._execution.go_on()
            self._began = time.monotonic()
            # Known before it runs: the first callback of a device already asks whether it is inside.
            self._conductor = Thread(target=self._conduct, name="conductor", daemon=True)
            self.running = True
            self._conductor.start()

    def pause(self) -> None:
        """Returns when no hart executes any more; from a callback of a device, before that."""
        with self._changed:
            self._pausing = True
            conductor = self._conductor
        if conductor is not None:
            self._execution.halt()
            if not self.inside:
                # One that has nothing to run any more still has its last words to say.
                conductor.join()

    def stop(self) -> None:
        """End the machine if it has not ended, and wait for that as in :meth:`pause`."""
        self.end(Outcome("stopped"))
        self.pause()
        if not self.inside:
            self.settle()

    @property
    def inside(self) -> bool:
        """Whether this thread runs harts, so that it cannot wait for them."""
        thread = current_thread()
        return thread is self._conductor or thread in self._execution.threads

    def wait(self, timeout: float | None) -> Outcome:
        """The outcome; TimeoutError if there is none within ``timeout`` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.outcome is not None, timeout):
                raise TimeoutError(f"the machine has not ended within {timeout:g} s")
            assert self.outcome is not None
            return self.outcome

    def begin_anew(self) -> None:
        """Power on at once. The machine must not be running."""
        with self._changed:
            self._event = None
            self._restart = False
            self.outcome = None
        self._power_on()

    def settle(self) -> None:
        """Do what was asked for while nobody ran the harts."""
        with self._changed:
            event, restart = self._event, self._restart
        if event is not None:
            self._finish(event)
        elif restart:
            self.begin_anew()

    # --- the conductor ---

    def _conduct(self) -> None:
        try:
            event = self._run()
        except GuestFailure as failure:
            event = Outcome("failed", 1, str(failure), failure.__cause__ or failure)
        except DoppelError as error:
            event = Outcome("failed", 1, str(error), error)
        except BaseException as error:
            event = Outcome("failed", 1, f"internal error: {error!r}", error)
        self._finish(event)

    def _run(self) -> Outcome | None:
        """What the machine ended with, or None if it is to pause."""
        while True:
            self._execution.run()
            with self._changed:
                if self._event is not None:
                    return self._event
                restart, self._restart = self._restart, False
                if self._pausing and not restart:
                    return None
                # A pause stays in force, so that the next run returns at once.
                if not self._pausing:
                    self._execution.go_on()
            if restart:
                self._power_on()

    def _finish(self, event: Outcome | None) -> None:
        """Nobody runs the harts any more, and with an event never will."""
        if event is not None:
            try:
                self._flush()
            except Exception as error:
                event = Outcome("failed", 1, f"the last output could not be handed over: {error!r}", error)
        with self._changed:
            if self._conductor is current_thread():
                self._seconds += time.monotonic() - self._began
                self.running = False
            self.outcome = self.outcome or event
            self._changed.notify_all()
        if event is not None:
            self._on_end()
