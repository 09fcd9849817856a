"""The command line.

:func:`main` is the program. What it needs before it knows which command is wanted is little, so that a
mistyped option is answered at once; the commands import the rest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from doppel.errors import DoppelError

__all__ = ["main"]

BAD_INPUT = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run doppel with these command-line arguments (by default those of the process); the exit status.

    Status 2: bad input, with one line on stderr that says what to do. 128 + n: ended by signal n.
    """
    try:
        from doppel.cli.app import dispatch

        status = dispatch(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return status
    except DoppelError as error:
        complain(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def complain(message: str) -> None:
    """Say something on stderr, in one line."""
    print(f"doppel: {' '.join(message.split())}", file=sys.stderr)
