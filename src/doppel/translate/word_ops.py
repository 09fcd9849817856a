"""Native code for the functions of :mod:`doppel.isa.words`."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from doppel.isa import words
from doppel.translate.emitter import LoweringError, Value, constant
from doppel.translate.lower import FunctionLowering, Lowering

__all__ = ["DECLARATIONS", "WORD_OPERATIONS", "number"]

DECLARATIONS = """
declare i64 @llvm.ctlz.i64(i64, i1)
declare i64 @llvm.cttz.i64(i64, i1)
declare i64 @llvm.ctpop.i64(i64)
declare i64 @llvm.bswap.i64(i64)
"""


def number(low: FunctionLowering, node: ast.expr) -> int:
    """An argument that must be a constant."""
    value = low.expression(node)
    if value.type != "const":
        raise LoweringError(f"{ast.unparse(node)!r} must be a constant in {low.source.__qualname__}")
    return value.number


def _words(low: FunctionLowering, args: list[ast.expr]) -> list[Value]:
    return [low.out.word(low.expression(a)) for a in args]


def _sext(low: FunctionLowering, args: list[ast.expr]) -> Value:
    (x,), bits = _words(low, args[:1]), number(low, args[1])
    if bits == 64:
        return x
    return low.out.op(
        "i64", f"sext i{bits} {low.out.op(f'i{bits}', f'trunc i64 {x.text} to i{bits}').text} to i64"
    )


def _zext(low: FunctionLowering, args: list[ast.expr]) -> Value:
    (x,), bits = _words(low, args[:1]), number(low, args[1])
    return x if bits == 64 else low.out.op("i64", f"and i64 {x.text}, {(1 << bits) - 1}")


def _binary(operation: str, kind: str = "i64") -> Lowering:
    def emit(low: FunctionLowering, args: list[ast.expr]) -> Value:
        a, b = _words(low, args)
        return low.out.op(kind, f"{operation} i64 {a.text}, {b.text}")

    return emit


def _intrinsic(name: str, extra: str = "") -> Lowering:
    def emit(low: FunctionLowering, args: list[ast.expr]) -> Value:
        (x,) = _words(low, args)
        return low.out.op("i64", f"call i64 @llvm.{name}.i64(i64 {x.text}{extra})")

    return emit


def _extend_wide(action: str) -> Lowering:
    def emit(low: FunctionLowering, args: list[ast.expr]) -> Value:
        (x,) = _words(low, args)
        return low.out.op("i128", f"{action} i64 {x.text} to i128")

    return emit


def _low(low: FunctionLowering, args: list[ast.expr]) -> Value:
    return low.out.cast(low.expression(args[0]), "i64")


def _high(low: FunctionLowering, args: list[ast.expr]) -> Value:
    x = low.out.cast(low.expression(args[0]), "i128")
    return low.out.cast(low.out.op("i128", f"lshr i128 {x.text}, 64"), "i64")


def _select(low: FunctionLowering, args: list[ast.expr]) -> Value:
    condition, a, b = (low.expression(arg) for arg in args)
    if condition.type == "const":
        return a if condition.number else b
    if a.type == b.type == "const":
        a = low.out.word(a)
    return low.out.select(condition, a, b)


def _folding(python: Callable[..., Any], emit: Lowering) -> Lowering:
    """Compute in Python what is constant."""

    def lower(low: FunctionLowering, args: list[ast.expr]) -> Value | None:
        if all(isinstance(a, ast.Constant) for a in args):
            return constant(python(*(ast.literal_eval(a) for a in args)))
        return emit(low, args)

    return lower


WORD_OPERATIONS: dict[Any, Lowering] = {
    words.sext: _sext,
    words.zext: _zext,
    words.signed_lt: _binary("icmp slt", "i1"),
    words.signed_ge: _binary("icmp sge", "i1"),
    words.sra: _binary("ashr"),
    words.wide: _extend_wide("zext"),
    words.signed_wide: _extend_wide("sext"),
    words.high: _high,
    words.low: _low,
    words.div_unsigned: _binary("udiv"),
    words.rem_unsigned: _binary("urem"),
    words.div_signed: _binary("sdiv"),
    words.rem_signed: _binary("srem"),
    words.clz: _intrinsic("ctlz", ", i1 false"),
    words.ctz: _intrinsic("cttz", ", i1 false"),
    words.popcount: _intrinsic("ctpop"),
    words.byte_swap: _intrinsic("bswap"),
    words.select: _select,
}
WORD_OPERATIONS = {function: _folding(function, emit) for function, emit in WORD_OPERATIONS.items()}
