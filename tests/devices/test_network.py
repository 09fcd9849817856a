from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import threading

import pytest

from doppel.devices.backends import network
from doppel.devices.backends.network import Tap
from doppel.errors import DoppelError


def open_tap() -> Tap:
    try:
        return Tap()
    except DoppelError as error:
        pytest.skip(f"no network interface to be had: {error}")


def test_tap_carries_frames_both_ways() -> None:
    tap = open_tap()
    frames: list[bytes] = []
    arrived = threading.Event()

    def receive(frame: bytes) -> None:
        frames.append(frame)
        if frame.endswith(b"from the host"):
            arrived.set()

    try:
        assert tap.name.startswith("tap")
        tap.connect(receive)
        # Lost, since the interface is down; must not fail.
        tap.send(bytes(60))
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as host:
            interface = tap.name.encode()
            flags = struct.pack("16sH14x", interface, 0x1 | 0x1000)
            try:
                fcntl.ioctl(host, 0x8914, flags)
            except PermissionError:
                pytest.skip("no permission to set an interface up")
            host.bind((tap.name, 0x88B5))
            header = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5"
            host.send(header + b"from the host")
            assert arrived.wait(10)
            host.settimeout(10)
            tap.send(header + b"from the guest".ljust(46))
            while not (data := host.recv(2000)).startswith(header + b"from the guest"):
                assert data
    finally:
        tap.close()
        tap.close()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errno.ENOENT, "modprobe tun"),
        (errno.EPERM, "ip tuntap add"),
        (errno.EACCES, "ip tuntap add"),
        (errno.EBUSY, "in use"),
        (errno.EINVAL, "name a TAP interface"),
    ],
)
def test_errors_say_what_to_do(error: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(network.os, "open", refuse)
    with pytest.raises(DoppelError, match=words):
        Tap("tap7")


def test_long_names() -> None:
    with pytest.raises(DoppelError, match="too long"):
        Tap("a-very-long-interface-name")
