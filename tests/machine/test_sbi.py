"""Supervisor calls, as guests make them. Source: SBI 2.0."""

from __future__ import annotations

import pytest

from doppel.machine import Outcome

from .support import (
    BASE,
    DBCN,
    HSM,
    INVALID_PARAM,
    IPI,
    MEMORY,
    NOT_SUPPORTED,
    NOWHERE,
    PATIENCE,
    POWEROFF,
    RESULTS,
    RFENCE,
    SRST,
    SUCCESS,
    SUPERVISOR,
    TIME,
    powered_off,
    results,
    sbi_calls,
    signed,
    supervised,
)

# --- base ---


def test_versions_and_identity() -> None:
    calls = [(BASE, function) for function in (0, 1, 2, 4, 5, 6)]
    answers = sbi_calls(calls)
    assert [error for error, _ in answers] == [SUCCESS] * 6
    version, implementation, _, vendor, architecture, hardware = (value for _, value in answers)
    assert version == 2 << 24
    assert implementation.to_bytes(6, "big") == b"doppel"
    assert (vendor, architecture, hardware) == (0, 0, 1)


def test_probe_says_what_there_is() -> None:
    there = [BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN, 0, 1, 2, 8]
    # PMU, SUSP, CPPC, NACL, STA, a legacy extension that is left out.
    absent = [0x504D55, 0x53555350, 0x43505043, 0x4E41434C, 0x535441, 5]
    answers = sbi_calls([(BASE, 3, extension) for extension in there + absent])
    assert answers == [(SUCCESS, 1)] * len(there) + [(SUCCESS, 0)] * len(absent)


@pytest.mark.parametrize("call", [(BASE, 7), (TIME, 1), (0x0A000000, 0), (-1, 0), (HSM, 4), (RFENCE, 3)])
def test_what_there_is_not_is_not_supported(call: tuple[int, ...]) -> None:
    assert sbi_calls([call])[0][0] == NOT_SUPPORTED


def test_a_call_changes_no_other_register() -> None:
    registers = [f"x{number}" for number in range(1, 32) if number not in (10, 11)]
    text = "\n".join(f"li {name}, {0x1000 + int(name[1:])}" for name in registers)
    text += f"\nli a7, {BASE}\nli a6, 3\necall\nsd x31, 0(sp)\n" + POWEROFF
    # x2 is the stack pointer, which must point to memory.
    text = text.replace("li x2, 4098", "li x2, RESULTS")
    with supervised(text) as machine:
        powered_off(machine)
        hart = machine.harts[0]
        for name in registers:
            # POWEROFF uses t0 and t1, the call's number is in a6 and a7.
            if name not in ("x2", "x5", "x6", "x16", "x17"):
                assert hart.registers[name] == 0x1000 + int(name[1:])


# --- time ---

TIMER = (
    """
    la t0, trap
    csrw stvec, t0
    li t0, 1 << 5
    csrw sie, t0
    rdtime s1
    li t0, {delay}
    add a0, s1, t0
    li a7, {extension}
    li a6, 0
    ecall
    csrsi sstatus, 2
1:  wfi
    j 1b
.align 2
trap:
    rdtime s2
    # The timer is set to the far future: not pending any more.
    li a0, -1
    ecall
    csrr s4, sip
    li t0, RESULTS
    csrr t1, scause
    sd t1, 0(t0)
    sub s2, s2, s1
    sd s2, 8(t0)
    sd s4, 16(t0)
"""
    + POWEROFF
)


@pytest.mark.parametrize("extension", [TIME, 0])
@pytest.mark.parametrize("clock", ["host", "icount"])
def test_timer_interrupt_comes_in_time(extension: int, clock: str) -> None:
    delay = 200_000
    with supervised(TIMER.format(delay=delay, extension=extension), clock=clock) as machine:
        powered_off(machine)
        cause, elapsed, pending = results(machine, 3)
    assert cause == 1 << 63 | 5
    assert elapsed >= delay
    if clock == "icount":
        assert elapsed < delay + 1000
    assert pending & 1 << 5 == 0


