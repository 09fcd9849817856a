"""Waiting for file descriptors, whatever their numbers: ``select`` cannot do it for numbers above 1023."""

from __future__ import annotations

import select

__all__ = ["wait_readable", "wait_writable"]


def wait_readable(fd: int, stop_fd: int) -> bool:
    """Wait for something to read from ``fd``, or its end; False if there is something in ``stop_fd``."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.register(stop_fd, select.POLLIN)
    return all(ready != stop_fd for ready, _ in poll.poll())


def wait_writable(fd: int) -> None:
    """Wait until ``fd`` takes more, or fails."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()
