"""``doppel run``: a machine with this terminal as its console, from the options to the exit status."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from queue import Queue
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from doppel.cli import complain, flush_output, show
from doppel.cli.guest import GuestOptions, choose_guest
from doppel.cli.options import parse_disk, parse_network, parse_share, parse_size
from doppel.cli.progress import announced_engine
from doppel.cli.summary import detail_lines, summary_line
from doppel.cli.terminal import STDIN, STDOUT, RawMode, Terminated, is_terminal, signals_as_exceptions
from doppel.errors import DoppelError

if TYPE_CHECKING:
    from doppel.cli.keys import Key
    from doppel.cli.session import ConsoleSession
    from doppel.machine import Machine, Outcome

__all__ = ["RunOptions", "run"]

TIMED_OUT = 124


class Closable(Protocol):
    """What has to be closed."""

    def close(self) -> None:
        """Give up what it holds."""


Resource = TypeVar("Resource", bound=Closable)


@dataclass(frozen=True)
class RunOptions:
    """The options as they were given; :func:`doppel.cli.app.run` describes them."""

    guest: GuestOptions
    memory: str
    harts: int
    disks: tuple[str, ...]
    networks: tuple[str, ...]
    shares: tuple[str, ...]
    clock: Literal["host", "icount"]
    compile: Literal["hot", "all", "off"]
    timeout: float | None
    stats: bool
    perf_map: bool


def run(options: RunOptions) -> int:
    """Run a machine as the options say; the exit status.

    Raises:
        DoppelError: an option, or what it names, is wrong.
    """
    try:
        with signals_as_exceptions():
            return _run(options)
    except Terminated as error:
        complain(str(error).lower())
        return 128 + error.signal


def _run(options: RunOptions) -> int:
    # What can be found wrong without downloading anything, or loading the engine, comes first.
    memory = parse_size(options.memory)
    if options.timeout is not None and not options.timeout > 0:
        raise DoppelError("the timeout must be more than 0 seconds", "leave out --timeout for no limit")
    shares = [parse_share(text, number) for number, text in enumerate(options.shares)]
    with ExitStack() as stack:
        disks = [_kept(stack, parse_disk(text).open()) for text in options.disks]
        networks = [_kept(stack, parse_network(text)) for text in options.networks]
        guest = choose_guest(options.guest)
        with announced_engine():
            # From here on it is about a real machine, whose code takes a moment to load.
            from doppel.cli.console import TerminalConsole
            from doppel.cli.session import ConsoleSession
            from doppel.machine import Machine

            terminal = RawMode(STDIN)
            events: Queue[Key | Outcome] = Queue()
            console = TerminalConsole(
                STDIN,
                STDOUT,
                events.put if terminal.possible else None,
                plain_lines=_plain_lines(terminal, options.guest.command),
            )
            _kept(stack, console)
            machine = Machine(
                memory,
                options.harts,
                firmware=guest.firmware,
                clock=options.clock,
                console=console,
                disks=disks,
                networks=networks,
                shares=[(share.tag, share.path, share.readonly) for share in shares],
                compile=options.compile,
                perf_map=options.perf_map,
            )
        with machine:
            machine.boot(guest.kernel, guest.initrd, guest.append, guest.symbol_file)
            session = ConsoleSession(machine, console, terminal, events, guest.symbols)
            try:
                return _interact(session, machine, terminal, options)
            finally:
                if console.lost:
                    complain(f"{console.lost} bytes of output were lost: nobody read them in time")


def _plain_lines(terminal: RawMode, command: str | None) -> bool:
    """Whether carriage returns of the guest should be left out.

    The host's terminal adds its own unless it is raw, and a file with a command's output should have none.
    """
    return not terminal.possible if is_terminal(STDOUT) else command is not None


def _kept(stack: ExitStack, resource: Resource) -> Resource:
    """Have a resource closed at the end, also if there never is a machine to do it."""
    stack.callback(resource.close)
    return resource


def _interact(session: ConsoleSession, machine: Machine, terminal: RawMode, options: RunOptions) -> int:
    status, message = 0, ""
    try:
        with terminal:
            try:
                outcome = session.run(options.timeout)
                if outcome is not None:
                    status, message = outcome.status, outcome.message
            except TimeoutError:
                status, message = TIMED_OUT, f"the machine was ended after {options.timeout:g} seconds"
            finally:
                # Its last output belongs on the terminal as it is now.
                machine.close()
    finally:
        flush_output()
        if message:
            complain(message)
        complain(summary_line(machine.statistics))
        if options.stats:
            show(detail_lines(machine.statistics))
    return status
