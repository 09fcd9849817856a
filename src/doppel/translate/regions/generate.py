"""The LLVM IR of a region: one function of the handlers' type, which a record can have as its handler.

Guest registers are local variables, which SROA makes SSA values. What a way out needs stands in a cold block
of its own: it puts what may be changed into the hart, and goes on at the interpreter, at another region, or
at one of the engine's handlers.
"""

from __future__ import annotations

from dataclasses import dataclass

from doppel.isa.privileged.constants import Status
from doppel.memory.entry import PAGE_SIZE
from doppel.translate.dispatch import dispatch, look_up, out_of_budget, tail_call
from doppel.translate.emitter import Emitter, Value
from doppel.translate.layout import HART, RECORD
from doppel.translate.regions.flow import Flow, analyse, reads, writes
from doppel.translate.regions.graph import Block, Graph, Step
from doppel.translate.regions.groups import Group, groups
from doppel.translate.regions.templates import HANDLER_HELPERS, PREFIX, Template, placeholder

__all__ = ["SYMBOL", "region_text"]

SYMBOL = "region"
_HEAD = f"define preserve_nonecc void @{SYMBOL}(ptr %h, ptr %rec, i64 %budget, ptr %tlb) nounwind"
_TAIL = '!0 = !{!"branch_weights", i32 1, i32 2000}'
_SCALE = RECORD.per_byte.bit_length() - 1


def region_text(graph: Graph, head: str, probes: dict[str, Template], *, every_branch: bool) -> str:
    """The module of a region; ``head`` names the host and declares what templates call.

    ``every_branch``: look at the budget behind every branch that is taken, as the interpreter does, rather
    than once a loop. Instruction-count clocks need that: what happens between two blocks then happens
    between the same two however code is executed.
    """
    text = _Generator(graph, probes, every_branch).function()
    return f"{head}{_HEAD} {{\n{text}\n}}\n{_TAIL}\n"


@dataclass(frozen=True)
class _Point:
    """A place in a block: what was spent of the budget since its beginning, and what may be changed."""

    spent: int
    dirty: int


@dataclass(frozen=True)
class _WayOut:
    """A cold block: go to one of the engine's handlers with the record at an offset."""

    label: str
    handler: str
    offset: int
    point: _Point


