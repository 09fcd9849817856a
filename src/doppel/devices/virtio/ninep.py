"""9P transport: a shared directory, mounted in Linux with ``mount -t 9p -o trans=virtio TAG DIRECTORY``.

Source: VIRTIO 1.2, chapter 5 assigns the device number 9; the device itself is as in Linux,
net/9p/trans_virtio.c. A chain is one request to read and the room for its answer.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from doppel.devices.backends.share import BadMessage, ShareServer
from doppel.devices.virtio.device import VirtioDevice
from doppel.devices.virtio.queue import Virtqueue, VirtqueueError
from doppel.errors import DoppelError

__all__ = ["VirtioNineP"]

F_MOUNT_TAG = 1
_QUEUE_SIZE = 128
_MAX_TAG = 31


class VirtioNineP(VirtioDevice):
    """The directory of ``server`` under the mount tag ``tag``."""

    device_id = 9
    features = F_MOUNT_TAG
    queue_sizes = (_QUEUE_SIZE,)

    def __init__(self, server: ShareServer, *, tag: str = "share") -> None:
        if not 0 < len(tag.encode()) <= _MAX_TAG or not tag.isprintable():
            raise DoppelError(f"{tag!r} cannot be a mount tag", f"use 1 to {_MAX_TAG} printable characters")
        self._server = server
        self._tag = tag.encode()

    def configuration(self) -> bytes:
        """Length of the tag, and the tag."""
        return struct.pack("<H", len(self._tag)) + self._tag

    def process(self, queue: Virtqueue) -> None:
        """Serve every request."""
        for chain in queue.take(2 * _QUEUE_SIZE):
            try:
                queue.push(chain, self._server.handle(chain))
            except BadMessage as error:
                raise VirtqueueError(str(error)) from error
        self.transport.used(queue)

    def reset(self) -> None:
        """The guest knows no file any more."""
        self._server.reset()

    def save(self) -> dict[str, object]:
        """The files that the guest knows."""
        return self._server.save()

    def load(self, state: Mapping[str, object]) -> None:
        """Take over what :meth:`save` returned."""
        self._server.load(state)
