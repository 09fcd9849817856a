from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.devices.devicetree import DeviceTree, DeviceTreeNode, Label, hart_controller
from doppel.errors import DoppelError


def board() -> DeviceTree:
    tree = DeviceTree(boot_hart=1, reservations=[(0x8000_0000, 0x4_0000)])
    root = tree.root
    root.set_cells("#address-cells", 2)
    root.set_cells("#size-cells", 2)
    root.set_strings("compatible", "doppel,virt")
    soc = root.add("soc")
    soc.set_cells("#address-cells", 2)
    soc.set_cells("#size-cells", 2)
    soc.set_strings("compatible", "simple-bus")
    soc.set_flag("ranges")
    serial = soc.add("serial@10000000")
    serial.set_strings("compatible", "ns16550a", "another")
    serial.set_reg((0x1000_0000, 0x100))
    serial.set_cells("interrupts", 10)
    serial.set_cells("interrupt-parent", Label("plic"))
    serial.set_bytes("odd", b"abc")
    plic = soc.add("plic@c000000", label="plic")
    plic.set_reg((0xC00_0000, 0x60_0000))
    plic.set_flag("interrupt-controller")
    plic.set_cells("#interrupt-cells", 1)
    plic.set_cells("#address-cells", 0)
    return tree


def test_round_trip() -> None:
    tree = DeviceTree.parse(board().flatten())
    assert tree.boot_hart == 1
    assert tree.reservations == [(0x8000_0000, 0x4_0000)]
    serial = tree.root.find("/soc/serial@10000000")
    assert serial is not None
    assert serial.path == "/soc/serial@10000000"
    assert serial.get_strings("compatible") == ("ns16550a", "another")
    assert serial.get_u64("reg") == (0x1000_0000, 0x100)
    assert serial.get_cells("reg") == (0, 0x1000_0000, 0, 0x100)
    assert serial.get_bytes("odd") == b"abc"
    plic = tree.root.find("soc/plic@c000000")
    assert plic is not None
    assert plic.get_bytes("interrupt-controller") == b""
    assert serial.get_cells("interrupt-parent") == plic.get_cells("phandle") == (1,)
    assert tree.root.find("/soc/nothing") is None
    assert tree.root.find("/") is tree.root
    # What was read can be written again, to the same bytes.
    assert tree.flatten() == board().flatten()


def test_phandles_keep_clear_of_given_ones() -> None:
    tree = DeviceTree()
    first, second, third = (tree.root.add(name, label=name) for name in "abc")
    first.set_cells("phandle", 1)
    first.set_cells("to", Label("b"), Label("c"), Label("a"))
    second.set_cells("to", Label("b"))
    parsed = DeviceTree.parse(tree.flatten()).root
    assert parsed.children["a"].get_cells("to") == (2, 3, 1)
    assert parsed.children["b"].get_cells("phandle") == (2,)
    assert parsed.children["c"].get_cells("phandle") == (3,)
    assert "phandle" not in third.properties


def test_hart_controller_label() -> None:
    assert hart_controller(3) == Label("cpu3_intc")


def test_labels_that_lead_nowhere_or_everywhere() -> None:
    tree = DeviceTree()
    tree.root.set_cells("to", Label("nowhere"))
    with pytest.raises(DoppelError, match="nowhere"):
        tree.flatten()
    tree.root.add("a", label="nowhere")
    tree.root.add("b", label="nowhere")
    with pytest.raises(DoppelError, match="two device tree nodes"):
        tree.flatten()


@pytest.mark.parametrize("name", ["", "a/b", "a b", "a@", "@1", "a\0", "ä"])
def test_bad_names(name: str) -> None:
    with pytest.raises(DoppelError):
        DeviceTreeNode("x").add(name)


def test_a_child_is_added_once() -> None:
    root = DeviceTreeNode()
    root.add("a")
    with pytest.raises(DoppelError):
        root.add("a")


def test_cells_must_fit() -> None:
    with pytest.raises(ValueError, match="cell"):
        DeviceTreeNode().set_cells("x", 1 << 32)


