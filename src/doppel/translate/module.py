"""The engine's LLVM module: handlers, decoder, the engine's functions, and the jumps that tie them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from doppel.isa.csr import CSR_TABLE, csr_read, csr_write
from doppel.isa.extensions import rv64gc
from doppel.isa.privileged.constants import Cause
from doppel.isa.words import MASK64
from doppel.translate import float_ops, pointer_ops, word_ops
from doppel.translate.compiled import Compiled
from doppel.translate.dispatch import handler_type, look_up, record_pc, search, tail_call
from doppel.translate.emitter import Emitter, Value
from doppel.translate.engine import attention, code, fetch
from doppel.translate.handlers import HandlerCompiler
from doppel.translate.hart_ops import HART_OPERATIONS
from doppel.translate.host import HOST
from doppel.translate.layout import HART, MAX_HELPERS
from doppel.translate.lower import FunctionLowering, Lowering
from doppel.translate.program import Program
from doppel.translate.records import DECODE_OPERATION, decode_record, decoder_text
from doppel.translate.regions.maker import TemplateMaker
from doppel.translate.regions.templates import HANDLER_HELPERS, TemplateKit

__all__ = ["module_text"]


def module_text(triple: str, data_layout: str) -> tuple[str, TemplateKit]:
    """The whole module as LLVM IR, and what regions that go with it are made from."""
    primitives: dict[Any, Lowering] = {
        **word_ops.WORD_OPERATIONS,
        **pointer_ops.POINTER_OPERATIONS,
        **HART_OPERATIONS,
        **float_ops.FLOAT_OPERATIONS,
        decode_record: DECODE_OPERATION,
    }
    program = Program(primitives)
    primitives[csr_read] = _csr_dispatch(program, "csr_read", writes=False)
    primitives[csr_write] = _csr_dispatch(program, "csr_write", writes=True)
    handlers = HandlerCompiler(program)
    decoder = decoder_text(rv64gc(), handlers)
    maker = TemplateMaker(program, primitives)
    templates, probes = maker.templates(rv64gc()), maker.probes()
    declarations = word_ops.DECLARATIONS + pointer_ops.DECLARATIONS + float_ops.DECLARATIONS
    ties = [
        _enter(program),
        _attend(program),
        _trap(program),
        _decode(program),
        _straddle(program),
        _illegal(program),
        _interpret_at(program),
        _attend_at(),
        _page_end(),
        _resume(),
        _dropped(),
        _run(program),
        _exported(program),
        _helpers(maker.helpers),
    ]
    text = "\n".join(
        [
            f'target triple = "{triple}"',
            f'target datalayout = "{data_layout}"',
            declarations,
            HOST.declarations,
            *program.texts,
            *handlers.texts,
            decoder,
            *ties,
            '!0 = !{!"branch_weights", i32 1, i32 2000}',
        ]
    )
    return text, TemplateKit(templates, probes, declarations)


def _csr_dispatch(program: Program, name: str, *, writes: bool) -> Lowering:
    """A function that switches over the CSR table."""
    made: list[Compiled] = []

    def emit(low: FunctionLowering, args: Any) -> Value | None:
        if not made:
            made.append(_csr_function(program, name, writes=writes))
        values = low.call_compiled(made[0], [Value("%h", "ptr"), *(low.expression(a) for a in args[1:])])
        return values[0] if values else None

    return emit


def _csr_function(program: Program, name: str, *, writes: bool) -> Compiled:
    parameters = ["ptr", "i64", "i64"] if writes else ["ptr", "i64"]
    compiled = Compiled(f"@{name}", parameters, [] if writes else ["i64"], raises=True)
    low = FunctionLowering(program, csr_read, _no_body(), {})
    out = low.out
    number, value = Value("%number", "i64"), Value("%value", "i64")
    result = out.alloca("i64")
    cases = " ".join(f"i64 {row.number}, label %csr{row.number}" for row in CSR_TABLE)
    out.terminate(f"switch i64 %number, label %none [ {cases} ]")
    for row in CSR_TABLE:
        out.lines.append(f"csr{row.number}:")
        out.terminated = False
        if writes and row.write is not None:
            low.call_function(row.write, [None, number, value])
        elif writes and row.field:
            old = out.load("i64", "%h", HART[row.field].offset)
            kept = out.op("i64", f"and i64 {old.text}, {~row.write_mask & MASK64}")
            new = out.op("i64", f"and i64 %value, {row.write_mask}")
            out.store(out.op("i64", f"or i64 {kept.text}, {new.text}"), "i64", "%h", HART[row.field].offset)
        elif not writes:
            if row.read is not None:
                read = low.call_function(row.read, [None, number])[0]
            elif row.field:
                read = out.load("i64", "%h", HART[row.field].offset)
            else:
                read = Value(str(row.constant), "i64")
            out.store(read, "i64", result)
        out.jump("leave")
    out.lines.append("none:")
    out.terminated = False
    low.raise_trap(Value(str(int(Cause.ILLEGAL_INSTRUCTION)), "i64"), Value("0", "i64"))
    out.begin("leave")
    raised = out.load("i1", low.raised_slot)
    if writes:
        out.terminate(f"ret i1 {raised.text}")
    else:
        pair = out.op(
            "{ i64, i1 }", f"insertvalue {{ i64, i1 }} undef, i64 {out.load('i64', result).text}, 0"
        )
        both = out.op("{ i64, i1 }", f"insertvalue {{ i64, i1 }} {pair.text}, i1 {raised.text}, 1")
        out.terminate(f"ret {{ i64, i1 }} {both.text}")
    compiled.effects = low.effects
    signature = "ptr %h, i64 %number, i64 %value" if writes else "ptr %h, i64 %number"
    head = f"define internal {compiled.result_type} @{name}({signature}) noinline nounwind"
    text = f"{head} {{\n{out.body()}\n}}\n"
    return program.add(name, compiled, text)


def _no_body() -> Any:
    import ast

    return ast.parse("def nothing(): pass").body[0]


class _Tie(FunctionLowering):
    """A hand-made function that calls compiled ones."""

    def __init__(self, program: Program, source: Callable[..., Any]) -> None:
        super().__init__(program, source, _no_body(), {"tlb": Value("%tlb", "ptr")})
        self.leave = "raised"

    def spill(self) -> None:
        """Give the engine the exact count."""
        self.out.store(Value("%budget", "i64"), "i64", "%h", HART["budget"].offset)

    def go(self, handler: str, record: str) -> None:
        """Jump to a handler with what the hart's structure says now."""
        budget = self.out.load("i64", "%h", HART["budget"].offset)
        view = self.out.load("ptr", "%h", HART["tlb_view"].offset)
        tail_call(self.out, handler, record, budget.text, view.text)

    def search(self) -> None:
        """Go on at ``h.pc`` with what the hart's structure says now."""
        budget = self.out.load("i64", "%h", HART["budget"].offset)
        view = self.out.load("ptr", "%h", HART["tlb_view"].offset)
        search(self.out, self.out.load("i64", "%h", HART["pc"].offset), budget.text, "null", view.text)

    def dispatch(self, record: Value) -> None:
        """Jump to the record's handler."""
        handler = self.out.load("ptr", record.text)
        self.go(handler.text, record.text)


