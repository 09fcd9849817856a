"""Making templates: instruction bodies lowered with placeholders for what differs between occurrences."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from doppel.isa import primitives
from doppel.isa.csr import require_fp
from doppel.isa.instruction import Instruction, InstructionSet
from doppel.isa.rv_f import DYNAMIC, box, modify_fp, rounding, unbox
from doppel.isa.softfloat import RMM, RNE
from doppel.translate.compiled import Compiled, parse_function
from doppel.translate.emitter import Emitter, LoweringError, Value, constant
from doppel.translate.layout import HART, TLB
from doppel.translate.lower import FunctionLowering, Lowering
from doppel.translate.program import Program
from doppel.translate.regions.memory_ops import MEMORY_OPERATIONS, bias_of
from doppel.translate.regions.templates import HANDLER_HELPERS, PREFIX, Template, placeholder

__all__ = ["TemplateMaker"]

SINGLE = 32
_REGISTERS = ("rs1", "rs2", "rs3", "fs1", "fs2", "fs3")
_NUMBERS = ("imm", "shamt")
_ADDRESSES = ("pc", "next_pc")
# Of these a region knows nothing: they end a block, or need what only the interpreter has at hand.
_OUTSIDE = {"ends_block", "budget"}
_MODES = (*range(RMM + 1), DYNAMIC)


class TemplateMaker:
    """Makes templates; gathers in ``helpers`` the functions that they call, by their place in the table."""

    def __init__(self, program: Program, lowerings: dict[Any, Lowering]) -> None:
        self.primitives: dict[Any, Lowering] = {
            **lowerings,
            **MEMORY_OPERATIONS,
            modify_fp: _fp_is_on,
            require_fp: _fp_is_on,
            rounding: _rounding_mode,
        }
        self.helpers: list[Compiled] = []
        self._program = program

    def function(self, source: Callable[..., Any], constants: dict[str, int] | None = None) -> Compiled:
        """The engine's compiled function."""
        return self._program.function(source, constants)

    def helper(self, compiled: Compiled) -> int:
        """The place of a function in the table of helpers."""
        if compiled not in self.helpers:
            self.helpers.append(compiled)
        return len(HANDLER_HELPERS) + self.helpers.index(compiled)

    def templates(self, instructions: InstructionSet) -> dict[str, Template]:
        """All that can be made, as :class:`TemplateKit` has them."""
        made: dict[str, Template] = {}
        for instruction in instructions.instructions:
            if instruction.expands is not None:
                continue
            if "rm" in instruction.parameters:
                for mode in _MODES:
                    self._add(made, f"{instruction.name} {mode}", instruction, {"rm": constant(mode)})
            else:
                self._add(made, instruction.name, instruction, {})
        return made

    def _add(
        self, made: dict[str, Template], name: str, instruction: Instruction, fixed: dict[str, Value]
    ) -> None:
        known = len(self.helpers)
        try:
            template = _InstructionLowering(self, instruction, fixed).template()
        except NotForRegionsError:
            del self.helpers[known:]
            return
        if template.access:
            host = Value(placeholder("host"), "ptr")
            direct = _InstructionLowering(self, instruction, {**fixed, "host": host}).template()
            template = msgspec.structs.replace(template, direct=direct)
        made[name] = template

    def probes(self) -> dict[str, Template]:
        """Those of :class:`TemplateKit`."""
        return {
            f"{kind} {size}": self._probe(size, tag)
            for kind, tag in (("load", TLB.load_tag), ("store", TLB.store_tag))
            for size in (1, 2, 4, 8)
        }

    def _probe(self, size: int, tag: int) -> Template:
        low = _TextLowering(self, bias_of, parse_function(bias_of), {}, Emitter(PREFIX))
        bias = bias_of(low, Value(placeholder("address"), "i64"), size, tag)
        text = "\n".join(low.out.lines)
        return Template("probe", ("address",), text, tuple(low.out.allocas), bias.text, leaves=True)


class NotForRegionsError(Exception):
    """The interpreter executes this instruction, also amid a region."""


def _fp_is_on(low: FunctionLowering, args: list[ast.expr]) -> None:
    low.effects.add("fp")


