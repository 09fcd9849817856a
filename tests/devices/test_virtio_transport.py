"""Virtqueues and the MMIO transport, with a device that sends back what it gets."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doppel.devices.devicetree import DeviceTreeNode
from doppel.devices.virtio.device import VirtioDevice
from doppel.devices.virtio.queue import Virtqueue, VirtqueueError, cut
from doppel.errors import DoppelError

from .support import EVENT_IDX, INDIRECT, RAM_BASE, RING_RESET, VERSION_1, Driver, FakeMemory, Ring

NEXT, WRITE, INDIRECT_FLAG = 1, 2, 4


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


def break_loop(ring: Ring) -> None:
    ring.descriptor(0, RAM_BASE, 4, NEXT, 1)
    ring.descriptor(1, RAM_BASE, 4, NEXT, 0)
    ring.publish(0)


def break_self_loop(ring: Ring) -> None:
    ring.descriptor(0, RAM_BASE, 4, NEXT | WRITE, 0)
    ring.publish(0)


def break_head(ring: Ring) -> None:
    ring.publish(ring.size)


def break_next(ring: Ring) -> None:
    ring.descriptor(0, RAM_BASE, 4, NEXT, ring.size)
    ring.publish(0)


def break_address(ring: Ring) -> None:
    ring.descriptor(0, 0x1000, 4, 0)
    ring.publish(0)


def break_address_wrap(ring: Ring) -> None:
    ring.descriptor(0, (1 << 64) - 2, 4, 0)
    ring.publish(0)


def break_end(ring: Ring) -> None:
    ring.descriptor(0, RAM_BASE + len(ring.memory.data) - 2, 4, 0)
    ring.publish(0)


def break_writable_address(ring: Ring) -> None:
    ring.descriptor(0, RAM_BASE, 4, NEXT, 1)
    ring.descriptor(1, 0, 4, WRITE)
    ring.publish(0)


def break_zero_length(ring: Ring) -> None:
    ring.descriptor(0, RAM_BASE, 0, 0)
    ring.publish(0)


def break_order(ring: Ring) -> None:
    ring.descriptor(0, RAM_BASE, 4, NEXT | WRITE, 1)
    ring.descriptor(1, RAM_BASE, 4, 0)
    ring.publish(0)


def break_available_index(ring: Ring) -> None:
    ring.memory.write_u16(ring.available + 2, ring.size + 1)


def break_available_backwards(ring: Ring) -> None:
    ring.memory.write_u16(ring.available + 2, 0xFFFF)


def indirect(
    ring: Ring, *entries: tuple[int, int, int, int], length: int | None = None, flags: int = 4
) -> None:
    table = ring.driver.allocate(16 * max(1, len(entries)), 16)
    for at, entry in enumerate(entries):
        ring.memory.write(table + 16 * at, struct.pack("<QIHH", *entry))
    ring.descriptor(0, table, 16 * len(entries) if length is None else length, flags, 1)
    ring.descriptor(1, RAM_BASE, 4, 0)
    ring.publish(0)


def break_nested(ring: Ring) -> None:
    indirect(ring, (RAM_BASE, 16, 4, 0))


def break_nested_second(ring: Ring) -> None:
    indirect(ring, (RAM_BASE, 4, NEXT, 1), (RAM_BASE, 16, INDIRECT_FLAG, 0))


def break_indirect_next(ring: Ring) -> None:
    indirect(ring, (RAM_BASE, 4, 0, 0), flags=INDIRECT_FLAG | NEXT)


def break_indirect_length(ring: Ring) -> None:
    indirect(ring, (RAM_BASE, 4, 0, 0), length=17)


def break_indirect_empty(ring: Ring) -> None:
    indirect(ring, length=0)


def break_indirect_huge(ring: Ring) -> None:
    indirect(ring, (RAM_BASE, 4, 0, 0), length=0xFFFF_FFF0)


def break_indirect_address(ring: Ring) -> None:
    ring.descriptor(0, 0, 32, INDIRECT_FLAG)
    ring.publish(0)


def break_indirect_beyond(ring: Ring) -> None:
    indirect(ring, (RAM_BASE, 4, NEXT, 1))


def break_indirect_loop(ring: Ring) -> None:
    indirect(ring, (RAM_BASE, 4, NEXT, 1), (RAM_BASE, 4, NEXT, 0))


def break_indirect_too_long(ring: Ring) -> None:
    count = ring.size + 1
    indirect(ring, *((RAM_BASE, 1, NEXT if at < count - 1 else 0, at + 1) for at in range(count)))


BREAKS = [value for name, value in sorted(globals().items()) if name.startswith("break_")]


@pytest.mark.parametrize("break_rules", BREAKS, ids=lambda function: function.__name__)
def test_rule_breaking_stops_the_device(break_rules: Callable[[Ring], None]) -> None:
    driver = Driver(Echo())
    ring = driver.rings[0]
    break_rules(ring)
    ring.kick()
    assert driver.needs_reset
    assert driver.transport.failure
    assert driver.read(0x060) == 2, "configuration change notification"
    assert driver.wire.level
    assert ring.memory.read_u16(ring.used + 2) == 0
    # It stays stopped, whatever comes.
    driver.interrupts()
    driver.rings[1].offer([b"x"], [1])
    ring.kick()
    assert driver.rings[1].collect() == []
    assert not driver.wire.level
    # A reset brings it back.
    assert driver.negotiate()
    assert driver.status == 0x0B
    assert driver.transport.failure is None
    driver.set_up(16)
    driver.write_status(4)
    driver.rings[0].offer([b"again"], [5])
    assert driver.rings[0].collect()[0].data == b"again"


@pytest.mark.parametrize("area", ["descriptors", "available", "used"])
def test_rings_outside_memory(area: str) -> None:
    driver = Driver(Echo(), start=False)
    driver.negotiate()
    driver.set_up(8)
    driver.write(0x030, 0)
    driver.write(0x044, 0)
    register = {"descriptors": 0x080, "available": 0x090, "used": 0x0A0}[area]
    driver.write(register + 4, 0xFFFF_FFFF)
    driver.write(0x044, 1)
    driver.rings[0].offer([b"x"], [1])
    driver.write_status(4)
    assert driver.needs_reset
    assert driver.wire.level


def test_indirect_needs_its_feature() -> None:
    driver = Driver(Echo(), refused=INDIRECT)
    driver.rings[0].offer([b"x"], [1], indirect=True)
    assert driver.needs_reset


def test_a_chain_of_more_than_4_gib() -> None:
    driver = Driver(Echo())
    ring = driver.rings[0]
    ring.descriptor(0, RAM_BASE, 0xFFFF_FFFF, NEXT, 1)
    ring.descriptor(1, RAM_BASE, 2, 0)
    ring.publish(0)
    ring.kick()
    assert driver.needs_reset


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


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(1, 50)), max_size=6),
    st.integers(0, 400),
    st.integers(0, 400),
)
def test_cut(pieces: list[tuple[int, int]], offset: int, length: int) -> None:
    def expand(parts: list[tuple[int, int]]) -> list[int]:
        return [address + at for address, size in parts for at in range(size)]

    assert expand(cut(pieces, offset, length)) == expand(pieces)[offset : offset + length]


words = st.sampled_from([0, 1, 2, 3, 7, 15, 16, 0x40, 0xFFFF, RAM_BASE & 0xFFFF_FFFF, 0xFFFF_FFFF])
registers = st.sampled_from(
    [0x014, 0x020, 0x024, 0x030, 0x038, 0x044, 0x050, 0x064, 0x070, 0x080, 0x084, 0x090, 0x0A0, 0x0C0, 0x104]
)


@given(st.lists(st.tuples(registers, st.one_of(words, st.integers(0, 0xFFFF_FFFF))), max_size=40))
def test_any_register_writes(writes: list[tuple[int, int]]) -> None:
    driver = Driver(Echo(), memory=FakeMemory(0x8000))
    for register, value in writes:
        driver.write(register, value)
        for offset in range(0, 0x110, 4):
            assert 0 <= driver.read(offset) <= 0xFFFF_FFFF
    assert driver.negotiate()


descriptors = st.tuples(
    st.one_of(
        st.integers(RAM_BASE, RAM_BASE + 0x8000),
        st.sampled_from([0, RAM_BASE, RAM_BASE + 0x7FFC, (1 << 64) - 1]),
        st.integers(0, (1 << 64) - 1),
    ),
    st.one_of(st.sampled_from([0, 1, 16, 32, 0x100]), st.integers(0, 0xFFFF_FFFF)),
    st.one_of(st.integers(0, 7), st.integers(0, 0xFFFF)),
    st.integers(0, 9),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(descriptors, min_size=8, max_size=8),
    st.lists(st.integers(0, 8), max_size=10),
    st.integers(0, 0xFFFF),
    st.booleans(),
)
def test_any_descriptors(
    table: list[tuple[int, int, int, int]], heads: list[int], index: int, honest: bool
) -> None:
    driver = Driver(Echo(), queue_size=8, memory=FakeMemory(0x8000))
    ring = driver.rings[0]
    for at, descriptor in enumerate(table):
        ring.descriptor(at, *descriptor)
    ring.publish(*heads)
    if not honest:
        ring.memory.write_u16(ring.available + 2, index)
    ring.kick()
    assert driver.status in (0x0F, 0x4F)
    assert driver.negotiate()
