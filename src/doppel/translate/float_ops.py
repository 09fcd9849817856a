"""Floating point by the host: round-to-nearest-even arithmetic is one host instruction.

The host's sticky flags gather the exceptions (Intel SDM volume 1, 11.5; Arm ARM A1.5), with tininess after
rounding as RISC-V has it on x86. Every other rounding mode, and what the host does otherwise, goes to
:mod:`doppel.isa.softfloat`. Constrained intrinsics keep LLVM from moving an operation to where its flags
would be wrong.
"""

from __future__ import annotations

import ast
import platform
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm

from doppel.isa import softfloat
from doppel.isa.softfloat.formats import bias, fraction_bits
from doppel.translate.emitter import Value, constant
from doppel.translate.lower import FunctionLowering, Lowering
from doppel.translate.word_ops import number

__all__ = ["DECLARATIONS", "FLOAT_OPERATIONS"]

_STRICT = 'metadata !"fpexcept.strict"'
_NEAREST = f'metadata !"round.tonearest", {_STRICT}'
_TYPES = {32: "float", 64: "double"}

_BINARY = {
    softfloat.float_add: "fadd",
    softfloat.float_sub: "fsub",
    softfloat.float_mul: "fmul",
    softfloat.float_div: "fdiv",
}
_COMPARE = {
    softfloat.float_eq: ("fcmp", "oeq"),
    softfloat.float_lt: ("fcmps", "olt"),
    softfloat.float_le: ("fcmps", "ole"),
}
_PREFIX = "@llvm.experimental.constrained."
_MODES = "metadata, metadata"


def _declare() -> str:
    lines = [
        f"declare double {_PREFIX}fpext.f64.f32(float, metadata)",
        f"declare float {_PREFIX}fptrunc.f32.f64(double, {_MODES})",
    ]
    for bits, kind in _TYPES.items():
        for name in _BINARY.values():
            lines.append(f"declare {kind} {_PREFIX}{name}.f{bits}({kind}, {kind}, {_MODES})")
        lines.append(f"declare {kind} {_PREFIX}sqrt.f{bits}({kind}, {_MODES})")
        lines.append(f"declare {kind} {_PREFIX}fma.f{bits}({kind}, {kind}, {kind}, {_MODES})")
        lines.append(f"declare {kind} {_PREFIX}sitofp.f{bits}.i64(i64, {_MODES})")
        lines.append(f"declare i64 {_PREFIX}fptosi.i64.f{bits}({kind}, metadata)")
        for name in ("fcmp", "fcmps"):
            lines.append(f"declare i1 {_PREFIX}{name}.f{bits}({kind}, {kind}, {_MODES})")
    return "\n".join(lines) + "\n"


DECLARATIONS = _declare()


def _host_has_fma() -> bool:
    return platform.machine() == "aarch64" or bool(llvm.get_host_cpu_features().get("fma"))


def _either(
    low: FunctionLowering,
    condition: Value,
    native: Callable[[], Value],
    soft: Callable[[], Value],
    kind: str = "i64",
) -> Value:
    """The host's instruction if the condition holds, else the definition itself; both give a ``kind``."""
    if condition.type == "const":
        return native() if condition.number else soft()
    out = low.out
    result = out.alloca(kind)
    fast, slow, done = out.label("native"), out.label("soft"), out.label("rounded")
    out.branch(condition, fast, slow)
    out.begin(fast)
    out.store(native(), kind, result)
    out.jump(done)
    out.lines.append(f"{slow}:")
    out.terminated = False
    out.store(soft(), kind, result)
    out.begin(done)
    return out.load(kind, result)


def _mode_is(low: FunctionLowering, rm: Value, mode: int) -> Value:
    if rm.type == "const":
        return constant(rm.number == mode)
    return low.out.op("i1", f"icmp eq i64 {low.out.word(rm).text}, {mode}")


