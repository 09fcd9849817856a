"""Interpreter handlers: one native function for each instruction body and length.

A handler reads its operands from its record, does what the body says, and jumps to the handler of the next
record: ``preserve_nonecc`` and ``musttail`` make that a chain of jumps with the hart, the record, the budget
and the TLB array in registers. A body that branches has a second handler for targets in the same page: the
next record is then a fixed distance away.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from doppel.isa import primitives
from doppel.isa.instruction import Body, Instruction
from doppel.translate.compiled import parse_function
from doppel.translate.dispatch import dispatch, handler_type, look_up, out_of_budget, record_pc, tail_call
from doppel.translate.emitter import Emitter, LoweringError, Value
from doppel.translate.layout import HART, RECORD
from doppel.translate.lower import FunctionLowering
from doppel.translate.program import Program

__all__ = ["Handler", "HandlerCompiler"]

_OPERAND_SLOTS = {"rs1": RECORD.rs1, "rs2": RECORD.rs2, "rs3": RECORD.rs3}
_FP_SLOTS = {"fs1": RECORD.rs1, "fs2": RECORD.rs2, "fs3": RECORD.rs3}
_IMMEDIATES = {"imm", "shamt", "csr", "rm"}


@dataclass(frozen=True)
class Handler:
    """Symbols of an instruction's handlers; ``near`` is empty if the body does not branch."""

    far: str
    near: str


