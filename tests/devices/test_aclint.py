from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.devices.aclint import Aclint
from doppel.devices.devicetree import DeviceTreeNode, Label

from .support import FakeClock, FakeHarts

MSIP, MTIMECMP, MTIME = 0x0, 0x4000, 0xBFF8
NEVER = (1 << 64) - 1


def make(harts: int = 2) -> tuple[Aclint, FakeHarts, FakeClock]:
    lines, clock = FakeHarts(), FakeClock()
    return Aclint(lines, harts, clock), lines, clock


def test_software_interrupts() -> None:
    device, harts, _ = make()
    device.write(MSIP + 4, 4, 0xFFFF_FFFF)
    assert harts.msip == {1: True}
    assert device.read(MSIP + 4, 4) == 1
    assert device.read(MSIP, 4) == 0
    device.write(MSIP + 4, 4, 2)
    assert harts.msip == {1: False}
    device.write(MSIP + 8, 4, 1)
    assert 2 not in harts.msip


def test_timer_compare_in_both_widths() -> None:
    device, harts, _ = make()
    assert device.read(MTIMECMP, 8) == NEVER
    device.write(MTIMECMP + 8, 8, 0x1_0000_0002)
    assert harts.mtimecmp == {1: 0x1_0000_0002}
    assert device.read(MTIMECMP + 8, 4) == 2
    assert device.read(MTIMECMP + 12, 4) == 1
    device.write(MTIMECMP + 12, 4, 7)
    device.write(MTIMECMP + 8, 4, 9)
    assert harts.mtimecmp[1] == 0x7_0000_0009
    assert device.read(MTIMECMP + 8, 8) == 0x7_0000_0009


def test_time() -> None:
    device, _, clock = make()
    clock.ticks = 0x12_3456_789A
    assert device.read(MTIME, 8) == 0x12_3456_789A
    assert device.read(MTIME, 4) == 0x3456_789A
    assert device.read(MTIME + 4, 4) == 0x12
    device.write(MTIME, 8, 0)
    assert device.read(MTIME, 8) == 0x12_3456_789A


def test_reset() -> None:
    device, harts, _ = make(1)
    device.write(MSIP, 4, 1)
    device.write(MTIMECMP, 8, 5)
    device.reset()
    assert harts.msip == {0: False}
    assert harts.mtimecmp == {0: NEVER}


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 0xFFFF), st.sampled_from([1, 2, 4, 8]), st.integers(0, NEVER), st.booleans()
        ),
        max_size=30,
    )
)
def test_any_access_and_save_load(accesses: list[tuple[int, int, int, bool]]) -> None:
    device, harts, _ = make(3)
    device.reset()
    for offset, size, value, write in accesses:
        if write:
            device.write(offset, size, value & (1 << 8 * size) - 1)
        else:
            assert 0 <= device.read(offset, size) < 1 << 8 * size
    copy, lines, _ = make(3)
    copy.load(device.save())
    assert (lines.msip, lines.mtimecmp) == (harts.msip, harts.mtimecmp)
    assert copy.save() == device.save()


def test_describe() -> None:
    device, _, _ = make(1)
    node = DeviceTreeNode("clint@2000000")
    device.describe(node)
    assert node.get_strings("compatible") == ("sifive,clint0", "riscv,clint0")
    assert node.get_cells("interrupts-extended") == (Label("cpu0_intc"), 3, Label("cpu0_intc"), 7)
