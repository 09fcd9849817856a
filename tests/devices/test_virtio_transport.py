"""Virtqueues and the MMIO transport, with a device that sends back what it gets."""

from __future__ import annotations

import struct
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.devices.devicetree import DeviceTreeNode
from doppel.devices.virtio.queue import Virtqueue, VirtqueueError, cut
from doppel.errors import DoppelError

from .echo import Echo
from .support import EVENT_IDX, INDIRECT, RAM_BASE, RING_RESET, VERSION_1, Driver, FakeMemory

NEXT, WRITE, INDIRECT_FLAG = 1, 2, 4


@pytest.fixture
def driver() -> Driver:
    return Driver(Echo())


def test_identification(driver: Driver) -> None:
    assert driver.read(0x000).to_bytes(4, "little") == b"virt"
    assert driver.read(0x004) == 2
    assert driver.read(0x008) == 42
    assert driver.offered() == 0b101 | EVENT_IDX | INDIRECT | VERSION_1 | RING_RESET
    driver.write(0x014, 2)
    assert driver.read(0x010) == 0


def test_echo_and_interrupt(driver: Driver) -> None:
    ring = driver.rings[0]
    ring.offer([b"hello ", b"world"], [4, 20])
    (done,) = ring.collect()
    assert done.length == 11
    assert done.data[:11] == b"hello world"
    assert done.data[11:] == b"\xcc" * 13
    assert driver.wire.level
    assert driver.interrupts() == 1
    assert not driver.wire.level


