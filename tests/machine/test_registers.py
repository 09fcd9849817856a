"""Looking into a machine: registers, memory, single steps."""

from __future__ import annotations

import time

import pytest

from doppel.errors import DoppelError
from doppel.isa.privileged.constants import Mode
from doppel.machine import Outcome

from .support import (
    PATIENCE,
    POWEROFF,
    RESULTS,
    SUPERVISOR,
    has_run,
    powered_off,
    program,
    results,
    supervised,
    wait_until,
)

SPIN = "1: addi s0, s0, 1; j 1b"


def test_stepping() -> None:
    with supervised("li t0, 1; li t1, 2; add t2, t0, t1; j .") as machine:
        hart = machine.harts[0]
        assert machine.step() == 1
        assert (hart.pc, hart.registers["t0"], hart.registers["t1"]) == (SUPERVISOR + 4, 1, 0)
        assert machine.step(count=2) == 2
        assert hart.registers["t2"] == 3
        assert machine.step(count=1000) == 1000
        assert hart.pc == SUPERVISOR + 12
        assert machine.statistics.instructions == 1003


def test_stepping_through_devices_and_calls() -> None:
    text = "li t0, UART; li t1, 'x'; sb t1, 0(t0); li a7, 1; li a0, 'y'; ecall" + POWEROFF
    with supervised(text) as machine:
        for _ in range(100):
            machine.step()
            if machine.outcome is not None:
                break
        assert machine.outcome == Outcome("poweroff")
        assert machine.console.text == "xy"


def test_stepping_a_machine_that_was_paused() -> None:
    with supervised(SPIN) as machine:
        ran = has_run(machine)
        machine.start()
        wait_until(ran)
        machine.pause()
        before = machine.statistics.instructions
        assert machine.step(count=5) == 5
        assert machine.statistics.instructions == before + 5


@pytest.mark.parametrize("clock", ["host", "icount"])
def test_stepping_into_a_wait_comes_back(clock: str) -> None:
    with supervised("wfi; j .", clock=clock) as machine:
        for _ in range(3):
            began = time.monotonic()
            assert machine.step(count=10) <= 1
            assert time.monotonic() - began < 10
        assert machine.harts[0].waiting


def test_many_steps_may_take_long() -> None:
    with supervised(SPIN) as machine:
        assert machine.step(count=300_000_000) == 300_000_000


def test_registers_can_be_set_while_it_does_not_run() -> None:
    with supervised("1: beqz s0, 1b; sd s0, 0(s1)" + POWEROFF) as machine:
        machine.start()
        hart = machine.harts[0]
        with pytest.raises(DoppelError, match="running"):
            hart.registers["s0"] = 1
        with pytest.raises(DoppelError, match="running"):
            machine.step()
        machine.pause()
        hart.registers["s0"] = -1
        hart.registers["x9"] = RESULTS
        hart.registers["zero"] = 5
        hart.registers["fa0"] = 1 << 63
        assert (hart.registers["s1"], hart.registers["zero"]) == (RESULTS, 0)
        assert hart.registers["f10"] == 1 << 63
        machine.resume()
        assert machine.wait(PATIENCE).kind == "poweroff"
        assert results(machine, 1) == [(1 << 64) - 1]


def test_the_pc_can_be_set() -> None:
    with supervised("j ." + POWEROFF) as machine:
        machine.harts[0].pc = SUPERVISOR + 4
        powered_off(machine)


def test_names_of_registers() -> None:
    with supervised(SPIN) as machine:
        registers = machine.harts[0].registers
        assert len(registers) == len(list(registers)) == 64
        assert {"zero", "ra", "sp", "a0", "t6", "ft0", "fa7"} <= set(registers)
        with pytest.raises(KeyError):
            registers["q0"]
        with pytest.raises(KeyError):
            registers["x32"] = 0
        with pytest.raises(TypeError):
            del registers["a0"]


def test_csrs() -> None:
    with supervised(SPIN, harts=2) as machine:
        csr = machine.harts[1].csr
        assert csr["mhartid"] == 1
        csr = machine.harts[0].csr
        csr["sscratch"] = -1
        assert csr["sscratch"] == (1 << 64) - 1
        # WARL: no reserved modes, and a legal one takes effect.
        csr["satp"] = 5 << 60
        assert csr["satp"] == 0
        csr["satp"] = 8 << 60 | 0x80400
        assert csr["satp"] == 8 << 60 | 0x80400
        csr["mstatus"] = csr["mstatus"] | 3 << 13
        csr["fcsr"] = 0xFF
        assert (csr["fflags"], csr["frm"]) == (0x1F, 7)
        assert csr["mstatus"] >> 63 == 1
        before = csr["minstret"]
        machine.step(count=7)
        assert csr["mstatus"] and csr["minstret"] >= before
        assert "mepc" in csr and len(csr) == len(list(csr)) > 50
        with pytest.raises(KeyError):
            csr["nonsense"]
        with pytest.raises(DoppelError, match="read-only"):
            csr["mhartid"] = 3
        with pytest.raises(TypeError):
            del csr["mepc"]


def test_csrs_that_need_the_floating_point_unit() -> None:
    with supervised(SPIN) as machine, pytest.raises(DoppelError, match="FS"):
        machine.harts[0].csr["fcsr"]


def test_a_csr_that_was_set_rules_the_next_instruction() -> None:
    # With SUM off, S mode may not read a page of U mode.
    with supervised("1: ld t0, 0(t1); j 1b; .align 2; trap: j .") as machine:
        root = RESULTS
        machine.memory.write_u64(root + 8 * 2, 0x8000_0000 >> 2 | 0xCF)
        machine.memory.write_u64(root + 8 * 4, 0x8000_0000 >> 2 | 0xDF)
        hart = machine.harts[0]
        hart.csr["stvec"] = SUPERVISOR + 8
        hart.csr["satp"] = 8 << 60 | root >> 12
        hart.csr["mstatus"] = hart.csr["mstatus"] | 1 << 18
        hart.registers["t1"] = 1 << 32
        machine.step(count=10)
        assert hart.csr["scause"] == 0
        hart.csr["mstatus"] = hart.csr["mstatus"] & ~(1 << 18)
        machine.step(count=3)
        assert hart.csr["scause"] == 13


def test_a_hart_says_what_it_is() -> None:
    with supervised(SPIN) as machine:
        hart = machine.harts[0]
        assert (hart.index, hart.mode, hart.waiting, hart.instructions) == (0, Mode.S, False, 0)
        assert repr(hart) == "<hart 0 in S mode at 0x80200000>"


def test_memory_is_what_the_guest_sees() -> None:
    with supervised("li t0, RESULTS; ld t1, 0(t0); addi t1, t1, 1; sd t1, 8(t0)" + POWEROFF) as machine:
        machine.memory.write_u64(RESULTS, 41)
        powered_off(machine)
        segment = machine.memory.segments(RESULTS, 16, write=False)
        assert int.from_bytes(segment[0][8:16], "little") == 42
        segment[0].release()


def test_code_that_somebody_else_writes_is_executed() -> None:
    with supervised("1: j 1b") as machine:
        ran = has_run(machine)
        machine.start()
        wait_until(ran)
        machine.memory.write(SUPERVISOR, program(POWEROFF, SUPERVISOR).segments[0].data)
        assert machine.wait(PATIENCE) == Outcome("poweroff")
