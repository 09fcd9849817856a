"""Floating point by the host: round-to-nearest-even arithmetic is one host instruction.

The host's sticky flags gather the exceptions (Intel SDM volume 1, 11.5; Arm ARM A1.5), with tininess after rounding as
RISC-V has it on x86. Every other rounding mode, and what the host does otherwise, goes to :mod:`doppel.isa.softfloat`.
Constrained intrinsics keep LLVM from moving an operation to where its flags would be wrong.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from doppel.isa import softfloat
from doppel.isa.softfloat.formats import infinity
from doppel.translate.emitter import Value
from doppel.translate.lower import FunctionLowering, Lowering
from doppel.translate.word_ops import number

__all__ = ["DECLARATIONS", "FLOAT_OPERATIONS"]

_STRICT = 'metadata !"fpexcept.strict"'
_NEAREST = f'metadata !"round.tonearest", {_STRICT}'
_TYPES = {32: "float", 64: "double"}

_BINARY = {softfloat.float_add: "fadd", softfloat.float_sub: "fsub", softfloat.float_mul: "fmul"}
_BINARY[softfloat.float_div] = "fdiv"


def _declare() -> str:
    lines = []
    for bits, kind in _TYPES.items():
        for name in _BINARY.values():
            lines.append(
                f"declare {kind} @llvm.experimental.constrained.{name}.f{bits}({kind}, {kind}, metadata, metadata)"
            )
        lines.append(f"declare {kind} @llvm.experimental.constrained.sqrt.f{bits}({kind}, metadata, metadata)")
        lines.append(
            f"declare {kind} @llvm.experimental.constrained.fma.f{bits}({kind}, {kind}, {kind}, metadata, metadata)"
        )
    return "\n".join(lines) + "\n"


DECLARATIONS = _declare()


def _nearest(
    low: FunctionLowering, rm: Value, native: Callable[[], Value], soft: Callable[[], Value]
) -> Value:
    """Native code if the mode is round-to-nearest-even, else the definition itself."""
    out = low.out
    result = out.alloca("i64")
    fast, slow, done = out.label("native"), out.label("soft"), out.label("rounded")
    out.branch(out.op("i1", f"icmp eq i64 {out.word(rm).text}, {softfloat.RNE}"), fast, slow)
    out.begin(fast)
    out.store(native(), "i64", result)
    out.jump(done)
    out.lines.append(f"{slow}:")
    out.terminated = False
    out.store(soft(), "i64", result)
    out.begin(done)
    return out.load("i64", result)


def _as_float(low: FunctionLowering, value: Value, bits: int) -> str:
    cut = low.out.cast(value, f"i{bits}")
    return low.out.op(_TYPES[bits], f"bitcast i{bits} {cut.text} to {_TYPES[bits]}").text


def _canonical(low: FunctionLowering, name: str, bits: int) -> Value:
    """The bits of a host result; any NaN is the canonical one."""
    out = low.out
    raw = out.op(f"i{bits}", f"bitcast {_TYPES[bits]} {name} to i{bits}")
    value = out.word(raw)
    magnitude = out.op("i64", f"and i64 {value.text}, {(1 << (bits - 1)) - 1}")
    is_nan = out.op("i1", f"icmp ugt i64 {magnitude.text}, {infinity(bits)}")
    return out.select(is_nan, Value(str(int(softfloat.canonical_nan(bits))), "i64"), value)


def _arithmetic(function: Callable[..., Any], intrinsic: str, operands: int) -> Lowering:
    def emit(low: FunctionLowering, args: list[ast.expr]) -> Value:
        values = [low.out.word(low.expression(a)) for a in args[1 : 1 + operands]]
        rm, bits = low.expression(args[1 + operands]), number(low, args[2 + operands])
        kind = _TYPES[bits]

        def native() -> Value:
            passed = ", ".join(f"{kind} {_as_float(low, value, bits)}" for value in values)
            name = low.out.op(
                kind,
                f"call {kind} @llvm.experimental.constrained.{intrinsic}.f{bits}({passed}, {_NEAREST}) strictfp",
            )
            return _canonical(low, name.text, bits)

        def soft() -> Value:
            return low.call_function(function, [None, *values, rm, Value(str(bits), "const", bits)])[0]

        return _nearest(low, rm, native, soft)

    return emit


FLOAT_OPERATIONS: dict[Any, Lowering] = {
    **{function: _arithmetic(function, name, 2) for function, name in _BINARY.items()},
    softfloat.float_sqrt: _arithmetic(softfloat.float_sqrt, "sqrt", 1),
}
