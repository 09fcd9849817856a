"""The board: where things are, how they are wired, and what the device tree says of it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from doppel.devices.backends.characters import Buffer
from doppel.devices.backends.disk import MemoryDisk
from doppel.devices.backends.network import Loopback
from doppel.devices.devicetree import DeviceTree, DeviceTreeNode
from doppel.devices.virtio.console import ConsolePort
from doppel.errors import DoppelError
from doppel.isa.extensions import isa_names, isa_string
from doppel.machine import BARE, Machine

from .support import MEMORY, POWEROFF, RAM, bare, powered_off, results, supervised


def _tree(machine: Machine) -> DeviceTreeNode:
    return DeviceTree.parse(machine.device_tree).root


def _node(root: DeviceTreeNode, path: str) -> DeviceTreeNode:
    node = root.find(path)
    assert node is not None, path
    return node


@pytest.mark.parametrize("firmware", [None, BARE])
def test_dtc_has_nothing_to_say_about_the_device_tree(firmware: str | None) -> None:
    if shutil.which("dtc") is None:
        pytest.skip("there is no dtc on this host")
    with Machine(
        MEMORY, 3, firmware=firmware, disks=[MemoryDisk(size=512)], networks=[Loopback()]
    ) as machine:
        result = subprocess.run(
            ["dtc", "-I", "dtb", "-O", "dts"], input=machine.device_tree, capture_output=True, check=True
        )
    assert result.stderr.decode() == ""
    assert b'compatible = "ns16550a"' in result.stdout


def test_harts_tell_the_truth_about_themselves() -> None:
    with Machine(MEMORY, 2) as machine:
        cpus = _node(_tree(machine), "cpus")
    assert cpus.get_cells("timebase-frequency") == (10_000_000,)
    for number in range(2):
        hart = _node(cpus, f"cpu@{number}")
        assert hart.get_cells("reg") == (number,)
        assert hart.get_strings("riscv,isa") == (isa_string(),)
        assert hart.get_strings("riscv,isa-base") == ("rv64i",)
        assert hart.get_strings("riscv,isa-extensions") == tuple(isa_names())
        assert hart.get_strings("mmu-type") == ("riscv,sv48",)
        assert hart.get_cells("riscv,cbom-block-size") == (64,)
        assert hart.get_cells("riscv,cboz-block-size") == (64,)
    extensions = _node(cpus, "cpu@0").get_strings("riscv,isa-extensions")
    assert "sstc" in extensions
    # Accessed and dirty bits are set by the hart; Svade beside Svadu would say that firmware decides.
    assert "svadu" in extensions and "svade" not in extensions


def test_memory_and_console_are_described() -> None:
    with Machine(32 << 20) as machine:
        root = _tree(machine)
    assert _node(root, "memory@80000000").get_u64("reg") == (RAM, 32 << 20)
    path = _node(root, "chosen").get_strings("stdout-path")[0]
    assert path == "/soc/serial@10000000"
    assert _node(root, path).get_strings("compatible") == ("ns16550a",)


def test_devices_are_where_the_virt_board_has_them() -> None:
    with Machine(MEMORY, firmware=BARE, disks=[MemoryDisk(size=512)]) as machine:
        places = {region.device.name: region.base for region in machine.board.bus}
    assert places == {
        "test": 0x10_0000,
        "rtc": 0x10_1000,
        "clint": 0x200_0000,
        "plic": 0xC00_0000,
        "uart0": 0x1000_0000,
        "virtio0": 0x1000_1000,
        "virtio1": 0x1000_2000,
    }


def test_only_pure_machines_have_a_clint() -> None:
    with Machine(MEMORY) as machine:
        assert "clint" not in {region.device.name for region in machine.board.bus}


def test_disks_come_first_and_the_entropy_device_is_always_there() -> None:
    ports = [ConsolePort(Buffer())]
    with Machine(MEMORY, networks=[Loopback()], disks=[MemoryDisk(size=512)], ports=ports) as machine:
        kinds = [machine.board.bus.find(f"virtio{slot}").device.read(8, 4) for slot in range(4)]
    assert kinds == [2, 1, 3, 4]


def test_more_devices_than_slots() -> None:
    with pytest.raises(DoppelError, match="more than 8 virtio devices"):
        Machine(MEMORY, disks=[MemoryDisk(size=512) for _ in range(8)])


def test_network_cards_of_two_machines_differ() -> None:
    with Machine(MEMORY, networks=[Loopback()]) as one, Machine(MEMORY, networks=[Loopback()]) as other:
        first, second = (
            bytes(machine.board.bus.find("virtio0").device.read(0x100 + byte, 1) for byte in range(6))
            for machine in (one, other)
        )
    assert first != second
    # Locally administered, and not a group address.
    assert first[0] & 3 == 2


def test_a_device_cannot_lie_in_memory() -> None:
    with Machine(MEMORY) as machine:
        device = machine.board.bus.find("test").device
        with pytest.raises(DoppelError, match="memory"):
            machine.board.attach(RAM - 0x100, device)


@pytest.mark.parametrize("size", [0, 4096, (64 << 20) + 1, 1 << 60])
def test_memory_sizes_that_cannot_be(size: int) -> None:
    with pytest.raises(DoppelError, match="memory"):
        Machine(size)


@pytest.mark.parametrize("harts", [0, 65])
def test_numbers_of_harts_that_cannot_be(harts: int) -> None:
    with pytest.raises(DoppelError, match="harts"):
        Machine(MEMORY, harts)


INTERRUPT_WIRES = (
    """
    # Take each interrupt in M mode: note its cause, and silence it.
    la t0, trap
    csrw mtvec, t0
    li s0, RESULTS
    li t0, 0x888
    csrw mie, t0
    csrsi mstatus, 8
    # Software interrupt of this hart.
    li t0, CLINT
    li t1, 1
    sw t1, 0(t0)
    # The timer, which is due at once.
    li t0, CLINT + 0x4000
    sd zero, 0(t0)
    # The serial port's transmitter, source 10, by the PLIC's context 0.
    li t0, PLIC + 4 * 10
    sw t1, 0(t0)
    li t0, PLIC + 0x2000
    li t1, 1 << 10
    sw t1, 0(t0)
    li t0, UART
    li t1, 2
    sb t1, 1(t0)
    li s1, RESULTS + 24
