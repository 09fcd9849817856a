"""The compiled language: each construct runs natively as it does in Python."""

from __future__ import annotations

import ctypes
import inspect
import itertools
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import llvmlite.binding as llvm
import pytest

from doppel.isa.privileged.constants import Access, Cause, Mode
from doppel.isa.words import (
    MASK64,
    Trap,
    Wide,
    Word,
    byte_swap,
    clz,
    ctz,
    div_signed,
    div_unsigned,
    high,
    low,
    popcount,
    rem_signed,
    rem_unsigned,
    select,
    sext,
    signed_ge,
    signed_lt,
    signed_wide,
    sra,
    wide,
    zext,
)
from doppel.processor.processor import HartState
from doppel.translate.build import target_machine
from doppel.translate.program import Program
from doppel.translate.word_ops import DECLARATIONS, WORD_OPERATIONS

LIMIT = 5
MASK = (1 << 40) - 1


# --- what is in the language ---


def arithmetic(a: Word, b: Word) -> Word:
    return (a + b) * 3 - (a ^ b) + (a & 0xFF | b) - ~a + -b


def reflected(a: Word) -> Word:
    return 5 - a + (7 & a) * (9 ^ a) + (1 << (a & 63)) + (MASK64 >> (a & 63))


def shifts(a: Word, b: Word) -> Word:
    return (a << (b & 63)) ^ (a >> (b & 63)) ^ sra(a, b & 63) ^ a << 63 ^ a >> 1


def unsigned_comparisons(a: Word, b: Word) -> Word:
    result = Word(0)
    if a < b:
        result = result | 1
    if a <= b:
        result = result | 2
    if a > b:
        result |= 4
    if a >= b:
        result |= 8
    if a == b:
        result |= 16
    if a != b:
        result |= 32
    return result


def signed_comparisons(a: Word, b: Word) -> bool:
    return signed_lt(a, b) != signed_ge(b, a)


def extensions(a: Word) -> Word:
    return sext(a, 8) + zext(a, 17) * 3 + sext(a, 32) + sext(a, 64) + zext(a, 64) + sext(a, 1)


def bits(a: Word) -> Word:
    return clz(a) + ctz(a) * 100 + popcount(a) * 10000 + byte_swap(a)


def divisions(a: Word, b: Word) -> Word:
    if b == 0:
        return Word(MASK64)
    if a == 1 << 63 and b == MASK64:
        return a
    return div_signed(a, b) + rem_signed(a, b) * 3 + div_unsigned(a, b) * 5 + rem_unsigned(a, b) * 7


def wide_products(a: Word, b: Word) -> tuple[Word, Word, Word]:
    unsigned = wide(a) * wide(b)
    signed = signed_wide(a) * signed_wide(b)
    mixed = signed_wide(a) * wide(b) + Wide(3) ^ wide(b)
    return high(unsigned), high(signed) ^ low(signed), high(mixed) + low(mixed >> 7) + low(mixed << 70)


def takes_wide(value: Wide, amount: Word) -> Wide:
    return value >> (amount & 127)


def calls_with_wide(a: Word, b: Word) -> Word:
    return low(takes_wide(wide(a) << 64 | wide(b), a)) + high(takes_wide(signed_wide(b), b))


def loops(a: Word, b: Word) -> Word:
    total = Word(0)
    index = Word(0)
    while index < (a & 15):
        inner = Word(0)
        while True:
            inner = inner + 1
            if inner == (b & 7):
                break
            if inner > LIMIT:
                break
            if inner == 3:
                continue
            total = total + inner * index
        index += 1
        if index == 12:
            return total
    return total + index


def early_returns(a: Word) -> Word:
    if a == 0:
        return Word(1)
    elif a < 10:
        if a == 5:
            return a + 100
    else:
        return a - 1
    return a + 7


def conditional_expressions(a: Word, b: Word) -> Word:
    larger = a if a > b else b
    flag = 1 if a == b else (2 if signed_lt(a, b) else 3)
    return larger + flag


def short_circuits(a: Word, b: Word) -> Word:
    result = Word(0)
    if b != 0 and div_unsigned(a, b) > 3:
        result = result + 1
    if b == 0 or rem_unsigned(a, b) == 1:
        result = result + 2
    if not (a > b and (a & 1 == 0 or b & 1 == 0)) and True:
        result = result + 4
    if False or a == b:
        result = result + 8
    return result


def truth_of_words(a: Word) -> Word:
    result = Word(0)
    if a:
        result = result + 1
    if not a & 4:
        result = result + 2
    while result != 0 and result < 20:
        result = result * 2
    return result


