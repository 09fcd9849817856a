"""Time: that of the host, and that of machines which count instructions."""

from __future__ import annotations

import time

import pytest

from doppel.machine import Machine
from doppel.machine.clock import DEFAULT_EPOCH_NS

from .support import PATIENCE, POWEROFF, bare, powered_off, results, supervised

SECOND = 10_000_000

READ_CLOCKS = """
    li s0, RESULTS
    rdtime t0
    sd t0, 0(s0)
    li t1, RTC
    lwu t2, 0(t1)
    lwu t3, 4(t1)
    slli t3, t3, 32
    or t2, t2, t3
    sd t2, 8(s0)
"""


def test_the_hosts_clock() -> None:
    before = time.time_ns()
    with supervised(READ_CLOCKS + POWEROFF) as machine:
        time.sleep(0.2)
        powered_off(machine)
        after = time.time_ns()
        ticks, wall = results(machine, 2)
    # Since the machine was made.
    assert 0.2 * SECOND <= ticks <= (after - before) / 100
    assert before <= wall <= after


def test_the_clock_of_a_machine_that_counts_instructions() -> None:
    with supervised(READ_CLOCKS + POWEROFF, clock="icount") as machine:
        time.sleep(0.2)
        powered_off(machine)
        ticks, wall = results(machine, 2)
    assert ticks == 0
    assert DEFAULT_EPOCH_NS <= wall < DEFAULT_EPOCH_NS + 10_000
    with supervised(READ_CLOCKS + POWEROFF, clock="icount", epoch_ns=10**18) as machine:
        powered_off(machine)
        assert 10**18 <= results(machine, 2)[1] < 10**18 + 10_000


@pytest.mark.parametrize("make", [bare, supervised])
def test_the_machine_timer_agrees_with_the_time_csr(make: object) -> None:
    text = """
        li s0, RESULTS
        li t1, CLINT + 0xBFF8
        rdtime t0
        ld t1, 0(t1)
        rdtime t2
        sd t0, 0(s0)
        sd t1, 8(s0)
        sd t2, 16(s0)
    """
    for clock in ("host", "icount"):
        with bare(text + POWEROFF, clock=clock) as machine:
            powered_off(machine)
            first, second, third = results(machine, 3)
            assert first <= second <= third <= first + SECOND


# Sleeps for an hour, then for as long as the alarm of the real-time clock says: ten minutes.
SLEEPER = (
    """
    la t0, trap
    csrw stvec, t0
    li s0, RESULTS
    li t0, 0x220
    csrw sie, t0
    rdtime t0
    li t1, 36000000000
    add t0, t0, t1
    csrw stimecmp, t0
    csrsi sstatus, 2
1:  wfi
    ld t0, 0(s0)
    beqz t0, 1b
    # The alarm is interrupt source 11.
    li t0, PLIC + 4 * 11
    li t1, 1
    sw t1, 0(t0)
    li t0, PLIC + 0x2080
    li t1, 1 << 11
    sw t1, 0(t0)
    li t0, RTC
    lwu t1, 0(t0)
    lwu t2, 4(t0)
    slli t2, t2, 32
    or t1, t1, t2
    li t2, 600000000000
    add t1, t1, t2
    srli t2, t1, 32
    li t3, 1
    sw t3, 16(t0)
    sw t2, 12(t0)
    sw t1, 8(t0)
2:  wfi
    ld t0, 8(s0)
    beqz t0, 2b
"""
    + POWEROFF
    + """
.align 2
trap:
    csrr t0, scause
    andi t0, t0, 15
    li t1, 9
    beq t0, t1, 3f
    rdtime t0
    sd t0, 0(s0)
    li t0, -1
    csrw stimecmp, t0
    sret
3:  li t0, PLIC + 0x201004
    lwu t1, 0(t0)
    li t2, RTC
    sw zero, 0x1C(t2)
    sw t1, 0(t0)
    rdtime t0
    sd t0, 8(s0)
    sret
"""
)


@pytest.mark.parametrize("harts", [1, 2, 3])
def test_counted_time_jumps_while_all_harts_wait(harts: int) -> None:
    began = time.monotonic()
    with supervised(SLEEPER, clock="icount", harts=harts) as machine:
        powered_off(machine)
        first, second = results(machine, 2)
    assert 3600 * SECOND <= first < 3601 * SECOND
    assert first + 600 * SECOND <= second < first + 601 * SECOND
    assert time.monotonic() - began < PATIENCE / 2


