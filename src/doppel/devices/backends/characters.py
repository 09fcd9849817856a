"""Streams of characters behind a UART or a console port.

Output of the guest is handed to :meth:`CharacterBackend.write` in pieces, with the bus lock held. Input waits
in the backend until the device takes it, as much as the guest has room for: that is the flow control. It may
be put there from any thread.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from threading import Condition, Lock, RLock, Thread, Timer

from doppel.devices.backends.waiting import wait_readable, wait_writable

__all__ = ["Buffer", "Callback", "CharacterBackend", "FileDescriptors", "OutputBatch"]

_READ_SIZE = 4096
# A reader thread stops reading when this much input waits for the guest.
_INPUT_LIMIT = 65536
_BATCH_SIZE = 4096
_BATCH_SECONDS = 0.02
_NEWLINE = 10


class CharacterBackend(ABC):
    """A stream in both directions; the input side is complete here, the output side is the subclass's."""

    def __init__(self) -> None:
        self._input = bytearray()
        self._changed = Condition(Lock())
        self._wake: Callable[[], None] | None = None

    def connect(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called, no lock held, whenever input arrives; also now if some is waiting."""
        self._wake = wake
        if self.waiting:
            wake()

    @property
    def waiting(self) -> int:
        """Bytes of input that the device has not taken."""
        return len(self._input)

    def feed(self, data: bytes) -> None:
        """Input for the guest, from any thread; never waits."""
        with self._changed:
            self._input += data
        # Another thread may be closing this.
        wake = self._wake
        if wake is not None:
            wake()

    def read(self, limit: int) -> bytes:
        """Take up to ``limit`` bytes of input."""
        with self._changed:
            data = bytes(self._input[:limit])
            del self._input[:limit]
            self._changed.notify_all()
        return data

    def wait_for_room(self, limit: int = _INPUT_LIMIT, timeout: float | None = None) -> bool:
        """Wait until less than ``limit`` bytes of input are waiting; False after ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._input) < limit, timeout)

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Output of the guest."""

    def close(self) -> None:
        """The device is gone."""
        self._wake = None


class Buffer(CharacterBackend):
    """Keeps all output in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.output = bytearray()

    def write(self, data: bytes) -> None:
        """Append to ``output``."""
        self.output += data


class Callback(CharacterBackend):
    """Hands output to a function, which is called with the bus lock held and must not wait for the guest."""

    def __init__(self, receive: Callable[[bytes], None]) -> None:
        super().__init__()
        self._receive = receive

    def write(self, data: bytes) -> None:
        """Call the function."""
        self._receive(data)


class FileDescriptors(CharacterBackend):
    """Input from one file descriptor and output to another, such as a terminal's; the caller keeps owning
    them.

    A thread reads the input; it pauses while the guest does not take what was read. Output is written
    completely, however slow the other side is. When the other side is gone, output is dropped.
    """

    def __init__(self, input_fd: int | None, output_fd: int | None) -> None:
        super().__init__()
        self._input_fd = input_fd
        self._output_fd = output_fd
        self._stopped = False
        self._stop_read, self._stop_write = os.pipe()
        self._thread: Thread | None = None
        if input_fd is not None:
            self._thread = Thread(
                target=self._read_input, args=(input_fd,), name="console input", daemon=True
            )
            self._thread.start()

    def _read_input(self, fd: int) -> None:
        while not self._stopped:
            if not wait_readable(fd, self._stop_read):
                return
            try:
                data = os.read(fd, _READ_SIZE)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            self.feed(data)
            while not self._stopped and not self.wait_for_room(timeout=0.2):
                pass

    def write(self, data: bytes) -> None:
        """Write everything; also to a descriptor that does not block."""
        fd = self._output_fd
        view = memoryview(data)
        while fd is not None and view:
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:
                wait_writable(fd)
            except OSError:
                self._output_fd = fd = None

    def close(self) -> None:
        """End the reading thread."""
        super().close()
        if not self._stopped:
            self._stopped = True
            os.write(self._stop_write, b"\0")
            if self._thread is not None:
                self._thread.join()
            os.close(self._stop_read)
            os.close(self._stop_write)


class OutputBatch:
    """Collects single bytes of output and hands them on in pieces.

    A piece goes on at a newline, when it is full, or 20 ms after its first byte, whatever comes first.
    ``lock`` is the bus lock: callers hold it, and the timer takes it.
    """

    def __init__(self, hand_over: Callable[[bytes], None], lock: RLock) -> None:
        self._hand_over = hand_over
        self._lock = lock
        self._data = bytearray()
        self._timer_runs = False

    def put(self, byte: int) -> None:
        """Add one byte."""
        self._data.append(byte)
        if byte == _NEWLINE or len(self._data) >= _BATCH_SIZE:
            self.flush()
        elif not self._timer_runs:
            # Left to run when a newline comes first: one short timer per 20 ms costs less than one per line.
            self._timer_runs = True
            timer = Timer(_BATCH_SECONDS, self._timed_out)
            timer.daemon = True
            timer.start()

    def flush(self) -> None:
        """Hand on what there is."""
        if self._data:
            data = bytes(self._data)
            self._data.clear()
            self._hand_over(data)

    def _timed_out(self) -> None:
        with self._lock:
            self._timer_runs = False
            self.flush()