def bools(a: Word, b: Word) -> bool:
    less = a < b
    same = a == b
    done = False
    if not less:
        done = same
    return (less | same) & (less ^ True) or done


def counted_bool(a: Word, b: Word) -> Word:
    return Word(a < b) + Word(a == b) * 2


def selections(a: Word, b: Word) -> Word:
    return select(a < b, a, b) + select(a == b, Word(1), Word(2))


def several(a: Word, b: Word) -> tuple[Word, bool]:
    return a - b, a < b


def unpacking(a: Word, b: Word) -> Word:
    difference, less = several(a, b)
    b, a = a, b
    first, second = a + 1, b + 1
    if less:
        difference = 0 - difference
    return difference + first * 3 - second


def with_constant(a: Word, shift: int) -> Word:
    if shift == 3:
        return a << shift
    return a >> shift


def compile_time_constants(a: Word) -> Word:
    return with_constant(a, 3) + with_constant(a, 2 + 2 * 5) + with_constant(a, 12)


def power(exponent: int) -> int:
    return 2**exponent


def folded_calls(a: Word) -> Word:
    return a + power(10) + power(LIMIT) - Mode.M * Access.STORE + MASK // 3 % 1000


def assigned_parameter(a: Word) -> Word:
    count = Word(0)
    while a != 0:
        a = a >> 5
        count += 1
    return count


def annotated_parameter(a: Word) -> Word:
    count = Word(0)
    while a != 0:
        a: Word = a >> 7  # type: ignore[no-redef]
        count += 1
    return count


def reads_state(h: Any, a: Word) -> Word:
    return h.mstatus + h.x[a & 31] * 3 + h.pmpcfg[a & 15] + h.x[7] - h.pmpaddr[3]


def writes_state(h: Any, a: Word, b: Word) -> None:
    h.mepc = a
    h.x[a & 31] = b
    h.x[3] = a ^ b
    h.pmpcfg[b & 15] = a
    h.mcause += 3
    h.pmpaddr[a & 15] |= b
    if a < b:
        return
    h.scause = a - b


def checks(h: Any, a: Word) -> None:
    if a & 1 != 0:
        raise Trap(Cause.BREAKPOINT, a)
    h.mtval = a


def traps(h: Any, a: Word, b: Word) -> Word:
    checks(h, a)
    h.mepc = b
    checks(h, b)
    if a == b:
        raise Trap(a & 15, 0)
    return a + b


def traps_in_a_loop(h: Any, a: Word) -> Word:
    index = Word(0)
    while True:
        checks(h, a + index)
        index += 2
        if index > 8:
            checks(h, index + 1)


def docstring(a: Word) -> Word:
    """Text, and a statement that does nothing."""
    pass
    return a


def unused_result(h: Any, a: Word) -> Word:
    early_returns(a)
    checks(h, a & ~1)
    return a


def closure(bits: int) -> Callable[[Word], Word]:
    mask = (1 << bits) - 1

    def inside(a: Word) -> Word:
        return a & mask

    return inside


PURE = [
    *(arithmetic, reflected, shifts, unsigned_comparisons, signed_comparisons, extensions, bits, divisions),
    *(wide_products, calls_with_wide, loops, early_returns, conditional_expressions, short_circuits),
    *(truth_of_words, bools, counted_bool, selections, unpacking, compile_time_constants, folded_calls),
    *(assigned_parameter, annotated_parameter, docstring, closure(12), closure(40)),
]
STATEFUL = [reads_state, writes_state, traps, traps_in_a_loop, unused_result]

EDGES = [
    0,
    1,
    2,
    3,
    5,
    7,
    63,
    64,
    100,
    255,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 63,
    MASK64,
    MASK64 - 1,
]
FIELDS = ("mstatus", "mepc", "mcause", "mtval", "scause")
ARRAYS = {"x": 33, "pmpcfg": 16, "pmpaddr": 16}


