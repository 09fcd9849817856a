"""The device tree that a machine hands to its guest.

Sources: Devicetree Specification 0.4, chapter 3; Linux's bindings riscv/cpus.yaml, riscv/extensions.yaml and
chosen.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass

from doppel.devices.devicetree import DeviceTree, DeviceTreeNode, Label, hart_controller
from doppel.isa.extensions import isa_names, isa_string
from doppel.isa.rv_zicbo import BLOCK_SIZE
from doppel.machine.board import Board
from doppel.processor.processor import TIMEBASE_HZ

__all__ = ["Chosen", "describe"]


@dataclass(frozen=True)
class Chosen:
    """What the kernel is told: its command line, where its initrd is (first address and the one behind the
    last), and random bytes to start with.
    """

    append: str = ""
    initrd: tuple[int, int] | None = None
    rng_seed: bytes = b""


def describe(board: Board, harts: int, memory: tuple[int, int], chosen: Chosen) -> DeviceTree:
    """The whole tree; ``memory`` is its address and size in bytes."""
    tree = DeviceTree()
    root = tree.root
    root.set_cells("#address-cells", 2)
    root.set_cells("#size-cells", 2)
    # The second name is that of QEMU's board, which firmware looks for.
    root.set_strings("compatible", "doppel,virt", "riscv-virtio")
    root.set_strings("model", "doppel,virt")
    root.add("aliases").set_strings("serial0", board.console_path)
    _describe_chosen(root.add("chosen"), chosen, board)
    node = root.add(f"memory@{memory[0]:x}")
    node.set_strings("device_type", "memory")
    node.set_reg(memory)
    _describe_harts(root.add("cpus"), harts)
    soc = root.add("soc")
    soc.set_cells("#address-cells", 2)
    soc.set_cells("#size-cells", 2)
    soc.set_strings("compatible", "simple-bus")
    soc.set_flag("ranges")
    for region in board.bus:
        node = soc.add(board.node_name(region))
        node.set_reg((region.base, region.device.size))
        region.device.describe(node)
    return tree


def _describe_chosen(node: DeviceTreeNode, chosen: Chosen, board: Board) -> None:
    node.set_strings("bootargs", chosen.append)
    node.set_strings("stdout-path", board.console_path)
    if chosen.initrd is not None:
        node.set_u64("linux,initrd-start", chosen.initrd[0])
        node.set_u64("linux,initrd-end", chosen.initrd[1])
    if chosen.rng_seed:
        node.set_bytes("rng-seed", chosen.rng_seed)


def _describe_harts(cpus: DeviceTreeNode, harts: int) -> None:
    cpus.set_cells("#address-cells", 1)
    cpus.set_cells("#size-cells", 0)
    cpus.set_cells("timebase-frequency", TIMEBASE_HZ)
    for hart in range(harts):
        node = cpus.add(f"cpu@{hart:x}", label=f"cpu{hart}")
        node.set_strings("device_type", "cpu")
        node.set_cells("reg", hart)
        node.set_strings("status", "okay")
        node.set_strings("compatible", "riscv")
        node.set_strings("riscv,isa", isa_string())
        node.set_strings("riscv,isa-base", "rv64i")
        node.set_strings("riscv,isa-extensions", *isa_names())
        node.set_cells("riscv,cbom-block-size", BLOCK_SIZE)
        node.set_cells("riscv,cboz-block-size", BLOCK_SIZE)
        node.set_strings("mmu-type", "riscv,sv48")
        controller = node.add("interrupt-controller", label=hart_controller(hart).name)
        controller.set_strings("compatible", "riscv,cpu-intc")
        controller.set_cells("#interrupt-cells", 1)
        controller.set_cells("#address-cells", 0)
        controller.set_flag("interrupt-controller")
    cluster = cpus.add("cpu-map").add("cluster0")
    for hart in range(harts):
        cluster.add(f"core{hart}").set_cells("cpu", Label(f"cpu{hart}"))