def _enter(program: Program) -> str:
    """Go on at ``h.pc``, found through the page tables."""
    tie = _Tie(program, fetch.fetch)
    tie.spill()
    record = tie.call_function(fetch.fetch, [None])[0]
    tie.dispatch(record)
    tie.out.begin("raised")
    tie.go("@trap", "null")
    return handler_type("@enter", tie.out.body())


def _attend(program: Program) -> str:
    """Look around between blocks, then go on at ``h.pc``."""
    tie = _Tie(program, attention.attend)
    tie.spill()
    outcome = tie.call_function(attention.attend, [None])[0]
    tie.out.branch(outcome, "left", "stay")
    tie.out.begin("stay")
    stepping = tie.out.load("i64", "%h", HART["stepping"].offset)
    tie.out.branch(tie.out.op("i1", f"icmp ne i64 {stepping.text}, 0"), "step", "go")
    tie.out.begin("step")
    tie.go("@enter", "null")
    tie.out.begin("go")
    tie.search()
    tie.out.begin("left")
    tie.out.terminate("ret void")
    return handler_type("@attend", tie.out.body())


def _trap(program: Program) -> str:
    """Deliver what was raised by the instruction at ``h.pc``; if it is illegal, its bits are the value."""
    tie = _Tie(program, attention.trap)
    out = tie.out
    tie.spill()
    cause = out.load("i64", "%h", HART["pending_cause"].offset)
    illegal = out.op("i1", f"icmp eq i64 {cause.text}, {int(Cause.ILLEGAL_INSTRUCTION)}")
    known = out.op("i1", "icmp ne ptr %rec, null")
    out.branch(out.op("i1", f"and i1 {illegal.text}, {known.text}"), "bits", "deliver")
    tie.out.begin("bits")
    bits = tie.call_function(fetch.instruction_bits, [None, Value("%rec", "ptr")])[0]
    out.store(bits, "i64", "%h", HART["pending_value"].offset)
    out.begin("deliver")
    outcome = tie.call_function(attention.trap, [None])[0]
    out.branch(outcome, "left", "stay")
    tie.out.begin("stay")
    budget = out.load("i64", "%h", HART["budget"].offset)
    limit = out.load("i64", "%h", HART["limit"].offset)
    out.branch(out.op("i1", f"icmp sle i64 {budget.text}, {limit.text}"), "look", "go")
    tie.out.begin("look")
    tie.go("@attend", "null")
    tie.out.begin("go")
    tie.search()
    tie.out.begin("left")
    out.terminate("ret void")
    return handler_type("@trap", out.body())


