"""What takes a while, shown on stderr: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from doppel.cli import complain

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

__all__ = ["ConsoleProgress", "announced_engine"]


class ConsoleProgress:
    """A :class:`doppel.guests.progress.Progress` for people; a context manager."""

    def __init__(self) -> None:
        # Mostly there is nothing to show, so rich is loaded when there is.
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._display: Progress | None = None
        self._transfer: TaskID | None = None
        self._announced = False

    def __enter__(self) -> ConsoleProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _begin(self, *columns: ProgressColumn) -> Progress:
        from rich.console import Console
        from rich.progress import Progress

        self._end()
        self._display = Progress(*columns, console=Console(stderr=True), transient=True)
        self._display.start()
        return self._display

    def _end(self) -> None:
        if self._display is not None:
            self._display.stop()
        self._display = self._transfer = None

    def step(self, text: str) -> None:
        """A new piece of work, of unknown length."""
        self._announced = False
        if not self._terminal:
            complain(text)
            return
        from rich.progress import SpinnerColumn, TextColumn

        display = self._begin(SpinnerColumn(), TextColumn("{task.description}", markup=False))
        display.add_task(text, total=None)

    def transfer(self, file: str, done: int, total: int) -> None:
        """``done`` of ``total`` bytes are there."""
        if not self._terminal:
            if not self._announced:
                complain(f"downloading {total / 1e6:.0f} MB")
                self._announced = True
            return
        if self._display is None or self._transfer is None:
            self._begin_transfer(total)
        if self._display is not None and self._transfer is not None:
            self._display.update(self._transfer, description=file, completed=done, total=total)
        if done >= total:
            self._end()

    def _begin_transfer(self, total: int) -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        display = self._begin(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._transfer = display.add_task("", total=total)


@contextmanager
def announced_engine() -> Iterator[None]:
    """Around what needs the engine: says so if that has to be built first, which takes a few seconds."""
    from doppel.cache import Cache
    from doppel.translate.build import object_key

    with ConsoleProgress() as progress:
        if not (Cache().root / f"engine/{object_key()}.o").is_file():
            progress.step("building the engine, once for this host")
        yield
