"""Flattened device trees: how a guest learns what its machine consists of.

A tree of :class:`DeviceTreeNode` is built by the board, to which every device adds its own properties, and is
written as a version 17 blob. The reader takes a blob apart again, whoever wrote it. Source: Devicetree
Specification 0.4, chapter 2 (nodes and property values) and chapter 5 (the flattened format).

A reference to another node is a :class:`Label` inside a property's cells, as ``&plic`` is in a source file.
Phandles are handed out when the tree is flattened, so a device can refer to a node that does not exist yet.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from doppel.errors import DoppelError

__all__ = ["Cell", "DeviceTree", "DeviceTreeNode", "Label", "hart_controller"]

MAGIC = 0xD00DFEED
VERSION = 17
LAST_COMPATIBLE_VERSION = 16

_BEGIN_NODE, _END_NODE, _PROP, _NOP, _END = 1, 2, 3, 4, 9
_HEADER = struct.Struct(">10I")
_CELL = struct.Struct(">I")
_PROPERTY_HEADER = struct.Struct(">II")
_RESERVATION = struct.Struct(">QQ")
_NODE_NAME = re.compile(r"[A-Za-z0-9,._+-]+(@[A-Za-z0-9,._+-]+)?")
# A blob deeper than this is refused: no real tree is, and the reader's work must stay bounded.
_MAX_DEPTH = 64


@dataclass(frozen=True)
class Label:
    """A reference to the node that carries this label; becomes that node's phandle when the tree is
    flattened.
    """

    name: str


Cell = int | Label


def hart_controller(hart: int) -> Label:
    """The label that the board gives to the interrupt controller node inside a hart's ``cpu`` node."""
    return Label(f"cpu{hart}_intc")


class DeviceTreeNode:
    """One node: a name (with its unit address), properties, children.

    ``label`` is what :class:`Label` refers to; it is not part of the blob.
    """

    def __init__(self, name: str = "", *, label: str | None = None) -> None:
        if name and not _NODE_NAME.fullmatch(name):
            raise DoppelError(
                f"{name!r} is not a device tree node name",
                "use letters, digits and ,._+- with an optional @unit-address",
            )
        self.name = name
        self.label = label
        self.parent: DeviceTreeNode | None = None
        self.children: dict[str, DeviceTreeNode] = {}
        self.properties: dict[str, bytes | tuple[Cell, ...]] = {}

    def __repr__(self) -> str:
        return f"<DeviceTreeNode {self.path}>"

    @property
    def path(self) -> str:
        """Full path from the root, ``/soc/serial@10000000``."""
        if self.parent is None:
            return self.name or "/"
        return self.parent.path.rstrip("/") + "/" + self.name

    @property
    def root(self) -> DeviceTreeNode:
        """The topmost node of the tree that this node is in."""
        return self if self.parent is None else self.parent.root

    def add(self, name: str, *, label: str | None = None) -> DeviceTreeNode:
        """Add a child and return it; a second child of the same name is refused with DoppelError."""
        if not name or name in self.children:
            raise DoppelError(
                f"device tree node {self.path} cannot get a child {name!r}",
                "children need different names; put the unit address into the name",
            )
        child = DeviceTreeNode(name, label=label)
        child.parent = self
        self.children[name] = child
        return child

    def walk(self) -> Iterator[DeviceTreeNode]:
        """This node and everything below it, parents first."""
        yield self
        for child in self.children.values():
            yield from child.walk()

    def find(self, path: str) -> DeviceTreeNode | None:
        """The node at ``path`` (relative to this node, a leading slash is ignored), or None."""
        node: DeviceTreeNode | None = self
        for part in path.strip("/").split("/"):
            if node is None:
                return None
            node = node.children.get(part) if part else node
        return node

    def set_flag(self, name: str) -> None:
        """A property that says what it says by being there."""
        self.properties[name] = b""

    def set_cells(self, name: str, *cells: Cell) -> None:
        """32-bit values and references."""
        for cell in cells:
            if isinstance(cell, int) and not 0 <= cell < 1 << 32:
                raise ValueError(f"{name}: {cell:#x} does not fit in a cell")
        self.properties[name] = tuple(cells)

    def set_u64(self, name: str, *values: int) -> None:
        """64-bit values, two cells each, the high half first."""
        self.properties[name] = struct.pack(f">{len(values)}Q", *values)

    def set_reg(self, *ranges: tuple[int, int], name: str = "reg") -> None:
        """Address and size pairs, for a parent with two address cells and two size cells."""
        self.set_u64(name, *(value for pair in ranges for value in pair))

    def set_strings(self, name: str, *values: str) -> None:
        """One string, or a list of them."""
        self.properties[name] = b"".join(value.encode() + b"\0" for value in values)

    def set_bytes(self, name: str, value: bytes) -> None:
        """Raw bytes."""
        self.properties[name] = bytes(value)

    def get_bytes(self, name: str) -> bytes:
        """The property as it is in the blob; KeyError if there is none or it refers to a node by label."""
        value = self.properties[name]
        if isinstance(value, bytes):
            return value
        return b"".join(_CELL.pack(_number(cell, {})) for cell in value)

    def get_cells(self, name: str) -> tuple[Cell, ...]:
        """The property as 32-bit values; bytes that do not fill the last one are left out."""
        value = self.properties[name]
        if isinstance(value, tuple):
            return value
        return struct.unpack_from(f">{len(value) // 4}I", value)

    def get_u64(self, name: str) -> tuple[int, ...]:
        """The property as 64-bit values; bytes that do not fill the last one are left out."""
        value = self.get_bytes(name)
        return struct.unpack_from(f">{len(value) // 8}Q", value)

    def get_strings(self, name: str) -> tuple[str, ...]:
        """The property as a list of strings."""
        text = self.get_bytes(name).decode("utf-8", "replace")
        return tuple(text.rstrip("\0").split("\0")) if text else ()