def _decode(program: Program) -> str:
    """The handler of every record that has not been decoded yet."""
    tie = _Tie(program, fetch.decode_in_page)
    tie.spill()
    tie.out.store(record_pc(tie.out, "%rec"), "i64", "%h", HART["pc"].offset)
    fits = tie.call_function(fetch.decode_in_page, [None, Value("%rec", "ptr")])[0]
    tie.out.branch(fits, "fit", "straddles")
    tie.out.begin("fit")
    tie.dispatch(Value("%rec", "ptr"))
    tie.out.begin("straddles")
    tie.out.raw("store atomic ptr @straddle, ptr %rec release, align 8")
    tie.go("@straddle", "%rec")
    tie.out.lines.append("raised:")
    tie.out.terminated = False
    tie.go("@trap", "null")
    return handler_type("@decode", tie.out.body())


def _straddle(program: Program) -> str:
    """An instruction whose second half is in the next page, wherever that is at this moment."""
    tie = _Tie(program, fetch.fetch_straddling)
    tie.spill()
    pc = record_pc(tie.out, "%rec")
    tie.out.store(pc, "i64", "%h", HART["pc"].offset)
    record = tie.call_function(fetch.fetch_straddling, [None, Value("%rec", "ptr"), pc])[0]
    tie.dispatch(record)
    tie.out.begin("raised")
    tie.go("@trap", "null")
    return handler_type("@straddle", tie.out.body())


def _illegal(program: Program) -> str:
    """No instruction has this encoding."""
    tie = _Tie(program, attention.trap)
    tie.spill()
    tie.out.store(record_pc(tie.out, "%rec"), "i64", "%h", HART["pc"].offset)
    tie.out.store(
        Value(str(int(Cause.ILLEGAL_INSTRUCTION)), "i64"), "i64", "%h", HART["pending_cause"].offset
    )
    tie.go("@trap", "%rec")
    return handler_type("@illegal", tie.out.body())


def _interpret_at(program: Program) -> str:
    """Execute a record's instruction by its handler, whatever the record itself does."""
    tie = _Tie(program, fetch.fetch_out_of_page)
    tie.spill()
    pc = record_pc(tie.out, "%rec")
    tie.out.store(pc, "i64", "%h", HART["pc"].offset)
    record = tie.call_function(fetch.fetch_out_of_page, [None, pc])[0]
    tie.dispatch(record)
    tie.out.begin("raised")
    tie.go("@trap", "null")
    return handler_type("@interpret_at", tie.out.body())


def _attend_at() -> str:
    """Look around, to go on at a record."""
    out = Emitter()
    out.store(record_pc(out, "%rec"), "i64", "%h", HART["pc"].offset)
    tail_call(out, "@attend", "%rec", "%budget")
    return handler_type("@attend_at", out.body())


def _page_end() -> str:
    """The record behind a page's last: go on at the next page."""
    out = Emitter()
    look_up(out, record_pc(out, "%rec"), "%budget", "%rec")
    return handler_type("@page_end", out.body())


def _resume() -> str:
    """Behind an instruction that was executed outside its page, though it is one of a block: go on there."""
    out = Emitter()
    pc = record_pc(out, "%rec")
    out.store(pc, "i64", "%h", HART["pc"].offset)
    search(out, pc, "%budget", "%rec", "%tlb")
    return handler_type("@resume", out.body())


def _dropped() -> str:
    """A record of a page that is not that page's any more: go on at the same address."""
    out = Emitter()
    out.store(record_pc(out, "%rec"), "i64", "%h", HART["pc"].offset)
    tail_call(out, "@enter", "%rec", "%budget")
    return handler_type("@dropped", out.body())


