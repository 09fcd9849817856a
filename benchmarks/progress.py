"""What is going on, shown on a terminal while it lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

__all__ = ["Display", "display"]


class Display:
    """One line: what is being measured, and how much of it is done."""

    def __init__(self, progress: Progress, task: TaskID, name: str) -> None:
        self._progress = progress
        self._task = task
        self._name = name
        self._turn = ""

    def advance(self, done: int, total: int, following: str) -> None:
        """So many turns of so many are done, and ``following`` is next."""
        self._turn = following
        self._progress.update(
            self._task, completed=done, total=total, description=f"{self._name}: {following}"
        )

    def note(self, part: str) -> None:
        """Which part of the turn comes next."""
        self._progress.update(self._task, description=f"{self._name}: {self._turn}: {part}")


@contextmanager
def display(console: Console, name: str) -> Iterator[Display]:
    """A line that is gone afterwards; nothing if the console is no terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Display(progress, progress.add_task(name, total=None), name)
