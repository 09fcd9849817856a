"""How long work tells somebody how far it is; a face decides what that looks like."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Told about everything that takes more than a moment, from one thread, a few times a second."""

    def step(self, text: str) -> None:
        """A new piece of work begins; its size is not known."""

    def transfer(self, file: str, done: int, total: int) -> None:
        """`done` of `total` bytes are there; `file` is on its way now. The last call has done == total."""


class Silent:
    """Tells nobody."""

    def step(self, text: str) -> None:
        """Do nothing."""

    def transfer(self, file: str, done: int, total: int) -> None:
        """Do nothing."""