def _both(low: FunctionLowering, a: Value, b: Value) -> Value:
    if a.type == "const":
        return b if a.number else a
    return low.out.op("i1", f"and i1 {a.text}, {b.text}")


def _constant(value: int) -> Value:
    return Value(str(value), "const", value)


def _magnitude(low: FunctionLowering, value: Value, bits: int) -> Value:
    return low.out.op("i64", f"and i64 {value.text}, {(1 << (bits - 1)) - 1}")


def _as_float(low: FunctionLowering, value: Value, bits: int) -> str:
    cut = low.out.cast(value, f"i{bits}")
    return low.out.op(_TYPES[bits], f"bitcast i{bits} {cut.text} to {_TYPES[bits]}").text


def _canonical(low: FunctionLowering, name: str, bits: int) -> Value:
    """A host result; any NaN is the canonical one.

    NaNs are rare and a branch costs nothing then, where a selection would lengthen every computation.
    """
    out, kind = low.out, _TYPES[bits]
    result = out.alloca(kind)
    out.raw(f"store {kind} {name}, ptr {result}")
    nan, done = out.label("nan"), out.label("number")
    # A result is never a signaling NaN, so that this comparison raises nothing.
    out.branch(out.op("i1", f"fcmp uno {kind} {name}, {name}"), nan, done, unlikely=True)
    out.begin(nan)
    canonical = out.op(kind, f"bitcast i{bits} {int(softfloat.canonical_nan(bits))} to {kind}")
    out.raw(f"store {kind} {canonical.text}, ptr {result}")
    out.begin(done)
    return out.load(kind, result)


def _word_of(low: FunctionLowering, value: Value, bits: int) -> Value:
    """The bits of a host number as a word."""
    return low.out.word(low.out.op(f"i{bits}", f"bitcast {value.type} {value.text} to i{bits}"))


def _arithmetic(function: Callable[..., Any], intrinsic: str, operands: int) -> Lowering:
    def emit(low: FunctionLowering, args: list[ast.expr]) -> Value:
        values = [low.out.word(low.expression(a)) for a in args[1 : 1 + operands]]
        rm, bits = low.expression(args[1 + operands]), number(low, args[2 + operands])
        kind = _TYPES[bits]

        def native() -> Value:
            passed = ", ".join(f"{kind} {_as_float(low, value, bits)}" for value in values)
            name = low.out.op(
                kind, f"call {kind} {_PREFIX}{intrinsic}.f{bits}({passed}, {_NEAREST}) strictfp"
            )
            return _canonical(low, name.text, bits)

        def soft() -> Value:
            (result,) = low.call_function(function, [None, *values, rm, _constant(bits)])
            if rm.type == "const" and rm.number == softfloat.RNE:
                # It is the addend that is a NaN: only the flags are in question.
                result = Value(str(int(softfloat.canonical_nan(bits))), "i64")
            return Value(_as_float(low, result, bits), kind)

        usable = _mode_is(low, rm, softfloat.RNE)
        if intrinsic == "fma":
            # Infinity times zero plus a quiet NaN is invalid here; hosts differ (IEEE 754-2019 7.2).
            # A signaling NaN is invalid in any case, so the comparison may raise that.
            addend = _as_float(low, values[2], bits)
            usable = _both(low, usable, low.out.op("i1", f"fcmp ord {kind} {addend}, {addend}"))
        return _word_of(low, _either(low, usable, native, soft, kind), bits)

    return emit


def _compare(name: str, predicate: str) -> Lowering:
    def emit(low: FunctionLowering, args: list[ast.expr]) -> Value:
        a, b = (low.out.word(low.expression(arg)) for arg in args[1:3])
        bits = number(low, args[3])
        kind = _TYPES[bits]
        operands = f"{kind} {_as_float(low, a, bits)}, {kind} {_as_float(low, b, bits)}"
        return low.out.op(
            "i1",
            f'call i1 {_PREFIX}{name}.f{bits}({operands}, metadata !"{predicate}", {_STRICT}) strictfp',
        )

    return emit


