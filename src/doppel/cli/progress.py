"""What takes a while, shown on stderr: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

__all__ = ["ConsoleProgress", "announced_engine"]


class ConsoleProgress:
    """A :class:`doppel.guests.progress.Progress` for people; a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._steps: Progress | None = None
        self._announced = False

    def __enter__(self) -> ConsoleProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for display in (self._bar, self._steps):
            if display is not None:
                display.stop()
        self._bar = self._steps = self._task = None

    def step(self, text: str) -> None:
        """A new piece of work, of unknown length."""
        self._end()
        self._announced = False
        if self._console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
            self._steps = Progress(*columns, console=self._console, transient=True)
            self._steps.add_task(text, total=None)
            self._steps.start()
        else:
            print(f"doppel: {text}", file=sys.stderr, flush=True)

    def transfer(self, file: str, done: int, total: int) -> None:
        """``done`` of ``total`` bytes are there."""
        if not self._console.is_terminal:
            if not self._announced:
                print(f"doppel: downloading {total / 1e6:.0f} MB", file=sys.stderr, flush=True)
                self._announced = True
            return
        if self._bar is None:
            self._end()
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=total)
            self._bar.start()
        if self._task is not None:
            self._bar.update(self._task, description=file, completed=done, total=total)
        if done >= total:
            self._end()


@contextmanager
def announced_engine() -> Iterator[None]:
    """Around what needs the engine: says so if that has to be built first, which takes a few seconds."""
    from doppel.cache import Cache
    from doppel.translate.build import object_key

    with ConsoleProgress() as progress:
        if not (Cache().root / f"engine/{object_key()}.o").is_file():
            progress.step("building the engine, once for this host")
        yield
