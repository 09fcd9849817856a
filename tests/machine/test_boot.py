"""Putting guests into memory, and the state in which their first instruction finds a hart."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from doppel.devices.devicetree import DeviceTree
from doppel.errors import DoppelError
from doppel.guests.kernel import Kernel, KernelKind, Segment
from doppel.isa.assembler import assemble
from doppel.isa.privileged.constants import Mode
from doppel.machine import BARE, Machine

from .support import (
    MEMORY,
    POWEROFF,
    RAM,
    SUPERVISOR,
    SYMBOLS,
    has_run,
    powered_off,
    program,
    results,
    supervised,
    wait_until,
)

MIB = 1 << 20


def _chosen(machine: Machine, address: int) -> dict[str, bytes]:
    size = int.from_bytes(machine.memory.read(address + 4, 4), "big")
    node = DeviceTree.parse(machine.memory.read(address, size)).root.find("chosen")
    assert node is not None
    return {name: node.get_bytes(name) for name in node.properties}


def _linux(size: int, memory_size: int | None = None) -> Kernel:
    segment = Segment(0, b"\x13\0\0\0" * (size // 4), memory_size or size)
    return Kernel(KernelKind.LINUX, Path("Image"), (segment,), 0, True, 2 * MIB, 2 * MIB)


def test_a_linux_kernel_starts_in_supervisor_mode_above_sbi() -> None:
    with Machine(64 * MIB) as machine:
        machine.boot(_linux(4096), b"initrd" * 1000, "console=ttyS0 quiet")
        hart = machine.harts[0]
        assert (hart.pc, hart.mode) == (SUPERVISOR, Mode.S)
        assert hart.registers["a0"] == 0
        assert hart.csr["satp"] == 0
        # Everything but the supervisor's own calls, and its interrupts.
        assert hart.csr["medeleg"] == 0xB1FF
        assert hart.csr["mideleg"] == 0x222
        assert hart.csr["mcounteren"] == hart.csr["scounteren"] == 7
        # STCE, ADUE, and all of CBIE, CBCFE, CBZE.
        assert hart.csr["menvcfg"] == 1 << 63 | 1 << 61 | 0xF0
        assert (hart.csr["pmpcfg0"], hart.csr["pmpaddr0"]) == (0x1F, (1 << 54) - 1)
        assert hart.csr["mstatus"] & 0xA == 0
        tree = hart.registers["a1"]
        chosen = _chosen(machine, tree)
        start, end = (int.from_bytes(chosen[f"linux,initrd-{side}"], "big") for side in ("start", "end"))
        assert machine.memory.read(start, end - start) == b"initrd" * 1000
        # High in memory, and page by page.
        assert start % 4096 == 0 and tree % 8 == 0
        assert RAM + 48 * MIB < start < end <= tree < RAM + 64 * MIB
        assert chosen["bootargs"] == b"console=ttyS0 quiet\0"
        assert machine.memory.read(SUPERVISOR, 4096) == b"\x13\0\0\0" * 1024


def test_without_an_initrd_there_is_none() -> None:
    with Machine(MEMORY) as machine:
        machine.boot(_linux(4096))
        assert not any("initrd" in name for name in _chosen(machine, machine.harts[0].registers["a1"]))


def test_the_seed_is_the_machines_entropy_and_new_at_each_boot() -> None:
    with Machine(MEMORY, clock="icount") as one, Machine(MEMORY, clock="icount") as other:
        seeds = []
        for machine in (one, other, one):
            machine.boot(_linux(4096))
            seeds.append(_chosen(machine, machine.harts[0].registers["a1"])["rng-seed"])
    assert len(seeds[0]) == 64
    assert seeds[0] == seeds[1] != seeds[2]


def test_other_harts_wait_for_sbi() -> None:
    with Machine(MEMORY, 3) as machine:
        machine.boot(program("1: addi s0, s0, 1; j 1b", SUPERVISOR))
        before = machine.harts[1].pc
        ran = has_run(machine)
        machine.start()
        wait_until(ran)
        machine.pause()
        assert machine.harts[1].instructions == machine.harts[2].instructions == 0
        assert machine.harts[1].pc == before


PARAMETERS = (
    """
    # Each hart notes a0, a1 and a2, then counts itself.
    li s0, RESULTS
    slli t0, a0, 5
    add t0, t0, s0
    sd a0, 0(t0)
    sd a1, 8(t0)
    sd a2, 16(t0)
    csrr t1, mhartid
    sd t1, 24(t0)
    li t0, RESULTS + 0x1000
    li t1, 1
    amoadd.d zero, t1, (t0)
    bnez a0, 2f
1:  ld t1, 0(t0)
    li t2, 2
    bne t1, t2, 1b
