"""Networks behind a network device: frames go out through ``send`` and come in through a callback.

A frame is Ethernet from the destination address to the end of the payload, without checksum. Networks lose
frames rather than make anybody wait.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from queue import Empty, Full, Queue
from threading import Lock, Thread

from doppel.devices.backends.waiting import wait_readable
from doppel.errors import DoppelError

__all__ = ["MAX_FRAME", "Hub", "Loopback", "NetworkBackend", "Tap"]

MAX_FRAME = 65535 + 18
"""Bytes: the largest IP packet behind an Ethernet header with a VLAN tag."""

_TUN_DEVICE = "/dev/net/tun"
# linux/if_tun.h
_TUNSETIFF = 0x4004_54CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_IFREQ = struct.Struct("16sH22x")
_MAX_INTERFACE_NAME = 15
_HUB_CAPACITY = 4096


class NetworkBackend(ABC):
    """One end of a network cable."""

    def __init__(self) -> None:
        self._receive: Callable[[bytes], None] = _drop

    def connect(self, receive: Callable[[bytes], None]) -> None:
        """Have ``receive`` called with every frame that arrives, from any thread, no lock held."""
        self._receive = receive

    @abstractmethod
    def send(self, frame: bytes) -> None:
        """A frame from the guest; called with the bus lock held, must not wait for another machine."""

    def close(self) -> None:
        """Pull the cable."""
        self._receive = _drop


def _drop(frame: bytes) -> None:
    pass


class Loopback(NetworkBackend):
    """Every frame comes back to the card that sent it."""

    def send(self, frame: bytes) -> None:
        """Receive it at once."""
        self._receive(frame)


class Hub:
    """Joins any number of network devices, also of different machines: what one sends, all others receive.

    A thread does the receiving, so that no machine ever waits for the lock of another.
    """

    def __init__(self) -> None:
        self._ports: list[_HubPort] = []
        self._lock = Lock()
        self._frames: Queue[tuple[_HubPort, bytes] | None] = Queue(_HUB_CAPACITY)
        self._closed = False
        self._thread = Thread(target=self._run, name="network hub", daemon=True)
        self._thread.start()

    def port(self) -> NetworkBackend:
        """A new port, for one network device."""
        port = _HubPort(self)
        with self._lock:
            self._ports.append(port)
        return port

    def forward(self, source: _HubPort, frame: bytes) -> None:
        """Send ``frame`` to all ports but ``source``; it is lost if too many are under way."""
        try:
            self._frames.put_nowait((source, frame))
        except Full:
            return

    def remove(self, port: _HubPort) -> None:
        """Unplug a port."""
        with self._lock:
            if port in self._ports:
                self._ports.remove(port)

    def _run(self) -> None:
        while not self._closed:
            item = self._frames.get()
            if item is None:
                return
            source, frame = item
            with self._lock:
                ports = [port for port in self._ports if port is not source]
            for port in ports:
                port.arrive(frame)

    def close(self) -> None:
        """Stop forwarding; frames under way are lost."""
        self._closed = True
        while True:
            try:
                self._frames.put_nowait(None)
                break
            except Full:
                try:
                    self._frames.get_nowait()
                except Empty:
                    continue
        self._thread.join()


class _HubPort(NetworkBackend):
    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub

    def send(self, frame: bytes) -> None:
        self._hub.forward(self, frame)

    def arrive(self, frame: bytes) -> None:
        self._receive(frame)

    def close(self) -> None:
        super().close()
        self._hub.remove(self)


class Tap(NetworkBackend):
    """A TAP interface of a Linux host; ``name`` is the interface's, or empty for one that the host names.

    An interface that does not exist is made, which takes root's rights, and is gone again when this is
    closed.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__()
        if len(name.encode()) > _MAX_INTERFACE_NAME:
            raise DoppelError(
                f"{name!r} is too long for a network interface",
                f"use at most {_MAX_INTERFACE_NAME} characters",
            )
        self._fd = self._open(name)
        self._stop_read, self._stop_write = os.pipe()
        self._thread = Thread(target=self._run, name=f"tap {self.name}", daemon=True)
        self._thread.start()

    def _open(self, name: str) -> int:
        fd = -1
        try:
            fd = os.open(_TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            reply = fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TAP | _IFF_NO_PI))
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            raise _explain(error, name or "a new TAP interface") from error
        self.name = _IFREQ.unpack(reply)[0].rstrip(b"\0").decode()
        return fd

    def _run(self) -> None:
        while True:
            if not wait_readable(self._fd, self._stop_read):
                return
            try:
                frame = os.read(self._fd, MAX_FRAME)
            except BlockingIOError:
                continue
            except OSError:
                return
            self._receive(frame)

    def send(self, frame: bytes) -> None:
        """Lost if the interface is down or its queue is full."""
        try:
            os.write(self._fd, frame)
        except OSError:
            return

    def close(self) -> None:
        """End the reading thread and close the interface."""
        super().close()
        if self._fd >= 0:
            os.write(self._stop_write, b"\0")
            self._thread.join()
            for fd in (self._fd, self._stop_read, self._stop_write):
                os.close(fd)
            self._fd = -1


def _explain(error: OSError, name: str) -> DoppelError:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return DoppelError(f"this host has no {_TUN_DEVICE}", "load its module as root: modprobe tun")
    if error.errno in (errno.EPERM, errno.EACCES):
        return DoppelError(
            f"no permission to open {name}",
            'make the interface as root: ip tuntap add dev tap0 mode tap user "$USER", and name it',
        )
    if error.errno == errno.EBUSY:
        return DoppelError(
            f"{name} is in use by another program", "give each machine an interface of its own"
        )
    return DoppelError(f"cannot open {name}: {error.strerror}", "name a TAP interface of this host")
