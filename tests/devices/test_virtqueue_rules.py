"""Drivers that break the rules of virtqueues: the device stops, and nothing else happens."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .echo import Echo
from .support import INDIRECT, RAM_BASE, Driver, FakeMemory, Ring

NEXT, WRITE, INDIRECT_FLAG = 1, 2, 4


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


words = st.sampled_from([0, 1, 2, 3, 7, 15, 16, 0x40, 0xFFFF, RAM_BASE & 0xFFFF_FFFF, 0xFFFF_FFFF])
registers = st.sampled_from(
    [0x014, 0x020, 0x024, 0x030, 0x038, 0x044, 0x050, 0x064, 0x070, 0x080, 0x084, 0x090, 0x0A0, 0x0C0, 0x104]
)


@settings(deadline=None)
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


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
