"""A process that compiles regions: requests come in by standard input, regions go out by standard output.

A process of its own leaves the interpreter lock to those who run harts, and an error in LLVM cannot take a
machine down. It ends when its input does. Messages are msgpack behind their length in four bytes.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import IO

import msgspec

__all__ = ["LENGTH_BYTES", "NICE", "main", "read_message", "write_message"]

LENGTH_BYTES = 4
# A little less than guests: on a busy host they come first, but what they wait for is being made.
NICE = 2


def read_message(stream: IO[bytes]) -> bytes | None:
    """The next message; None at the end."""
    head = stream.read(LENGTH_BYTES)
    if len(head) < LENGTH_BYTES:
        return None
    length = int.from_bytes(head, "little")
    message = stream.read(length)
    return message if len(message) == length else None


def write_message(stream: IO[bytes], message: bytes) -> None:
    """Send a message."""
    stream.write(len(message).to_bytes(LENGTH_BYTES, "little") + message)
    stream.flush()


def main() -> None:
    """Serve requests until there are no more."""
    # Whoever types Ctrl-C means the machine, which ends this process by closing its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from doppel.translate.regions.compiler import RegionCompiler, RegionRequest

    compiler = RegionCompiler()
    while (message := read_message(sys.stdin.buffer)) is not None:
        request = msgspec.msgpack.decode(message, type=RegionRequest)
        write_message(answers, msgspec.msgpack.encode(compiler.compile(request)))


if __name__ == "__main__":
    main()
