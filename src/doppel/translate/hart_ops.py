"""Native code for the functions of :mod:`doppel.isa.primitives`: memory by the TLB, control flow, the engine.

Effects that a handler must know of: ``ends_block`` (go on through attend() and a fresh look-up), ``budget``
(the engine needs the exact instruction count).
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from doppel.isa import primitives
from doppel.translate.emitter import LoweringError, Value
from doppel.translate.engine import access, attention, views
from doppel.translate.host import HOST
from doppel.translate.layout import HART, TLB
from doppel.translate.lower import FunctionLowering, Lowering
from doppel.translate.word_ops import number

__all__ = ["HART_OPERATIONS", "HostAddress", "atomic_operations", "tlb_slot"]

Arguments = list[ast.expr]
# Gives the host address of a guest address: the size, the tag that must match, the slow path of handlers.
HostAddress = Callable[[FunctionLowering, Value, int, int, Callable[..., Any]], str]
_AMO = {
    "swap": "xchg",
    "add": "add",
    "xor": "xor",
    "and": "and",
    "or": "or",
    "min": "min",
    "max": "max",
    "minu": "umin",
    "maxu": "umax",
}


def tlb_slot(low: FunctionLowering, address: Value) -> str:
    """Where the TLB has what it knows of an address."""
    shift = 12 - TLB.entry_size.bit_length() + 1
    scaled = low.out.op("i64", f"lshr i64 {address.text}, {shift}")
    at = low.out.op("i64", f"and i64 {scaled.text}, {(TLB.entries - 1) * TLB.entry_size}")
    view = low.values.get("tlb") or low.out.load("ptr", "%h", HART["tlb_view"].offset)
    return low.out.address(view.text, at)


def _through_tlb(
    low: FunctionLowering,
    address: Value,
    size: int,
    tag_offset: int,
    hit: Callable[[str], None],
    miss: Callable[[], None],
) -> None:
    """Probe the TLB; a misaligned address does not match either."""
    out = low.out
    slot = tlb_slot(low, address)
    tag = out.load("i64", slot, tag_offset)
    wanted = out.op("i64", f"and i64 {address.text}, {-4096 | (size - 1)}")
    same = out.op("i1", f"icmp ne i64 {tag.text}, {wanted.text}")
    slow, fast, done = out.label("slow"), out.label("fast"), out.label("done")
    out.branch(same, slow, fast, unlikely=True)
    out.begin(fast)
    bias = out.load("ptr", slot, TLB.bias)
    hit(out.address(bias.text, address))
    out.jump(done)
    out.begin(slow)
    miss()
    out.begin(done)


def _load(low: FunctionLowering, args: Arguments) -> Value:
    address, size = low.out.word(low.expression(args[1])), number(low, args[2])
    kind = f"i{size * 8}"
    result = low.out.alloca("i64")

    def hit(host: str) -> None:
        value = low.out.op(kind, f"load atomic {kind}, ptr {host} unordered, align {size}")
        low.out.store(value, "i64", result)

    def miss() -> None:
        values = low.call_function(access.load_slow, [None, address, Value(str(size), "const", size)])
        low.out.store(values[0], "i64", result)

    _through_tlb(low, address, size, TLB.load_tag, hit, miss)
    return low.out.load("i64", result)


def _store(low: FunctionLowering, args: Arguments) -> None:
    address, size = low.out.word(low.expression(args[1])), number(low, args[2])
    value = low.out.word(low.expression(args[3]))
    kind = f"i{size * 8}"

    def hit(host: str) -> None:
        low.out.raw(
            f"store atomic {kind} {low.out.cast(value, kind).text}, ptr {host} unordered, align {size}"
        )

    def miss() -> None:
        low.call_function(access.store_slow, [None, address, value, Value(str(size), "const", size)])
        low.stored_slowly()

    _through_tlb(low, address, size, TLB.store_tag, hit, miss)


def _host_address(
    low: FunctionLowering, address: Value, size: int, tag_offset: int, slow: Callable[..., Any]
) -> str:
    result = low.out.alloca("ptr")

    def hit(host: str) -> None:
        low.out.store(Value(host, "ptr"), "ptr", result)

    def miss() -> None:
        values = low.call_function(slow, [None, address, Value(str(size), "const", size)])
        low.out.store(values[0], "ptr", result)

    _through_tlb(low, address, size, tag_offset, hit, miss)
    return low.out.load("ptr", result).text


def _amo(low: FunctionLowering, args: Arguments, find: HostAddress) -> Value:
    address, size = low.out.word(low.expression(args[1])), number(low, args[2])
    if not isinstance(args[3], ast.Constant):
        raise LoweringError("the AMO operation must be a constant")
    operation = _AMO[str(args[3].value)]
    kind = f"i{size * 8}"
    value = low.out.cast(low.expression(args[4]), kind)
    host = find(low, address, size, TLB.store_tag, access.atomic_slow)
    old = low.out.op(kind, f"atomicrmw {operation} ptr {host}, {kind} {value.text} seq_cst, align {size}")
    return low.out.word(old)


def _load_reserved(low: FunctionLowering, args: Arguments, find: HostAddress) -> Value:
    address, size = low.out.word(low.expression(args[1])), number(low, args[2])
    kind = f"i{size * 8}"
    host = find(low, address, size, TLB.load_tag, access.reserve_slow)
    value = low.out.word(low.out.op(kind, f"load atomic {kind}, ptr {host} seq_cst, align {size}"))
    low.out.store(address, "i64", "%h", HART["reserved_address"].offset)
    low.out.store(value, "i64", "%h", HART["reserved_value"].offset)
    return value


def _store_conditional(low: FunctionLowering, args: Arguments, find: HostAddress) -> Value:
    """Succeeds if memory still holds what was loaded: a reservation by value, as host atomics give it."""
    out = low.out
    address, size = out.word(low.expression(args[1])), number(low, args[2])
    kind = f"i{size * 8}"
    value = out.cast(low.expression(args[3]), kind)
    host = find(low, address, size, TLB.store_tag, access.atomic_slow)
    reserved = out.load("i64", "%h", HART["reserved_address"].offset)
    out.store(Value("-1", "i64"), "i64", "%h", HART["reserved_address"].offset)
    result = out.alloca("i64")
    out.store(Value("1", "i64"), "i64", result)
    mine, done = out.label("mine"), out.label("done")
    out.branch(out.op("i1", f"icmp eq i64 {reserved.text}, {address.text}"), mine, done)
    out.begin(mine)
    expected = out.cast(out.load("i64", "%h", HART["reserved_value"].offset), kind)
    pair = out.op(
        f"{{ {kind}, i1 }}",
        f"cmpxchg ptr {host}, {kind} {expected.text}, {kind} {value.text} seq_cst seq_cst, align {size}",
    )
    stored = out.op("i1", f"extractvalue {pair.type} {pair.text}, 1")
    out.store(out.op("i1", f"xor i1 {stored.text}, true"), "i64", result)
    out.begin(done)
    return out.load("i64", result)


def atomic_operations(find: HostAddress) -> dict[Any, Lowering]:
    """The primitives that need an address in the host, found by ``find``."""
    return {
        primitives.load_reserved: lambda low, args: _load_reserved(low, args, find),
        primitives.store_conditional: lambda low, args: _store_conditional(low, args, find),
        primitives.amo: lambda low, args: _amo(low, args, find),
    }


def _zero_block(low: FunctionLowering, args: Arguments) -> None:
    out = low.out
    address = out.word(low.expression(args[1]))
    block = out.op("i64", f"and i64 {address.text}, {-access.BLOCK}")

    def hit(host: str) -> None:
        place = f"ptr align {access.BLOCK} {host}"
        out.raw(f"call void @llvm.memset.p0.i64({place}, i8 0, i64 {access.BLOCK}, i1 false)")

    def miss() -> None:
        low.call_function(access.zero_block_slow, [None, address])

    _through_tlb(low, block, 1, TLB.store_tag, hit, miss)


def _branch(low: FunctionLowering, args: Arguments) -> None:
    raise LoweringError(f"branch() outside an instruction body: {low.source.__qualname__}")


def _engine(function: Callable[..., Any], *effects: str) -> Lowering:
    """A primitive that is a function of the engine."""

    def emit(low: FunctionLowering, args: Arguments) -> Value | None:
        low.effects |= set(effects)
        values = low.call_function(function, [None, *(low.expression(a) for a in args[1:])])
        return values[0] if values else None

    return emit


def _wait_for_interrupt(low: FunctionLowering, args: Arguments) -> None:
    low.effects.add("ends_block")
    low.out.store(Value("1", "i64"), "i64", "%h", HART["waiting"].offset)
    low.call_function(views.request_attention, [None])


def _memory_fence(low: FunctionLowering, args: Arguments) -> None:
    low.out.raw("fence seq_cst")


def _read_host_flags(low: FunctionLowering, args: Arguments) -> Value:
    """Gather the accrued exceptions from the host's status register."""
    out = low.out
    status = out.temporary()
    scratch = out.address("%h", HART["fp_scratch"].offset)
    out.raw(HOST.read_status.format(scratch=scratch, status=status))
    word = out.word(Value(status, HOST.status_type))
    flags = Value("0", "i64")
    for move in HOST.flags:
        bit = out.op("i64", f"lshr i64 {word.text}, {move.host}")
        bit = out.op("i64", f"and i64 {bit.text}, 1")
        bit = out.op("i64", f"shl i64 {bit.text}, {move.guest}")
        flags = out.op("i64", f"or i64 {flags.text}, {bit.text}")
    return flags