def test_header_fields() -> None:
    blob = board().flatten()
    magic, total, structure, strings, reserved, version, compatible = struct.unpack_from(">7I", blob)
    assert (magic, total, version, compatible) == (0xD00DFEED, len(blob), 17, 16)
    assert reserved % 8 == 0
    assert structure % 4 == 0
    assert strings > structure > reserved


@pytest.mark.skipif(shutil.which("dtc") is None, reason="dtc is not installed")
def test_dtc_reads_what_we_write() -> None:
    result = subprocess.run(
        ["dtc", "-I", "dtb", "-O", "dts", "-q"], input=board().flatten(), capture_output=True, check=True
    )
    text = result.stdout.decode()
    assert 'compatible = "ns16550a\\0another"' in text or 'compatible = "ns16550a", "another"' in text
    assert "serial@10000000 {" in text
    assert "reg = <0x00 0x10000000 0x00 0x100>;" in text
    assert "interrupt-parent = <0x01>;" in text
    assert "/memreserve/" in text
    assert "interrupt-controller;" in text


@pytest.mark.skipif(shutil.which("dtc") is None, reason="dtc is not installed")
def test_we_read_what_dtc_writes() -> None:
    source = b"""/dts-v1/;
        /memreserve/ 0x1000 0x2000;
        / { #address-cells = <2>; model = "m"; a: b@1 { c = <&a 7>; d = [01 02 03]; e; }; };"""
    result = subprocess.run(
        ["dtc", "-I", "dts", "-O", "dtb", "-q", "-b", "2"], input=source, capture_output=True, check=True
    )
    tree = DeviceTree.parse(result.stdout)
    assert tree.boot_hart == 2
    assert tree.reservations == [(0x1000, 0x2000)]
    node = tree.root.find("b@1")
    assert node is not None
    assert node.get_cells("c") == (*node.get_cells("phandle"), 7)
    assert node.get_bytes("d") == b"\1\2\3"
    assert node.get_bytes("e") == b""


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xd0\x0d\xfe\xed",
        bytes(100),
        board().flatten()[:-1],
        board().flatten()[:60],
    ],
)
def test_damaged_blobs(damage: bytes) -> None:
    with pytest.raises(DoppelError):
        DeviceTree.parse(damage)


@settings(deadline=None)
@given(st.data())
def test_any_damage_is_refused_or_read(data: st.DataObject) -> None:
    blob = bytearray(board().flatten())
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DoppelError):
        DeviceTree.parse(bytes(blob))


def test_deep_nesting_is_refused() -> None:
    node_begin = struct.pack(">I", 1) + b"a\0\0\0"
    structure = struct.pack(">II", 1, 0) + node_begin * 5000
    header = struct.pack(">10I", 0xD00DFEED, 56 + len(structure), 56, 56, 40, 17, 16, 0, 0, len(structure))
    with pytest.raises(DoppelError, match="levels"):
        DeviceTree.parse(header + bytes(16) + structure)


values = st.one_of(
    st.binary(max_size=20),
    st.lists(st.integers(0, 2**32 - 1), max_size=5).map(tuple),
)
names = st.text("abcdefgh,-@", min_size=1, max_size=8).filter(lambda name: name.strip("@").count("@") == 0)


@settings(deadline=None)
@given(st.dictionaries(st.text("abc#-", min_size=1, max_size=6), values), st.integers(0, 2**32 - 1))
def test_properties_survive(properties: dict[str, bytes | tuple[int, ...]], hart: int) -> None:
    tree = DeviceTree(boot_hart=hart)
    child = tree.root.add("node")
    for name, value in properties.items():
        if isinstance(value, bytes):
            child.set_bytes(name, value)
        else:
            child.set_cells(name, *value)
    parsed = DeviceTree.parse(tree.flatten())
    read = parsed.root.children["node"]
    assert list(read.properties) == list(properties)
    for name in properties:
        assert read.get_bytes(name) == child.get_bytes(name)
    assert parsed.boot_hart == hart