class Native:
    """The functions, compiled into one library; each can be called with integers, on a hart's structure."""

    def __init__(self, functions: list[Callable[..., Any]]) -> None:
        program = Program(dict(WORD_OPERATIONS))
        wrappers = []
        for number, function in enumerate(functions):
            compiled = program.function(function)
            names = [f"%a{i}" for i in range(len(compiled.parameters))]
            passed = ", ".join(
                "ptr %h" if kind == "ptr" else f"{kind} {name}"
                for kind, name in zip(compiled.parameters, names, strict=True)
            )
            arguments = ", ".join(
                f"i64 {name}" for kind, name in zip(compiled.parameters, names, strict=True) if kind != "ptr"
            )
            members = [*compiled.returns, *(["i1"] if compiled.raises else [])]
            lines = [
                f"define void @entry{number}(ptr %h, ptr %out{', ' + arguments if arguments else ''}) {{"
            ]
            call = f"call {compiled.result_type} {compiled.symbol}({passed})"
            lines.append(f"  %r = {call}" if members else f"  {call}")
            for index, kind in enumerate(members):
                one = f"extractvalue {compiled.result_type} %r, {index}" if len(members) > 1 else ""
                lines.append(f"  %m{index} = {one}" if one else f"  %m{index} = add {kind} %r, 0")
                lines.append(f"  %p{index} = getelementptr i64, ptr %out, i64 {index}")
                wider = f"  %w{index} = zext {kind} %m{index} to i64" if kind == "i1" else ""
                lines += [
                    wider or f"  %w{index} = add i64 %m{index}, 0",
                    f"  store i64 %w{index}, ptr %p{index}",
                ]
            wrappers.append("\n".join([*lines, "  ret void", "}"]))
            function.__dict__["compiled"] = compiled
        machine = target_machine()
        text = "\n".join(
            [DECLARATIONS, *program.texts, *wrappers, '!0 = !{!"branch_weights", i32 1, i32 2000}']
        )
        llvm.parse_assembly(text).verify()
        self._jit = llvm.create_lljit_compiler(machine, use_jit_link=True)
        builder = llvm.JITLibraryBuilder().add_ir(text)
        for number in range(len(functions)):
            builder.export_symbol(f"entry{number}")
        self._library = builder.link(self._jit, "tests")
        self._numbers = {function: number for number, function in enumerate(functions)}

    def call(
        self, function: Callable[..., Any], hart: ctypes.Structure, *arguments: int
    ) -> tuple[list[int], bool]:
        """The values that it returns, and whether it raised a trap instead."""
        compiled = function.__dict__["compiled"]
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_uint64] * len(arguments))
        out = (ctypes.c_uint64 * 4)()
        address = int(self._library[f"entry{self._numbers[function]}"])
        kind(address)(ctypes.addressof(hart), ctypes.addressof(out), *arguments)
        values = list(out[: len(compiled.returns)])
        return values, compiled.raises and bool(out[len(compiled.returns)])


@pytest.fixture(scope="module")
def native() -> Native:
    return Native([*PURE, *STATEFUL])


def inputs(count: int) -> list[tuple[int, ...]]:
    choice = random.Random(count)
    wild = [tuple(choice.getrandbits(choice.choice((4, 32, 64))) for _ in range(count)) for _ in range(150)]
    return [*itertools.product(EDGES, repeat=count), *wild]


@pytest.mark.parametrize("function", PURE, ids=lambda f: f.__name__)
def test_runs_as_in_python(native: Native, function: Callable[..., Any]) -> None:
    hart = HartState()
    for arguments in inputs(len(inspect.signature(function).parameters)):
        expected = function(*map(Word, arguments))
        values, raised = native.call(function, hart, *arguments)
        assert not raised
        assert values == [int(v) for v in (expected if isinstance(expected, tuple) else (expected,))], (
            arguments
        )


@pytest.mark.parametrize("function", STATEFUL, ids=lambda f: f.__name__)
def test_changes_state_as_in_python(native: Native, function: Callable[..., Any]) -> None:
    choice = random.Random(3)
    for arguments in inputs(len(inspect.signature(function).parameters) - 1):
        hart, model = HartState(), SimpleNamespace()
        for name in FIELDS:
            value = choice.getrandbits(64)
            setattr(hart, name, value)
            setattr(model, name, Word(value))
        for name, count in ARRAYS.items():
            values = [choice.getrandbits(8 if name == "pmpcfg" else 64) for _ in range(count)]
            getattr(hart, name)[:] = values
            setattr(model, name, [Word(value) for value in values])
        trap = None
        try:
            expected = function(model, *map(Word, arguments))
        except Trap as error:
            trap = error
        values, raised = native.call(function, hart, *arguments)
        assert raised == (trap is not None)
        if trap is not None:
            assert (hart.pending_cause, hart.pending_value) == (trap.cause, trap.value)
        else:
            assert values == ([] if expected is None else [int(expected)])
        for name in FIELDS:
            assert getattr(hart, name) == getattr(model, name), (name, arguments)
        for name in ARRAYS:
            mask = 0xFF if name == "pmpcfg" else MASK64
            assert list(getattr(hart, name)) == [int(v) & mask for v in getattr(model, name)], (
                name,
                arguments,
            )