def _run(program: Program) -> str:
    """``doppel_run(hart)``: run until there is a reason to leave; the reason is in the hart."""
    tie = _Tie(program, attention.begin_run)
    out = tie.out
    scratch = out.address("%h", HART["fp_scratch"].offset)
    before = out.temporary()
    out.raw(HOST.read_status.format(scratch=scratch, status=before))
    out.raw(HOST.write_status.format(scratch=scratch, status=HOST.clean_status))
    outcome = tie.call_function(attention.begin_run, [None])[0]
    out.branch(outcome, "left", "stay")
    tie.out.begin("stay")
    budget = out.load("i64", "%h", HART["budget"].offset)
    view = out.load("ptr", "%h", HART["tlb_view"].offset)
    out.raw(f"call preserve_nonecc void @enter(ptr %h, ptr null, i64 {budget.text}, ptr {view.text})")
    out.begin("left")
    tie.call_function(attention.end_run, [None])
    out.raw(HOST.write_status.format(scratch=scratch, status=before))
    out.terminate("ret void")
    return f"define void @doppel_run(ptr %h) nounwind {{\n{out.body()}\n}}\n"


def _exported(program: Program) -> str:
    """Functions that Python calls on a hart it does not run."""
    cover = FunctionLowering(program, code.cover, _no_body(), {})
    page = [Value("%number", "i64"), Value("%page", "ptr"), Value("%epoch", "i64")]
    (covered,) = cover.call_function(code.cover, [None, *page, Value("%stores", "i64")])
    cover.out.terminate(f"ret i64 {covered.text}")
    enter = FunctionLowering(program, code.enter_at, _no_body(), {})
    (entered,) = enter.call_function(code.enter_at, [None, *page, Value("%at", "i64"), Value("%code", "ptr")])
    enter.out.terminate(f"ret i64 {entered.text}")
    post = FunctionLowering(program, code.post, _no_body(), {})
    post.call_function(
        attention.post_request, [None, Value("%request", "i64"), Value("%set", "i64"), Value("%clear", "i64")]
    )
    post.out.terminate("ret void")
    written = FunctionLowering(program, code.code_overwritten, _no_body(), {})
    written.call_function(code.code_overwritten, [None, Value("%page", "i64")])
    written.out.terminate("ret void")
    return (
        "define void @doppel_post(ptr %h, i64 %request, i64 %set, i64 %clear) nounwind"
        f" {{\n{post.out.body()}\n}}\n"
        "define i64 @doppel_cover(ptr %h, i64 %number, ptr %page, i64 %epoch, i64 %stores) nounwind"
        f" {{\n{cover.out.body()}\n}}\n"
        "define i64 @doppel_enter_at(ptr %h, i64 %number, ptr %page, i64 %epoch, i64 %at, ptr %code) nounwind"
        f" {{\n{enter.out.body()}\n}}\n"
        "define void @doppel_code_overwritten(ptr %h, i64 %page) nounwind"
        f" {{\n{written.out.body()}\n}}\n"
    )


def _helpers(helpers: list[Compiled]) -> str:
    """The table of what regions reach; functions keep the caller's registers, so that slow paths cost little.

    They have external names so that they are there although nothing in this module calls them.
    """
    texts = []
    symbols = [f"@{name}" for name in HANDLER_HELPERS]
    for number, helper in enumerate(helpers):
        parameters = ", ".join(f"{kind} %a{i}" for i, kind in enumerate(helper.parameters))
        kind = helper.result_type
        call = f"call {kind} {helper.symbol}({parameters})"
        if kind == "void":
            body = f"  {call}\n  ret void"
        elif helper.raises and helper.returns == ["ptr"]:
            body = (
                f"  %r = {call}\n  %p = extractvalue {kind} %r, 0\n  %raised = extractvalue {kind} %r, 1\n"
                "  %found = select i1 %raised, ptr null, ptr %p\n  ret ptr %found"
            )
            kind = "ptr"
        else:
            body = f"  %r = {call}\n  ret {kind} %r"
        texts.append(
            f"define internal preserve_mostcc {kind} @helper{number}({parameters})"
            f" noinline nounwind {{\n{body}\n}}\n"
        )
        symbols.append(f"@helper{number}")
    assert len(symbols) <= MAX_HELPERS
    rows = ", ".join(f"ptr {symbol}" for symbol in symbols)
    nothing = ", ".join(["ptr null"] * (MAX_HELPERS - len(symbols)))
    return "".join(texts) + f"@doppel_helpers = constant [{MAX_HELPERS} x ptr] [{rows}, {nothing}]\n"
