"""How the file of compiled regions can fail its user."""

from __future__ import annotations

from enum import Enum, auto

__all__ = ["StoreError", "Trouble"]


class Trouble(Enum):
    """What a failure leaves to do."""

    BUSY = auto()  # Another process has the file: try again later.
    MOVED = auto()  # The file was removed or replaced: open again.
    DAMAGED = auto()  # Put it aside.
    FULL = auto()  # No room on the disk, or in the file's limit.
    REFUSED = auto()  # What was asked for is not possible here.


class StoreError(Exception):
    """The file did not do what it was asked for."""

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.trouble = trouble