class HandlerCompiler:
    """Makes handlers, each once."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.texts: list[str] = []
        self._known: dict[tuple[Body, int], Handler] = {}

    def handler(self, instruction: Instruction) -> Handler:
        """The handlers that run an instruction."""
        key = (instruction.body, instruction.length)
        if key not in self._known:
            branches = any(
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "branch"
                for node in ast.walk(parse_function(instruction.body))
            )
            stem = f"@op{len(self._known)}.{instruction.base.name}.{instruction.length}"
            self._single(instruction, stem, near=False)
            if branches:
                self._single(instruction, stem + ".near", near=True)
            self._known[key] = Handler(stem, stem + ".near" if branches else "")
        return self._known[key]

    def _single(self, instruction: Instruction, symbol: str, *, near: bool) -> None:
        lowering = _BodyLowering(self.program, instruction, near=near)
        lowering.go_on(lowering.execute())
        self.texts.append(handler_type(symbol, lowering.out.body()))

    def pair(self, first: Instruction, second: Instruction) -> str:
        """The handler that runs two instructions, one behind the other; a branch goes to the same page.

        Raises:
            LoweringError: the first may not simply go on at the second, or the second ends the block.
        """
        symbol = f"@pair.{first.base.name}.{first.length}.{second.base.name}.{second.length}"
        a = _BodyLowering(self.program, first, near=False)
        left = a.execute()
        a.look_again(left)
        near = bool(self.handler(second).near)
        b = _BodyLowering(self.program, second, near=near, out=a.out, record=a.following(), budget=left)
        b.go_on(b.execute())
        if a.jumps or a.branches or (a.effects | b.effects) & {"ends_block", "budget"}:
            raise LoweringError(f"{symbol} cannot be made")
        self.texts.append(handler_type(symbol, a.out.body()))
        return symbol


class _BodyLowering(FunctionLowering):
    """An instruction body between the reading of its operands and the jump to the next handler."""

    def __init__(
        self,
        program: Program,
        instruction: Instruction,
        *,
        near: bool,
        out: Emitter | None = None,
        record: str = "%rec",
        budget: str = "%budget",
    ) -> None:
        super().__init__(
            program,
            instruction.body,
            parse_function(instruction.body),
            {"tlb": Value("%tlb", "ptr"), "h": Value("%h", "ptr")},
            out,
        )
        self.instruction = instruction
        self.near = near
        self.record = record
        self.budget = budget
        self.leave = self.out.label("finish")
        self.taken_slot = ""
        self.target_slot = ""
        self.changed_slot = ""
        self.branches = False
        self.jumps = False

    def execute(self) -> str:
        """Everything but going on: operands, body, trap, result. Gives what is left of the budget."""
        out = self.out
        for name in self.instruction.parameters:
            if name != "h":
                self.values[name] = self._operand(name)
        self.taken_slot = out.alloca("i1")
        self.target_slot = out.alloca("i64")
        out.store(Value("false", "i1"), "i1", self.taken_slot)
        spill_start = len(out.lines)
        out.store(Value(self.budget, "i64"), "i64", "%h", HART["budget"].offset)
        spill_end = len(out.lines)
        self.run()
        if not self.effects & {"budget", "ends_block"}:
            del out.lines[spill_start:spill_end]
        out.begin(self.leave)
        if "raises" in self.effects:
            raised, completed = out.label("raised"), out.label("completed")
            out.branch(out.load("i1", self.raised_slot), raised, completed, unlikely=True)
            out.begin(raised)
            out.store(self._pc(), "i64", "%h", HART["pc"].offset)
            tail_call(out, "@trap", self.record, self.budget)
            out.begin(completed)
        self._write_result()
        return out.op("i64", f"add i64 {self.budget}, -1").text

    def stored_slowly(self) -> None:
        """The next instruction may be another one now."""
        if not self.changed_slot:
            self.changed_slot = self.out.alloca("i1")
        self.out.store(Value("true", "i1"), "i1", self.changed_slot)

    def look_again(self, left: str) -> None:
        """Go on at the next record if code may have changed, as the first of a pair."""
        if not self.changed_slot:
            return
        # Allocated after the fact: initialized where the handler begins.
        self.out.lines.insert(0, f"  store i1 false, ptr {self.changed_slot}")
        changed, same = self.out.label("changed"), self.out.label("same")
        self.out.branch(self.out.load("i1", self.changed_slot), changed, same, unlikely=True)
        self.out.begin(changed)
        dispatch(self.out, self.following(), left)
        self.out.begin(same)

    def go_on(self, left: str) -> None:
        """Jump to the handler of what comes next."""
        out = self.out
        if self.jumps:
            look_up(out, out.load("i64", self.target_slot), left, self.record, self._tlb())
            return
        if self.branches:
            taken, straight = out.label("taken"), out.label("straight")
            out.branch(out.load("i1", self.taken_slot), taken, straight)
            out.begin(taken)
            self._take_branch(left)
            out.begin(straight)
        if "ends_block" in self.effects:
            self._end_block(left)
            return
        dispatch(self.out, self.following(), left, self._tlb())

    def following(self) -> str:
        """The record behind this one."""
        return self.out.address(self.record, self.instruction.length * RECORD.per_byte)

    # --- operands and result ---

    def _operand(self, name: str) -> Value:
        out = self.out
        if name in _OPERAND_SLOTS:
            return self._register("x", out.load("i8", self.record, _OPERAND_SLOTS[name]))
        if name in _FP_SLOTS:
            return self._register("f", out.load("i8", self.record, _FP_SLOTS[name]))
        if name in _IMMEDIATES:
            return out.op("i64", f"sext i32 {out.load('i32', self.record, RECORD.imm).text} to i64")
        if name == "zimm":
            return out.word(out.load("i8", self.record, RECORD.rs1))
        if name == "pc":
            return self._pc()
        if name == "next_pc":
            return out.op("i64", f"add i64 {self._pc().text}, {self.instruction.length}")
        if name == "rd_index":
            # x0 as a destination is decoded as the sink, which the body must not see.
            return out.op("i64", f"and i64 {out.word(out.load('i8', self.record, RECORD.rd)).text}, 31")
        if name in ("rs1_index", "rs2_index"):
            return out.word(out.load("i8", self.record, _OPERAND_SLOTS[name.removesuffix("_index")]))
        raise LoweringError(f"{self.instruction.name}: a body cannot ask for {name!r}")

    def _register(self, kind: str, index: Value) -> Value:
        field = HART[kind]
        base = self.out.address("%h", field.offset)
        place = self.out.op("ptr", f"getelementptr i64, ptr {base}, i64 {self.out.word(index).text}")
        return self.out.load("i64", place.text)

    def _pc(self) -> Value:
        return record_pc(self.out, self.record)

    def _write_result(self) -> None:
        if not self.returns:
            return
        out = self.out
        if len(self.returns) != 1 or not self.instruction.destination:
            raise LoweringError(f"{self.instruction.name}: the pattern has no register for the result")
        value = out.word(out.load(self.returns[0], self.result_slots[0]))
        field = HART["f" if self.instruction.destination == "fd" else "x"]
        index = out.word(out.load("i8", self.record, RECORD.rd))
        base = out.address("%h", field.offset)
        place = out.op("ptr", f"getelementptr i64, ptr {base}, i64 {index.text}")
        out.store(value, "i64", place.text)

    # --- control flow ---

    def call(self, node: ast.Call) -> Value | None:
        """Branches and jumps are recorded, and done when the result has been written."""
        target = self.resolve(node.func)
        if target is primitives.branch:
            if not (isinstance(node.args[1], ast.Name) and node.args[1].id == "imm"):
                raise self.fail(node, "branch() takes the operand imm")
            self.branches = True
            self.out.store(Value("true", "i1"), "i1", self.taken_slot)
            return None
        if target is primitives.jump:
            self.jumps = True
            self.out.store(self.expression(node.args[1]), "i64", self.target_slot)
            return None
        return super().call(node)

    def _take_branch(self, left: str) -> None:
        """Go on at pc + imm; a near handler's imm is already the distance between the records."""
        out = self.out
        imm = self.values["imm"]
        if not self.near:
            look_up(
                out, out.op("i64", f"add i64 {self._pc().text}, {imm.text}"), left, self.record, self._tlb()
            )
            return
        target = out.address(self.record, imm)
        attend, follow = out.label("attend"), out.label("follow")
        out.branch(out_of_budget(out, left), attend, follow, unlikely=True)
        out.begin(follow)
        dispatch(self.out, target, left, self._tlb())
        out.begin(attend)
        distance = out.op("i64", f"ashr i64 {imm.text}, {RECORD.per_byte.bit_length() - 1}")
        pc = out.op("i64", f"add i64 {self._pc().text}, {distance.text}")
        out.store(pc, "i64", "%h", HART["pc"].offset)
        tail_call(out, "@attend", self.record, left)

    def _end_block(self, left: str) -> None:
        """The mode or what is translated may have changed: take up the new TLB array, attend if asked to."""
        out = self.out
        attend, go_on = out.label("attend"), out.label("goon")
        out.branch(out_of_budget(out, left), attend, go_on, unlikely=True)
        out.begin(go_on)
        following = self.following()
        dispatch(out, following, left, self._tlb())
        out.begin(attend)
        pc = out.op("i64", f"add i64 {self._pc().text}, {self.instruction.length}")
        out.store(pc, "i64", "%h", HART["pc"].offset)
        tail_call(out, "@attend", self.record, left)

    def _tlb(self) -> str:
        """The TLB array to go on with: a body that can change the mode leaves another one in the hart."""
        if "ends_block" in self.effects:
            return self.out.load("ptr", "%h", HART["tlb_view"].offset).text
        return "%tlb"
