"""The F and D instructions natively: host arithmetic where it is fit, against the definitions and against
unicorn."""

from __future__ import annotations

import itertools
import random

import pytest

from doppel.isa.instruction import Instruction
from doppel.isa.privileged.constants import Cause, Status
from doppel.processor.exits import ExitReason

from ..isa.test_float_instructions import (
    BOX,
    COMPUTING,
    DYNAMIC,
    MODES,
    ROUNDED,
    UNBOXED,
    Case,
    Oracle,
    cases_for,
    encode,
    execute,
    hart,
    interesting,
    known_to_differ,
    source_bits,
    writes_single,
)
from .support import RAM_BASE, STOP, Board, Pair

OPERANDS, RESULTS = RAM_BASE + 0x10000, RAM_BASE + 0x80000
FLOAT, DOUBLE = (23, 255), (52, 2047)


class Native:
    """Runs one instruction on many operands, as :class:`Oracle` does."""

    def __init__(self) -> None:
        self.board = Board(devices=True)
        self.board.hart.state.mstatus |= Status.FS

    def run(self, instruction: Instruction, rm: int, cases: list[Case]) -> list[tuple[int, int]]:
        pattern = instruction.pattern
        fields = {"rm": rm, "fs1": 1, "fs2": 2, "fs3": 3, "fd": 4, "rs1": 10, "rd": 11}
        body = [
            encode("ld", rd=28, rs1=5),
            encode("csrrw", csr=3, rs1=28),
            encode("fld", fd=1, rs1=5, imm=8),
            encode("fld", fd=2, rs1=5, imm=16),
            encode("fld", fd=3, rs1=5, imm=24),
            encode("ld", rd=10, rs1=5, imm=8),
            pattern.encode({f.name: fields[f.name] for f in pattern.fields}).to_bytes(4, "little"),
            encode("csrrs", csr=1, rd=29),
            encode("sd", rs1=7, rs2=29),
            encode("fsd", rs1=7, fs2=4, imm=8)
            if instruction.destination == "fd"
            else encode("sd", rs1=7, rs2=11, imm=8),
            encode("addi", rd=5, rs1=5, imm=32),
            encode("addi", rd=7, rs1=7, imm=16),
        ]
        code = b"".join(body) + encode("bne", rs1=5, rs2=6, imm=-4 * len(body)) + STOP
        data = b"".join(v.to_bytes(8, "little") for case in cases for v in case)
        memory, state = self.board.memory, self.board.hart.state
        memory.write(RAM_BASE, code)
        memory.write(OPERANDS, data)
        state.x[5], state.x[6], state.x[7] = OPERANDS, OPERANDS + len(data), RESULTS
        state.pc = RAM_BASE
        exit = self.board.run(100_000)
        assert (exit.reason, exit.address) == (ExitReason.DEVICE, 0)
        out = memory.read(RESULTS, 16 * len(cases))
        words = [int.from_bytes(out[i : i + 8], "little") for i in range(0, len(out), 8)]
        return list(zip(words[1::2], words[0::2], strict=True))


@pytest.fixture(scope="module")
def native(tier: str) -> Native:
    return Native()


@pytest.fixture(scope="module")
def unicorn() -> Oracle:
    return Oracle()


def against_model(native: Native, instruction: Instruction, rm: int, cases: list[Case]) -> None:
    for case, (value, flags) in zip(cases, native.run(instruction, rm, cases), strict=True):
        fcsr, *operands = case
        h = hart(fcsr=fcsr)
        result = execute(instruction, h, rm, *operands)
        assert (hex(value), flags) == (hex(result), h.fflags), (rm, hex(fcsr), [hex(v) for v in operands])


def modes_of(instruction: Instruction) -> tuple[int, ...]:
    return (*MODES, DYNAMIC) if instruction.name in ROUNDED else (0,)


@pytest.mark.parametrize("instruction", COMPUTING, ids=lambda i: i.name)
def test_native_agrees_with_the_model(native: Native, instruction: Instruction) -> None:
    for rm in modes_of(instruction):
        against_model(native, instruction, rm, cases_for(instruction, 25 if rm else 80, 100 + rm))