@dataclass
class DeviceTree:
    """A whole tree: the root node, memory to keep clear of, and the hart that boots."""

    root: DeviceTreeNode = field(default_factory=DeviceTreeNode)
    boot_hart: int = 0
    reservations: list[tuple[int, int]] = field(default_factory=list)

    def flatten(self) -> bytes:
        """The blob (chapter 5, version 17); DoppelError for a label that no node or more than one node
        carries.
        """
        phandles = _assign_phandles(self.root)
        strings: dict[str, int] = {}
        string_block = bytearray()
        structure = bytearray()
        for node, entering in _events(self.root):
            if not entering:
                structure += _CELL.pack(_END_NODE)
                continue
            structure += _CELL.pack(_BEGIN_NODE) + _padded(node.name.encode() + b"\0")
            properties = dict(node.properties)
            if node.label is not None and node.label in phandles:
                properties["phandle"] = (phandles[node.label],)
            for name, value in properties.items():
                if name not in strings:
                    strings[name] = len(string_block)
                    string_block += name.encode() + b"\0"
                if isinstance(value, tuple):
                    value = b"".join(_CELL.pack(_number(cell, phandles)) for cell in value)
                structure += _CELL.pack(_PROP) + _PROPERTY_HEADER.pack(len(value), strings[name])
                structure += _padded(value)
        structure += _CELL.pack(_END)
        reserved = b"".join(_RESERVATION.pack(*entry) for entry in [*self.reservations, (0, 0)])
        reserved_at = _HEADER.size
        structure_at = reserved_at + len(reserved)
        strings_at = structure_at + len(structure)
        total = strings_at + len(string_block)
        header = _HEADER.pack(
            MAGIC,
            total,
            structure_at,
            strings_at,
            reserved_at,
            VERSION,
            LAST_COMPATIBLE_VERSION,
            self.boot_hart,
            len(string_block),
            len(structure),
        )
        return b"".join((header, reserved, structure, string_block))

    @classmethod
    def parse(cls, blob: bytes) -> DeviceTree:
        """Take a blob apart; DoppelError if it is not one or is damaged."""
        try:
            return _parse(blob)
        except (struct.error, UnicodeDecodeError, ValueError, IndexError) as error:
            raise DoppelError(
                f"this is not a flattened device tree, or a damaged one ({error})",
                "give a .dtb file of version 16 or newer, as dtc writes it",
            ) from error


