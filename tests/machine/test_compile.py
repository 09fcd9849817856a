"""What a machine says of compiled code, and that compiling changes nothing else."""

from __future__ import annotations

import pytest

from doppel.errors import DoppelError
from doppel.machine import Machine
from doppel.processor.compilation import MODES, CompileMode

from .support import MEMORY, PATIENCE, POWEROFF, bare, results, wait_until

WORK = f"""
    li t0, 20000
    li a0, 1
1:  slli a1, a0, 7
    xor a0, a0, a1
    srli a1, a0, 9
    xor a0, a0, a1
    mul a2, a0, t0
    addi t0, t0, -1
    bnez t0, 1b
    li t1, RESULTS
    sd a0, 0(t1)
    sd a2, 8(t1)
    {POWEROFF}
"""
FOREVER = "1: addi s0, s0, 1; xor s1, s1, s0; j 1b"


def test_all_modes_do_the_same() -> None:
    seen = []
    for mode in MODES:
        with bare(WORK, clock="icount", compile=mode) as machine:
            machine.run(PATIENCE)
            statistics = machine.statistics
            seen.append(
                (results(machine, 2), statistics.instructions, dict(statistics.exits), machine.harts[0].pc)
            )
    assert seen[0] == seen[1] == seen[2]


def test_off_compiles_nothing() -> None:
    with bare(WORK, compile="off") as machine:
        machine.run(PATIENCE)
        engine = machine.statistics.engine
    assert (engine.mode, engine.regions, engine.code_bytes, engine.arena_bytes) == ("off", 0, 0, 0)
    assert engine.compiler_seconds == engine.worker_bytes == 0
    assert not engine.compiled_share
    assert engine.decoded > 10
    assert engine.decoded_bytes > 0


def test_all_compiles_before_the_first_execution() -> None:
    with bare(WORK, compile="all", clock="icount") as machine:
        machine.run(PATIENCE)
        engine = machine.statistics.engine
    assert engine.regions >= 1
    assert engine.instructions >= 7
    assert engine.code_bytes > engine.instructions
    assert engine.arena_bytes > 0
    assert engine.compiler_seconds > 0
    assert engine.worker_bytes == 0
    assert engine.compiled_share is None or engine.compiled_share > 0.9


def test_a_page_of_code_and_data_does_not_keep_the_compiler_busy() -> None:
    guest = f"""
        li t0, 100000
        la t1, data
    1:  sd t0, 0(t1)
        addi t0, t0, -1
        bnez t0, 1b
        {POWEROFF}
        .balign 8
    data: .dword 0
    """
    with bare(guest, compile="all", clock="icount") as machine:
        assert machine.run(PATIENCE).kind == "poweroff"
        assert machine.statistics.instructions >= 300_000
        assert machine.statistics.engine.regions < 1000


def test_hot_code_is_compiled_while_the_guest_runs() -> None:
    with bare(FOREVER) as machine:
        machine.start()
        wait_until(lambda: (machine.statistics.engine.compiled_share or 0) > 0.1)
        machine.stop()
        engine = machine.statistics.engine
        assert engine.mode == "hot"
        assert engine.regions >= 1
        assert engine.compiler_seconds >= 0
    assert machine.statistics.engine.regions >= engine.regions
    assert 0.1 < (machine.statistics.engine.compiled_share or 0) <= 1
    assert engine.memory_bytes >= engine.decoded_bytes + engine.arena_bytes + engine.hart_bytes > 0


def test_what_native_code_counts() -> None:
    guest = f"""
        la t0, handler
        csrw mtvec, t0
        li t0, 8
        csrs mie, t0
        csrs mstatus, t0
        li t1, 0x2000000
        li t2, 1
        sw t2, 0(t1)
    1:  j 1b
        .balign 4
    handler:
        li t0, RESULTS
        ld t1, 0(t0)
        {POWEROFF}
    """
    with bare(guest, compile="off", clock="icount") as machine:
        machine.run(PATIENCE)
        engine = machine.statistics.engine
    assert engine.interrupts == 1
    assert engine.tlb_misses >= 1
    assert engine.itlb_misses >= 1


def test_a_mode_that_there_is_not() -> None:
    mode: CompileMode = "cold"  # type: ignore[assignment]
    with pytest.raises(DoppelError, match="cold"):
        Machine(MEMORY, compile=mode)