def _widen(low: FunctionLowering, args: list[ast.expr]) -> Value:
    source = _as_float(low, low.out.word(low.expression(args[1])), 32)
    name = low.out.op("double", f"call double {_PREFIX}fpext.f64.f32(float {source}, {_STRICT}) strictfp")
    return _word_of(low, _canonical(low, name.text, 64), 64)


def _narrow(low: FunctionLowering, args: list[ast.expr]) -> Value:
    value, rm = low.out.word(low.expression(args[1])), low.expression(args[2])

    def native() -> Value:
        source = _as_float(low, value, 64)
        name = low.out.op(
            "float", f"call float {_PREFIX}fptrunc.f32.f64(double {source}, {_NEAREST}) strictfp"
        )
        return _word_of(low, _canonical(low, name.text, 32), 32)

    def soft() -> Value:
        return low.call_function(softfloat.float_narrow, [None, value, rm])[0]

    return _either(low, _mode_is(low, rm, softfloat.RNE), native, soft)


def _from_int(low: FunctionLowering, args: list[ast.expr]) -> Value:
    value, rm = low.out.word(low.expression(args[1])), low.expression(args[2])
    bits, signed, int_bits = (number(low, arg) for arg in args[3:])
    kind = _TYPES[bits]

    def native() -> Value:
        name = low.out.op(
            kind, f"call {kind} {_PREFIX}sitofp.f{bits}.i64(i64 {value.text}, {_NEAREST}) strictfp"
        )
        return low.out.word(low.out.op(f"i{bits}", f"bitcast {kind} {name.text} to i{bits}"))

    def soft() -> Value:
        constants = [_constant(n) for n in (bits, signed, int_bits)]
        return low.call_function(softfloat.float_from_int, [None, value, rm, *constants])[0]

    usable = _mode_is(low, rm, softfloat.RNE)
    if not signed and int_bits == 64:
        usable = _both(low, usable, low.out.op("i1", f"icmp sge i64 {value.text}, 0"))
    return _either(low, usable, native, soft)


def _to_int(low: FunctionLowering, args: list[ast.expr]) -> Value:
    """Truncation of what is safely in range, as C's casts want it, is the host's instruction."""
    out = low.out
    value, rm = out.word(low.expression(args[1])), low.expression(args[2])
    bits, signed, int_bits = (number(low, arg) for arg in args[3:])
    kind = _TYPES[bits]

    def native() -> Value:
        return out.op(
            "i64",
            f"call i64 {_PREFIX}fptosi.i64.f{bits}({kind} {_as_float(low, value, bits)}, {_STRICT}) strictfp",
        )

    def soft() -> Value:
        constants = [_constant(n) for n in (bits, signed, int_bits)]
        return low.call_function(softfloat.float_to_int, [None, value, rm, *constants])[0]

    # Two to the power of the bits that any value of the type certainly has.
    bound = bias(bits) + int_bits - 1 << fraction_bits(bits)
    compared = _magnitude(low, value, bits) if signed else out.word(out.cast(value, f"i{bits}"))
    in_range = out.op("i1", f"icmp ult i64 {compared.text}, {bound}")
    return _either(low, _both(low, _mode_is(low, rm, softfloat.RTZ), in_range), native, soft)


FLOAT_OPERATIONS: dict[Any, Lowering] = {
    **{function: _arithmetic(function, name, 2) for function, name in _BINARY.items()},
    **{function: _compare(*how) for function, how in _COMPARE.items()},
    softfloat.float_sqrt: _arithmetic(softfloat.float_sqrt, "sqrt", 1),
    softfloat.float_widen: _widen,
    softfloat.float_narrow: _narrow,
    softfloat.float_from_int: _from_int,
    softfloat.float_to_int: _to_int,
}
if _host_has_fma():
    FLOAT_OPERATIONS[softfloat.float_fma] = _arithmetic(softfloat.float_fma, "fma", 3)
