"""``doppel run``: a machine with this terminal as its console, from the options to the exit status."""

from __future__ import annotations

import os
import re
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Literal, Protocol, TypeVar

from doppel.cli import complain
from doppel.cli.console import TerminalConsole
from doppel.cli.images import prepare_guest
from doppel.cli.keys import Key
from doppel.cli.options import parse_disk, parse_network, parse_share, parse_size
from doppel.cli.progress import announced_engine
from doppel.cli.session import ConsoleSession, TimedOut
from doppel.cli.summary import detail_lines, summary_line
from doppel.cli.terminal import RawMode, Terminated, signals_as_exceptions, size
from doppel.errors import DoppelError
from doppel.guests.catalog import GUESTS, GuestFiles
from doppel.guests.debian import Source
from doppel.guests.initramfs import run_argument
from doppel.guests.kernel import Kernel, load_kernel
from doppel.machine import BARE, Machine, Outcome

__all__ = ["RunOptions", "run"]

TIMED_OUT = 124
DEFAULT_GUEST = "debian"
FIRMWARE_GUEST = "opensbi"
# Where firmware is on boards of this kind: a kernel linked for that place is made to run without any.
FIRMWARE_ADDRESS = 0x8000_0000


class Closable(Protocol):
    """What has to be closed."""

    def close(self) -> None:
        """Give up what it holds."""


Resource = TypeVar("Resource", bound=Closable)


@dataclass(frozen=True)
class RunOptions:
    """The options as they were given; :func:`doppel.cli.app.run` describes them."""

    guest: str
    kernel: Path | None
    initrd: Path | None
    append: str
    firmware: str
    memory: str
    harts: int
    disks: tuple[str, ...]
    networks: tuple[str, ...]
    shares: tuple[str, ...]
    clock: Literal["host", "icount"]
    command: str | None
    timeout: float | None
    stats: bool
    source: Source


@dataclass(frozen=True)
class Guest:
    """What is booted. ``own_init`` is whether the initramfs is doppel's, whose init takes orders."""

    kernel: Kernel
    initrd: Path | None
    firmware: Path | str | None
    append: str
    own_init: bool


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
    if options.initrd is not None and not options.initrd.is_file():
        raise DoppelError(f"there is no initrd {options.initrd}", "check the path")
    shares = [parse_share(text, number) for number, text in enumerate(options.shares)]
    with ExitStack() as stack:
        disks = [_kept(stack, parse_disk(text).open()) for text in options.disks]
        networks = [_kept(stack, parse_network(text)) for text in options.networks]
        guest = _choose_guest(options)
        terminal = RawMode(sys.stdin.fileno())
        events: Queue[Key | Outcome] = Queue()
        console = TerminalConsole(
            sys.stdin.fileno(),
            sys.stdout.fileno(),
            events.put if terminal.possible else None,
            plain_lines=options.command is not None and not sys.stdout.isatty(),
        )
        _kept(stack, console)
        with announced_engine():
            machine = Machine(
                memory,
                options.harts,
                firmware=guest.firmware,
                clock=options.clock,
                console=console,
                disks=disks,
                networks=networks,
                shares=[(share.tag, share.path, share.readonly) for share in shares],
            )
        with machine:
            machine.boot(guest.kernel, guest.initrd, _command_line(guest, options))
            session = ConsoleSession(machine, console, terminal, events, guest.kernel.symbols)
            return _interact(session, machine, terminal, options)


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
            except TimedOut:
                status, message = TIMED_OUT, f"the machine was ended after {options.timeout:g} seconds"
            finally:
                # Its last output belongs on the terminal as it is now.
                machine.close()
    finally:
        sys.stdout.flush()
        if message:
            complain(message)
        complain(summary_line(machine.statistics))
        if options.stats:
            for line in detail_lines(machine.statistics):
                complain(line)
    return status


# --- what to boot ---


def _choose_guest(options: RunOptions) -> Guest:
    name, path = options.guest, options.kernel
    if name and name not in GUESTS:
        if path is not None:
            raise DoppelError(f"{name} and --kernel {path} are two kernels", "give one of them")
        name, path = "", Path(name)
        if not path.exists():
            raise DoppelError(
                f"{path} is neither a guest nor a file",
                f"the guests are: {', '.join(GUESTS)}; for a kernel, check the path",
            )
    files = (
        GuestFiles("")
        if path is not None and not name
        else prepare_guest(name or DEFAULT_GUEST, options.source)
    )
    path = path or files.kernel
    if path is None:
        raise DoppelError(
            f"{name} is no system of its own", f"use it as firmware: doppel run --firmware {name}"
        )
    kernel = load_kernel(path)
    own_init = options.initrd is None and files.initrd is not None
    if options.command is not None and not own_init:
        raise DoppelError(
            "--command takes the init of doppel's own guests",
            "leave out --command, --kernel and --initrd, or two of them",
        )
    return Guest(
        kernel,
        options.initrd or files.initrd,
        _choose_firmware(options, kernel),
        files.append,
        own_init,
    )


def _choose_firmware(options: RunOptions, kernel: Kernel) -> Path | str | None:
    """None for doppel's own SBI, a file, or BARE."""
    match options.firmware:
        case "":
            absolute = not kernel.relocatable
            return BARE if absolute and kernel.entry == FIRMWARE_ADDRESS else None
        case "sbi":
            return None
        case "none":
            return BARE
        case "opensbi":
            return prepare_guest(FIRMWARE_GUEST, options.source).firmware
    return Path(options.firmware)


def _command_line(guest: Guest, options: RunOptions) -> str:
    """For the kernel; what the user wants comes last, because Linux takes the last word on most things."""
    words = [guest.append]
    if guest.own_init:
        if options.command is not None:
            words += ["quiet", run_argument(options.command)]
        if sys.stdin.isatty():
            words.append(f"doppel.term={_terminal_name()}")
            if (fits := size(sys.stdin.fileno())) is not None:
                words.append(f"doppel.size={fits[0]}x{fits[1]}")
    return " ".join(filter(None, [*words, options.append]))


def _terminal_name() -> str:
    name = os.environ.get("TERM", "")
    return name if re.fullmatch(r"[\w.+-]{1,40}", name, re.ASCII) else "vt100"
