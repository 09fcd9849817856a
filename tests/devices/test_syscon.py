from __future__ import annotations

import pytest

from doppel.devices.devicetree import DeviceTree
from doppel.devices.syscon import Syscon


@pytest.mark.parametrize(
    ("value", "event"),
    [
        (0x5555, ("off", 0)),
        (0x3333, ("off", 0)),
        (0x0007_3333, ("off", 7)),
        (0xFFFF_3333, ("off", 0xFFFF)),
        (0x7777, ("reset", 0)),
        (0x1234, None),
        (0, None),
    ],
)
def test_commands(value: int, event: tuple[str, int] | None) -> None:
    events: list[tuple[str, int]] = []
    device = Syscon(lambda code: events.append(("off", code)), lambda: events.append(("reset", 0)))
    device.write(0, 4, value)
    assert events == ([event] if event else [])
    assert device.read(0, 4) == 0


def test_other_offsets_do_nothing() -> None:
    device = Syscon(lambda code: pytest.fail("power off"), lambda: pytest.fail("reset"))
    device.write(4, 4, 0x5555)
    device.write(0, 1, 0x55)
    device.reset()
    device.load(device.save())


def test_describe_adds_the_users_of_the_register() -> None:
    tree = DeviceTree()
    node = tree.root.add("soc").add("test@100000")
    Syscon(lambda code: None, lambda: None).describe(node)
    root = DeviceTree.parse(tree.flatten()).root
    register = root.find("soc/test@100000")
    assert register is not None
    assert register.get_strings("compatible") == ("sifive,test1", "sifive,test0", "syscon")
    for name, value in (("poweroff", 0x5555), ("reboot", 0x7777)):
        user = root.children[name]
        assert user.get_strings("compatible") == (f"syscon-{name}",)
        assert user.get_cells("regmap") == register.get_cells("phandle")
        assert user.get_cells("offset") == (0,)
        assert user.get_cells("value") == (value,)