# --- reset ---


@pytest.mark.parametrize(
    ("kind", "reason", "outcome"),
    [(0, 0, Outcome("poweroff", 0)), (0, 1, Outcome("poweroff", 1)), (1, 0, Outcome("reboot"))],
)
def test_system_reset(kind: int, reason: int, outcome: Outcome) -> None:
    text = f"li a0, {kind}\nli a1, {reason}\nli a6, 0\nli a7, {SRST}\necall\n1: j 1b"
    with supervised(text, reboot=False) as machine:
        assert machine.run(PATIENCE) == outcome


@pytest.mark.parametrize(
    ("kind", "reason", "error"),
    [(3, 0, INVALID_PARAM), (0, 2, INVALID_PARAM), (0xE000_0000, 0, NOT_SUPPORTED)],
)
def test_resets_that_there_are_not(kind: int, reason: int, error: int) -> None:
    assert sbi_calls([(SRST, 0, kind, reason)])[0][0] == error


# --- console ---


def test_debug_console_writes_memory_behind_what_the_serial_port_sent() -> None:
    text = (
        f"""
        li t0, UART
        li t1, '<'
        sb t1, 0(t0)
        li a0, 11
        la a1, text
        li a2, 0
        li a6, 0
        li a7, {DBCN}
        ecall
        li t0, RESULTS
        sd a0, 0(t0)
        sd a1, 8(t0)
        li a0, '>'
        li a6, 2
        ecall
    """
        + POWEROFF
        + 'text: .ascii "from memory"'
    )
    with supervised(text) as machine:
        powered_off(machine)
        assert machine.console.text == "<from memory>"
        assert results(machine, 2) == [0, 11]


def test_debug_console_reads_what_there_is() -> None:
    text = (
        f"""
        li s0, RESULTS
        li a0, 8
        addi a1, s0, 64
        li a2, 0
        li a6, 1
        li a7, {DBCN}
        ecall
        sd a1, 0(s0)
        li a0, 8
        addi a1, s0, 72
        ecall
        sd a1, 8(s0)
        li a0, 8
        addi a1, s0, 80
        ecall
        sd a1, 16(s0)
    """
        + POWEROFF
    )
    with supervised(text) as machine:
        machine.console.send("twelve bytes")
        powered_off(machine)
        assert results(machine, 3) == [8, 4, 0]
        assert machine.memory.read(RESULTS + 64, 12) == b"twelve bytes"


@pytest.mark.parametrize("function", [0, 1])
@pytest.mark.parametrize(
    ("length", "low", "high"),
    [(1, NOWHERE, 0), (4096, SUPERVISOR + MEMORY - 0x20_0000 - 8, 0), (1, RESULTS, 1), (16, -8, 0)],
)
def test_debug_console_refuses_what_is_not_memory(function: int, length: int, low: int, high: int) -> None:
    assert sbi_calls([(DBCN, function, length, low, high)])[0][0] == INVALID_PARAM


def test_debug_console_takes_no_more_than_it_can() -> None:
    # As much as there is memory, and more: a part of it is written, or it is refused.
    error, value = sbi_calls([(DBCN, 0, 1 << 62, RESULTS, 0)])[0]
    assert error == SUCCESS and 0 < value <= MEMORY


def test_legacy_console() -> None:
    text = """
        li s0, RESULTS
        li a7, 2
        ecall
        sd a0, 0(s0)
        ecall
        sd a0, 8(s0)
        ld a0, 0(s0)
        li a1, 0x55
        li a7, 1
        ecall
        sd a0, 16(s0)
        sd a1, 24(s0)
        li a7, 8
        ecall
    1:  j 1b
    """
    with supervised(text) as machine:
        machine.console.send("x")
        powered_off(machine)
        first, second, error, kept = results(machine, 4)
        assert (first, signed(second), error) == (ord("x"), -1, 0)
        # Legacy calls have one result only.
        assert kept == 0x55
        assert machine.console.text == "x"
