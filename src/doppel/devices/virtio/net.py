"""Network device without offloads. Source: VIRTIO 1.2, section 5.1."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Mapping

from doppel.devices.backends.network import MAX_FRAME, NetworkBackend
from doppel.devices.virtio.device import Transport, VirtioDevice
from doppel.devices.virtio.queue import Chain, Virtqueue, VirtqueueError
from doppel.errors import DoppelError

__all__ = ["VirtioNet", "parse_mac"]

F_MAC, F_MRG_RXBUF, F_STATUS = 1 << 5, 1 << 15, 1 << 16
_LINK_UP = 1
_RECEIVE, _TRANSMIT = 0, 1

# struct virtio_net_hdr with VERSION_1: flags, gso_type, four lengths, num_buffers (section 5.1.6).
_HEADER = struct.Struct("<BBHHHHH")
_CONFIGURATION = struct.Struct("<6sHHH")
_QUEUE_SIZE = 256
_MIN_FRAME = 14
# Frames that wait for buffers; more are lost, as on any network.
_MAX_WAITING = 1024


def parse_mac(text: str) -> bytes:
    """The six bytes of ``52:54:00:12:34:56``; DoppelError if it is not a station's address."""
    try:
        mac = bytes(int(part, 16) for part in text.split(":"))
    except ValueError:
        mac = b""
    if len(mac) != 6 or mac[0] & 1:
        raise DoppelError(
            f"{text!r} is not a network card's address", "write six bytes like 52:54:00:12:34:56"
        )
    return mac


class VirtioNet(VirtioDevice):
    """A network card with the address ``mac`` on the network behind ``backend``."""

    device_id = 1
    features = F_MAC | F_MRG_RXBUF | F_STATUS
    queue_sizes = (_QUEUE_SIZE, _QUEUE_SIZE)

    def __init__(self, backend: NetworkBackend, *, mac: str = "52:54:00:12:34:56") -> None:
        self._mac = parse_mac(mac)
        self._backend = backend
        self._waiting: deque[bytes] = deque()

    def attach(self, transport: Transport) -> None:
        """Frames are received from now on."""
        super().attach(transport)
        self._backend.connect(self._receive)

    def reset(self) -> None:
        """Frames that no driver took are lost."""
        self._waiting.clear()

    def configuration(self) -> bytes:
        """struct virtio_net_config: address, status, one pair of queues, no MTU given (section 5.1.4)."""
        return _CONFIGURATION.pack(self._mac, _LINK_UP, 1, 0)

    def process(self, queue: Virtqueue) -> None:
        """Send frames, or hand over those that waited for buffers."""
        if queue.index == _TRANSMIT:
            self._transmit(queue)
        else:
            self._deliver()

    def _transmit(self, queue: Virtqueue) -> None:
        for chain in queue.take(2 * _QUEUE_SIZE):
            length = chain.readable_length - _HEADER.size
            if length < 0:
                raise VirtqueueError("a frame without header")
            if _MIN_FRAME <= length <= MAX_FRAME:
                self._backend.send(chain.read(_HEADER.size, length))
            queue.push(chain, 0)
        self.transport.used(queue)

    def _receive(self, frame: bytes) -> None:
        """A frame from the network, in any thread."""
        if (
            self.transport.running
            and _MIN_FRAME <= len(frame) <= MAX_FRAME
            and len(self._waiting) < _MAX_WAITING
        ):
            self._waiting.append(frame)
            self.transport.call(self._deliver)

    def _deliver(self) -> None:
        queue = self.transport.queues[_RECEIVE]
        if not queue.ready:
            return
        mergeable = bool(self.transport.negotiated & F_MRG_RXBUF)
        while self._waiting:
            chains = self._gather(queue, _HEADER.size + len(self._waiting[0]), mergeable)
            if not chains:
                break
            frame = self._waiting.popleft()
            data = _HEADER.pack(0, 0, 0, 0, 0, 0, len(chains)) + frame
            if len(data) > sum(chain.writable_length for chain in chains):
                # Only without mergeable buffers: the frame is lost, the buffer is not.
                queue.unpop(chains[0])
                continue
            for chain in chains:
                written = chain.write(0, data)
                queue.push(chain, written)
                data = data[written:]
        self.transport.used(queue)

    @staticmethod
    def _gather(queue: Virtqueue, length: int, mergeable: bool) -> list[Chain]:
        """Buffers for ``length`` bytes, or none if there are too few; one if they cannot be merged."""
        chains: list[Chain] = []
        while length > 0:
            chain = queue.pop()
            if chain is None:
                for unused in reversed(chains):
                    queue.unpop(unused)
                return []
            room = chain.writable_length
            if not room:
                raise VirtqueueError("a buffer for frames that cannot be written")
            chains.append(chain)
            length -= room
            if not mergeable:
                break
        return chains

    def save(self) -> dict[str, object]:
        """Frames that wait for buffers."""
        return {"waiting": list(self._waiting)}

    def load(self, state: Mapping[str, object]) -> None:
        """Take over what :meth:`save` returned."""
        waiting = state.get("waiting")
        if not isinstance(waiting, list):
            raise DoppelError("the saved state of the network card is damaged", "use another snapshot")
        self._waiting = deque(waiting)
