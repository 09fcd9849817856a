"""Running commands in a guest's shell over its serial console.

The shell is told to write a line before and a line after the command, which nothing else writes; what is
between them is the command's output. The lines are put together by the shell, so that the echo of what
was typed does not look like them. Any POSIX shell that sits at the console will do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from doppel.machine.console import Console

__all__ = ["Shell", "ShellResult"]

# Line editors of small shells take a limited number of characters a line (busybox: 1024 or fewer).
_PIECE = 200
# Characters of a command that messages show.
_SHOWN = 60


@dataclass(frozen=True)
class ShellResult:
    """What a command wrote to the console, with plain newlines, and its exit status."""

    output: str
    status: int


class Shell:
    """Counts commands, so that each has lines of its own."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._count = 0

    def run(self, command: str, timeout: float) -> ShellResult:
        """Have the shell evaluate ``command``; variables and the working directory outlast it.

        Raises:
            TimeoutError: it did not end within ``timeout`` seconds; it goes on in the guest.
            DoppelError: the machine ended first.
        """
        self._count += 1
        mark = f"DOPPEL-{self._count}"
        self._console.skip()
        # Typed with a leading space: shells that keep a history mostly leave such lines out.
        self._console.send(
            f" printf '\\n%s%s\\n' {mark} -BEGIN; {_evaluation(command)}; "
            f"printf '\\n%s%s %d\\n' {mark} -END $?\n"
        )
        # One search from the beginning to the end: the text before BEGIN is echo, whatever it contains.
        found = self._console.wait_for(
            re.compile(rf"^{mark}-BEGIN\r?\n(.*?)\r?\n{mark}-END (\d+)\r?$", re.DOTALL | re.MULTILINE),
            timeout,
            f"the command {_shortened(command)} did not end",
        )
        return ShellResult(re.sub(r"\r+\n", "\n", found[1]), int(found[2]))


def _shortened(command: str) -> str:
    return repr(command if len(command) <= _SHOWN else command[:_SHOWN] + "...")


def _evaluation(command: str) -> str:
    """The command as an argument of eval, without characters that a line editor or a terminal acts on."""
    if not re.fullmatch(r"[ -~]*", command):
        # printf's %b knows \0 and three octal digits.
        escaped = "".join(
            chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\0{byte:03o}"
            for byte in command.encode("utf-8", "surrogateescape")
        )
        return f'eval "$(printf %b {_quoted(escaped)})"'
    return f"eval {_quoted(command)}"


def _quoted(text: str) -> str:
    """In single quotes; long text on several lines, which the shell joins again."""
    pieces = [text[at : at + _PIECE].replace("'", "'\\''") for at in range(0, len(text), _PIECE)] or [""]
    return "\\\n".join(f"'{piece}'" for piece in pieces)
