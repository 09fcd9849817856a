"""Native code for the functions of :mod:`doppel.translate.pointers`."""

from __future__ import annotations

import ast
from typing import Any

from doppel.translate import pointers
from doppel.translate.emitter import Value
from doppel.translate.exits import PENDING_EXIT
from doppel.translate.layout import HART, MACHINE, Field
from doppel.translate.lower import FunctionLowering, Lowering
from doppel.translate.word_ops import number

__all__ = ["DECLARATIONS", "POINTER_OPERATIONS"]

DECLARATIONS = """
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
"""

Arguments = list[ast.expr]


def _text(node: ast.expr) -> str:
    assert isinstance(node, ast.Constant)
    return str(node.value)


def _machine_field(low: FunctionLowering, node: ast.expr) -> tuple[Field, str]:
    field = MACHINE[_text(node)]
    return field, low.out.load("ptr", "%h", HART["machine"].offset).text


def _machine(low: FunctionLowering, args: Arguments) -> Value:
    field, base = _machine_field(low, args[1])
    if field.count:
        return Value(low.out.address(base, field.offset), "ptr")
    return low.out.load("ptr" if field.type == "ptr" else "i64", base, field.offset)


def _set_machine(low: FunctionLowering, args: Arguments) -> None:
    field, base = _machine_field(low, args[1])
    low.out.store(low.expression(args[2]), "ptr" if field.type == "ptr" else "i64", base, field.offset)


def _add_machine(low: FunctionLowering, args: Arguments) -> Value:
    field, base = _machine_field(low, args[1])
    value = low.out.word(low.expression(args[2]))
    return low.out.op(
        "i64", f"atomicrmw add ptr {low.out.address(base, field.offset)}, i64 {value.text} seq_cst"
    )


def _address_of(low: FunctionLowering, args: Arguments) -> Value:
    return Value(low.out.address("%h", HART[_text(args[1])].offset), "ptr")


def _place(low: FunctionLowering, args: Arguments) -> str:
    base, distance = low.expression(args[0]), low.expression(args[1])
    return low.out.address(base.text, distance.number if distance.type == "const" else distance)


def _offset(low: FunctionLowering, args: Arguments) -> Value:
    return Value(_place(low, args), "ptr")


def _is_null(low: FunctionLowering, args: Arguments) -> Value:
    return low.out.op("i1", f"icmp eq ptr {low.expression(args[0]).text}, null")


def _null(low: FunctionLowering, args: Arguments) -> Value:
    return Value("null", "ptr")


def _pointer_bits(low: FunctionLowering, args: Arguments) -> Value:
    return low.out.op("i64", f"ptrtoint ptr {low.expression(args[0]).text} to i64")


def _symbol(low: FunctionLowering, args: Arguments) -> Value:
    return Value(f"@{_text(args[0])}", "ptr")


def _read(low: FunctionLowering, args: Arguments) -> Value:
    kind = f"i{number(low, args[2]) * 8}"
    return low.out.word(low.out.op(kind, f"load {kind}, ptr {_place(low, args)}, align 1"))


def _write(low: FunctionLowering, args: Arguments) -> None:
    place = _place(low, args)
    kind = f"i{number(low, args[2]) * 8}"
    value = low.out.cast(low.expression(args[3]), kind)
    low.out.raw(f"store {kind} {value.text}, ptr {place}, align 1")


def _read_pointer(low: FunctionLowering, args: Arguments) -> Value:
    return low.out.op("ptr", f"load atomic ptr, ptr {_place(low, args)} acquire, align 8")


def _write_pointer(low: FunctionLowering, args: Arguments) -> None:
    place = _place(low, args)
    low.out.raw(f"store atomic ptr {low.expression(args[2]).text}, ptr {place} release, align 8")


def _read_modify_write(operation: str, kind: str = "i64") -> Lowering:
    def emit(low: FunctionLowering, args: Arguments) -> Value:
        place = _place(low, args)
        value = low.out.cast(low.expression(args[2]), kind)
        return low.out.word(
            low.out.op(kind, f"atomicrmw {operation} ptr {place}, {kind} {value.text} seq_cst")
        )

    return emit


def _compare_exchange(low: FunctionLowering, args: Arguments) -> Value:
    place = _place(low, args)
    kind = f"i{number(low, args[2]) * 8}"
    expected = low.out.cast(low.expression(args[3]), kind)
    value = low.out.cast(low.expression(args[4]), kind)
    pair = low.out.op(
        f"{{ {kind}, i1 }}",
        f"cmpxchg ptr {place}, {kind} {expected.text}, {kind} {value.text} seq_cst seq_cst",
    )
    return low.out.op("i1", f"extractvalue {pair.type} {pair.text}, 1")


def _memory_barrier(low: FunctionLowering, args: Arguments) -> None:
    low.out.raw("fence seq_cst")


def _fill_zero(low: FunctionLowering, args: Arguments) -> None:
    place, size = low.expression(args[0]), low.out.word(low.expression(args[1]))
    low.out.raw(f"call void @llvm.memset.p0.i64(ptr {place.text}, i8 0, i64 {size.text}, i1 false)")


def _call_native(low: FunctionLowering, args: Arguments) -> Value:
    function = low.expression(args[0])
    values = [low.expression(a) for a in args[1:]]
    passed = ", ".join(f"ptr {v.text}" if v.type == "ptr" else f"i64 {low.out.word(v).text}" for v in values)
    return low.out.op("i64", f"call i64 {function.text}({passed})")


def _raise_exit(low: FunctionLowering, args: Arguments) -> None:
    names = ("exit_reason", "exit_address", "exit_size", "exit_access", "exit_value")
    for name, node in zip(names, args[1:], strict=True):
        low.out.store(low.expression(node), "i64", "%h", HART[name].offset)
    low.out.store(Value(str(PENDING_EXIT), "i64"), "i64", "%h", HART["pending_cause"].offset)
    low.leave_raised()


POINTER_OPERATIONS: dict[Any, Lowering] = {
    pointers.machine: _machine,
    pointers.set_machine: _set_machine,
    pointers.add_machine: _add_machine,
    pointers.address_of: _address_of,
    pointers.offset: _offset,
    pointers.is_null: _is_null,
    pointers.null: _null,
    pointers.pointer_bits: _pointer_bits,
    pointers.symbol: _symbol,
    pointers.read: _read,
    pointers.write: _write,
    pointers.read_pointer: _read_pointer,
    pointers.write_pointer: _write_pointer,
    pointers.exchange: _read_modify_write("xchg"),
    pointers.fetch_add32: _read_modify_write("add", "i32"),
    pointers.fetch_or: _read_modify_write("or"),
    pointers.fetch_and: _read_modify_write("and"),
    pointers.compare_exchange: _compare_exchange,
    pointers.memory_barrier: _memory_barrier,
    pointers.fill_zero: _fill_zero,
    pointers.call_native: _call_native,
    pointers.raise_exit: _raise_exit,
}
