from __future__ import annotations

import pytest

from doppel.devices.virtio.rng import VirtioRng

from .support import Driver


@pytest.fixture
def driver() -> Driver:
    return Driver(VirtioRng(lambda count: b"R" * count), queue_size=8)


def test_buffers_are_filled(driver: Driver) -> None:
    assert driver.read(0x008) == 4
    driver.rings[0].offer([], [10, 20])
    (done,) = driver.rings[0].collect()
    assert done.length == 30
    assert done.data == b"R" * 30
    assert driver.interrupts() == 1


def test_large_buffers_in_part(driver: Driver) -> None:
    driver.rings[0].offer([], [100_000])
    (done,) = driver.rings[0].collect()
    assert 0 < done.length < 100_000
    assert done.data[: done.length] == b"R" * done.length
    assert done.data[done.length :] == b"\xcc" * (100_000 - done.length)


def test_buffers_that_cannot_be_written(driver: Driver) -> None:
    driver.rings[0].offer([b"?"], [])
    assert driver.rings[0].collect()[0].length == 0
    assert not driver.needs_reset


def test_move(driver: Driver) -> None:
    driver.rings[0].offer([], [4])
    copy = driver.moved_to(VirtioRng(lambda count: b"S" * count))
    copy.rings[0].offer([], [4])
    assert [done.data for done in copy.rings[0].collect()] == [b"RRRR", b"SSSS"]