ALARM = """
    la t0, trap
    csrw stvec, t0
    li t0, 1 << 9
    csrw sie, t0
    csrsi sstatus, 2
    li t0, PLIC + 4 * 11
    li t1, 1
    sw t1, 0(t0)
    li t0, PLIC + 0x2080
    li t1, 1 << 11
    sw t1, 0(t0)
    li t0, RTC
    lwu t1, 0(t0)
    lwu t2, 4(t0)
    slli t2, t2, 32
    or t1, t1, t2
    li s0, RESULTS
    sd t1, 0(s0)
    li t2, 300000000
    add t1, t1, t2
    srli t2, t1, 32
    li t3, 1
    sw t3, 16(t0)
    sw t2, 12(t0)
    sw t1, 8(t0)
1:  wfi
    j 1b
.align 2
trap:
    li t0, RTC
    lwu t1, 0(t0)
    lwu t2, 4(t0)
    slli t2, t2, 32
    or t1, t1, t2
    sd t1, 8(s0)
"""


@pytest.mark.parametrize("clock", ["host", "icount"])
def test_the_alarm_of_the_real_time_clock(clock: str) -> None:
    with supervised(ALARM + POWEROFF, clock=clock) as machine:
        powered_off(machine)
        before, after = results(machine, 2)
    assert 300_000_000 <= after - before < 2_000_000_000


# Two harts: each counts timer interrupts, a hundred a second of the guest's, and adds up what it sees of
# the other.
BUSY = (
    """
    la t0, trap
    csrw mtvec, t0
    csrr s1, mhartid
    li s0, RESULTS
    slli t0, s1, 6
    add s2, s0, t0
    xori t0, s1, 1
    slli t0, t0, 6
    add s3, s0, t0
    li s4, CLINT + 0x4000
    slli t0, s1, 3
    add s4, s4, t0
    rdtime s5
    li s6, 10000
    add s5, s5, s6
    sd s5, 0(s4)
    li t0, 128
    csrw mie, t0
    csrsi mstatus, 8
1:  ld t0, 0(s3)
    add s7, s7, t0
    addi s8, s8, 1
    sd s7, 16(s2)
    sd s8, 24(s2)
    ld t0, 0(s2)
    li t1, 600
    blt t0, t1, 1b
    csrci mstatus, 8
    li t0, 1
    sd t0, 32(s2)
    bnez s1, .
2:  ld t0, 32(s3)
    beqz t0, 2b
"""
    + POWEROFF
    + """
.align 2
trap:
    ld t2, 0(s2)
    addi t2, t2, 1
    sd t2, 0(s2)
    csrr t3, minstret
    ld t2, 8(s2)
    slli t4, t2, 5
    sub t2, t4, t2
    add t2, t2, t3
    sd t2, 8(s2)
    add s5, s5, s6
    sd s5, 0(s4)
    mret
"""
)


def _busy(harts: int, pauses: list[float]) -> tuple[list[int], int]:
    text = BUSY if harts == 2 else BUSY.replace("beqz t0, 2b", "nop")
    with bare(text, clock="icount", harts=harts) as machine:
        machine.start()
        paused = 0
        for seconds in pauses:
            time.sleep(seconds)
            machine.pause()
            if machine.outcome is not None:
                break
            machine.resume()
            paused += 1
        assert not pauses or paused > 3
        assert machine.wait(PATIENCE).kind == "poweroff"
        return results(machine, 16), machine.statistics.instructions


@pytest.mark.parametrize("harts", [1, 2])
def test_counted_runs_are_the_same_every_time(harts: int) -> None:
    first = _busy(harts, [])
    assert first[0][0] == 600
    assert _busy(harts, []) == first


@pytest.mark.parametrize("harts", [1, 2])
def test_pauses_do_not_show_in_counted_time(harts: int) -> None:
    assert _busy(harts, [0.001, 0.0002, 0.0007, 0.0003] * 20) == _busy(harts, [])


def test_entropy_is_the_same_every_time() -> None:
    texts = []
    for _ in range(2):
        with Machine(16 << 20, clock="icount") as machine:
            texts.append(machine._entropy(100))
    assert texts[0] == texts[1]
    with Machine(16 << 20) as one, Machine(16 << 20) as other:
        assert one._entropy(16) != other._entropy(16)


@pytest.mark.parametrize("clock", ["host", "icount"])
@pytest.mark.parametrize("busy", ["lb t3, 5(t0)", "csrci sstatus, 2; csrsi sstatus, 2"])
def test_the_timer_is_heard_by_who_is_busy(busy: str, clock: str) -> None:
    """Also where a device is asked, or interrupts are switched off and on, all the time."""
    text = f"""
        la t1, handler
        csrw stvec, t1
        li t0, UART
        csrr t1, time
        li t2, 20000
        add t1, t1, t2
        csrw stimecmp, t1
        li t1, 1 << 5
        csrw sie, t1
        csrsi sstatus, 2
    again:
        {busy}
        j again
    .align 2
    handler:
    """
    with supervised(text + POWEROFF, clock=clock) as machine:
        assert machine.run(PATIENCE).kind == "poweroff"
