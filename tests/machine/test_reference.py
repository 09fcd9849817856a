"""The reference page of the board."""

from __future__ import annotations

from pathlib import Path

from doppel.devices.virtio.mmio import VirtioMmio
from doppel.machine import BARE, Machine, board
from doppel.machine.reference import PLACES, device_page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "devices.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == device_page(), (
        "run: python -m doppel.machine.reference > docs/reference/devices.md"
    )


def test_the_places_are_the_boards() -> None:
    with Machine(16 << 20, firmware=BARE) as machine:
        regions = {region.base: type(region.device) for region in machine.board.bus}
    slots = {board.VIRTIO_BASE + n * board.VIRTIO_STRIDE for n in range(1, board.VIRTIO_SLOTS)}
    assert {base: kind for base, kind in regions.items() if base not in slots} == {
        base: kind for base, kind, _ in PLACES
    }


def test_every_register_is_on_it() -> None:
    page = device_page()
    for _, kind, _ in PLACES:
        assert kind.registers, kind
        for register in kind.registers:
            assert f"`{register.name}" in page, register
    assert f"| {board.VIRTIO_BASE:#010x} | 8 × {VirtioMmio.size:#x} |" in page
    assert "0x3333 \\| code << 16 fail" in page
