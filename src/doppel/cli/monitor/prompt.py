"""The prompt itself: lines in, text out, until the machine is to go on or to end."""

from __future__ import annotations

import sys
from collections.abc import Callable

from doppel.cli.monitor import control, state
from doppel.cli.monitor.commands import COMMANDS, Resume, execute
from doppel.cli.monitor.session import MonitorError, Session
from doppel.cli.monitor.state import instruction_lines
from doppel.errors import DoppelError

__all__ = ["PROMPT", "prompt"]

PROMPT = "(doppel) "
# They define commands by being imported.
_ = (control, state)


def prompt(session: Session, read_line: Callable[[str], str] | None = None) -> bool:
    """Let a person give commands; whether the machine is to go on.

    ``read_line`` gets the prompt and gives a line, or raises EOFError at the end of input, which means
    continue.
    """
    read = read_line or _edited_line()
    print("\nThe machine stands still. help lists the commands, continue goes on.")
    _show(instruction_lines(session, session.hart.pc, 1))
    previous = ""
    while True:
        try:
            # An empty line repeats the last command, as in debuggers: handy for step and x.
            line = read(PROMPT).strip() or _repeatable(previous)
            previous = line
            _show(execute(session, line))
        except Resume as resume:
            return not resume.leave
        except EOFError:
            print()
            return True
        except KeyboardInterrupt:
            print()


def _show(lines: object) -> None:
    try:
        for line in lines:  # type: ignore[attr-defined]
            print(line)
    except (MonitorError, DoppelError) as error:
        print(error)
    sys.stdout.flush()


def _repeatable(line: str) -> str:
    """What an empty line stands for: the last step, trace or examine, going on where that ended."""
    name = line.partition(" ")[0].partition("/")[0]
    if name in ("step", "trace"):
        return line
    if name in ("x", "xp", "disassemble"):
        return line.partition(" ")[0]
    return ""


def _edited_line() -> Callable[[str], str]:
    """input() with history and completion of commands, where Python has readline."""
    try:
        import readline
    except ImportError:
        return input

    def complete(text: str, index: int) -> str | None:
        names = [name for name in sorted(COMMANDS) if name.startswith(text)]
        return names[index] + " " if index < len(names) else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    return input
