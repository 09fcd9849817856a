"""The processes that compile: few, started when there is something to do, shared by all machines."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import msgspec

from doppel.translate.regions.compiler import Region, RegionRequest
from doppel.translate.regions.worker import LENGTH_BYTES, write_message

__all__ = ["Usage", "Worker", "Workers", "shared_workers"]

_PATIENCE = 2.0


class WorkerDiedError(Exception):
    """A compiling process ended by itself."""


class Usage(NamedTuple):
    """Processor time in seconds, and resident memory in bytes."""

    seconds: float = 0.0
    resident: int = 0


class Worker:
    """One process, with at most one request under way."""

    def __init__(self) -> None:
        root = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            # -P: what lies in the current folder is none of its modules.
            [sys.executable, "-P", "-m", "doppel.translate.regions.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._received = b""

    def send(self, request: RegionRequest) -> None:
        """Begin with a request.

        Raises:
            WorkerDiedError: it has ended.
        """
        assert self._process.stdin is not None
        try:
            write_message(self._process.stdin, msgspec.msgpack.encode(request))
        except OSError as error:
            raise WorkerDiedError from error

    def poll(self, seconds: float) -> tuple[Region | None] | None:
        """What came of the request, if it is done within so many seconds.

        Raises:
            WorkerDiedError: it has ended.
        """
        assert self._process.stdout is not None
        waiting = select.poll()
        waiting.register(self._process.stdout, select.POLLIN)
        if not waiting.poll(seconds * 1000):
            return None
        part = os.read(self._process.stdout.fileno(), 1 << 16)
        if not part:
            raise WorkerDiedError
        self._received += part
        length = int.from_bytes(self._received[:LENGTH_BYTES], "little") + LENGTH_BYTES
        if len(self._received) < max(length, LENGTH_BYTES):
            return None
        message, self._received = self._received[LENGTH_BYTES:length], self._received[length:]
        return (msgspec.msgpack.decode(message, type=Region | None),)

    def usage(self) -> Usage:
        """What the process has used so far (proc(5), /proc/PID/stat: utime, stime, rss)."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            return Usage()
        ticks = int(fields[11]) + int(fields[12])
        return Usage(ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait(_PATIENCE)
        self._process.stdin.close()
        self._process.stdout.close()


class Workers:
    """At most ``limit`` processes. They live as long as somebody uses them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._alive: list[Worker] = []
        self._busy = 0
        self._users = 0
        self._seconds = 0.0

    def open(self) -> None:
        """Begin to use them."""
        with self._lock:
            self._users += 1

    def close(self) -> None:
        """Use them no more; those who have a worker give it back before."""
        with self._lock:
            self._users -= 1
            ended, self._idle = (self._idle, []) if self._users == 0 else ([], self._idle)
        for worker in ended:
            self._end(worker)

    def usage(self) -> Usage:
        """Of all processes: time of those that there ever were, memory of those that there are."""
        with self._lock:
            each = [worker.usage() for worker in self._alive]
            seconds = self._seconds + sum(usage.seconds for usage in each)
        return Usage(seconds, sum(usage.resident for usage in each))

    def _end(self, worker: Worker) -> None:
        with self._lock:
            self._seconds += worker.usage().seconds
            self._alive.remove(worker)
        worker.close()

    def take(self) -> Worker | None:
        """A process without a request, if one is to be had."""
        with self._lock:
            if self._idle:
                self._busy += 1
                return self._idle.pop()
            if self._busy >= self.limit or not sys.executable:
                return None
            self._busy += 1
        try:
            worker = Worker()
        except OSError:
            with self._lock:
                self._busy -= 1
            return None
        with self._lock:
            self._alive.append(worker)
        return worker

    def give_back(self, worker: Worker, *, usable: bool = True) -> None:
        """Let others have it; one that is not usable any more is ended."""
        with self._lock:
            self._busy -= 1
            if usable and self._users:
                self._idle.append(worker)
                return
        self._end(worker)


shared_workers = Workers(max(1, (os.cpu_count() or 2) // 2))
