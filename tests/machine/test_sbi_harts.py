"""Supervisor calls that are about other harts: interrupts, fences, starting and stopping. Source: SBI 2.0."""

from __future__ import annotations

import pytest

from .support import (
    ALREADY_AVAILABLE,
    HSM,
    INVALID_ADDRESS,
    INVALID_PARAM,
    IPI,
    NOT_SUPPORTED,
    NOWHERE,
    POWEROFF,
    RESULTS,
    RFENCE,
    SUCCESS,
    SUPERVISOR,
    powered_off,
    program,
    results,
    sbi_calls,
    supervised,
)

ALL_HARTS = -1


# --- interprocessor interrupts and fences ---

# Hart 1 is started at `other`; `started` is set when it is there.
START_OTHER = f"""
    li a0, 1
    la a1, other
    li a2, 0x1234
    li a6, 0
    li a7, {HSM}
    ecall
    li s0, RESULTS
    sd a0, 0(s0)
1:  ld t0, 8(s0)
    beqz t0, 1b
"""

IPI_GUEST = (
    START_OTHER
    + f"""
    li s2, 2000
round:
    ld s3, 16(s0)
    li a0, 2
    li a1, 0
    li a6, 0
    li a7, {IPI}
    ecall
    bnez a0, failed
2:  ld t0, 16(s0)
    beq t0, s3, 2b
    addi s2, s2, -1
    bnez s2, round
failed:
    sd a0, 24(s0)
"""
    + POWEROFF
    + """
.align 2
other:
    la t0, trap
    csrw stvec, t0
    csrsi sie, 2
    csrsi sstatus, 2
    li s0, RESULTS
    sd a1, 8(s0)
3:  wfi
    j 3b
.align 2
trap:
    csrci sip, 2
    ld t0, 16(s0)
    addi t0, t0, 1
    sd t0, 16(s0)
    sret
"""
)


@pytest.mark.parametrize("clock", ["host", "icount"])
def test_every_interprocessor_interrupt_arrives(clock: str) -> None:
    with supervised(IPI_GUEST, harts=2, clock=clock) as machine:
        powered_off(machine)
        assert results(machine, 4) == [0, 0x1234, 2000, 0]


def test_interrupting_oneself() -> None:
    answers = sbi_calls([(IPI, 0, 1, 0)])
    assert answers == [(SUCCESS, 0)]


@pytest.mark.parametrize(
    ("mask", "base", "error"),
    [
        (1, 0, SUCCESS),
        (0, 0, SUCCESS),
        (3, 0, SUCCESS),
        (1, 1, SUCCESS),
        (0, ALL_HARTS, SUCCESS),
        (4, 0, INVALID_PARAM),
        (2, 1, INVALID_PARAM),
        (1, 2, INVALID_PARAM),
        (-1, 0, INVALID_PARAM),
        (1, 1 << 40, INVALID_PARAM),
        (1, 1 << 62, INVALID_PARAM),
    ],
)
def test_hart_masks(mask: int, base: int, error: int) -> None:
    answers = sbi_calls(
        [(IPI, 0, mask, base), (RFENCE, 0, mask, base), (RFENCE, 1, mask, base, 0, 0)], harts=2
    )
    assert [answer[0] for answer in answers] == [error] * 3


@pytest.mark.parametrize(
    ("start", "size", "error"),
    [
        (0x1000, 0x1000, SUCCESS),
        (0, -1, SUCCESS),
        (-4096, 4096, SUCCESS),
        (-4096, 8192, INVALID_ADDRESS),
    ],
)
def test_ranges_of_remote_fences(start: int, size: int, error: int) -> None:
    calls = [(RFENCE, function, 1, 0, start, size, 0) for function in (1, 2)]
    assert [answer[0] for answer in sbi_calls(calls)] == [error] * 2


