"""Which guest is meant, and how it is started."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from doppel.cli.downloads import prepare_guest
from doppel.cli.terminal import STDIN, is_terminal, size
from doppel.errors import DoppelError
from doppel.guests.catalog import GUESTS, GuestFiles
from doppel.guests.debian import Source
from doppel.guests.initramfs import run_argument
from doppel.guests.kernel import Kernel, load_kernel
from doppel.guests.symbols import SymbolFile, read_symbols

__all__ = ["NO_FIRMWARE", "Guest", "GuestOptions", "choose_guest"]

DEFAULT_GUEST = "debian"
FIRMWARE_GUEST = "opensbi"
# In place of firmware, as doppel.machine.BARE: the kernel itself begins in M mode.
NO_FIRMWARE = "none"
# Where firmware is on boards of this kind: a kernel linked for that place is made to run without any.
FIRMWARE_ADDRESS = 0x8000_0000


@dataclass(frozen=True)
class GuestOptions:
    """The options that say what to boot, as they were given; :func:`doppel.cli.app.run` describes them."""

    guest: str
    kernel: Path | None
    initrd: Path | None
    append: str
    firmware: str
    command: str | None
    source: Source
    symbols: Path | None = None


@dataclass(frozen=True)
class Guest:
    """What is booted. ``firmware`` is None for doppel's own SBI, a file, or NO_FIRMWARE.

    ``kernel`` is a path where the file can be read again, so that its bytes need not be kept for a reset.
    """

    kernel: Kernel | Path
    symbols: Mapping[str, int]
    initrd: Path | None
    firmware: Path | str | None
    append: str
    symbol_file: SymbolFile | None = None


def choose_guest(options: GuestOptions) -> Guest:
    """The guest that the options mean, downloaded if need be.

    Raises:
        DoppelError: there is no such guest, or it cannot be had.
    """
    name, path = options.guest, options.kernel
    symbol_file = read_symbols(options.symbols) if options.symbols is not None else None
    if options.initrd is not None and not options.initrd.is_file():
        raise DoppelError(f"there is no initrd {options.initrd}", "check the path")
    if name and name not in GUESTS:
        if path is not None:
            raise DoppelError(f"{name} and --kernel {path} are two kernels", "give one of them")
        name, path = "", Path(name)
        if not path.exists():
            raise DoppelError(
                f"{path} is neither a guest nor a file",
                f"the guests are: {', '.join(GUESTS)}; for a kernel, check the path",
            )
    # A kernel given without a guest is a guest by itself.
    alone = path is not None and not name
    files = GuestFiles("") if alone else prepare_guest(name or DEFAULT_GUEST, options.source)
    path = path or files.kernel
    if path is None:
        raise DoppelError(
            f"{name} is no system of its own", f"use it as firmware: doppel run --firmware {name}"
        )
    kernel = load_kernel(path)
    # doppel's own init takes orders on the command line.
    own_init = options.initrd is None and files.initrd is not None
    if options.command is not None and not own_init:
        raise DoppelError(
            "--command needs the initramfs of a guest that doppel knows",
            "leave out --initrd, and give --kernel only with the name of such a guest",
        )
    words = [files.append, *(_orders(options.command) if own_init else ()), options.append]
    return Guest(
        path if path.is_file() else kernel,
        kernel.symbols | (symbol_file.values if symbol_file is not None else {}),
        options.initrd or files.initrd,
        _choose_firmware(options, kernel),
        # What the user wants comes last, because Linux takes the last word on most things.
        " ".join(filter(None, words)),
        symbol_file,
    )


def _choose_firmware(options: GuestOptions, kernel: Kernel) -> Path | str | None:
    match options.firmware:
        case "":
            alone = not kernel.relocatable and kernel.entry == FIRMWARE_ADDRESS
            return NO_FIRMWARE if alone else None
        case "sbi":
            return None
        case "none":
            return NO_FIRMWARE
        case "opensbi":
            return prepare_guest(FIRMWARE_GUEST, options.source).firmware
    return Path(options.firmware)


def _orders(command: str | None) -> list[str]:
    """For doppel's own init: what to run, and what terminal its console is on."""
    words = [] if command is None else ["quiet", run_argument(command)]
    if is_terminal(STDIN):
        words.append(f"doppel.term={_terminal_name()}")
        if (fits := size(STDIN)) is not None:
            words.append(f"doppel.size={fits[0]}x{fits[1]}")
    return words


def _terminal_name() -> str:
    name = os.environ.get("TERM", "")
    return name if re.fullmatch(r"[\w.+-]{1,40}", name, re.ASCII) else "vt100"
