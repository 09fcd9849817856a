"""A child process whose standard input and output are a machine's serial console."""

from __future__ import annotations

import os
import re
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from benchmarks.measure import BenchmarkError

__all__ = ["SerialProcess"]

_TAIL = 600


class SerialProcess:
    """Runs a command; a context manager that ends it.

    ``cpu_seconds`` is what it used of processors, known once it has ended.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.cpu_seconds = 0.0
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._text = bytearray()
        self._seen = 0
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=dict(environment),
            bufsize=0,
        )

    def __enter__(self) -> SerialProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._reap()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def elapsed(self) -> float:
        """Seconds since the process was started."""
        return time.monotonic() - self.started

    def send(self, text: str) -> None:
        """Type at the console."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())

    def wait_for(self, pattern: bytes, timeout: float = 120.0) -> tuple[re.Match[bytes], float]:
        """The first match behind the last one, and when it was there, in seconds since the start.

        Raises:
            BenchmarkError: it does not come within ``timeout`` seconds, or the process ends before.
        """
        deadline = time.monotonic() + timeout
        while True:
            match = re.compile(pattern).search(self._text, self._seen)
            if match is not None:
                self._seen = match.end()
                return match, self.elapsed()
            if not self._receive(deadline):
                raise self._failure(f"never showed {pattern!r} on its console")

    def wait(self, timeout: float = 120.0) -> bytes:
        """All that the process writes until it ends by itself.

        Raises:
            BenchmarkError: it does not end in time, or not with status 0.
        """
        deadline = time.monotonic() + timeout
        while self._receive(deadline):
            pass
        if time.monotonic() >= deadline:
            raise self._failure(f"did not end within {timeout:g} seconds")
        self._reap()
        if self._process.returncode:
            raise self._failure(f"ended with status {self._process.returncode}")
        return bytes(self._text)

    def _receive(self, deadline: float) -> bool:
        """Wait for output; False if there will be none, or none in time."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
        self._text += data
        return bool(data)

    def _reap(self) -> None:
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_seconds = usage.ru_utime + usage.ru_stime

    def _failure(self, what: str) -> BenchmarkError:
        self._errors.seek(0)
        told = (bytes(self._text) + self._errors.read())[-_TAIL:].decode(errors="replace").strip()
        return BenchmarkError(f"{self.name} {what}; its last words: {told or 'none'}")