def against_unicorn(native: Native, unicorn: Oracle, instruction: Instruction, count: int, seed: int) -> None:
    for rm in modes_of(instruction):
        cases = cases_for(instruction, count, seed + rm)
        results = zip(
            cases, native.run(instruction, rm, cases), unicorn.run(instruction, rm, cases), strict=True
        )
        for (fcsr, *operands), (value, flags), (expected, expected_flags) in results:
            if known_to_differ(instruction, operands):
                continue
            if writes_single(instruction):
                expected |= BOX
            assert (hex(value), flags) == (hex(expected), expected_flags), (
                rm,
                hex(fcsr),
                [hex(v) for v in operands],
            )


@pytest.mark.parametrize("instruction", COMPUTING, ids=lambda i: i.name)
def test_native_agrees_with_unicorn(native: Native, unicorn: Oracle, instruction: Instruction) -> None:
    against_unicorn(native, unicorn, instruction, 120, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("instruction", COMPUTING, ids=lambda i: i.name)
def test_native_agrees_with_unicorn_at_length(
    native: Native, unicorn: Oracle, instruction: Instruction
) -> None:
    for seed in range(8):
        against_unicorn(native, unicorn, instruction, 2000, 2000 + 10 * seed)


# --- what hosts do differently ---


def special(bits: int) -> list[int]:
    """Zeros, infinities, NaNs, the ends of the normal and the subnormal range, one and its neighbours."""
    fraction, top = FLOAT if bits == 32 else DOUBLE
    one = (top >> 1) << fraction
    magnitudes = [
        *(0, 1, (1 << fraction) - 1, 1 << fraction, (top << fraction) - 1, top << fraction),
        *(
            (top << fraction) + 1,
            (top << fraction) + (1 << fraction - 1),
            (top << fraction) + (1 << fraction - 1) + 5,
        ),
        *(one - 1, one, one + 1, one + (1 << fraction - 1), 2 << fraction),
    ]
    return [sign << bits - 1 | magnitude for magnitude in magnitudes for sign in (0, 1)]


def boxed(value: int, bits: int) -> int:
    return value | BOX if bits == 32 else value


def find(name: str) -> Instruction:
    return next(i for i in COMPUTING if i.name == name)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    "name", ["fadd", "fsub", "fmul", "fdiv", "fsqrt", "feq", "flt", "fle", "fmin", "fmax"]
)
def test_special_operands(native: Native, name: str, bits: int) -> None:
    """All pairs: signaling and quiet NaNs in any place, invalid operations, division by zero, overflow."""
    instruction = find(f"{name}.{'s' if bits == 32 else 'd'}")
    values = [boxed(v, bits) for v in special(bits)]
    pairs = [
        (0, a, b, 0) for a in values for b in (values if "fs2" in instruction.parameters else values[:1])
    ]
    against_model(native, instruction, 0, pairs)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", ["fmadd", "fmsub", "fnmsub", "fnmadd"])
def test_fused_specials(native: Native, name: str, bits: int) -> None:
    """Also infinity times zero plus a NaN, which is invalid even if that NaN is quiet (IEEE 754-2019 7.2)."""
    values = [boxed(v, bits) for v in special(bits)]
    choice = random.Random(name)
    triples = list(itertools.product(values, repeat=3))
    instruction = find(f"{name}.{'s' if bits == 32 else 'd'}")
    against_model(native, instruction, 0, [(0, *operands) for operands in choice.sample(triples, 600)])
    infinity = (FLOAT[1] << 23) if bits == 32 else DOUBLE[1] << 52
    nan = infinity | (1 << (22 if bits == 32 else 51))
    results = native.run(instruction, 0, [(0, *(boxed(v, bits) for v in (infinity, 0, nan)))])
    assert results == [(boxed(nan, bits), 0x10)]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("integer", ["w", "wu", "l", "lu"])
