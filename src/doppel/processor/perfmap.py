"""Telling Linux's ``perf`` which function the native code in memory is.

``perf report`` names code in anonymous memory after ``/tmp/perf-PID.map``: a line for each function with its
start and size in hexadecimal, and its name (tools/perf/Documentation/jit-interface.txt of the Linux sources).
A process has one such file, whichever of its machines the code belongs to.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path

from doppel.errors import DoppelError
from doppel.translate.symbols import engine_functions

__all__ = ["PerfMap", "guest_name", "shared_perf_map"]

NameOf = Callable[[int], str | None]


class PerfMap:
    """The file at ``path``, made anew.

    Raises:
        DoppelError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            # The folder is everybody's and the name can be guessed: what is there already is not written to.
            path.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._file = os.open(path, flags, 0o600)
        except OSError as error:
            raise DoppelError(
                f"the map for perf {path} cannot be written ({error.strerror or error})",
                "make room for it, or run without --perf-map",
            ) from error

    def add(self, address: int, size: int, name: str) -> None:
        """A piece of native code; what an earlier line says of the same addresses no longer holds."""
        line = f"{address:x} {size:x} {name}\n".encode("utf-8", "replace")
        # A full disk is no reason to stop a machine.
        with self._lock, contextlib.suppress(OSError):
            os.write(self._file, line)

    def add_engine(self) -> None:
        """The engine's own functions, handlers of instructions above all."""
        for function in engine_functions():
            self.add(function.address, function.size, f"doppel:{function.name}")


@functools.cache
def shared_perf_map() -> PerfMap:
    """This process's, with the engine in it."""
    perf_map = PerfMap(Path(f"/tmp/perf-{os.getpid()}.map"))
    perf_map.add_engine()
    return perf_map


def guest_name(page: int, offset: int, name_of: NameOf | None) -> str:
    """What to call the region for an instruction in a guest page: its function, or where it is."""
    name = name_of(page + offset) if name_of is not None else None
    return f"guest:{name or f'{page:#x}+{offset:#x}'}"
