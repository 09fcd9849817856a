from __future__ import annotations

import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.devices.backends.characters import Buffer
from doppel.devices.virtio.console import ConsolePort, VirtioConsole
from doppel.errors import DoppelError

from .support import Driver

READY, ADD, PORT_READY, CONSOLE, OPEN, NAME = 0, 1, 3, 4, 6, 7


def single(**options: object) -> tuple[Driver, Buffer]:
    backend = Buffer()
    return Driver(VirtioConsole([ConsolePort(backend)], **options)), backend


def multiport() -> tuple[Driver, Buffer, Buffer]:
    console, agent = Buffer(), Buffer()
    ports = [ConsolePort(console), ConsolePort(agent, name="org.doppel.agent", console=False)]
    return Driver(VirtioConsole(ports)), console, agent


def control(driver: Driver, number: int, event: int, value: int) -> None:
    driver.rings[3].offer([struct.pack("<IHH", number, event, value)])
    driver.rings[3].collect()


def messages(driver: Driver, room: int = 64) -> list[tuple[int, int, int, bytes]]:
    """Everything the device has to say."""
    said = []
    while True:
        driver.rings[2].offer([], [room])
        done = driver.rings[2].collect()
        if not done:
            return said
        said += [(*struct.unpack("<IHH", one.data[:8]), one.data[8 : one.length]) for one in done]


def test_output() -> None:
    driver, backend = single()
    driver.rings[1].offer([b"hello ", b"world"])
    driver.rings[1].offer([b"x" * 200_000])
    assert backend.output == b"hello world" + b"x" * 200_000
    assert [done.length for done in driver.rings[1].collect()] == [0, 0]
    assert driver.interrupts() == 1


def test_endless_output_is_refused() -> None:
    driver, backend = single()
    ring = driver.rings[1]
    for index in range(16):
        ring.descriptor(index, 0x8000_0000, 1 << 20, index < 15, index + 1)
    ring.descriptor(15, 0x8000_0000, (1 << 20) + 1, 0)
    ring.publish(0)
    ring.kick()
    assert driver.needs_reset
    assert backend.output == b""


def test_input_waits_for_buffers() -> None:
    driver, backend = single()
    backend.feed(b"typed before there is a buffer")
    assert driver.rings[0].collect() == []
    driver.rings[0].offer([], [5])
    driver.rings[0].offer([], [100])
    first, second = driver.rings[0].collect()
    assert first.data == b"typed"
    assert second.data[: second.length] == b" before there is a buffer"
    assert driver.interrupts() == 1
    driver.rings[0].offer([], [10])
    assert driver.rings[0].collect() == []
    backend.feed(b"now")
    (done,) = driver.rings[0].collect()
    assert done.data[: done.length] == b"now"
    assert driver.wire.level


def test_input_before_the_driver_is_ready() -> None:
    backend = Buffer()
    driver = Driver(VirtioConsole([ConsolePort(backend)]), start=False)
    backend.feed(b"early")
    driver.negotiate()
    driver.set_up(8)
    driver.rings[0].offer([], [10])
    driver.write_status(4)
    (done,) = driver.rings[0].collect()
    assert done.data[: done.length] == b"early"


def test_input_from_another_thread() -> None:
    driver, backend = single()
    driver.rings[0].offer([], [10])
    with driver.lock:
        thread = threading.Thread(target=backend.feed, args=(b"typed",))
        thread.start()
        thread.join(0.05)
        assert driver.rings[0].collect() == [], "the device waits for the lock"
    thread.join(10)
    assert driver.rings[0].collect()[0].length == 5


def test_buffers_for_input_must_be_writable() -> None:
    driver, backend = single()
    driver.rings[0].offer([b"?"])
    assert not driver.needs_reset
    backend.feed(b"x")
    assert driver.needs_reset


def test_configuration_and_resizing() -> None:
    driver, _ = single(size=(80, 25))
    assert driver.offered() & 0b111 == 0b101
    assert driver.transport.read(0x100, 4) == 25 << 16 | 80
    assert driver.transport.read(0x104, 4) == 1
    generation = driver.read(0x0FC)
    driver.device.resize(132, 50)
    assert driver.transport.read(0x100, 2) == 132
    assert driver.transport.read(0x102, 2) == 50
    assert driver.read(0x0FC) != generation
    assert driver.interrupts() == 2
    plain, _ = single()
    assert plain.offered() & 0b111 == 0b100


def test_emergency_write_needs_no_driver() -> None:
    backend = Buffer()
    driver = Driver(VirtioConsole([ConsolePort(backend)]), start=False)
    driver.transport.write(0x108, 4, 0x1234_5641)
    driver.transport.write(0x100, 4, 0x42)
    assert backend.output == b"A"


