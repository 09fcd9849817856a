"""The command line.

:func:`main` is the program. What it needs before it knows which command is wanted is little, so that a
mistyped option is answered at once; the commands import the rest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from doppel.errors import DoppelError

__all__ = ["complain", "flush_output", "main", "show"]

BAD_INPUT = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run doppel with these command-line arguments (by default those of the process); the exit status.

    Status 2: bad input, with one line on stderr that says what to do. 128 + n: ended by signal n.
    """
    _fill_standard_descriptors()
    try:
        from doppel.cli.app import dispatch

        status = dispatch(sys.argv[1:] if arguments is None else arguments)
        flush_output()
        return status
    except DoppelError as error:
        complain(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _fill_standard_descriptors() -> None:
    """Have 0, 1 and 2 open, or the next file opened, a disk image perhaps, becomes the console."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is this one.
            os.open(os.devnull, os.O_RDWR)


def complain(message: str) -> None:
    """Say something on stderr, in one line."""
    # A process may be started without stderr, or without stdout: then Python has None there.
    if sys.stderr is not None:
        print(f"doppel: {' '.join(message.split())}", file=sys.stderr)


def show(lines: Iterable[str]) -> None:
    """Put lines on stderr as they are."""
    if sys.stderr is not None:
        print(*lines, sep="\n", file=sys.stderr)


def flush_output() -> None:
    """Have everything printed so far written."""
    if sys.stdout is not None:
        sys.stdout.flush()
