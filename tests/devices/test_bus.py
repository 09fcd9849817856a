from __future__ import annotations

import pytest

from doppel.devices.bus import Bus, BusError
from doppel.devices.device import Device, Register, RegisterTable
from doppel.devices.devicetree import DeviceTreeNode
from doppel.errors import DoppelError


class Scratch(Device):
    """Four words, one wide register, one that only reads."""

    size = 0x20
    registers = RegisterTable(
        (
            Register(0x0, "Word", "rw", 4, "words", "word_count", 4),
            Register(0x10, "Wide", "rw", 8, "a wide one"),
            Register(0x18, "MagicID", "r", 4, "constant"),
            Register(0x1C, "Byte", "w", 1, "a narrow one"),
        )
    )
    saved = ("_words", "_wide", "_byte")

    def __init__(self, name: str = "scratch", word_count: int = 4) -> None:
        self.word_count = word_count
        self._words = [0] * word_count
        self._wide = 0
        self._byte = 0
        super().__init__(name)

    def read_word(self, index: int) -> int:
        return self._words[index]

    def write_word(self, index: int, value: int) -> None:
        self._words[index] = value

    def read_wide(self) -> int:
        return self._wide

    def write_wide(self, value: int) -> None:
        self._wide = value

    def read_magic_id(self) -> int:
        return 0xABCD

    def write_byte(self, value: int) -> None:
        self._byte = value

    def reset(self) -> None:
        self._words = [0] * self.word_count
        self._wide = 0

    def describe(self, node: DeviceTreeNode) -> None:
        node.set_strings("compatible", "scratch")


def test_registers_dispatch_by_offset_and_width() -> None:
    device = Scratch()
    device.write(0x8, 4, 77)
    assert device.read(0x8, 4) == 77
    assert device._words == [0, 0, 77, 0]
    assert device.read(0x8, 2) == 0
    assert device.read(0x9, 4) == 0
    assert device.read(0x18, 4) == 0xABCD
    device.write(0x18, 4, 1)
    assert device.read(0x18, 4) == 0xABCD
    device.write(0x1C, 1, 9)
    assert device._byte == 9
    assert device.read(0x1C, 1) == 0


def test_wide_registers_have_halves() -> None:
    device = Scratch()
    device.write(0x10, 8, 0x1122_3344_5566_7788)
    assert device.read(0x10, 4) == 0x5566_7788
    assert device.read(0x14, 4) == 0x1122_3344
    device.write(0x14, 4, 0xAABB_CCDD)
    assert device.read(0x10, 8) == 0xAABB_CCDD_5566_7788
    device.write(0x10, 4, 1)
    assert device.read(0x10, 8) == 0xAABB_CCDD_0000_0001


def test_method_names() -> None:
    names = {"QueueReady": "queue_ready", "DeviceID": "device_id", "SHMLenLow": "shm_len_low", "MSIP": "msip"}
    for name, method in names.items():
        assert Register(0, name, "r", 4, "").method == method


def test_bus_finds_devices_and_counts() -> None:
    bus = Bus()
    low, high = Scratch("low"), Scratch("high")
    region = bus.attach(0x1000, low)
    bus.attach(0x2000, high)
    bus.attach(0x1020, Scratch("adjacent"))
    bus.write(0x1004, 4, 5)
    bus.write(0x2004, 4, 6)
    assert bus.read(0x1004, 4) == 5
    assert bus.read(0x2004, 4) == 6
    assert (region.reads, region.writes) == (1, 1)
    assert [region.device.name for region in bus] == ["low", "adjacent", "high"]
    assert bus.find("high").device is high
    with pytest.raises(DoppelError, match="low, adjacent, high"):
        bus.find("none")


@pytest.mark.parametrize("address", [0, 0xFFF, 0x1020, 0x101E, 1 << 63])
def test_unclaimed_addresses(address: int) -> None:
    bus = Bus()
    bus.attach(0x1000, Scratch())
    with pytest.raises(BusError) as load:
        bus.read(address, 4)
    assert (load.value.address, load.value.size, load.value.write) == (address, 4, False)
    with pytest.raises(BusError) as store:
        bus.write(address, 4, 0)
    assert store.value.write


def test_an_empty_bus() -> None:
    with pytest.raises(BusError):
        Bus().read(0, 1)


@pytest.mark.parametrize("base", [0x0FE1, 0x1000, 0x1001, 0x101F])
def test_overlaps_are_refused(base: int) -> None:
    bus = Bus()
    bus.attach(0x1000, Scratch("first"))
    with pytest.raises(DoppelError, match="overlaps first"):
        bus.attach(base, Scratch("second"))


def test_neighbours_are_not_overlaps() -> None:
    bus = Bus()
    bus.attach(0x1000, Scratch("a"))
    bus.attach(0x1020, Scratch("b"))
    bus.attach(0x0FE0, Scratch("c"))


def test_names_are_unique_and_addresses_possible() -> None:
    bus = Bus()
    bus.attach(0x1000, Scratch("a"))
    with pytest.raises(DoppelError, match="two devices named a"):
        bus.attach(0x5000, Scratch("a"))
    with pytest.raises(DoppelError):
        bus.attach((1 << 64) - 0x10, Scratch("b"))


def test_save_load_reset() -> None:
    bus = Bus()
    bus.attach(0x1000, Scratch())
    bus.write(0x1000, 4, 7)
    bus.write(0x1010, 8, 8)
    state = bus.save()
    bus.reset()
    assert bus.read(0x1000, 4) == 0
    bus.load(state)
    assert bus.read(0x1000, 4) == 7
    assert bus.read(0x1010, 8) == 8
    # The saved state is a copy.
    bus.write(0x1000, 4, 9)
    assert state["scratch"]["words"] == [7, 0, 0, 0]


def test_states_of_other_machines_are_refused() -> None:
    bus = Bus()
    bus.attach(0x1000, Scratch())
    state = bus.save()
    other = Bus()
    other.attach(0x1000, Scratch("other"))
    with pytest.raises(DoppelError, match="other devices"):
        other.load(state)
    smaller = Scratch(word_count=2)
    with pytest.raises(DoppelError, match="words"):
        smaller.load(state["scratch"])
    with pytest.raises(DoppelError):
        Scratch().load({"words": [0, 0, 0, 0], "wide": "text", "byte": 0})