def _write_host_flags(low: FunctionLowering, args: Arguments) -> None:
    scratch = low.out.address("%h", HART["fp_scratch"].offset)
    low.out.raw(HOST.write_status.format(scratch=scratch, status=HOST.clean_status))


HART_OPERATIONS: dict[Any, Lowering] = {
    primitives.load: _load,
    primitives.store: _store,
    **atomic_operations(_host_address),
    primitives.zero_block: _zero_block,
    primitives.branch: _branch,
    primitives.jump: _branch,
    primitives.physical_load: _engine(access.physical_load),
    primitives.physical_compare_exchange: _engine(access.physical_compare_exchange),
    primitives.ticks: _engine(attention.host_ticks, "budget"),
    primitives.instructions_retired: _engine(attention.instructions_retired, "budget"),
    primitives.flush_translations: _engine(views.flush_all, "ends_block"),
    primitives.flush_address: _engine(views.flush_address, "ends_block"),
    primitives.flush_space: _engine(views.flush_space, "ends_block"),
    primitives.flush_space_address: _engine(views.flush_space_address, "ends_block"),
    primitives.translation_mode_changed: _engine(views.select_views, "ends_block"),
    primitives.recheck_interrupts: _engine(views.request_attention, "ends_block"),
    primitives.synchronize_instructions: _engine(views.request_attention, "ends_block"),
    primitives.memory_fence: _memory_fence,
    primitives.wait_for_interrupt: _wait_for_interrupt,
    primitives.wait_for_others: _engine(attention.wait_for_others),
    primitives.read_host_flags: _read_host_flags,
    primitives.write_host_flags: _write_host_flags,
}