def test_conversions_at_the_ends_of_the_range(native: Native, integer: str, bits: int) -> None:
    """To integers, around each power of two at which a type ends, in every rounding mode."""
    fraction, top = FLOAT if bits == 32 else DOUBLE
    bias = top >> 1
    values = special(bits)
    for exponent in (-2, -1, 0, 1, 22, 23, 30, 31, 32, 33, 51, 52, 53, 62, 63, 64, 65):
        power = bias + exponent << fraction
        half = 1 << max(0, fraction - exponent - 1) if exponent < fraction else 1
        values += [power + step for step in (-1, 0, 1, -half, half, half + 1)]
        values += [power + step | 1 << bits - 1 for step in (-1, 0, 1, -half, half, half + 1)]
    cases = [(0, boxed(v, bits), 0, 0) for v in values]
    instruction = find(f"fcvt.{integer}.{'s' if bits == 32 else 'd'}")
    for rm in MODES:
        against_model(native, instruction, rm, cases)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("integer", ["w", "wu", "l", "lu"])
def test_conversions_from_integers(native: Native, integer: str, bits: int) -> None:
    values = {0, 1, 0xFFFF_FFFF, (1 << 64) - 1}
    for power in (23, 24, 25, 31, 32, 52, 53, 54, 62, 63):
        for step in (-1, 0, 1, 3, 1 << max(0, power - 24), (1 << max(0, power - 53)) + 1):
            values |= {(1 << power) + step, -(1 << power) + step & (1 << 64) - 1}
    cases = [(0, v & (1 << 64) - 1, 0, 0) for v in sorted(values)]
    instruction = find(f"fcvt.{'s' if bits == 32 else 'd'}.{integer}")
    for rm in MODES:
        against_model(native, instruction, rm, cases)


@pytest.mark.parametrize("name", ["fcvt.s.d", "fcvt.d.s"])
def test_conversions_between_formats(native: Native, name: str) -> None:
    instruction = find(name)
    bits = source_bits(instruction)
    values = special(bits)
    if bits == 64:
        # Around single's overflow, its least normal number and its least subnormal one: tininess after
        # rounding.
        for exponent in (127, 128, -126, -127, -148, -149, -150, -151):
            power = 1023 + exponent << 52
            values += [
                power + step for step in (-1, 0, 1, -(1 << 28), -(1 << 28) - 1, 1 << 28, (1 << 28) + 1)
            ]
    for rm in MODES:
        against_model(native, instruction, rm, [(0, boxed(v, bits), 0, 0) for v in values])


@pytest.mark.parametrize("bits", [32, 64])
def test_tiny_products_underflow_as_after_rounding(native: Native, bits: int) -> None:
    """Products around the least normal number: underflow only if the rounded result is below it, and
    inexact."""
    fraction, top = FLOAT if bits == 32 else DOUBLE
    bias, choice = top >> 1, random.Random(bits)
    cases = []
    for _ in range(150):
        first = choice.randrange(1, bias)
        second = min(top - 1, max(1, bias + 1 - first + choice.randint(-2, 1)))
        body = choice.choice((0, 1, (1 << fraction) - 1, choice.getrandbits(fraction)))
        a = first << fraction | body
        b = second << fraction | choice.choice((0, (1 << fraction) - 1 - body, choice.getrandbits(fraction)))
        cases.append((0, boxed(a, bits), boxed(b, bits), 0))
    for rm in MODES:
        against_model(native, find(f"fmul.{'s' if bits == 32 else 'd'}"), rm, cases)


def test_a_single_that_is_not_boxed_is_a_quiet_nan(native: Native) -> None:
    for instruction in COMPUTING:
        if not instruction.name.endswith(".s") or "fs1" not in instruction.parameters:
            continue
        one = BOX | 0x3F800000
        cases = [(0, u, one, one) for u in UNBOXED] + [(0, one, u, one) for u in UNBOXED]
        cases += [(0, one, one, u) for u in UNBOXED]
        against_model(native, instruction, 0, cases)


# --- state around the instructions ---


def program(*lines: str) -> str:
    return "\n".join(lines)