def _events(node: DeviceTreeNode) -> Iterator[tuple[DeviceTreeNode, bool]]:
    yield node, True
    for child in node.children.values():
        yield from _events(child)
    yield node, False


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _number(cell: Cell, phandles: dict[str, int]) -> int:
    return phandles[cell.name] if isinstance(cell, Label) else cell


def _assign_phandles(root: DeviceTreeNode) -> dict[str, int]:
    """A phandle for each label that is referred to; a phandle that a node already has is kept."""
    nodes: dict[str, DeviceTreeNode] = {}
    wanted: dict[str, None] = {}
    taken: set[int] = set()
    for node in root.walk():
        if node.label is not None:
            if node.label in nodes:
                raise DoppelError(
                    f"two device tree nodes are labelled {node.label!r}", "give each node its own label"
                )
            nodes[node.label] = node
        taken.update(cell for cell in _phandle(node) if isinstance(cell, int))
        for value in node.properties.values():
            if isinstance(value, tuple):
                wanted.update((cell.name, None) for cell in value if isinstance(cell, Label))
    phandles: dict[str, int] = {}
    following = 1
    for name in wanted:
        if name not in nodes:
            raise DoppelError(
                f"the device tree refers to {name!r} but no node has that label", "label the node it means"
            )
        own = _phandle(nodes[name])
        if own and isinstance(own[0], int):
            phandles[name] = own[0]
            continue
        while following in taken:
            following += 1
        phandles[name] = following
        taken.add(following)
    return phandles


def _phandle(node: DeviceTreeNode) -> tuple[Cell, ...]:
    return node.get_cells("phandle") if "phandle" in node.properties else ()


def _text(block: bytes, start: int) -> str:
    return block[start : block.index(b"\0", start)].decode()


def _parse(blob: bytes) -> DeviceTree:
    header = _HEADER.unpack_from(blob)
    magic, total, structure_at, strings_at, reserved_at, version, compatible, boot_hart = header[:8]
    if magic != MAGIC:
        raise ValueError(f"magic number {magic:#x}")
    if total > len(blob):
        raise ValueError(f"{len(blob)} of {total} bytes are there")
    if version < LAST_COMPATIBLE_VERSION or compatible > VERSION:
        raise ValueError(f"version {version}")
    blob = blob[:total]
    tree = DeviceTree(boot_hart=boot_hart)
    while (entry := _RESERVATION.unpack_from(blob, reserved_at)) != (0, 0):
        tree.reservations.append(entry)
        reserved_at += _RESERVATION.size
    strings = blob[strings_at:]
    path: list[DeviceTreeNode] = []
    root: DeviceTreeNode | None = None
    at = structure_at
    while True:
        (token,) = _CELL.unpack_from(blob, at)
        at += 4
        if token == _BEGIN_NODE:
            name = _text(blob, at)
            at += len(name.encode()) + 1
            at += -at % 4
            if not path and root is not None:
                raise ValueError("a second root")
            if len(path) >= _MAX_DEPTH:
                raise ValueError(f"more than {_MAX_DEPTH} levels")
            node = DeviceTreeNode("") if not path else path[-1].add(name)
            root = root or node
            path.append(node)
        elif token == _PROP:
            length, name_at = _PROPERTY_HEADER.unpack_from(blob, at)
            at += _PROPERTY_HEADER.size
            if at + length > total:
                raise ValueError("a property reaches past the end")
            path[-1].properties[_text(strings, name_at)] = blob[at : at + length]
            at += length + -length % 4
        elif token == _END_NODE:
            path.pop()
        elif token == _END:
            break
        elif token != _NOP:
            raise ValueError(f"unknown token {token:#x} at {at - 4:#x}")
    if root is None or path:
        raise ValueError("the structure block is not complete")
    tree.root = root
    return tree
