"""Compiling the language of :mod:`doppel.isa.words` to LLVM IR, statement by statement."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

from doppel.isa import words
from doppel.translate.compiled import TYPES, Compiled, Functions
from doppel.translate.emitter import WIDTHS, Emitter, LoweringError, Value, constant
from doppel.translate.layout import HART, Field, Layout

__all__ = ["FunctionLowering", "Lowering"]

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.BitAnd: "and",
    ast.BitOr: "or",
    ast.BitXor: "xor",
    ast.LShift: "shl",
    ast.RShift: "lshr",
}
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "ult",
    ast.LtE: "ule",
    ast.Gt: "ugt",
    ast.GtE: "uge",
}
_FOLD: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.BitAnd: lambda a, b: a & b,
    ast.BitOr: lambda a, b: a | b,
    ast.BitXor: lambda a, b: a ^ b,
    ast.LShift: lambda a, b: a << b,
    ast.RShift: lambda a, b: a >> b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}
# What the types are called in messages.
_SPOKEN = {"i1": "a bool", "i64": "a Word", "i128": "a Wide", "ptr": "a Pointer", "const": "a number"}
Lowering = Callable[["FunctionLowering", list[ast.expr]], Value | None]


class FunctionLowering:
    """The statements of one function becoming IR; also used for instruction bodies inside their handlers."""

    def __init__(
        self,
        program: Functions,
        source: Callable[..., Any],
        tree: ast.FunctionDef,
        values: dict[str, Value],
        out: Emitter | None = None,
        layout: Layout = HART,
    ) -> None:
        self.program = program
        self.source = source
        self.tree = tree
        self.out = out or Emitter()
        self.layout = layout
        self.effects: set[str] = set()
        self.returns: list[str] | None = None
        self.result_slots: list[str] = []
        self.raised_slot = self.begin_unraised()
        self.leave = "leave"
        self.values = values
        self._locals: dict[str, tuple[str, str]] = {}
        self._loops: list[tuple[str, str]] = []
        closure = inspect.getclosurevars(source)
        self._names = {**closure.builtins, **closure.globals, **closure.nonlocals}
        module = inspect.getmodule(source)
        self._globals = vars(module) if module else {}

    def begin_unraised(self) -> str:
        """The place that says whether the function has raised; it has not yet."""
        slot = self.out.alloca("i1")
        self.out.raw(f"store i1 false, ptr {slot}")
        return slot

    def stored_slowly(self) -> None:
        """Called where a store has taken the slow path, and may have changed code."""

    def run(self) -> None:
        """Emit the whole body; falling off its end leaves."""
        assigned = {
            target.id
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign)
            for top in (node.targets if isinstance(node, ast.Assign) else [node.target])
            for target in (top.elts if isinstance(top, ast.Tuple) else [top])
            if isinstance(target, ast.Name)
        }
        for name, value in list(self.values.items()):
            if name in assigned:
                self._assign(self.tree, name, value)
        self._statements(self.tree.body)
        if self.returns and not _leaves(self.tree.body):
            raise self.fail(self.tree, "returns a value, but not on every path")

    def fail(self, node: ast.AST, message: str) -> LoweringError:
        """An error that says where."""
        where = (
            f"{self.source.__module__}.{self.source.__qualname__}: line {getattr(node, 'lineno', 0)} of it"
        )
        return LoweringError(f"{where}: {message}")

    # --- statements ---

    def _statements(self, body: list[ast.stmt]) -> None:
        for statement in body:
            if not self.out.terminated:
                self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case ast.Expr(value=ast.Call() as call):
                self.call(call)
            case ast.Assign(targets=[target], value=value):
                self._assign_to(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign_to(target, value)
            case ast.AugAssign(target=target, op=op, value=value):
                load = ast.parse(ast.unparse(target), mode="eval").body
                self._assign_to(target, ast.copy_location(ast.BinOp(load, op, value), node))
            case ast.If():
                self._if(node)
            case ast.While():
                self._while(node)
            case ast.Break():
                self.out.jump(self._loops[-1][1])
            case ast.Continue():
                self.out.jump(self._loops[-1][0])
            case ast.Return():
                self._return(node)
            case ast.Raise(exc=ast.Call(func=raised, args=[cause, value], keywords=[])):
                if self.resolve(raised) is not words.Trap:
                    raise self.fail(node, "only Trap(cause, value) can be raised")
                self.raise_trap(self.expression(cause), self.expression(value))
            case _:
                raise self.fail(node, f"{ast.unparse(node)!r} is not in the language")

    def raise_trap(self, cause: Value, value: Value) -> None:
        """Record a trap and leave."""
        self.out.store(cause, "i64", "%h", HART["pending_cause"].offset)
        self.out.store(value, "i64", "%h", HART["pending_value"].offset)
        self.leave_raised()

    def leave_raised(self) -> None:
        """Leave with the trap that is recorded already."""
        self.effects.add("raises")
        self.out.raw(f"store i1 true, ptr {self.raised_slot}")
        self.out.jump(self.leave)

    def _return(self, node: ast.Return) -> None:
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            parts = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            values = [self.expression(part) for part in parts]
            if self.returns is None:
                declared = self._declared_returns(len(values))
                self.returns = [
                    declared[i] or ("i64" if v.type == "const" else v.type) for i, v in enumerate(values)
                ]
                self.result_slots = [self.out.alloca(kind) for kind in self.returns]
            if len(values) != len(self.returns):
                raise self.fail(node, f"returns {len(values)} values here and {len(self.returns)} elsewhere")
            for value, kind, slot in zip(values, self.returns, self.result_slots, strict=True):
                if not _fits(value, kind):
                    raise self.fail(node, f"returns {_SPOKEN[value.type]} as {_SPOKEN[kind]}")
                self.out.store(value, kind, slot)
        elif self.returns:
            raise self.fail(node, "returns no value here, but elsewhere")
        self.out.jump(self.leave)

    def _declared_returns(self, count: int) -> list[str]:
        annotation = self.tree.returns
        if isinstance(annotation, ast.Name) and count == 1:
            return [TYPES.get(annotation.id, "i64" if annotation.id == "Word" else "")]
        if isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple):
            return [TYPES.get(ast.unparse(e), "i64") for e in annotation.slice.elts]
        return [""] * count

    def _if(self, node: ast.If) -> None:
        test = self.expression(node.test)
        if test.type == "const":
            self._statements(node.body if test.number else node.orelse)
            return
        then, otherwise, after = (self.out.label(stem) for stem in ("then", "else", "fi"))
        cold = len(node.body) == 1 and isinstance(node.body[0], ast.Raise)
        self.out.branch(test, then, otherwise if node.orelse else after, unlikely=cold)
        self.out.begin(then)
        self._arm(node.body)
        self.out.jump(after)
        if node.orelse:
            self.out.begin(otherwise)
            self._arm(node.orelse)
        self.out.begin(after)

    def _arm(self, body: list[ast.stmt]) -> None:
        """Statements that are executed on some path only."""
        self._statements(body)

    def _while(self, node: ast.While) -> None:
        if node.orelse:
            raise self.fail(node, "a while loop has no else")
        head, body, after = (self.out.label(stem) for stem in ("while", "do", "done"))
        self.out.begin(head)
        self.out.branch(self.expression(node.test), body, after)
        self.out.begin(body)
        self._loops.append((head, after))
        self._arm(node.body)
        self._loops.pop()
        self.out.jump(head)
        self.out.begin(after)

    def _assign_to(self, target: ast.expr, source: ast.expr) -> None:
        match target:
            case ast.Tuple(elts=targets):
                if isinstance(source, ast.Call):
                    values = self.call_many(source)
                elif isinstance(source, ast.Tuple):
                    values = [self.expression(s) for s in source.elts]
                else:
                    raise self.fail(source, "only a call or a tuple can be unpacked")
                if len(values) != len(targets):
                    raise self.fail(source, f"{len(values)} values for {len(targets)} names")
                for part, value in zip(targets, values, strict=True):
                    if not isinstance(part, ast.Name):
                        raise self.fail(target, "only names can be unpacked to")
                    self._assign(target, part.id, value)
            case ast.Name(id=name):
                self._assign(target, name, self.expression(source))
            case ast.Attribute(value=ast.Name(id="h"), attr=name):
                field = self._field(target, name)
                kind = "ptr" if field.type == "ptr" else f"i{field.element_size * 8}"
                self.out.store(self.expression(source), kind, "%h", field.offset)
            case ast.Subscript(value=ast.Attribute(value=ast.Name(id="h"), attr=name), slice=index):
                field = self._field(target, name)
                base = self._element(target, name, index)
                self.out.store(self.expression(source), f"i{field.element_size * 8}", base)
            case _:
                raise self.fail(target, "cannot assign to that")

    def _assign(self, node: ast.AST, name: str, value: Value) -> None:
        if name not in self._locals:
            kind = _kind(value)
            self._locals[name] = (self.out.alloca(kind), kind)
        slot, kind = self._locals[name]
        if not _fits(value, kind):
            raise self.fail(node, f"{name!r} cannot be both {_SPOKEN[kind]} and {_SPOKEN[value.type]}")
        self.out.store(value, kind, slot)

    # --- expressions ---

    def expression(self, node: ast.expr) -> Value:
        """Emit an expression."""
        match node:
            case ast.Constant(value=int() as number):
                return constant(number)
            case ast.Name(id=name):
                return self._name(node, name)
            case ast.Attribute(value=ast.Name(id="h"), attr=name):
                field = self._field(node, name)
                if field.type == "ptr":
                    return self.out.load("ptr", "%h", field.offset)
                return self.out.word(self.out.load(f"i{field.element_size * 8}", "%h", field.offset))
            case ast.Attribute():
                return self._constant(node, self.resolve(node))
            case ast.Subscript(value=ast.Attribute(value=ast.Name(id="h"), attr=name), slice=index):
                field = self._field(node, name)
                base = self._element(node, name, index)
                if field.type == "ptr":
                    return self.out.load("ptr", base)
                return self.out.word(self.out.load(f"i{field.element_size * 8}", base))
            case ast.BinOp(left=left, op=op, right=right):
                return self._binary(node, self.expression(left), op, self.expression(right))
            case ast.UnaryOp(op=op, operand=operand):
                return self._unary(node, op, self.expression(operand))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self._compare(node, self.expression(left), op, self.expression(right))
            case ast.BoolOp():
                return self._boolean(node)
            case ast.IfExp():
                return self._conditional(node)
            case ast.Call():
                value = self.call(node)
                if value is None:
                    raise self.fail(node, f"{ast.unparse(node)!r} gives no value")
                return value
            case _:
                raise self.fail(node, f"{ast.unparse(node)!r} is not in the language")

    def _name(self, node: ast.expr, name: str) -> Value:
        if name in self._locals:
            slot, kind = self._locals[name]
            return self.out.load(kind, slot)
        if name in self.values:
            return self.values[name]
        return self._constant(node, self.resolve(node))

    def _constant(self, node: ast.expr, found: Any) -> Value:
        if not isinstance(found, int):
            raise self.fail(node, f"{ast.unparse(node)!r} is not a constant")
        return constant(found)

    def resolve(self, node: ast.expr) -> Any:
        """The Python object that a name outside the function stands for."""
        match node:
            case ast.Name(id=name):
                if name in self._names:
                    return self._names[name]
                if name in self._globals:
                    return self._globals[name]
                raise self.fail(node, f"unknown name {name!r}")
            case ast.Attribute(value=owner, attr=name):
                return getattr(self.resolve(owner), name)
            case _:
                raise self.fail(node, f"{ast.unparse(node)!r} is not a name")

    def _field(self, node: ast.AST, name: str) -> Field:
        if name not in self.layout.fields:
            raise self.fail(node, f"the hart has no {name!r}")
        return self.layout[name]

    def _element(self, node: ast.AST, name: str, index: ast.expr) -> str:
        field = self._field(node, name)
        if not field.count:
            raise self.fail(node, f"{name!r} is no array")
        at = self.expression(index)
        size = field.element_size
        if at.type == "const":
            if not 0 <= at.number < field.count:
                raise self.fail(node, f"{name!r} has {field.count} elements")
            return self.out.address("%h", field.offset + at.number * size)
        base = self.out.address("%h", field.offset)
        return self.out.op("ptr", f"getelementptr i{size * 8}, ptr {base}, i64 {self.out.word(at).text}").text

    def _binary(self, node: ast.AST, left: Value, op: ast.operator, right: Value) -> Value:
        if left.type == right.type == "const" and type(op) in _FOLD:
            return constant(_FOLD[type(op)](left.number, right.number))
        if type(op) not in _BINARY:
            raise self.fail(node, f"{ast.unparse(node)!r}: the operator is not in the language")
        kind = "i128" if "i128" in (left.type, right.type) else "i64"
        if _kind(left) == _kind(right) == "i1" and isinstance(op, ast.BitAnd | ast.BitOr | ast.BitXor):
            kind = "i1"
        if isinstance(op, ast.LShift | ast.RShift):
            kind = "i128" if left.type == "i128" else "i64"
            if right.type == "const" and not 0 <= right.number < WIDTHS[kind]:
                raise self.fail(node, f"a shift by {right.number} bits")
        a, b = self.out.cast(left, kind), self.out.cast(right, kind)
        return self.out.op(kind, f"{_BINARY[type(op)]} {kind} {a.text}, {b.text}")

    def _unary(self, node: ast.AST, op: ast.unaryop, value: Value) -> Value:
        if isinstance(op, ast.Not):
            if value.type == "const":
                return constant(not value.number)
            return self.out.op("i1", f"xor i1 {self.out.cast(value, 'i1').text}, true")
        if value.type == "const":
            return constant(~value.number if isinstance(op, ast.Invert) else -value.number)
        value = value if value.type == "i128" else self.out.word(value)
        if isinstance(op, ast.Invert):
            return self.out.op(value.type, f"xor {value.type} {value.text}, -1")
        if isinstance(op, ast.USub):
            return self.out.op(value.type, f"sub {value.type} 0, {value.text}")
        raise self.fail(node, "operator is not in the language")

    def _compare(self, node: ast.AST, left: Value, op: ast.cmpop, right: Value) -> Value:
        if type(op) not in _COMPARE:
            raise self.fail(node, f"{ast.unparse(node)!r}: the comparison is not in the language")
        if left.type == right.type == "const":
            folded = {
                "eq": left.number == right.number,
                "ne": left.number != right.number,
                "ult": left.number < right.number,
                "ule": left.number <= right.number,
                "ugt": left.number > right.number,
                "uge": left.number >= right.number,
            }
            return constant(folded[_COMPARE[type(op)]])
        if any(side.type == "const" and side.number < 0 for side in (left, right)):
            raise self.fail(node, "words are unsigned and never less than zero")
        kinds = {left.type, right.type} - {"const"}
        kind = kinds.pop() if len(kinds) == 1 else "i128" if "i128" in kinds else "i64"
        if kind == "ptr":
            raise self.fail(node, "pointers are compared with is_null")
        a, b = self.out.cast(left, kind), self.out.cast(right, kind)
        return self.out.op("i1", f"icmp {_COMPARE[type(op)]} {kind} {a.text}, {b.text}")

    def _boolean(self, node: ast.BoolOp) -> Value:
        """Short circuit: a later operand may call or divide, so it is evaluated in a block of its own."""
        result = self.out.alloca("i1")
        after = self.out.label("bool")
        is_and = isinstance(node.op, ast.And)
        for index, operand in enumerate(node.values):
            value = self.expression(operand)
            if not _fits(value, "i1"):
                raise self.fail(operand, f"{ast.unparse(operand)!r} is no condition")
            if value.type == "const" and bool(value.number) == is_and and index < len(node.values) - 1:
                continue
            self.out.store(value, "i1", result)
            if index == len(node.values) - 1 or (value.type == "const" and bool(value.number) != is_and):
                break
            more = self.out.label("more")
            tested = self.out.cast(value, "i1")
            self.out.branch(tested, more if is_and else after, after if is_and else more)
            self.out.begin(more)
        self.out.begin(after)
        return self.out.load("i1", result)

    def _conditional(self, node: ast.IfExp) -> Value:
        test = self.expression(node.test)
        if test.type == "const":
            return self.expression(node.body if test.number else node.orelse)
        then, otherwise, after = (self.out.label(stem) for stem in ("yes", "no", "got"))
        self.out.branch(test, then, otherwise)
        self.out.begin(then)
        a = self.expression(node.body)
        kind = _kind(a)
        slot = self.out.alloca(kind)
        self.out.store(a, kind, slot)
        self.out.jump(after)
        self.out.begin(otherwise)
        b = self.expression(node.orelse)
        if not _fits(b, kind):
            raise self.fail(node, "both arms must be of one width")
        self.out.store(b, kind, slot)
        self.out.begin(after)
        return self.out.load(kind, slot)

    # --- calls ---

    def call(self, node: ast.Call) -> Value | None:
        """Emit a call that gives one value or none."""
        target = self.resolve(node.func)
        if node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
            raise self.fail(node, "arguments are given by place")
        expected = _argument_counts(target)
        if len(node.args) not in expected:
            raise self.fail(node, f"{ast.unparse(node)!r}: {len(node.args)} arguments")
        if target in (words.Word, int):
            value = self.expression(node.args[0])
            return value if value.type == "const" else self.out.word(value)
        if target is words.Wide:
            return self.out.cast(self.expression(node.args[0]), "i128")
        if target is bool:
            return self.out.cast(self.expression(node.args[0]), "i1")
        primitive: Lowering | None = self.program.primitives.get(target)
        if primitive is not None:
            return primitive(self, node.args)
        folded = self._fold(target, node.args)
        if folded is not None:
            return folded
        values = self.call_many(node)
        return values[0] if values else None

    def _fold(self, target: Any, args: list[ast.expr]) -> Value | None:
        """The result of a function that depends on constants alone."""
        if not inspect.isfunction(target) or not args or any(_is_h(a) for a in args):
            return None
        if not all(isinstance(a, ast.Constant | ast.Name | ast.Attribute | ast.BinOp) for a in args):
            return None
        values = [self.expression(a) for a in args]
        if any(v.type != "const" for v in values):
            return None
        return constant(target(*(v.number for v in values)))

    def call_many(self, node: ast.Call) -> list[Value]:
        """Emit a call of a function of the language; its values."""
        target = self.resolve(node.func)
        if not inspect.isfunction(target):
            raise self.fail(node, f"{ast.unparse(node.func)!r} cannot be called")
        if len(node.args) not in _argument_counts(target):
            raise self.fail(node, f"{ast.unparse(node)!r}: {len(node.args)} arguments")
        return self.call_function(target, [self.expression(a) if not _is_h(a) else None for a in node.args])

    def call_function(self, target: Callable[..., Any], arguments: list[Value | None]) -> list[Value]:
        """Call a function of the language; None stands for the hart."""
        bound = {
            parameter.name: Value("%h", "ptr") if argument is None else argument
            for parameter, argument in zip(
                inspect.signature(target).parameters.values(), arguments, strict=True
            )
        }
        fixed = {
            parameter.name: bound[parameter.name].number
            for parameter in inspect.signature(target).parameters.values()
            if bound[parameter.name].type == "const" and parameter.annotation in ("int", int)
        }
        return self.call_bound(target, fixed, bound)

    def call_bound(
        self, target: Callable[..., Any], fixed: dict[str, int], bound: dict[str, Value]
    ) -> list[Value]:
        """Call a function with its arguments by name; ``fixed`` are those it is specialized on."""
        passed = [value for name, value in bound.items() if name not in fixed]
        return self.call_compiled(self.program.function(target, fixed), passed)

    def call_compiled(self, compiled: Compiled, passed: list[Value], convention: str = "") -> list[Value]:
        """Call what is compiled; leaves if it raised."""
        self.effects |= compiled.effects
        arguments = ", ".join(
            f"{kind} {self.out.cast(value, kind).text}"
            for kind, value in zip(compiled.parameters, passed, strict=True)
        )
        result = compiled.result_type
        call = f"call {convention}{' ' if convention else ''}{result} {compiled.symbol}({arguments})"
        if result == "void":
            self.out.raw(call)
            return []
        returned = self.out.op(result, call)
        members = [*compiled.returns, *(["i1"] if compiled.raises else [])]
        values = [returned]
        if len(members) > 1:
            values = [
                self.out.op(kind, f"extractvalue {result} {returned.text}, {index}")
                for index, kind in enumerate(members)
            ]
        if compiled.raises:
            raised = values.pop()
            fault, fine = self.out.label("fault"), self.out.label("fine")
            self.out.branch(raised, fault, fine, unlikely=True)
            self.out.begin(fault)
            self.leave_raised()
            self.out.begin(fine)
        return values


def _kind(value: Value) -> str:
    """The type of a local variable that first holds this value."""
    if value.type != "const":
        return value.type
    return "i1" if isinstance(value.number, bool) else "i64"


def _fits(value: Value, kind: str) -> bool:
    """Whether a value can be kept as ``kind`` as it is; a condition is also the word 0 or 1."""
    if value.type == "const":
        return kind != "ptr" and (kind != "i1" or value.number in (0, 1))
    return value.type == kind or (value.type == "i1" and kind == "i64")


def _leaves(body: list[ast.stmt]) -> bool:
    """Whether control never comes out at the end."""
    match body[-1]:
        case ast.Return() | ast.Raise():
            return True
        case ast.If(body=then, orelse=otherwise):
            return bool(otherwise) and _leaves(then) and _leaves(otherwise)
        case ast.While(test=ast.Constant(value=True), body=inside):
            return not any(_breaks(statement) for statement in inside)
    return False


def _breaks(statement: ast.stmt) -> bool:
    """Whether a statement of a loop may leave it by a break."""
    if isinstance(statement, ast.If):
        return any(_breaks(inner) for inner in (*statement.body, *statement.orelse))
    return isinstance(statement, ast.Break)


def _argument_counts(target: Any) -> range:
    """How many arguments a call may have."""
    if not inspect.isfunction(target):
        return range(1, 2)
    parameters = inspect.signature(target).parameters.values()
    many = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    count = sum(p.kind is not p.VAR_POSITIONAL for p in parameters)
    return range(count, 100 if many else count + 1)


def _is_h(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "h"