def test_flags_accrue_and_can_be_written() -> None:
    """fflags is what Python sees, whether the exceptions are still the host's or not, at every exit."""
    pair = Pair()
    pair.load(
        program(
            "fdiv.d f1, f2, f3",  # divide by zero
            "csrr a0, fflags",
            "fcvt.w.s a1, f4, rtz",  # invalid
            "csrr a2, fcsr",
            "csrwi fflags, 1",
            "csrr a3, fflags",
            "fmul.d f5, f6, f6",  # overflow
            "csrrci a4, fflags, 4",
            "csrrsi a5, fflags, 2",
            "fsqrt.d f7, f8",  # invalid
            "csrw fcsr, zero",
            "fadd.d f9, f2, f10, rup",  # inexact
        )
    )
    one, huge = 0x3FF0 << 48, 0x7FE0 << 48
    pair.set(mstatus=Status.FS | 0xA_0000_0000)
    pair.set(f=[0, 0, one, 0, 0, 0, huge, 0, 0xBFF0 << 48, 0, 1])
    for expected in (8, 8, 0x18, 0x18, 1, 1, 5, 1, 3, 0x13, 0, 1):
        pair.run(1)
        assert pair.native.state.fflags == expected
    assert list(pair.native.state.x[10:16]) == [8, 0x7FFFFFFF, 0x18, 1, 5, 1]


def test_the_hosts_own_flags_stay_out_and_are_not_disturbed() -> None:
    """Python's arithmetic between two runs leaves no trace in the guest, and the guest's none in Python."""
    pair = Pair()
    pair.load("nop; fdiv.d f1, f2, f3; nop")
    pair.set(mstatus=Status.FS | 0xA_0000_0000, f=[0, 0, 0x3FF0 << 48, 0x4008 << 48])
    pair.run(1)
    assert 1.0 / 3.0 * 1e-310 > 0 and float("inf") - 1.0 == float("inf")
    pair.run(1)
    assert pair.native.state.fflags == 1
    pair.run(1)


@pytest.mark.parametrize("name", ROUNDED)
def test_reserved_rounding_modes_trap(name: str) -> None:
    pair = Pair()
    instruction = find(name)
    values = {f.name: 1 for f in instruction.pattern.fields} | {"rm": 5}
    pair.write(RAM_BASE, instruction.pattern.encode(values).to_bytes(4, "little"))
    pair.write(RAM_BASE + 4, instruction.pattern.encode(values | {"rm": DYNAMIC}).to_bytes(4, "little"))
    for pc, frm in ((RAM_BASE, 0), (RAM_BASE + 4, 5), (RAM_BASE + 4, 6), (RAM_BASE + 4, 7)):
        pair.set(pc=pc, mtvec=RAM_BASE + 0x100, frm=frm, mstatus=1 << 13 | 0xA_0000_0000, mcause=0)
        pair.run(1)
        assert pair.native.state.mcause == Cause.ILLEGAL_INSTRUCTION


@pytest.mark.parametrize("instruction", COMPUTING, ids=lambda i: i.name)
def test_floating_point_state_becomes_dirty_or_is_off(instruction: Instruction) -> None:
    pair = Pair()
    fields = {"rm": 0, "fs1": 1, "fs2": 2, "fs3": 3, "fd": 4, "rs1": 10, "rd": 11}
    word = instruction.pattern.encode({f.name: fields[f.name] for f in instruction.pattern.fields})
    pair.write(RAM_BASE, word.to_bytes(4, "little"))
    for fs in range(4):
        pair.set(pc=RAM_BASE, mtvec=RAM_BASE + 0x100, mstatus=fs << 13 | 0xA_0000_0000, mtval=0)
        pair.run(1)
        assert pair.native.state.mtval == (0 if fs else word)


def test_loads_and_stores_of_floats() -> None:
    choice = random.Random(7)
    pair = Pair()
    text = "flw f1, 0(a0); fld f2, 8(a0); fsw f2, 16(a0); fsd f1, 24(a0); c.fld fa0, 8(a0); c.fsd fa0, 32(a0)"
    pair.load(text)
    for _ in range(20):
        address = RAM_BASE + 0x2000 + choice.randrange(0x1000)
        pair.write(address, b"".join(interesting(choice, 64).to_bytes(8, "little") for _ in range(5)))
        pair.set(pc=RAM_BASE, mstatus=Status.FS | 0xA_0000_0000)
        pair.set_x(x10=address)
        pair.run(6)
