"""Loads and stores in regions: by the TLB, which is filled on a miss; all else is the interpreter's.

A region never takes a trap itself. Where the page cannot be had at once, the instruction is left to the
interpreter, which executes it from the start: it may be a device, a page fault, misaligned, or decoded code.
Where the value ``host`` is given, it is the address in the host that a load or store is known to have.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from doppel.isa import primitives
from doppel.isa.privileged.constants import Access
from doppel.translate.emitter import Value
from doppel.translate.engine import access
from doppel.translate.hart_ops import atomic_operations, tlb_slot
from doppel.translate.layout import TLB
from doppel.translate.lower import FunctionLowering, Lowering
from doppel.translate.word_ops import number

__all__ = ["MEMORY_OPERATIONS", "bias_of"]


def bias_of(low: FunctionLowering, address: Value, size: int, tag_offset: int) -> Value:
    """The host address that guest-virtual address zero has for the page of ``address``."""
    out = low.out
    slot = tlb_slot(low, address)
    tag = out.load("i64", slot, tag_offset)
    wanted = out.op("i64", f"and i64 {address.text}, {-4096 | (size - 1)}")
    misses = out.op("i1", f"icmp ne i64 {tag.text}, {wanted.text}")
    miss, hit, found = out.label("miss"), out.label("hit"), out.label("found")
    bias = out.alloca("ptr")
    out.branch(misses, miss, hit, unlikely=True)
    out.begin(hit)
    out.store(out.load("ptr", slot, TLB.bias), "ptr", bias)
    out.jump(found)
    out.begin(miss)
    kind = Access.STORE if tag_offset == TLB.store_tag else Access.LOAD
    constants = [Value(str(n), "const", n) for n in (int(kind), size)]
    (base,) = low.call_function(access.find_page, [None, address, *constants])
    out.store(base, "ptr", bias)
    out.begin(found)
    return out.load("ptr", bias)


def _host_address(
    low: FunctionLowering,
    address: Value,
    size: int,
    tag_offset: int,
    slow: Callable[..., Any] | None = None,
) -> str:
    if "host" in low.values:
        return low.values["host"].text
    return low.out.address(bias_of(low, address, size, tag_offset).text, address)


def _note(low: FunctionLowering, address: ast.expr, access: str) -> None:
    """Say what is accessed, if the address is of the form that groups are found by."""
    if ast.unparse(address) == "rs1 + imm":
        low.effects.add(access)


def _load(low: FunctionLowering, args: list[ast.expr]) -> Value:
    address, size = low.out.word(low.expression(args[1])), number(low, args[2])
    _note(low, args[1], f"load {size}")
    kind = f"i{size * 8}"
    host = _host_address(low, address, size, TLB.load_tag)
    return low.out.word(low.out.op(kind, f"load atomic {kind}, ptr {host} unordered, align {size}"))


def _store(low: FunctionLowering, args: list[ast.expr]) -> None:
    address, size = low.out.word(low.expression(args[1])), number(low, args[2])
    _note(low, args[1], f"store {size}")
    value = low.out.cast(low.out.word(low.expression(args[3])), f"i{size * 8}")
    host = _host_address(low, address, size, TLB.store_tag)
    low.out.raw(f"store atomic {value.type} {value.text}, ptr {host} unordered, align {size}")


MEMORY_OPERATIONS: dict[Any, Lowering] = {
    primitives.load: _load,
    primitives.store: _store,
    **atomic_operations(_host_address),
}
