"""A virtio device that sends back what it gets."""

from __future__ import annotations

from doppel.devices.virtio.device import VirtioDevice
from doppel.devices.virtio.queue import Virtqueue


class Echo(VirtioDevice):
    device_id = 42
    features = 0b101
    queue_sizes = (64, 8)

    def __init__(self) -> None:
        self.resets = 0
        self.configured: list[tuple[int, bytes]] = []
        self.settings = bytes(range(1, 13))

    def configuration(self) -> bytes:
        return self.settings

    def configure(self, offset: int, data: bytes) -> None:
        self.configured.append((offset, data))

    def process(self, queue: Virtqueue) -> None:
        for chain in queue.take(1000):
            queue.push(chain, chain.write(0, chain.read(0, 1 << 20)))
        self.transport.used(queue)

    def reset(self) -> None:
        self.resets += 1
