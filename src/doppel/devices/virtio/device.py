"""What every virtio device has, whatever the transport. Source: VIRTIO 1.2, chapter 2."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

from doppel.devices.device import GuestMemory
from doppel.devices.virtio.queue import Virtqueue

__all__ = ["Transport", "VirtioDevice"]


class Transport(Protocol):
    """What a virtio device asks of its transport."""

    memory: GuestMemory
    queues: list[Virtqueue]
    negotiated: int
    """Feature bits that both sides agreed on; 0 before."""

    @property
    def running(self) -> bool:
        """The driver is ready (DRIVER_OK) and the device has not failed."""

    def call(self, work: Callable[[], None]) -> None:
        """Run ``work`` with the bus lock held if the device is running, from any thread.

        A driver's error inside ``work`` stops the device, as in :meth:`VirtioDevice.process`.
        """

    def used(self, queue: Virtqueue) -> None:
        """Chains were pushed: interrupt the driver if it wants to know."""

    def configuration_changed(self) -> None:
        """The configuration space reads differently now: tell the driver."""


class VirtioDevice(ABC):
    """A kind of virtio device.

    ``process`` and ``start`` may raise VirtqueueError or GuestAddressError for what a driver does; the
    transport then sets DEVICE_NEEDS_RESET.
    """

    device_id: ClassVar[int]
    """Section 5: 1 network, 2 block, 3 console, 4 entropy, 9 9P."""

    features: int = 0
    """Feature bits of this kind of device that are offered."""

    queue_sizes: tuple[int, ...] = ()
    """The largest size of each queue."""

    transport: Transport

    def attach(self, transport: Transport) -> None:
        """Called once by the transport that this device sits behind."""
        self.transport = transport

    def configuration(self) -> bytes:
        """The device-specific configuration space."""
        return b""

    def configure(self, offset: int, data: bytes) -> None:
        """The driver writes to the configuration space."""
        return

    def start(self) -> None:
        """The driver is ready. Serves whatever it made available before it said so."""
        for queue in self.transport.queues:
            if queue.ready:
                self.process(queue)

    @abstractmethod
    def process(self, queue: Virtqueue) -> None:
        """The driver notifies: serve ``queue``, which is ready."""

    def reset(self) -> None:
        """Forget what the driver did."""
        return

    def save(self) -> dict[str, object]:
        """State beyond queues and features, in plain types."""
        return {}

    def load(self, state: Mapping[str, object]) -> None:
        """Take over what :meth:`save` returned, after queues and features were loaded."""
        return