def test_port_set_up_as_linux_does_it() -> None:
    driver, console, agent = multiport()
    assert driver.offered() & 0b10
    assert driver.transport.read(0x104, 4) == 2
    control(driver, 0xFFFF_FFFF, READY, 1)
    assert messages(driver) == [(0, ADD, 1, b""), (1, ADD, 1, b"")]
    control(driver, 0, PORT_READY, 1)
    control(driver, 1, PORT_READY, 1)
    assert messages(driver) == [
        (0, CONSOLE, 1, b""),
        (0, OPEN, 1, b""),
        (1, NAME, 1, b"org.doppel.agent"),
        (1, OPEN, 1, b""),
    ]
    driver.rings[0].offer([], [10])
    driver.rings[4].offer([], [10])
    console.feed(b"con")
    agent.feed(b"agent")
    assert driver.rings[0].collect() == driver.rings[4].collect() == [], "no port is open yet"
    control(driver, 1, OPEN, 1)
    assert driver.rings[4].collect()[0].data[:5] == b"agent"
    control(driver, 0, OPEN, 1)
    assert driver.rings[0].collect()[0].data[:3] == b"con"
    driver.rings[5].offer([b"answer"])
    assert agent.output == b"answer"
    control(driver, 1, OPEN, 0)
    driver.rings[4].offer([], [10])
    agent.feed(b"late")
    assert driver.rings[4].collect() == []


def test_nonsense_control_messages() -> None:
    driver, *_ = multiport()
    for message in (
        b"",
        b"short",
        struct.pack("<IHH", 9, OPEN, 1),
        struct.pack("<IHH", 0, 99, 1),
        bytes(100),
    ):
        driver.rings[3].offer([message] if message else [], [] if message else [1])
    control(driver, 0, PORT_READY, 0)
    control(driver, 0, READY, 0)
    assert not driver.needs_reset
    assert messages(driver) == []


def test_messages_that_nobody_takes() -> None:
    driver, *_ = multiport()
    for _ in range(200):
        if not driver.needs_reset:
            control(driver, 0, PORT_READY, 1)
    assert driver.needs_reset


def test_a_driver_without_multiport() -> None:
    console, agent = Buffer(), Buffer()
    ports = [ConsolePort(console), ConsolePort(agent, name="agent")]
    driver = Driver(VirtioConsole(ports), refused=0b10)
    driver.rings[0].offer([], [10])
    console.feed(b"plain")
    assert driver.rings[0].collect()[0].data[:5] == b"plain"
    driver.rings[5].offer([b"ignored"])
    control(driver, 0, READY, 1)
    assert agent.output == b""
    assert not driver.needs_reset


def test_number_of_ports() -> None:
    for count in (0, 32):
        with pytest.raises(DoppelError):
            VirtioConsole([ConsolePort(Buffer())] * count)


def test_reset_closes_ports() -> None:
    driver, _, agent = multiport()
    control(driver, 1, OPEN, 1)
    driver.negotiate()
    driver.set_up(16)
    driver.write_status(4)
    driver.rings[4].offer([], [10])
    agent.feed(b"x")
    assert driver.rings[4].collect() == []


def test_move() -> None:
    driver, *_ = multiport()
    control(driver, 1, OPEN, 1)
    control(driver, 0, PORT_READY, 1)
    agent = Buffer()
    ports = [ConsolePort(Buffer()), ConsolePort(agent, name="org.doppel.agent", console=False)]
    copy = driver.moved_to(VirtioConsole(ports))
    assert messages(copy) == [(0, CONSOLE, 1, b""), (0, OPEN, 1, b"")]
    copy.rings[4].offer([], [10])
    agent.feed(b"moved")
    assert copy.rings[4].collect()[0].length == 5
    with pytest.raises(DoppelError):
        copy.device.load({"open": [True], "messages": [], "size": [0, 0]})


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.one_of(
                st.binary(max_size=12),
                st.builds(
                    lambda number, event, value: struct.pack("<IHH", number, event, value),
                    st.integers(0, 3),
                    st.integers(0, 8),
                    st.integers(0, 1),
                ),
            ),
            st.lists(st.integers(1, 20), max_size=2),
        ),
        max_size=20,
    )
)
def test_any_buffers(buffers: list[tuple[int, bytes, list[int]]]) -> None:
    console, agent = Buffer(), Buffer()
    driver = Driver(VirtioConsole([ConsolePort(console), ConsolePort(agent, name="a")]), queue_size=64)
    for index, readable, writable in buffers:
        if readable or writable:
            driver.rings[index].offer([readable] if readable else [], writable)
        agent.feed(b"in")
    assert driver.status in (0x0F, 0x4F)
