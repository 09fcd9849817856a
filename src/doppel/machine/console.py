"""The machine's serial console as a program sees it: what the guest wrote, and keys for it to read."""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Callable
from functools import partial

from doppel.devices.backends.characters import CharacterBackend
from doppel.errors import DoppelError

__all__ = ["Console"]

# Characters that are kept; older ones are dropped in halves.
_LIMIT = 32 << 20
_TAIL_LINES = 12
# A search that found nothing is repeated when new output is there, but takes at most this share of the time.
_SEARCH_SHARE = 0.2


class Console(CharacterBackend):
    """Stands between the serial port and ``backend`` (a terminal, say), and keeps what passes.

    ``ended()`` says why no more output will come, or None as long as some may.
    """

    def __init__(self, backend: CharacterBackend | None, ended: Callable[[], str | None]) -> None:
        super().__init__()
        self._backend = backend
        self._ended = ended
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pieces: list[str] = []
        self._written = 0
        self._dropped = 0
        # Position behind the last match, counted from the very first character.
        self._seen = 0

    # --- the serial port's side ---

    def connect(self, wake: Callable[[], None]) -> None:
        """Also has the backend call when its input arrives."""
        super().connect(wake)
        if self._backend is not None:
            self._backend.connect(wake)

    @property
    def waiting(self) -> int:
        """Bytes of input, of :meth:`send` and of the backend."""
        return len(self._input) + (self._backend.waiting if self._backend is not None else 0)

    def read(self, limit: int) -> bytes:
        """Take input, what was sent here first."""
        data = super().read(limit)
        if len(data) < limit and self._backend is not None:
            data += self._backend.read(limit - len(data))
        return data

    def write(self, data: bytes) -> None:
        """Output of the guest."""
        with self._changed:
            self._pieces.append(self._decoder.decode(data))
            self._written += len(data)
            self._changed.notify_all()
        if self._backend is not None:
            self._backend.write(data)

    def notify_end(self) -> None:
        """Have those who wait for output look whether more will come."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """The machine is gone; its output stays."""
        super().close()
        if self._backend is not None:
            self._backend.close()
        self.notify_end()

    # --- the program's side ---

    @property
    def text(self) -> str:
        """All output so far (of very long output, the last part), with carriage returns as the guest sent
        them.
        """
        with self._changed:
            return self._joined()

    def _joined(self) -> str:
        if len(self._pieces) != 1:
            text = "".join(self._pieces)
            if len(text) > _LIMIT:
                self._dropped += len(text) - _LIMIT // 2
                text = text[-(_LIMIT // 2) :]
            self._pieces = [text]
        return self._pieces[0]

    def send(self, text: str | bytes) -> None:
        """Type text; the guest reads it when it is ready to."""
        self.feed(text.encode() if isinstance(text, str) else text)

    def skip(self) -> None:
        """Let the next :meth:`expect` look only at output from now on."""
        with self._changed:
            self._seen = self._dropped + len(self._joined())

    def expect(self, pattern: str | re.Pattern[str], timeout: float = 60.0) -> re.Match[str]:
        """Wait until the output since the last match has one for ``pattern``, a regular expression.

        ``timeout`` is in seconds.

        Raises:
            TimeoutError: it does not within that time.
            DoppelError: the machine ended before.
        """
        compiled = re.compile(pattern) if isinstance(pattern, str) else pattern
        return self.wait_for(compiled, timeout, f"the console did not show {compiled.pattern!r}")

    def wait_for(self, pattern: re.Pattern[str], timeout: float, complaint: str) -> re.Match[str]:
        """Like :meth:`expect`, with words of one's own for what has not happened."""
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                text = self._joined()
                written = self._written
                # Before the search: what is written afterwards is new output, which the wait below sees.
                ended = self._ended()
            began = time.monotonic()
            match = pattern.search(text, max(0, self._seen - self._dropped))
            if match is not None:
                self._seen = self._dropped + match.end()
                return match
            if ended is not None:
                raise DoppelError(f"{complaint}: {ended}", _last_lines(text))
            now = time.monotonic()
            if now >= deadline:
                raise TimeoutError(f"{complaint} within {timeout:g} s; {_last_lines(text)}")
            time.sleep(min((now - began) / _SEARCH_SHARE, max(0.0, deadline - now)))
            with self._changed:
                self._changed.wait_for(partial(self._is_news, written), max(0.0, deadline - time.monotonic()))

    def _is_news(self, written: int) -> bool:
        return self._written != written or self._ended() is not None


def _last_lines(text: str) -> str:
    lines = [line.rstrip() for line in text.splitlines()][-_TAIL_LINES:]
    return "its last lines:\n" + "\n".join(lines) if lines else "it showed nothing"
