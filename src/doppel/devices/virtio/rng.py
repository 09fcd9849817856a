"""Entropy device. Source: VIRTIO 1.2, section 5.4."""

from __future__ import annotations

from collections.abc import Callable

from doppel.devices.virtio.device import VirtioDevice
from doppel.devices.virtio.queue import Virtqueue

__all__ = ["VirtioRng"]

_QUEUE_SIZE = 8
# The device may fill less than the buffer (section 5.4.6.2); a guest asks again if it needs more.
_MAX_BYTES = 4096


class VirtioRng(VirtioDevice):
    """``entropy(n)`` returns n random bytes; the machine decides where they come from."""

    device_id = 4
    queue_sizes = (_QUEUE_SIZE,)

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy

    def process(self, queue: Virtqueue) -> None:
        """Fill every buffer."""
        for chain in queue.take(2 * _QUEUE_SIZE):
            length = min(chain.writable_length, _MAX_BYTES)
            queue.push(chain, chain.write(0, self._entropy(length)))
        self.transport.used(queue)