def _rounding_mode(low: FunctionLowering, args: list[ast.expr]) -> Value:
    mode = low.expression(args[1])
    if mode.type != "const":
        raise LoweringError("the rounding mode of a template is a constant")
    return constant(int(RNE) if mode.number == DYNAMIC else mode.number)


class _TextLowering(FunctionLowering):
    """A function's statements as part of a template; what it returns stays in ``given``."""

    def __init__(
        self,
        maker: TemplateMaker,
        source: Callable[..., Any],
        tree: ast.FunctionDef,
        values: dict[str, Value],
        out: Emitter,
    ) -> None:
        super().__init__(maker, source, tree, {"tlb": Value("%tlb", "ptr"), **values}, out)
        self.maker = maker
        self.given: list[Value] | None = None
        self._returned = False
        self._depth = 0
        self._assignments = Counter(
            node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        )
        self.leave = out.label("leave")

    def begin_unraised(self) -> str:
        return ""

    def leave_raised(self) -> None:
        self.effects.add("raises")
        self.out.jump(placeholder("leave"))

    def _arm(self, body: list[ast.stmt]) -> None:
        self._depth += 1
        super()._arm(body)
        self._depth -= 1

    def _return(self, node: ast.Return) -> None:
        """What is returned on the only path needs no place in memory."""
        if self._depth == 0 and self.returns is None and node.value is not None:
            parts = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            self.given = [self.expression(part) for part in parts]
            self._returned = True
            return
        super()._return(node)

    def _statement(self, node: ast.stmt) -> None:
        if not self._returned:
            super()._statement(node)

    def _assign(self, node: ast.AST, name: str, value: Value) -> None:
        """A variable that is assigned once, on every path, is the value itself."""
        if self._depth == 0 and self._assignments[name] == 1 and name not in self.values:
            self.values[name] = value
            return
        super()._assign(node, name, value)

    def finish(self) -> list[Value]:
        """Lower everything; the values that it returns."""
        self.run()
        if self.given is None:
            self.out.begin(self.leave)
            self.given = [
                self.out.load(kind, slot)
                for kind, slot in zip(self.returns or [], self.result_slots, strict=True)
            ]
        return self.given

    def call_bound(
        self, target: Callable[..., Any], fixed: dict[str, int], bound: dict[str, Value]
    ) -> list[Value]:
        if target in (box, unbox) and fixed["bits"] == SINGLE:
            self.effects.add("single")
        if "rm" in fixed:
            # One function for all rounding modes, as the interpreter has it.
            fixed = {name: number for name, number in fixed.items() if name != "rm"}
            bound = {**bound, "rm": self.out.cast(bound["rm"], "i64")}
        compiled = self.maker.function(target, fixed)
        if not compiled.small:
            return super().call_bound(target, fixed, bound)
        inner = _TextLowering(self.maker, target, parse_function(target), bound, self.out)
        values = inner.finish()
        self.effects |= inner.effects
        return values

    def call_compiled(self, compiled: Compiled, passed: list[Value], convention: str = "") -> list[Value]:
        place = HART["helpers"].offset + 8 * self.maker.helper(compiled)
        pointer = self.out.load("ptr", "%h", place)
        through = Compiled(pointer.text, compiled.parameters, compiled.returns, compiled.raises)
        if compiled.raises and compiled.returns == ["ptr"]:
            return [self._found(through, passed)]
        through.effects = compiled.effects
        return super().call_compiled(through, passed, "preserve_mostcc")

    def _found(self, compiled: Compiled, passed: list[Value]) -> Value:
        """Call what gives a pointer or raises: its helper gives null in place of raising."""
        out = self.out
        arguments = ", ".join(
            f"{kind} {out.cast(value, kind).text}"
            for kind, value in zip(compiled.parameters, passed, strict=True)
        )
        pointer = out.op("ptr", f"call preserve_mostcc ptr {compiled.symbol}({arguments})")
        self.effects.add("raises")
        found = out.label("found")
        nothing = out.op("i1", f"icmp eq ptr {pointer.text}, null")
        out.branch(nothing, placeholder("leave"), found, unlikely=True)
        out.begin(found)
        return pointer


