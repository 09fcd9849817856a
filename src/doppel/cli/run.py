"""``doppel run``: a machine with this terminal as its console, from the options to the exit status."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from doppel.cli import complain
from doppel.cli.options import parse_disk, parse_network, parse_share, parse_size
from doppel.cli.terminal import RawMode, Terminated, signals_as_exceptions, size
from doppel.errors import DoppelError

if TYPE_CHECKING:
    from doppel.machine import Machine, Outcome

__all__ = ["RunOptions", "run"]

FAILED, TIMED_OUT = 1, 124
DEFAULT_GUEST = "debian"


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
    clock: str
    command: str | None
    timeout: float | None
    stats: bool
    mirror: str
    debs: tuple[Path, ...]
    keyring: Path | None
    refresh: bool


@dataclass(frozen=True)
class Guest:
    """What is booted. ``own`` is whether the initramfs is doppel's, whose init takes orders."""

    kernel: Path
    initrd: Path | None
    append: str
    own: bool


def run(options: RunOptions) -> int:
    """Run a machine as the options say; the exit status.

    Raises:
        DoppelError: an option, or what it names, is wrong.
    """
    try:
        with signals_as_exceptions():
            return _run(options)
    except Terminated as error:
        complain(f"ended by {error}")
        return 128 + error.signal


def _run(options: RunOptions) -> int:
    # What can be found wrong without downloading anything, or loading the engine, comes first.
    memory = parse_size(options.memory)
    if options.timeout is not None and not options.timeout > 0:
        raise DoppelError("the timeout must be more than 0 seconds", "leave out --timeout for no limit")
    if options.initrd is not None and not options.initrd.is_file():
        raise DoppelError(f"there is no initrd {options.initrd}", "check the path")
    disks = [parse_disk(text) for text in options.disks]
    shares = [parse_share(text, number) for number, text in enumerate(options.shares)]
    with contextlib.ExitStack() as stack:
        opened_disks = []
        for disk in disks:
            opened_disks.append(disk.open())
            stack.callback(opened_disks[-1].close)
        networks = []
        for text in options.networks:
            networks.append(parse_network(text))
            stack.callback(networks[-1].close)
        guest = _guest(options)
