"""The keys that doppel takes for itself: Ctrl-A and the one after it."""

from __future__ import annotations

from enum import Enum

__all__ = ["HELP", "EscapeFilter", "Key"]

ESCAPE = 0x01

HELP = """\
Ctrl-A h       this help
Ctrl-A x       end the machine and leave
Ctrl-A c       monitor prompt: the machine stands still meanwhile
Ctrl-A a       Ctrl-A itself, for the guest (or Ctrl-A Ctrl-A)
"""


class Key(Enum):
    """What a key after Ctrl-A asks for."""

    LEAVE = "x"
    MONITOR = "c"
    HELP = "h"


class EscapeFilter:
    """Separates what is typed for the guest from what is typed for doppel."""

    def __init__(self) -> None:
        self._escaped = False

    def put(self, byte: int) -> bytes | Key:
        """Take one byte of input; what goes to the guest (perhaps nothing), or what doppel is to do.

        Ctrl-A and a key that means nothing ask for help.
        """
        if not self._escaped:
            self._escaped = byte == ESCAPE
            return b"" if self._escaped else bytes([byte])
        self._escaped = False
        character = chr(byte).lower()
        if byte == ESCAPE or character == "a":
            return bytes([ESCAPE])
        return Key(character) if character in ("x", "c") else Key.HELP