class _InstructionLowering(_TextLowering):
    """An instruction's body as a template."""

    def __init__(self, maker: TemplateMaker, instruction: Instruction, fixed: dict[str, Value]) -> None:
        operands = {}
        for name in instruction.parameters:
            if name == "h" or name in fixed:
                continue
            if name not in (*_REGISTERS, *_NUMBERS, *_ADDRESSES):
                raise NotForRegionsError
            operands[name] = Value(placeholder(name), "i64")
        tree = parse_function(instruction.body)
        values = {"h": Value("%h", "ptr"), **operands, **fixed}
        super().__init__(maker, instruction.body, tree, values, Emitter(PREFIX))
        self.instruction = instruction
        self.operands = tuple(operands)
        self.kind = "plain"
        self.value = ""

    def template(self) -> Template:
        """The template.

        Raises:
            NotForRegionsError: this instruction has none.
        """
        given = self.finish()
        if self.effects & _OUTSIDE or (given and not self.instruction.destination):
            raise NotForRegionsError
        if self.out.lines and self.out.lines[-1] == f"{self.leave}:" and self.always_raises():
            # Nothing to gain, and what stands behind it is where the region is entered again.
            raise NotForRegionsError
        result = self.out.word(given[0]).text if given else ""
        text, operands, result, double = _with_doubles("\n".join(self.out.lines), self.operands, result)
        return Template(
            self.kind,
            operands,
            text,
            tuple(self.out.allocas),
            self.value,
            result,
            self.instruction.destination if given else "",
            "raises" in self.effects,
            "fp" in self.effects,
            "single" in self.effects,
            double,
            next((e for e in self.effects if e.split()[0] in ("load", "store")), ""),
        )

    def always_raises(self) -> bool:
        """Whether nothing leads to the end of the body."""
        before = self.out.lines[:-1]
        return not any(re.search(rf"%{re.escape(self.leave)}\b", line) for line in before)

    def _if(self, node: ast.If) -> None:
        """A body that is nothing but a conditional branch is the kind ``branch``."""
        if [node] == self.tree.body and not node.orelse and self._is_branch(node.body):
            self.kind = "branch"
            self.value = self.out.cast(self.expression(node.test), "i1").text
            return
        super()._if(node)

    def _is_branch(self, body: list[ast.stmt]) -> bool:
        return (
            len(body) == 1
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Call)
            and self.resolve(body[0].value.func) is primitives.branch
        )

    def call(self, node: ast.Call) -> Value | None:
        target = self.resolve(node.func)
        if target is primitives.branch:
            if node is not _first_call(self.tree):
                raise NotForRegionsError
            self.kind = "jal"
            return None
        if target is primitives.jump:
            if node is not _first_call(self.tree):
                raise NotForRegionsError
            self.kind = "jump"
            self.value = self.out.word(self.expression(node.args[1])).text
            return None
        return super().call(node)


def _first_call(tree: ast.FunctionDef) -> ast.expr | None:
    """The call that is the body's first statement: what follows it has no say in where to go."""
    first = tree.body[0]
    return first.value if isinstance(first, ast.Expr) else None


def _with_doubles(
    text: str, operands: tuple[str, ...], result: str
) -> tuple[str, tuple[str, ...], str, bool]:
    """A template without the conversions at its ends between words and doubles.

    They would come to nothing, but LLVM moves them about until a loop keeps a double as a word.
    """
    used = []
    for operand in operands:
        conversion = rf"  (%\S+) = bitcast i64 {placeholder(operand)} to double\n"
        names = re.findall(conversion, text)
        text = re.sub(conversion, "", text)
        for name in names:
            text = _replaced(text, name, placeholder(f"d{operand[1:]}"))
        if names:
            used.append(f"d{operand[1:]}")
        if not names or placeholder(operand) in text:
            used.append(operand)
    found = re.search(rf"\n?  {re.escape(result)} = bitcast double (\S+) to i64$", text) if result else None
    if found is None:
        return text, tuple(used), result, False
    return text[: found.start()], tuple(used), found[1], True


def _replaced(text: str, name: str, by: str) -> str:
    return re.sub(rf"{re.escape(name)}(?!\w)", by, text)
