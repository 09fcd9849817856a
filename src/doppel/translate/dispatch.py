"""Going from one handler to the next: jumps between records, and finding a page in the instruction TLB."""

from __future__ import annotations

from collections.abc import Callable

from doppel.translate.emitter import Emitter, Value
from doppel.translate.layout import HART, ITLB, RECORD

__all__ = ["dispatch", "handler_type", "look_up", "out_of_budget", "record_pc", "search", "tail_call"]

_ARGUMENTS = "ptr %h, ptr %rec, i64 %budget, ptr %tlb"
_RECORD_SHIFT = RECORD.per_byte.bit_length() - 1


def handler_type(symbol: str, body: str) -> str:
    """The definition of a function that is jumped to like a handler."""
    return f"define internal preserve_nonecc void {symbol}({_ARGUMENTS}) nounwind {{\n{body}\n}}\n"


def tail_call(out: Emitter, target: str, record: str, budget: str, tlb: str = "%tlb") -> None:
    """End the block by jumping to another handler."""
    out.raw(f"musttail call preserve_nonecc void {target}(ptr %h, ptr {record}, i64 {budget}, ptr {tlb})")
    out.terminate("ret void")


def dispatch(out: Emitter, record: str, budget: str, tlb: str = "%tlb") -> None:
    """End the block by jumping to a record's handler."""
    tail_call(out, out.load("ptr", record, RECORD.handler).text, record, budget, tlb)


def record_pc(out: Emitter, record: str) -> Value:
    """The address of a record's instruction."""
    number = out.op("i64", f"ptrtoint ptr {record} to i64")
    scaled = out.op("i64", f"lshr i64 {number.text}, {_RECORD_SHIFT}")
    delta = out.load("i64", "%h", HART["pc_delta"].offset)
    return out.op("i64", f"add i64 {scaled.text}, {delta.text}")


def out_of_budget(out: Emitter, budget: str) -> Value:
    """Whether the block must end in attend()."""
    limit = out.load("i64", "%h", HART["limit"].offset, atomic="monotonic")
    return out.op("i1", f"icmp sle i64 {budget}, {limit.text}")


def _symbol(handler: str) -> str:
    return f"@{handler}"


def look_up(
    out: Emitter,
    pc: Value,
    budget: str,
    record: str,
    tlb: str = "%tlb",
    handler: Callable[[str], str] = _symbol,
) -> None:
    """End the block by going on at any address: by attend() if that is due, else by :func:`search`.

    ``handler`` gives the address of one of the engine's handlers by its name.
    """
    out.store(pc, "i64", "%h", HART["pc"].offset)
    attend, go_on = out.label("attend"), out.label("goon")
    out.branch(out_of_budget(out, budget), attend, go_on, unlikely=True)
    out.begin(attend)
    tail_call(out, handler("attend"), record, budget)
    out.begin(go_on)
    search(out, pc, budget, record, tlb, handler)


def search(
    out: Emitter,
    pc: Value,
    budget: str,
    record: str,
    tlb: str,
    handler: Callable[[str], str] = _symbol,
) -> None:
    """End the block by going on at ``pc``, which is in the hart too, where the instruction TLB says."""
    view = out.load("ptr", "%h", HART["itlb_view"].offset)
    at = out.op("i64", f"lshr i64 {pc.text}, {12 - ITLB.entry_size.bit_length() + 1}")
    at = out.op("i64", f"and i64 {at.text}, {(ITLB.entries - 1) * ITLB.entry_size}")
    slot = out.address(view.text, at)
    tag = out.load("i64", slot, ITLB.tag)
    page = out.op("i64", f"and i64 {pc.text}, -4096")
    miss, hit = out.label("miss"), out.label("hit")
    out.branch(out.op("i1", f"icmp ne i64 {tag.text}, {page.text}"), miss, hit, unlikely=True)
    out.begin(hit)
    records = out.load("ptr", slot, ITLB.records)
    number = out.op("i64", f"ptrtoint ptr {records.text} to i64")
    scaled = out.op("i64", f"lshr i64 {number.text}, {_RECORD_SHIFT}")
    delta = out.op("i64", f"sub i64 {page.text}, {scaled.text}")
    out.store(delta, "i64", "%h", HART["pc_delta"].offset)
    in_page = out.op("i64", f"and i64 {pc.text}, 4095")
    target = out.address(records.text, out.op("i64", f"mul i64 {in_page.text}, {RECORD.per_byte}"))
    dispatch(out, target, budget, tlb)
    out.begin(miss)
    tail_call(out, handler("enter"), record, budget)