"""
    + POWEROFF
    + "2: j 2b"
)


def test_a_bare_kernel_starts_in_machine_mode_on_all_harts() -> None:
    with Machine(MEMORY, 2, firmware=BARE) as machine:
        machine.boot(program(PARAMETERS, RAM))
        assert machine.harts[0].mode == machine.harts[1].mode == Mode.M
        powered_off(machine)
        first, second = results(machine, 4), results(machine, 8)[4:]
    assert first[0] == first[3] == 0
    assert second[0] == second[3] == 1
    assert first[1] == second[1]


def _firmware(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fw.bin"
    path.write_bytes(assemble(text, RAM, SYMBOLS))
    return path


def test_firmware_runs_first_and_is_told_where_the_kernel_is(tmp_path: Path) -> None:
    path = _firmware(tmp_path, PARAMETERS)
    with Machine(MEMORY, 2, firmware=path) as machine:
        machine.boot(_linux(4096), None, "hello")
        assert machine.harts[1].pc == RAM
        powered_off(machine)
        _, tree, information, _ = results(machine, 4)
        assert machine.memory.read(SUPERVISOR, 4) == b"\x13\0\0\0"
        assert _chosen(machine, tree)["bootargs"] == b"hello\0"
        fields = struct.unpack("<6Q", machine.memory.read(information, 48))
    # OpenSBI's struct fw_dynamic_info: "OSBI", version 2, address and mode (S) of what is next, options.
    assert fields == (0x4942534F, 2, SUPERVISOR, 1, 0, 0)


def test_firmware_may_come_without_a_kernel(tmp_path: Path) -> None:
    with Machine(MEMORY, 2, firmware=str(_firmware(tmp_path, PARAMETERS))) as machine:
        machine.boot(None)
        powered_off(machine)


def test_raw_kernels_go_where_firmware_would_put_them(tmp_path: Path) -> None:
    path = tmp_path / "guest.bin"
    path.write_bytes(assemble("li t0, RESULTS; la t1, .; sd t1, 0(t0)" + POWEROFF, RAM, SYMBOLS))
    for firmware, place in ((None, SUPERVISOR), (BARE, RAM)):
        with Machine(MEMORY, firmware=firmware) as machine:
            machine.boot(path)
            powered_off(machine)
            assert abs(results(machine, 1)[0] - place) < 64


@pytest.mark.parametrize(
    ("kernel", "initrd", "words"),
    [
        (_linux(4096, 20 * MIB), b"", "needs 22 MiB of memory and the machine has 16 MiB"),
        (
            _linux(4096),
            bytes(14 * MIB),
            "kernel and initrd need 1[67] MiB of memory and the machine has 16 MiB",
        ),
        (_linux(4096, 14 * MIB - 8192), b"", "kernel needs 1[67] MiB of memory and the machine has 16 MiB"),
        (program("nop", 0x1000), b"", "0x1000"),
        (None, b"", "nothing to boot"),
    ],
)
def test_what_does_not_fit_is_refused(kernel: Kernel | None, initrd: bytes, words: str) -> None:
    with Machine(MEMORY) as machine, pytest.raises(DoppelError, match=words):
        machine.boot(kernel, initrd)


def test_a_guest_that_does_not_fit_leaves_the_booted_one_alone() -> None:
    with Machine(MEMORY) as machine:
        machine.boot(program(POWEROFF, SUPERVISOR))
        with pytest.raises(DoppelError, match="needs"):
            machine.boot(_linux(4096, 20 * MIB))
        powered_off(machine)


def test_kernel_and_firmware_may_not_overlap(tmp_path: Path) -> None:
    firmware = _firmware(tmp_path, "nop")
    with Machine(MEMORY, firmware=firmware) as machine, pytest.raises(DoppelError, match="overlap at 0x8000"):
        machine.boot(program("nop", RAM))


@pytest.mark.parametrize("name", ["missing.bin", "folder"])
def test_firmware_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DoppelError, match="firmware"):
        Machine(MEMORY, firmware=tmp_path / name)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with Machine(MEMORY) as machine:
        with pytest.raises(DoppelError, match="no kernel"):
            machine.boot(tmp_path / "missing")
        with pytest.raises(DoppelError, match="no initrd"):
            machine.boot(program("nop", SUPERVISOR), tmp_path / "missing")
        with pytest.raises(DoppelError, match="nothing to run"):
            machine.start()


def test_a_file_that_vanishes_before_a_reset_fails_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "guest.bin"
    path.write_bytes(assemble("li t0, TEST; li t1, RESET; 1: j 1b", SUPERVISOR, SYMBOLS))
    with Machine(MEMORY) as machine:
        machine.boot(path)
        machine.start()
        path.unlink()
        machine.reset()
        outcome = machine.wait(30)
        assert outcome.kind == "failed"
        assert "no kernel" in outcome.message


TWO_LIVES = """
    li s0, RESULTS
    call patch
    sd a5, 0(s0)
    ld t0, 64(s0)
    sd t0, 8(s0)
    li t0, 1
    sd t0, 64(s0)
    # Change the function and see the change.
    la t0, patch
    la t1, other
    lwu t1, 0(t1)
    sw t1, 0(t0)
    fence.i
    call patch
    sd a5, 16(s0)
    # The first life lasts a thousand ticks and ends with a reset.
    li t1, 1000
    rdtime t0
    bgtu t0, t1, second
1:  rdtime t0
    bleu t0, t1, 1b
    li t0, TEST
    li t1, RESET
    sw t1, 0(t0)
2:  j 2b
patch:
    li a5, 1
    ret
other:
    li a5, 2
second:
"""


def test_memory_is_zero_after_a_reset_and_code_is_decoded_anew() -> None:
    with supervised(TWO_LIVES + POWEROFF, clock="icount") as machine:
        powered_off(machine)
        assert machine.statistics.accesses["test"] == 2
        assert results(machine, 3) == [1, 0, 2]


def test_booting_another_guest_ends_the_running_one() -> None:
    with Machine(MEMORY) as machine:
        machine.boot(program("1: j 1b", SUPERVISOR))
        machine.start()
        machine.boot(program(POWEROFF, SUPERVISOR))
        assert not machine.running
        powered_off(machine)
