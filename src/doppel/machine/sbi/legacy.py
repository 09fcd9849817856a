"""Legacy extensions: timer, console and shutdown, each a number of its own. Source: SBI 2.0, chapter 5.

Those that take a hart mask through a virtual address are left out; what replaces them is there.
"""

from __future__ import annotations

from collections.abc import Sequence

from doppel.machine.sbi.extension import MASK64, Call, Extension, Function

__all__ = ["LEGACY"]


class _Legacy(Extension):
    """One function, whatever the function number says."""

    legacy = True

    def functions(self) -> Sequence[Function]:
        """The only one."""
        return (self.call,)

    def call(self, call: Call) -> int | None:
        """The function."""
        raise NotImplementedError


class _SetTimer(_Legacy):
    identifier = 0

    def call(self, call: Call) -> int:
        call.hart.state.stimecmp = call.arguments[0]
        return 0


class _ConsolePutchar(_Legacy):
    identifier = 1

    def call(self, call: Call) -> int:
        with self.platform.lock:
            self.platform.console_write(bytes((call.arguments[0] & 0xFF,)))
        return 0


class _ConsoleGetchar(_Legacy):
    """-1 if no input waits."""

    identifier = 2

    def call(self, call: Call) -> int:
        with self.platform.lock:
            data = self.platform.console_read(1)
        return data[0] if data else MASK64


class _Shutdown(_Legacy):
    identifier = 8

    def call(self, call: Call) -> None:
        self.platform.poweroff(0)


LEGACY: tuple[type[_Legacy], ...] = (_SetTimer, _ConsolePutchar, _ConsoleGetchar, _Shutdown)