# Both harts translate PAGE through one table. Hart 1 keeps reading it; hart 0 keeps mapping another frame
# there, has hart 1 fence, and writes -1 into the frame it took away: hart 1 must never see that, though
# hart 0 waits each time until it has looked twice.
FENCE_GUEST = (
    START_OTHER
    + f"""
    li s1, RESULTS
    li s2, FRAMES
    li s3, ENTRY
    li s4, ROUNDS
    li s6, 0
round:
    # The frame that is mapped from now on gets this round's number first.
    xori s6, s6, 1
    slli t0, s6, 12
    add t0, t0, s2
    sd s4, 0(t0)
    srli t1, t0, 2
    ori t1, t1, 0xC7
    sd t1, 0(s3)
    li a0, 2
    li a1, 0
    li a2, PAGE
    li a3, 4096
    li a6, 1
    li a7, {RFENCE}
    ecall
    bnez a0, done
    # The other frame is free now.
    xori t0, s6, 1
    slli t0, t0, 12
    add t0, t0, s2
    li t1, -1
    sd t1, 0(t0)
    ld t0, 48(s1)
    addi t0, t0, 2
3:  ld t1, 48(s1)
    bltu t1, t0, 3b
    addi s4, s4, -1
    bnez s4, round
done:
    sd a0, 16(s1)
    li t0, 1
    sd t0, 24(s1)
4:  ld t0, 32(s1)
    beqz t0, 4b
"""
    + POWEROFF
    + """
.align 2
other:
    li t0, 8 << 60 | ROOT >> 12
    csrw satp, t0
    sfence.vma
    li s0, RESULTS
    li s1, PAGE
    li s3, -1
    li s4, 0
    li s5, 0
    sd a1, 8(s0)
5:  ld t0, 0(s1)
    bne t0, s3, 6f
    addi s4, s4, 1
6:  addi s5, s5, 1
    sd s5, 48(s0)
    ld t1, 24(s0)
    beqz t1, 5b
    sd s4, 40(s0)
    li t0, 1
    sd t0, 32(s0)
7:  j 7b
"""
)
# Its number has other low bits than that of RESULTS, so that neither takes the other's place among the
# translations that a hart keeps.
PAGE = (1 << 32) + 0x5000
ROOT, MIDDLE, TABLE, FRAMES = (RESULTS + 0x1000 * page for page in (1, 2, 3, 4))


def _pointer(address: int) -> int:
    return address >> 2 | 1


@pytest.mark.parametrize(("clock", "rounds"), [("host", 2000), ("icount", 20)])
def test_remote_fences_are_complete_when_they_return(clock: str, rounds: int) -> None:
    symbols = {
        "ROOT": ROOT,
        "PAGE": PAGE,
        "ENTRY": TABLE + 8 * (PAGE >> 12 & 511),
        "FRAMES": FRAMES,
        "ROUNDS": rounds,
    }
    with supervised("nop", harts=2, clock=clock) as machine:
        machine.boot(program(FENCE_GUEST, SUPERVISOR, symbols))
        memory = machine.memory
        # Gigapages of the guest as it is, and 4 GiB through two more levels (Sv39).
        memory.write_u64(ROOT + 8 * 2, 0x8000_0000 >> 2 | 0xCF)
        memory.write_u64(ROOT + 8 * 4, _pointer(MIDDLE))
        memory.write_u64(MIDDLE, _pointer(TABLE))
        memory.write_u64(TABLE + 8 * (PAGE >> 12 & 511), FRAMES >> 2 | 0xC7)
        powered_off(machine)
        started, _, error, _, _, stale = results(machine, 6)
    assert (started, error) == (0, 0)
    assert stale == 0


CROSSED_FENCES = (
    START_OTHER
    + f"""
work:
    li s2, 3000
2:  li a0, 3
    li a1, 0
    li a2, 0
    li a3, 0
    li a6, 1
    li a7, {RFENCE}
    ecall
    addi s2, s2, -1
    bnez s2, 2b
    addi t0, s0, 16
    li t1, 1
    amoadd.d zero, t1, (t0)
    bnez s5, park
3:  ld t0, 16(s0)
    li t1, 2
    bne t0, t1, 3b
"""
    + POWEROFF
    + """
park:
    j park
.align 2
other:
    li s0, RESULTS
    li s5, 1
    sd a1, 8(s0)
    j work
"""
)


def test_harts_that_fence_each_other_do_not_wait_for_ever() -> None:
    with supervised(CROSSED_FENCES, harts=2) as machine:
        powered_off(machine)


# --- hart state management ---


def test_states_of_harts() -> None:
    calls = [
        (HSM, 2, 0),
        (HSM, 2, 1),
        (HSM, 2, 2),
        (HSM, 0, 0, SUPERVISOR, 0),
        (HSM, 0, 2, SUPERVISOR, 0),
        (HSM, 0, 1, NOWHERE, 0),
        (HSM, 0, 1, -1, 0),
        (HSM, 3, 0x1000_0000, 0, 0),
        (HSM, 3, 0x9000_0000, 0, 0),
        (HSM, 3, 1, 0, 0),
        (HSM, 3, 0x8000_0000, NOWHERE, 0),
    ]
    answers = sbi_calls(calls, harts=2)
    assert answers[:2] == [(SUCCESS, 0), (SUCCESS, 1)]
    assert [error for error, _ in answers[2:]] == [
        INVALID_PARAM,
        ALREADY_AVAILABLE,
        INVALID_PARAM,
        INVALID_ADDRESS,
        INVALID_ADDRESS,
        NOT_SUPPORTED,
        NOT_SUPPORTED,
        INVALID_PARAM,
        INVALID_ADDRESS,
    ]