wait:
    bltu s0, s1, wait
"""
    + POWEROFF
    + """
.align 2
trap:
    csrr t2, mcause
    sd t2, 0(s0)
    addi s0, s0, 8
    andi t2, t2, 15
    li t3, 3
    beq t2, t3, software
    li t3, 7
    beq t2, t3, timer
    li t3, PLIC + 0x200004
    lw t4, 0(t3)
    li t5, UART
    sb zero, 1(t5)
    sw t4, 0(t3)
    mret
software:
    li t3, CLINT
    sw zero, 0(t3)
    mret
timer:
    li t3, CLINT + 0x4000
    li t4, -1
    sd t4, 0(t3)
    mret
"""
)


@pytest.mark.parametrize("clock", ["host", "icount"])
def test_interrupt_wires_of_machine_mode(clock: str) -> None:
    with bare(INTERRUPT_WIRES, clock=clock) as machine:
        powered_off(machine)
        causes = {word & 15 for word in results(machine, 3)}
    assert causes == {3, 7, 11}


SUPERVISOR_EXTERNAL = (
    """
    la t0, trap
    csrw stvec, t0
    li t0, 1 << 9
    csrw sie, t0
    li t1, 1
    li t0, PLIC + 4 * 10
    sw t1, 0(t0)
    # Context 1 is the supervisor of hart 0.
    li t0, PLIC + 0x2080
    li t1, 1 << 10
    sw t1, 0(t0)
    li t0, UART
    li t1, 2
    sb t1, 1(t0)
    csrsi sstatus, 2
1:  wfi
    j 1b
.align 2
trap:
    csrr t0, scause
    li t1, RESULTS
    sd t0, 0(t1)
    li t0, PLIC + 0x201004
    lwu t0, 0(t0)
    sd t0, 8(t1)
"""
    + POWEROFF
)


@pytest.mark.parametrize("clock", ["host", "icount"])
def test_external_interrupt_of_supervisor_mode(clock: str) -> None:
    with supervised(SUPERVISOR_EXTERNAL, clock=clock) as machine:
        powered_off(machine)
        assert results(machine, 2) == [1 << 63 | 9, 10]
