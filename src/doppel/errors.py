"""The one exception that is meant for people rather than for programs."""

from __future__ import annotations

__all__ = ["DoppelError"]


class DoppelError(Exception):
    """Something outside doppel is wrong, and the reader can do something about it.

    `message` says in one line what is wrong, `hint` in one line what to do. A face (the command line, a
    notebook, a test report) prints `str(error)`, "message; hint", and nothing else: no traceback.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = " ".join(message.split()).rstrip(".")
        self.hint = " ".join(hint.split()).rstrip(".")
        super().__init__(self.message, self.hint)

    def __str__(self) -> str:
        return "; ".join(part for part in (self.message, self.hint) if part)