@pytest.mark.parametrize("indirect", [False, True])
def test_many_rounds_over_the_ring(indirect: bool) -> None:
    driver = Driver(Echo(), queue_size=4, memory=FakeMemory(8 << 20))
    ring = driver.rings[0]
    for number in range(70_000 // 64):
        text = str(number).encode()
        ring.offer([text], [8], indirect=indirect)
        (done,) = ring.collect()
        assert done.data[: done.length] == text


def test_index_wraps_at_65536() -> None:
    driver = Driver(Echo(), queue_size=64, refused=EVENT_IDX)
    ring = driver.rings[0]
    address = driver.allocate(8, 8)
    for index in range(64):
        ring.descriptor(index, address, 8, 0)
    for _ in range(1030):
        ring.publish(*range(64))
        ring.kick()
        assert not driver.needs_reset
    assert driver.memory.read_u16(ring.used + 2) == 1030 * 64 % 65536


def test_batches_are_served_by_one_notification(driver: Driver) -> None:
    ring = driver.rings[0]
    for number in range(5):
        ring.offer([bytes([number])], [1], kick=False)
    assert ring.collect() == []
    ring.kick()
    assert [done.data for done in ring.collect()] == [bytes([number]) for number in range(5)]


def test_a_table_after_plain_descriptors(driver: Driver) -> None:
    """Section 2.7.5.3.2: zero or more normal descriptors, then one that refers to a table."""
    ring = driver.rings[0]
    first = driver.allocate(3, 1)
    driver.memory.write(first, b"one")
    (second,) = ring.pieces([b"two"], [])
    (third,) = ring.pieces([], [16])
    table = driver.allocate(32, 16)
    driver.memory.write(table, struct.pack("<QIHH", second[0], 3, NEXT, 1))
    driver.memory.write(table + 16, struct.pack("<QIHH", third[0], 16, WRITE, 0))
    ring.descriptor(0, first, 3, NEXT, 1)
    ring.descriptor(1, table, 32, INDIRECT_FLAG | WRITE)
    ring.publish(0)
    ring.kick()
    assert driver.memory.read(third[0], 6) == b"onetwo"


class TestNegotiation:
    def test_unknown_features_are_refused(self) -> None:
        driver = Driver(Echo(), start=False)
        assert not driver.negotiate(features=VERSION_1 | 0b10)
        driver.write_status(4)
        assert not driver.status & 4, "no DRIVER_OK without FEATURES_OK"
        assert not driver.transport.running

    def test_a_subset_is_accepted(self) -> None:
        driver = Driver(Echo(), start=False)
        assert driver.negotiate(features=VERSION_1 | 0b100)
        assert driver.transport.negotiated == VERSION_1 | 0b100

    def test_modern_layout_without_the_version_bit(self) -> None:
        # As xv6 does.
        driver = Driver(Echo(), features=0)
        driver.rings[0].offer([b"x"], [1])
        assert driver.rings[0].collect()[0].data == b"x"

    def test_features_are_fixed_by_features_ok(self, driver: Driver) -> None:
        before = driver.transport.negotiated
        driver.write(0x024, 0)
        driver.write(0x020, 0)
        driver.write_status(8)
        assert driver.transport.negotiated == before

    def test_status_bits_stay(self, driver: Driver) -> None:
        driver.write(0x070, 1)
        assert driver.status == 0x0F
        driver.write(0x070, 0x80)
        assert driver.status == 0x8F
        driver.write(0x070, 0x40)
        assert driver.status == 0x8F, "DEVICE_NEEDS_RESET is the device's"

    def test_feature_words_beyond_the_second(self) -> None:
        driver = Driver(Echo(), start=False)
        driver.write(0x024, 2)
        driver.write(0x020, 0xFFFF_FFFF)
        assert driver.negotiate()


class TestQueueSetting:
    def test_sizes(self, driver: Driver) -> None:
        sizes = []
        for index in (0, 1, 2, 0xFFFF_FFFF):
            driver.write(0x030, index)
            sizes.append(driver.read(0x034))
        assert sizes == [64, 8, 0, 0]

    def test_registers_of_a_queue_that_does_not_exist(self, driver: Driver) -> None:
        driver.write(0x030, 7)
        for register in (0x038, 0x044, 0x080, 0x084, 0x090, 0x094, 0x0A0, 0x0A4, 0x0C0):
            driver.write(register, 1)
        assert driver.read(0x044) == 0
        driver.write(0x050, 7)
        assert not driver.needs_reset

    @pytest.mark.parametrize("size", [0, 3, 128, 0xFFFF_FFFF])
    def test_impossible_sizes(self, size: int) -> None:
        driver = Driver(Echo(), start=False)
        driver.negotiate()
        driver.write(0x030, 0)
        driver.write(0x038, size)
        driver.write(0x044, 1)
        assert driver.read(0x044) == 0
        assert driver.needs_reset
        assert not driver.wire.level, "no notification before DRIVER_OK"

    @pytest.mark.parametrize("register", [0x080, 0x090, 0x0A0])
    def test_misaligned_areas(self, register: int) -> None:
        driver = Driver(Echo(), start=False)
        driver.negotiate()
        driver.write(0x030, 0)
        driver.write(register, 1)
        driver.write(0x044, 1)
        assert driver.needs_reset

    def test_a_ready_queue_is_not_changed(self, driver: Driver) -> None:
        driver.write(0x030, 0)
        driver.write(0x038, 2)
        driver.write(0x080, 0)
        driver.rings[0].offer([b"a"], [1])
        assert driver.rings[0].collect()[0].data == b"a"

    def test_notifications_before_driver_ok_and_after_stopping(self) -> None:
        driver = Driver(Echo(), start=False)
        driver.negotiate()
        driver.set_up(8)
        driver.rings[0].offer([b"a"], [1])
        assert driver.rings[0].collect() == []
        driver.write_status(4)
        assert len(driver.rings[0].collect()) == 1, "served when the driver is ready"
        driver.write(0x030, 0)
        driver.write(0x044, 0)
        driver.rings[0].offer([b"b"], [1])
        assert driver.rings[0].collect() == []

    def test_queue_reset(self, driver: Driver) -> None:
        driver.rings[0].offer([b"a"], [1])
        driver.write(0x030, 0)
        driver.write(0x0C0, 1)
        assert driver.read(0x0C0) == 0
        assert driver.read(0x044) == 0
        driver.rings[0].offer([b"b"], [1])
        assert len(driver.rings[0].collect()) == 1
        driver.set_up(32)
        driver.rings[0].offer([b"c"], [1])
        assert [done.data for done in driver.rings[0].collect()] == [b"c"]

    def test_queue_reset_needs_its_feature(self) -> None:
        driver = Driver(Echo(), refused=RING_RESET)
        driver.write(0x030, 0)
        driver.write(0x0C0, 1)
        assert driver.read(0x044) == 1


class TestInterruptSuppression:
    def test_by_flag(self) -> None:
        driver = Driver(Echo(), refused=EVENT_IDX)
        ring = driver.rings[0]
        driver.memory.write_u16(ring.available, 1)
        ring.offer([b"a"], [1])
        assert not driver.wire.level
        driver.memory.write_u16(ring.available, 0)
        ring.offer([b"a"], [1])
        assert driver.wire.level

    def test_by_event_index(self) -> None:
        driver = Driver(Echo())
        ring = driver.rings[0]
        driver.memory.write_u16(ring.available, 1)
        interrupts = []
        # Ask for an interrupt when used.idx passes 3.
        driver.memory.write_u16(ring.available + 4 + 2 * ring.size, 2)
        for _ in range(5):
            ring.offer([b"a"], [1])
            interrupts.append(driver.interrupts())
        assert interrupts == [0, 0, 1, 0, 0]

    def test_available_event_is_kept_up_to_date(self) -> None:
        driver = Driver(Echo())
        ring = driver.rings[0]
        event = ring.used + 4 + 8 * ring.size
        for count in range(1, 4):
            ring.offer([b"a"], [1])
            assert driver.memory.read_u16(event) == count

    def test_spurious_notifications(self, driver: Driver) -> None:
        for _ in range(3):
            driver.rings[0].kick()
        assert not driver.wire.level
        assert not driver.needs_reset


class TestConfigurationSpace:
    def test_reading_any_width(self, driver: Driver) -> None:
        read = driver.transport.read
        assert read(0x100, 1) == 1
        assert read(0x101, 2) == 0x0302
        assert read(0x104, 4) == 0x08070605
        assert read(0x100, 8) == 0x0807060504030201
        assert read(0x10A, 4) == 0x0C0B
        assert read(0x10C, 4) == 0
        assert read(0xFFF, 1) == 0

    def test_writing(self, driver: Driver) -> None:
        driver.transport.write(0x108, 2, 0x1234)
        assert driver.device.configured == [(8, b"\x34\x12")]

    def test_generation(self, driver: Driver) -> None:
        before = driver.read(0x0FC)
        driver.transport.configuration_changed()
        assert driver.read(0x0FC) != before
        assert driver.interrupts() == 2

    def test_no_notification_without_driver(self) -> None:
        driver = Driver(Echo(), start=False)
        driver.transport.configuration_changed()
        assert not driver.wire.level

    def test_control_registers_take_words_only(self, driver: Driver) -> None:
        assert driver.transport.read(0x000, 1) == 0
        assert driver.transport.read(0x000, 8) == 0
        driver.transport.write(0x070, 1, 0)
        assert driver.status == 0x0F

    def test_shared_memory_does_not_exist(self, driver: Driver) -> None:
        driver.write(0x0AC, 0)
        assert [driver.read(offset) for offset in (0x0B0, 0x0B4, 0x0B8, 0x0BC)] == [0xFFFF_FFFF] * 4


def test_reset_by_the_driver(driver: Driver) -> None:
    driver.rings[0].offer([b"x"], [1])
    before = driver.device.resets
    driver.write(0x070, 0)
    assert driver.device.resets == before + 1
    assert driver.status == 0
    assert driver.read(0x060) == 0
    assert not driver.wire.level
    driver.write(0x030, 0)
    assert driver.read(0x044) == 0


def test_calls_from_other_threads(driver: Driver) -> None:
    seen: list[str] = []

    def broken() -> None:
        raise VirtqueueError("from outside")

    driver.transport.call(lambda: seen.append("ran"))
    driver.transport.call(broken)
    assert driver.needs_reset
    driver.transport.call(lambda: seen.append("never"))
    assert seen == ["ran"]


def test_a_guest_that_never_stops_adding_does_not_hold_the_lock() -> None:
    class Endless(Echo):
        """While it is served, another hart makes the same chain available again and again."""

        served = 0

        def process(self, queue: Virtqueue) -> None:
            for chain in queue.take(50):
                queue.push(chain, 0)
                self.served += 1
                if not self.stop:
                    self.ring.publish(0)
            self.transport.used(queue)

    device = Endless()
    device.stop = False
    driver = Driver(device)
    device.ring = ring = driver.rings[0]
    ring.descriptor(0, RAM_BASE, 4, 0)
    ring.publish(0)
    with driver.lock:
        ring.kick()
        assert device.served == 50
    acquired = threading.Event()

    def contender() -> None:
        with driver.lock:
            device.stop = True
            acquired.set()

    threading.Thread(target=contender).start()
    assert acquired.wait(10)
    deadline = time.monotonic() + 10
    while driver.memory.read_u16(ring.used + 2) != driver.memory.read_u16(ring.available + 2):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert device.served > 50


def test_save_and_load() -> None:
    driver = Driver(Echo())
    ring = driver.rings[0]
    for number in range(3):
        ring.offer([bytes([number])], [1])
    ring.offer([b"later"], [5], kick=False)
    copy = driver.moved_to(Echo())
    assert copy.wire.level
    assert copy.status == driver.status
    copy.write(0x050, 0)
    assert [done.data for done in ring.collect()] == [b"\0", b"\1", b"\2", b"later"]


def test_states_that_do_not_fit() -> None:
    state = Driver(Echo()).transport.save()
    for damage in (
        {"queues": []},
        {"queues": [{}, {}]},
        {"device": None},
        {"status": "x"},
        {"queues": [dict(queue, size=4096) for queue in state["queues"]]},
        {"queues": [dict(queue, used=None) for queue in state["queues"]]},
    ):
        with pytest.raises(DoppelError):
            Driver(Echo(), start=False).transport.load(state | damage)


def test_describe(driver: Driver) -> None:
    node = DeviceTreeNode("virtio@10001000")
    driver.transport.describe(node)
    assert node.get_strings("compatible") == ("virtio,mmio",)
    assert node.get_cells("interrupts") == (5,)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(1, 50)), max_size=6),
    st.integers(0, 400),
    st.integers(0, 400),
)
def test_cut(pieces: list[tuple[int, int]], offset: int, length: int) -> None:
    def expand(parts: list[tuple[int, int]]) -> list[int]:
        return [address + at for address, size in parts for at in range(size)]

    assert expand(cut(pieces, offset, length)) == expand(pieces)[offset : offset + length]
