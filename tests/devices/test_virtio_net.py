from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.devices.backends.network import Hub, Loopback, NetworkBackend
from doppel.devices.virtio.net import VirtioNet, parse_mac
from doppel.errors import DoppelError

from .support import Done, Driver

F_MRG_RXBUF = 1 << 15
HEADER = bytes(12)


class Wireless(NetworkBackend):
    """Remembers what was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    def arrive(self, frame: bytes) -> None:
        self._receive(frame)


def make(refused: int = 0, **options: int) -> tuple[Driver, Wireless]:
    backend = Wireless()
    return Driver(VirtioNet(backend), refused=refused, **options), backend


def frame(length: int = 60) -> bytes:
    return bytes(at & 0xFF for at in range(length))


def received(done: list[Done]) -> bytes:
    return b"".join(one.data[: one.length] for one in done)


def test_configuration() -> None:
    driver = Driver(VirtioNet(Wireless(), mac="02:00:5e:10:00:01"))
    assert driver.read(0x008) == 1
    assert bytes(driver.transport.read(0x100 + at, 1) for at in range(6)) == b"\x02\0\x5e\x10\0\1"
    assert driver.transport.read(0x106, 2) == 1


@pytest.mark.parametrize("text", ["", "02:00", "02:00:00:00:00:0g", "01:00:00:00:00:00", "2:0:0:0:0:100"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(DoppelError):
        parse_mac(text)


def test_sending() -> None:
    driver, backend = make()
    driver.rings[1].offer([HEADER, frame()[:20], frame()[20:]])
    driver.rings[1].offer([HEADER + frame(1514)])
    assert backend.sent == [frame(), frame(1514)]
    assert [done.length for done in driver.rings[1].collect()] == [0, 0]
    assert driver.interrupts() == 1


def test_frames_of_impossible_length_are_lost() -> None:
    driver, backend = make(memory=None)
    driver.rings[1].offer([HEADER + frame(13)])
    driver.rings[1].offer([HEADER])
    driver.rings[1].offer([HEADER + bytes(70_000)])
    assert backend.sent == []
    assert len(driver.rings[1].collect()) == 3
    assert not driver.needs_reset


def test_a_frame_without_header() -> None:
    driver, _ = make()
    driver.rings[1].offer([b"x" * 11])
    assert driver.needs_reset


def test_receiving() -> None:
    driver, backend = make()
    driver.rings[0].offer([], [1600])
    driver.rings[0].offer([], [12, 1600])
    backend.arrive(frame(60))
    backend.arrive(frame(1514))
    first, second = driver.rings[0].collect()
    for done, length in ((first, 60), (second, 1514)):
        assert done.length == 12 + length
        assert done.data[:12] == bytes(10) + b"\1\0"
        assert done.data[12 : done.length] == frame(length)
    assert driver.interrupts() == 1


def test_mergeable_buffers() -> None:
    driver, backend = make()
    for _ in range(4):
        driver.rings[0].offer([], [500])
    backend.arrive(frame(1400))
    done = driver.rings[0].collect()
    assert [one.length for one in done] == [500, 500, 412]
    data = received(done)
    assert data[10:12] == b"\3\0"
    assert data[12:] == frame(1400)
    backend.arrive(frame(100))
    assert received(driver.rings[0].collect())[12:] == frame(100)


def test_frames_wait_for_buffers() -> None:
    driver, backend = make()
    driver.rings[0].offer([], [500])
    backend.arrive(frame(600))
    assert driver.rings[0].collect() == []
    driver.rings[0].offer([], [500])
    done = driver.rings[0].collect()
    assert [one.length for one in done] == [500, 112]
    assert received(done)[12:] == frame(600)


def test_many_buffers_given_back_and_used() -> None:
    driver, backend = make()
    for _ in range(6):
        driver.rings[0].offer([], [100])
    for length in (700, 80, 500):
        backend.arrive(frame(length))
    assert driver.rings[0].collect() == []
    for _ in range(6):
        driver.rings[0].offer([], [200])
    data = received(driver.rings[0].collect())
    for length in (700, 80, 500):
        assert data[12 : 12 + length] == frame(length)
        data = data[12 + length :]
    assert data == b""
    assert not driver.needs_reset


def test_without_mergeable_buffers() -> None:
    driver, backend = make(refused=F_MRG_RXBUF)
    driver.rings[0].offer([], [500])
    backend.arrive(frame(600))
    assert driver.rings[0].collect() == []
    backend.arrive(frame(400))
    (done,) = driver.rings[0].collect()
    assert done.data[10:12] == b"\1\0"
    assert done.data[12 : done.length] == frame(400)


def test_too_many_waiting_frames_are_lost() -> None:
    driver, backend = make()
    for _ in range(3000):
        backend.arrive(frame())
    assert len(driver.device.save()["waiting"]) == 1024


def test_nothing_is_received_before_the_driver_is_ready() -> None:
    backend = Wireless()
    driver = Driver(VirtioNet(backend), start=False)
    backend.arrive(frame())
    driver.negotiate()
    driver.set_up(8)
    driver.write_status(4)
    driver.rings[0].offer([], [200])
    assert driver.rings[0].collect() == []


def test_buffers_that_cannot_be_written() -> None:
    driver, backend = make()
    driver.rings[0].offer([b"?"])
    backend.arrive(frame())
    assert driver.needs_reset


def test_loopback() -> None:
    driver = Driver(VirtioNet(Loopback()))
    driver.rings[0].offer([], [200])
    driver.rings[1].offer([HEADER + frame()])
    assert received(driver.rings[0].collect())[12:] == frame()


def test_a_hub_joins_machines_that_send_to_each_other_at_once() -> None:
    hub = Hub()
    drivers = [Driver(VirtioNet(hub.port()), queue_size=256) for _ in range(3)]
    try:
        for driver in drivers:
            for _ in range(200):
                driver.rings[0].offer([], [100])

        def send(driver: Driver, letter: bytes) -> None:
            for _ in range(50):
                with driver.lock:
                    driver.rings[1].offer([HEADER + letter * 60])

        threads = [
            threading.Thread(target=send, args=(driver, letter))
            for driver, letter in zip(drivers, (b"a", b"b", b"c"), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        got: list[bytes] = [b"", b"", b""]
        done = threading.Event()
        for _ in range(500):
            for at, driver in enumerate(drivers):
                with driver.lock:
                    got[at] += b"".join(one.data[12 : one.length] for one in driver.rings[0].collect())
            if all(len(data) == 100 * 60 for data in got):
                break
            done.wait(0.01)
        for at, own in enumerate(b"abc"):
            assert sorted(set(got[at])) == sorted(set(b"abc") - {own})
            assert len(got[at]) == 100 * 60
    finally:
        hub.close()


def test_unplugging_from_a_hub() -> None:
    hub = Hub()
    first, second = hub.port(), hub.port()
    arrived = threading.Event()
    second.connect(lambda data: arrived.set())
    first.send(frame())
    assert arrived.wait(10)
    arrived.clear()
    second.close()
    second.close()
    first.send(frame())
    assert not arrived.wait(0.05)
    hub.close()
    first.send(frame())


def test_move() -> None:
    driver, backend = make()
    backend.arrive(frame(100))
    copy = driver.moved_to(VirtioNet(Wireless()))
    copy.rings[0].offer([], [200])
    assert received(copy.rings[0].collect())[12:] == frame(100)
    with pytest.raises(DoppelError):
        copy.device.load({})


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("rx"), st.lists(st.integers(1, 700), min_size=1, max_size=2)),
            st.tuples(st.just("tx"), st.lists(st.integers(1, 700), min_size=1, max_size=2)),
            st.tuples(st.just("frame"), st.integers(0, 1600)),
        ),
        max_size=25,
    ),
    st.booleans(),
)
def test_any_traffic(steps: list[tuple[str, list[int] | int]], mergeable: bool) -> None:
    driver, backend = make(refused=0 if mergeable else F_MRG_RXBUF, queue_size=64)
    lost = True
    for kind, what in steps:
        if isinstance(what, int):
            backend.arrive(frame(what))
        elif kind == "rx":
            driver.rings[0].offer([], what)
        else:
            driver.rings[1].offer([bytes(length) for length in what])
    if not driver.needs_reset:
        done = driver.rings[0].collect()
        while done:
            count = int.from_bytes(received(done)[10:12], "little")
            assert 1 <= count <= len(done)
            data = received(done[:count])[12:]
            assert data == frame(len(data))
            done = done[count:]
        lost = False
    assert lost == any(kind == "tx" and sum(what) < 12 for kind, what in steps if isinstance(what, list))
