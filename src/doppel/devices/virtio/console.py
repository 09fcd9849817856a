"""Console device with one or several ports. Source: VIRTIO 1.2, section 5.3.

With one unnamed port it is a plain console (``hvc0`` in Linux). With more ports, or named ones, it offers
MULTIPORT: Linux then has ``/dev/virtio-ports/<name>`` for a port that is not a console.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from doppel.devices.backends.characters import CharacterBackend
from doppel.devices.virtio.device import Transport, VirtioDevice
from doppel.devices.virtio.queue import Chain, Virtqueue, VirtqueueError
from doppel.errors import DoppelError

__all__ = ["ConsolePort", "VirtioConsole"]

F_SIZE, F_MULTIPORT, F_EMERG_WRITE = 1, 2, 4
DEVICE_READY, DEVICE_ADD, PORT_READY, CONSOLE_PORT, PORT_OPEN, PORT_NAME = 0, 1, 3, 4, 6, 7

_CONTROL = struct.Struct("<IHH")
_CONFIGURATION = struct.Struct("<HHII")
_EMERG_WRITE_OFFSET = 8
_QUEUE_SIZE = 64
_CONTROL_IN, _CONTROL_OUT = 2, 3
_PIECE = 65536
# Drivers send a few pages at a time; what is far beyond that only keeps the machine busy.
_MAX_OUTPUT = 16 << 20
_MAX_PENDING_MESSAGES = 256
_MAX_PORTS = 31


@dataclass(frozen=True)
class ConsolePort:
    """One port: a console of the guest, or a channel that programs in the guest open by ``name``."""

    backend: CharacterBackend
    name: str = ""
    console: bool = True


class VirtioConsole(VirtioDevice):
    """``ports`` in the order of their numbers; ``size`` is columns and rows of the first port's terminal."""

    device_id = 3

    def __init__(self, ports: Sequence[ConsolePort], *, size: tuple[int, int] | None = None) -> None:
        if not 0 < len(ports) <= _MAX_PORTS:
            raise DoppelError(
                f"a console device cannot have {len(ports)} ports", f"give it 1 to {_MAX_PORTS}"
            )
        self._ports = tuple(ports)
        self._size = size or (0, 0)
        self.features = F_EMERG_WRITE
        if size is not None:
            self.features |= F_SIZE
        queues = 2
        if len(ports) > 1 or ports[0].name or not ports[0].console:
            self.features |= F_MULTIPORT
            queues = 2 + 2 * len(ports)
        self.queue_sizes = (_QUEUE_SIZE,) * queues
        self.reset()

    def attach(self, transport: Transport) -> None:
        """Input of a backend is taken from now on."""
        super().attach(transport)
        for number, port in enumerate(self._ports):
            port.backend.connect(partial(transport.call, partial(self._deliver, number)))

    def reset(self) -> None:
        """The guest has no port open."""
        self._open = [False] * len(self._ports)
        self._messages: deque[bytes] = deque()

    @property
    def _multiport(self) -> bool:
        return bool(self.transport.negotiated & F_MULTIPORT)

    def configuration(self) -> bytes:
        """struct virtio_console_config (section 5.3.4)."""
        return _CONFIGURATION.pack(*self._size, len(self._ports), 0)

    def configure(self, offset: int, data: bytes) -> None:
        """Emergency write: one character, without any queue."""
        if offset == _EMERG_WRITE_OFFSET:
            self._ports[0].backend.write(data[:1])

    def resize(self, columns: int, rows: int) -> None:
        """Tell the driver the terminal's new size; it is taken note of by a console of one port."""
        self._size = (columns, rows)
        self.transport.configuration_changed()

    def process(self, queue: Virtqueue) -> None:
        """Take output, give input, or exchange control messages."""
        if queue.index in (_CONTROL_IN, _CONTROL_OUT):
            if self._multiport:
                self._control(queue)
            return
        number = 0 if queue.index < 2 else queue.index // 2 - 1
        if number and not self._multiport:
            return
        if queue.index % 2:
            self._take(number, queue)
        else:
            self._deliver(number)

    def _take(self, number: int, queue: Virtqueue) -> None:
        write = self._ports[number].backend.write
        for chain in queue.take(2 * _QUEUE_SIZE):
            length = chain.readable_length
            if length > _MAX_OUTPUT:
                raise VirtqueueError(f"{length} bytes of console output at once")
            for offset in range(0, length, _PIECE):
                write(chain.read(offset, _PIECE))
            queue.push(chain, 0)
        self.transport.used(queue)

    def _deliver(self, number: int) -> None:
        """Input, as much as there are buffers for; a multiport driver throws away what a closed port gets."""
        queue = self.transport.queues[0 if not number else 2 + 2 * number]
        if not queue.ready or (self._multiport and not self._open[number]):
            return
        backend = self._ports[number].backend
        while backend.waiting:
            chain = queue.pop()
            if chain is None:
                break
            room = _room(chain)
            queue.push(chain, chain.write(0, backend.read(min(room, _PIECE))))
        self.transport.used(queue)

    def _control(self, queue: Virtqueue) -> None:
        if queue.index == _CONTROL_OUT:
            for chain in queue.take(2 * _QUEUE_SIZE):
                message = chain.read(0, _CONTROL.size)
                queue.push(chain, 0)
                if len(message) == _CONTROL.size:
                    self._obey(*_CONTROL.unpack(message))
            self.transport.used(queue)
        self._send_messages()

    def _obey(self, number: int, event: int, value: int) -> None:
        if event == DEVICE_READY and value:
            for added in range(len(self._ports)):
                self._say(added, DEVICE_ADD, 1)
        elif number >= len(self._ports):
            return
        elif event == PORT_READY and value:
            port = self._ports[number]
            if port.console:
                self._say(number, CONSOLE_PORT, 1)
            if port.name:
                self._say(number, PORT_NAME, 1, port.name.encode())
            self._say(number, PORT_OPEN, 1)
        elif event == PORT_OPEN:
            self._open[number] = bool(value)
            self._deliver(number)

    def _say(self, number: int, event: int, value: int, text: bytes = b"") -> None:
        if len(self._messages) >= _MAX_PENDING_MESSAGES:
            raise VirtqueueError("the driver asks for control messages without taking them")
        self._messages.append(_CONTROL.pack(number, event, value) + text)

    def _send_messages(self) -> None:
        queue = self.transport.queues[_CONTROL_IN]
        if not queue.ready:
            return
        while self._messages:
            chain = queue.pop()
            if chain is None:
                break
            _room(chain)
            queue.push(chain, chain.write(0, self._messages.popleft()))
        self.transport.used(queue)

    def save(self) -> dict[str, object]:
        """Which ports the guest has open, and messages it has not taken."""
        return {"open": list(self._open), "messages": list(self._messages), "size": list(self._size)}

    def load(self, state: Mapping[str, object]) -> None:
        """Take over what :meth:`save` returned."""
        opened, messages, size = state.get("open"), state.get("messages"), state.get("size")
        if not (
            isinstance(opened, list)
            and len(opened) == len(self._ports)
            and isinstance(messages, list)
            and isinstance(size, list)
            and len(size) == 2
        ):
            raise DoppelError(
                "the saved state of the console does not fit this device",
                "load it into a machine with the same configuration as the one that was saved",
            )
        self._open = [bool(value) for value in opened]
        self._messages = deque(messages)
        self._size = (int(size[0]), int(size[1]))


def _room(chain: Chain) -> int:
    room = chain.writable_length
    if not room:
        raise VirtqueueError("a buffer for input that cannot be written")
    return room