class _Generator:
    def __init__(self, graph: Graph, probes: dict[str, Template], every_branch: bool) -> None:
        self.graph = graph
        self.probes = probes
        self.flow: Flow = analyse(graph)
        self.every_branch = every_branch
        self.out = Emitter()
        self.slots: dict[int, str] = {}
        #: Registers that hold single-precision numbers somewhere.
        self.singles = 0
        for block in graph.blocks.values():
            for step in block.steps:
                if step.template.single:
                    self.singles |= reads(step) | writes(step)
        self.budget_slot = self.out.alloca("i64")
        self.base_slot = self.out.alloca("ptr")
        self.cold: list[_WayOut] = []
        #: Ways out with nothing to put into the hart, by their handler: label, record and budget of each.
        self.plain: dict[str, list[tuple[str, str, str]]] = {}
        #: Of the block that is being written: groups by the offsets of their members, and the host address
        #: of what their base points to.
        self.groups: dict[int, Group] = {}
        self.hosts: dict[Group, str] = {}
        #: What is left of the budget at the beginning of the block that is being written.
        self.budget = ""

    # --- pieces ---

    def slot(self, register: int) -> str:
        """The local variable of a register."""
        if register not in self.slots:
            self.slots[register] = self.out.alloca(self.kind(register))
        return self.slots[register]

    def kind(self, register: int) -> str:
        """The type of a register's local variable, by what is mostly done with it."""
        return "double" if register >= 32 and not self.singles >> register & 1 else "i64"

    def read(self, register: int, kind: str = "i64") -> str:
        """What a register holds, as a word or a double."""
        value = self.out.load(self.kind(register), self.slot(register))
        return self.converted(value, kind).text

    def write(self, register: int, value: Value) -> None:
        """Let a register hold a word or a double."""
        kind = self.kind(register)
        self.out.store(self.converted(value, kind), kind, self.slot(register))

    def converted(self, value: Value, kind: str) -> Value:
        """The same bits as a word or a double."""
        if value.type == kind:
            return value
        return self.out.op(kind, f"bitcast {value.type} {value.text} to {kind}")

    def base(self) -> str:
        """The page's first record."""
        return self.out.load("ptr", self.base_slot).text

    def pc(self, offset: int) -> Value:
        """The address of what is at an offset in the page."""
        out = self.out
        number = out.op("i64", f"ptrtoint ptr {self.base()} to i64")
        scaled = out.op("i64", f"lshr i64 {number.text}, {_SCALE}")
        delta = out.load("i64", "%h", HART["pc_delta"].offset)
        start = out.op("i64", f"add i64 {scaled.text}, {delta.text}")
        return out.op("i64", f"add i64 {start.text}, {offset}")

    def left(self, point: _Point) -> str:
        """What is left of the budget at a point."""
        if point.spent == 0:
            return self.budget
        return self.out.op("i64", f"sub i64 {self.budget}, {point.spent}").text

    def spill(self, registers: int) -> None:
        """Put registers into the hart."""
        for register in _members(registers):
            kind = self.kind(register)
            self.out.store(self.out.load(kind, self.slot(register)), kind, "%h", _place(register))

    def handler(self, name: str) -> str:
        """The address of one of the engine's handlers."""
        return self.out.load("ptr", "%h", HART["helpers"].offset + 8 * HANDLER_HELPERS.index(name)).text

    # --- the function ---

    def function(self) -> str:
        """The text between its braces."""
        self.enter()
        for block in self.graph.blocks.values():
            self.block(block)
        self.plain_ways_out()
        return self.out.body()

    def enter(self) -> None:
        """Find out where the region is entered, and load what is needed there."""
        out, entries = self.out, self.graph.entries
        pointer = out.op("i64", "ptrtoint ptr %rec to i64")
        pc = out.op("i64", f"lshr i64 {pointer.text}, {_SCALE}")
        pc = out.op("i64", f"add i64 {pc.text}, {out.load('i64', '%h', HART['pc_delta'].offset).text}")
        at = out.op("i64", f"and i64 {pc.text}, {PAGE_SIZE - 1}")
        out.store(Value("%budget", "i64"), "i64", self.budget_slot)
        others = " ".join(f"i64 {offset}, label %enter{offset}" for offset in entries[1:])
        if others:
            out.terminate(f"switch i64 {at.text}, label %enter{entries[0]} [ {others} ]")
        for offset in entries:
            out.begin(f"enter{offset}")
            first = out.address("%rec", -offset * RECORD.per_byte)
            out.store(Value(first, "ptr"), "ptr", self.base_slot)
            for register in _members(self.flow.live[offset]):
                kind = self.kind(register)
                out.store(out.load(kind, "%h", _place(register)), kind, self.slot(register))
            out.jump(f"block{offset}")

    def block(self, block: Block) -> None:
        """A block, and its ways out behind it."""
        out = self.out
        self.cold = []
        out.lines.append(f"block{block.start}:")
        out.terminated = False
        self.budget = out.load("i64", self.budget_slot).text
        point = _Point(0, self.flow.dirty[block.start])
        if block.start in self.graph.heads and not self.every_branch:
            self.check(point, block.start, f"begin{block.start}")
            out.begin(f"begin{block.start}")
        if not self.flow.guarded[block.start] and any(s.template.fp for s in block.steps):
            self.guard(block, point)
        self.groups = {step.offset: group for group in groups(block) for step in group.steps}
        self.hosts = {}
        for step in block.steps[:-1]:
            self.step(step, block, point)
            point = self.behind(step, block, point)
        last = block.steps[-1]
        value = self.step(last, block, point)
        self.end(block, last, value, self.behind(last, block, point))
        for way in self.cold:
            self.way_out(way)

    def behind(self, step: Step, block: Block, point: _Point) -> _Point:
        """The point behind an instruction."""
        changed = writes(step) if self.flow.loop[block.start] >= 0 else 0
        return _Point(point.spent + 1, point.dirty | changed)

    def check(self, point: _Point, offset: int, onward: str) -> None:
        """Attend, to come back at ``offset``, if it is time; else go on."""
        label = self.out.label("attend")
        self.out.branch(out_of_budget(self.out, self.left(point)), label, onward, unlikely=True)
        self.cold.append(_WayOut(label, "attend_at", offset, point))

    def guard(self, block: Block, point: _Point) -> None:
        """Leave the block to the interpreter unless floating point is as the templates suppose."""
        out = self.out
        status = out.load("i64", "%h", HART["mstatus"].offset)
        status = out.op("i64", f"and i64 {status.text}, {int(Status.FS)}")
        mode = out.load("i64", "%h", HART["frm"].offset)
        differs = out.op("i64", f"xor i64 {status.text}, {int(Status.FS)}")
        differs = out.op("i64", f"or i64 {differs.text}, {mode.text}")
        unusual = out.op("i1", f"icmp ne i64 {differs.text}, 0")
        label, usual = out.label("interpret"), out.label("usual")
        out.branch(unusual, label, usual, unlikely=True)
        self.cold.append(_WayOut(label, "interpret_at", block.start, point))
        out.begin(usual)

    def step(self, step: Step, block: Block, point: _Point) -> str:
        """One instruction; what its template calls ``value``."""
        out, template = self.out, step.template
        group = self.groups.get(step.offset)
        if group is not None and template.direct is not None:
            if group not in self.hosts:
                self.hosts[group] = self.probe(group, step, point)
            template = template.direct
            names = {"host": out.address(self.hosts[group], step.imm)}
        else:
            names = {}
        names |= {name: self.operand(step, name) for name in template.operands}
        result, value = self.place(template, f"i{step.offset}.", names, step, point)
        for register in _members(writes(step)):
            value_of = Value(result, "double" if template.double else "i64")
            self.write(register, value_of)
            if self.flow.loop[block.start] < 0:
                out.store(value_of, value_of.type, "%h", _place(register))
        return value

    def place(
        self, template: Template, prefix: str, names: dict[str, str], step: Step, point: _Point
    ) -> tuple[str, str]:
        """A template's text with names and operands filled in; its result and its value."""
        out = self.out
        actual = {PREFIX: prefix} | {placeholder(name): text for name, text in names.items()}
        if template.leaves:
            actual[placeholder("leave")] = f"{prefix}leave"
            self.cold.append(_WayOut(f"{prefix}leave", "interpret_at", step.offset, point))
        text, result, value = template.text, template.result, template.value
        for name, by in actual.items():
            text = text.replace(name, by)
            result = result.replace(name, by)
            value = value.replace(name, by)
        out.allocas.extend(line.replace(PREFIX, prefix) for line in template.allocas)
        if text:
            out.lines.append(text)
        return result, value

    def probe(self, group: Group, step: Step, point: _Point) -> str:
        """The host address of what a group's base points to, before its first access."""
        out = self.out
        prefix = f"g{step.offset}."
        base = self.read(group.base)
        address = out.op("i64", f"add i64 {base}, {group.anchor}").text
        _, bias = self.place(self.probes[group.probe], prefix, {"address": address}, step, point)
        before, behind = group.anchor - group.low, group.high - group.anchor
        if before or behind > int(group.probe.split()[1]):
            within = out.op("i64", f"and i64 {address}, {PAGE_SIZE - 1}")
            within = out.op("i64", f"sub i64 {within.text}, {before}")
            crosses = out.op("i1", f"icmp ugt i64 {within.text}, {PAGE_SIZE - before - behind}")
            onward = out.label("inpage")
            out.branch(crosses, f"{prefix}leave", onward, unlikely=True)
            out.begin(onward)
        return out.address(bias, Value(base, "i64"))

    def operand(self, step: Step, name: str) -> str:
        """The text of an operand's value."""
        if name in ("rs1", "rs2", "rs3"):
            register = getattr(step, name)
            return self.read(register) if register else "0"
        if name in ("fs1", "fs2", "fs3"):
            return self.read(32 + getattr(step, f"r{name[1:]}"))
        if name in ("ds1", "ds2", "ds3"):
            return self.read(32 + getattr(step, f"r{name[1:]}"), "double")
        if name == "pc":
            return self.pc(step.offset).text
        if name == "next_pc":
            return self.pc(step.end).text
        return str(step.imm)

    def end(self, block: Block, last: Step, value: str, point: _Point) -> None:
        """Go on behind the last instruction of a block."""
        out = self.out
        left = self.left(point)
        out.store(Value(left, "i64"), "i64", self.budget_slot)
        match last.template.kind:
            case "branch":
                taken, straight = out.label("taken"), out.label("straight")
                out.terminate(f"br i1 {value}, label %{taken}, label %{straight}")
                out.begin(taken)
                self.edge(block, last, last.target, point, taken=True)
                out.begin(straight)
                self.edge(block, last, last.end, point, taken=False)
            case "jal":
                self.edge(block, last, last.target, point, taken=True)
            case "jump":
                self.jump(block, last, value, point)
            case _:
                self.edge(block, last, last.end, point, taken=False)

    def edge(self, block: Block, last: Step, target: int, point: _Point, *, taken: bool) -> None:
        """Go on at an offset, in the region or out of it."""
        out = self.out
        within = target in self.graph.blocks
        leaves_page = not 0 <= target <= PAGE_SIZE
        if taken and not leaves_page and (self.every_branch or (not within and target <= last.offset)):
            onward = out.label("onward")
            self.check(point, target, onward)
            out.begin(onward)
        if within:
            if self.flow.loop[block.start] != self.flow.loop[target]:
                self.spill(point.dirty)
            out.jump(f"block{target}")
            return
        self.spill(point.dirty)
        if leaves_page:
            self.look_up(self.pc(target), self.left(point))
            return
        record = out.address(self.base(), target * RECORD.per_byte)
        dispatch(out, record, self.left(point))

    def jump(self, block: Block, last: Step, value: str, point: _Point) -> None:
        """Go on at any address; a return is likely to lead behind a call in this region."""
        out = self.out
        if block.successors:
            distance = out.op("i64", f"sub i64 {value}, {self.pc(0).text}")
            elsewhere = out.label("elsewhere")
            ways = []
            for offset in block.successors:
                label = out.label("return")
                ways.append((offset, label))
            cases = " ".join(f"i64 {offset}, label %{label}" for offset, label in ways)
            out.terminate(f"switch i64 {distance.text}, label %{elsewhere} [ {cases} ]")
            for offset, label in ways:
                out.begin(label)
                self.edge(block, last, offset, point, taken=True)
            out.begin(elsewhere)
        self.spill(point.dirty)
        self.look_up(Value(value, "i64"), self.left(point))

    def look_up(self, pc: Value, budget: str) -> None:
        """Go on at any address."""
        look_up(self.out, pc, budget, "null", handler=self.handler)

    def way_out(self, way: _WayOut) -> None:
        """Put everything into the hart, and go to the handler; those with nothing to put go together."""
        out = self.out
        out.lines.append(f"{way.label}:")
        out.terminated = False
        self.spill(way.point.dirty)
        record = out.address(self.base(), way.offset * RECORD.per_byte)
        budget = self.left(way.point)
        if way.point.dirty:
            tail_call(out, self.handler(way.handler), record, budget)
            return
        self.plain.setdefault(way.handler, []).append((way.label, record, budget))
        out.jump(f"all.{way.handler}")

    def plain_ways_out(self) -> None:
        """What the plain ways out share."""
        out = self.out
        for handler, ways in self.plain.items():
            out.lines.append(f"all.{handler}:")
            out.terminated = False
            records = ", ".join(f"[ {record}, %{label} ]" for label, record, _ in ways)
            budgets = ", ".join(f"[ {budget}, %{label} ]" for label, _, budget in ways)
            record = out.op("ptr", f"phi ptr {records}").text
            budget = out.op("i64", f"phi i64 {budgets}").text
            tail_call(out, self.handler(handler), record, budget)


def _members(registers: int) -> list[int]:
    return [register for register in range(1, 64) if registers >> register & 1]


def _place(register: int) -> int:
    if register < 32:
        return HART["x"].offset + 8 * register
    return HART["f"].offset + 8 * (register - 32)
