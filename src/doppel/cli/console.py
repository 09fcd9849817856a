"""The machine's console on this process's standard input and output."""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread

from doppel.cli.keys import EscapeFilter, Key
from doppel.devices.backends.characters import CharacterBackend

__all__ = ["TerminalConsole"]

# Output that waits for a slow reader, at most; what comes then is lost, for the machine must not wait.
OUTPUT_LIMIT = 16 << 20
# What is typed (or pasted) and not taken by the guest, at most: Ctrl-A x must get through behind it.
TYPED_LIMIT = 1 << 20
READ_SIZE = 4096
ROOM_SECONDS = 0.2


class TerminalConsole(CharacterBackend):
    """Two threads move the characters: one reads, one writes.

    With ``on_key`` input comes from a keyboard: keys after Ctrl-A are handed to it, in the reading thread.
    The file descriptors stay the caller's. When the reader of the output is gone, output is dropped. With
    ``plain_lines`` carriage returns before newlines are left out, for output that is no terminal.
    """

    def __init__(
        self,
        input_fd: int,
        output_fd: int,
        on_key: Callable[[Key], None] | None = None,
        *,
        plain_lines: bool = False,
    ) -> None:
        super().__init__()
        self._input_fd = input_fd
        self._output_fd = output_fd
        self._on_key = on_key
        self._plain_lines = plain_lines
        self._keys = EscapeFilter()
        self._output: deque[bytes] = deque()
        self._output_size = 0
        self._output_changed = Condition()
        self._closing = False
        self.lost = 0
        self._writer = Thread(target=self._write_output, name="console output", daemon=True)
        self._writer.start()
        self._reader: Thread | None = None
        self._stop_read, self._stop_write = os.pipe()

    # --- output ---

    def write(self, data: bytes) -> None:
        """Output of the guest: queued, so this never waits."""
        with self._output_changed:
            if self._output_size + len(data) > OUTPUT_LIMIT:
                self.lost += len(data)
                return
            self._output.append(data)
            self._output_size += len(data)
            self._output_changed.notify_all()

    def say(self, text: str) -> None:
        """Output of doppel itself, in order with the guest's; lines end as a raw terminal needs it."""
        self.write(text.replace("\n", "\r\n").encode())

    def drain(self) -> None:
        """Wait until all output has been written."""
        with self._output_changed:
            self._output_changed.wait_for(lambda: not self._output_size)

    def _write_output(self) -> None:
        held = b""
        while True:
            with self._output_changed:
                self._output_changed.wait_for(lambda: self._output or self._closing)
                if not self._output:
                    break
                data = b"".join(self._output)
                self._output.clear()
            size = len(data)
            if self._plain_lines:
                data, held = _plain(held + data)
            self._put(data)
            with self._output_changed:
                self._output_size -= size
                self._output_changed.notify_all()
        self._put(held)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._output_fd >= 0:
            try:
                view = view[os.write(self._output_fd, view) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._output_fd, select.POLLOUT)
                poll.poll()
            except OSError:
                self._output_fd = -1

    # --- input ---

    def start_input(self) -> None:
        """Begin to read, or go on with it."""
        if self._reader is None:
            self._reader = Thread(target=self._read_input, name="console input", daemon=True)
            self._reader.start()

    def stop_input(self) -> None:
        """Stop reading: nothing more is taken from the file descriptor."""
        reader, self._reader = self._reader, None
        if reader is not None:
            os.write(self._stop_write, b"\0")
            reader.join()
            os.read(self._stop_read, 1)

    def _read_input(self) -> None:
        poll = select.poll()
        poll.register(self._input_fd, select.POLLIN)
        poll.register(self._stop_read, select.POLLIN)
        # From a keyboard one by one, so that what is typed after Ctrl-A c is left for the monitor.
        limit = READ_SIZE if self._on_key is None else 1
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._stop_read in ready:
                return
            try:
                data = os.read(self._input_fd, limit)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data or not self._take(data):
                return
            while self._on_key is None and not self.wait_for_room(timeout=ROOM_SECONDS):
                if select.select([self._stop_read], [], [], 0)[0]:
                    return

    def _take(self, data: bytes) -> bool:
        """Pass input on; whether to go on reading."""
        if self._on_key is None:
            self.feed(data)
            return True
        for byte in data:
            result = self._keys.put(byte)
            if isinstance(result, Key):
                self._on_key(result)
                # The monitor reads next, or nobody.
                return result is Key.HELP
            if result and self.waiting < TYPED_LIMIT:
                self.feed(result)
        return True

    def close(self) -> None:
        """Stop reading, write what waits to be written, end the threads."""
        super().close()
        if not self._closing:
            self.stop_input()
            with self._output_changed:
                self._closing = True
                self._output_changed.notify_all()
            self._writer.join()
            os.close(self._stop_read)
            os.close(self._stop_write)


def _plain(data: bytes) -> tuple[bytes, bytes]:
    """Without carriage returns before newlines; one at the very end is held back until it is known."""
    data = data.replace(b"\r\n", b"\n")
    return (data[:-1], b"\r") if data.endswith(b"\r") else (data, b"")
