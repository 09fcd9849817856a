"""The commands of the monitor prompt, and how a line becomes one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from doppel.cli.monitor.session import MonitorError, Session

__all__ = ["COMMANDS", "Command", "Resume", "command", "execute"]


class Resume(Exception):
    """The prompt is left: the machine goes on, or ends if ``leave``."""

    def __init__(self, *, leave: bool) -> None:
        super().__init__()
        self.leave = leave


# Takes the session and the words behind the command; gives lines of text.
Body = Callable[[Session, list[str]], Iterator[str]]


@dataclass(frozen=True)
class Command:
    """``usage`` shows the arguments; ``least`` and ``most`` are how many there may be (-1: any number)."""

    name: str
    usage: str
    summary: str
    body: Body
    least: int
    most: int


COMMANDS: dict[str, Command] = {}


def command(name: str, usage: str, summary: str, *, least: int = 0, most: int = 0) -> Callable[[Body], Body]:
    """Define a command; ``name`` may list further names behind commas."""

    def define(body: Body) -> Body:
        first, *others = name.split(",")
        defined = Command(first, usage, summary, body, least, most)
        COMMANDS.update((each, defined) for each in (first, *others))
        return body

    return define


def execute(session: Session, line: str) -> Iterator[str]:
    """Do what a line says; gives the lines to show.

    Raises:
        MonitorError: it cannot be done.
        Resume: the prompt is to be left.
    """
    words = line.split()
    if not words:
        return
    # "x/4i pc": what is behind the slash belongs to the command.
    name, slash, form = words[0].partition("/")
    found = find(name)
    arguments = ([slash + form] if slash else []) + words[1:]
    given = len(words) - 1
    if given < found.least or 0 <= found.most < given or (slash and "/" not in found.usage):
        raise MonitorError(f"usage: {found.name}{found.usage}")
    yield from found.body(session, arguments)


def find(name: str) -> Command:
    """The command of that name, or the only one that begins so; further names have to be written out."""
    if name in COMMANDS:
        return COMMANDS[name]
    candidates = sorted({found.name for found in COMMANDS.values() if found.name.startswith(name)})
    if len(candidates) == 1:
        return COMMANDS[candidates[0]]
    if candidates:
        raise MonitorError(f"{name!r} can mean {', '.join(candidates)}")
    raise MonitorError(f"there is no command {name!r}; help lists them")