STARTED_HART = (
    START_OTHER
    + """
2:  ld t0, 128(s0)
    beqz t0, 2b
"""
    + POWEROFF
    + """
.align 2
other:
    li s0, RESULTS
    sd a0, 16(s0)
    csrr t0, satp
    sd t0, 24(s0)
    csrr t0, sstatus
    andi t0, t0, 2
    sd t0, 32(s0)
    sd s1, 40(s0)
    csrr t0, sie
    sd t0, 48(s0)
    sd a1, 8(s0)
    li t0, 1
    sd t0, 128(s0)
3:  j 3b
"""
)


@pytest.mark.parametrize("clock", ["host", "icount"])
def test_a_started_hart_is_as_the_specification_has_it(clock: str) -> None:
    with supervised(STARTED_HART, harts=2, clock=clock) as machine:
        powered_off(machine)
        error, opaque, number, satp, enabled, register, sie = results(machine, 7)
    assert (error, opaque, number) == (0, 0x1234, 1)
    assert (satp, enabled, sie) == (0, 0, 0)
    assert register == 0


# Hart 1 stops itself, hart 0 sees it stopped and starts it again, ten times.
STOP_AND_START = (
    f"""
    li s0, RESULTS
    li s2, 10
again:
    li a0, 1
    la a1, other
    mv a2, s2
    li a6, 0
    li a7, {HSM}
    ecall
    bnez a0, failed
1:  ld t0, 0(s0)
    bne t0, s2, 1b
2:  li a0, 1
    li a6, 2
    ecall
    bnez a0, failed
    addi a1, a1, -1
    bnez a1, 2b
    addi s2, s2, -1
    bnez s2, again
failed:
    sd a0, 8(s0)
"""
    + POWEROFF
    + f"""
.align 2
other:
    li s0, RESULTS
    sd a1, 0(s0)
    li a6, 1
    li a7, {HSM}
    ecall
    sd a0, 16(s0)
3:  j 3b
"""
)


@pytest.mark.parametrize("clock", ["host", "icount"])
def test_stopping_and_starting_a_hart(clock: str) -> None:
    with supervised(STOP_AND_START, harts=2, clock=clock) as machine:
        powered_off(machine)
        assert results(machine, 3) == [1, 0, 0]


SUSPENSION = (
    START_OTHER
    + f"""
    # Wait until hart 1 is suspended (state 4), then wake it.
2:  li a0, 1
    li a6, 2
    li a7, {HSM}
    ecall
    li t0, 4
    bne a1, t0, 2b
    li a0, 2
    li a1, 0
    li a6, 0
    li a7, {IPI}
    ecall
3:  ld t0, 16(s0)
    beqz t0, 3b
    # It is started (0) now.
    li a0, 1
    li a6, 2
    li a7, {HSM}
    ecall
    sd a1, 40(s0)
"""
    + POWEROFF
    + """
.align 2
other:
    li s0, RESULTS
    li s1, 0x5A
    csrsi sie, 2
    sd a1, 8(s0)
    li a0, {kind}
    la a1, resumed
    li a2, 0x77
    li a6, 3
    li a7, {hsm}
    ecall
    sd a0, 24(s0)
    sd s1, 32(s0)
    li t0, 1
    sd t0, 16(s0)
4:  j 4b
.align 2
resumed:
    li s0, RESULTS
    sd a0, 24(s0)
    sd a1, 32(s0)
    li t0, 2
    sd t0, 16(s0)
5:  j 5b
"""
)


@pytest.mark.parametrize("clock", ["host", "icount"])
@pytest.mark.parametrize(("kind", "expected"), [(0, [1, 0, 0x5A]), (0x8000_0000, [2, 1, 0x77])])
def test_suspending_a_hart(kind: int, expected: list[int], clock: str) -> None:
    text = SUSPENSION.replace("{kind}", str(kind)).replace("{hsm}", str(HSM))
    with supervised(text, harts=2, clock=clock) as machine:
        powered_off(machine)
        words = results(machine, 6)
    assert words[2:5] == expected
    assert words[5] == 0
