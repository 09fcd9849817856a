"""The functions of one LLVM module, compiled on demand.

A function that may raise a trap returns, besides its values, a flag; the cause and value of the trap are in
the hart's ``pending_cause`` and ``pending_value``. Parameters annotated ``int`` are compile-time constants:
each set of them makes a function of its own.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from doppel.translate.compiled import TYPES, Compiled, parse_function
from doppel.translate.emitter import LoweringError, Value, constant
from doppel.translate.lower import FunctionLowering, Lowering

__all__ = ["Program"]

# A function of at most this many syntax nodes is compiled into its callers.
_INLINE_NODES = 45


class Program:
    """Functions in one LLVM module, compiled on demand.

    ``primitives`` maps a Python function to what emits native code for a call of it.
    """

    def __init__(self, primitives: dict[Any, Lowering]) -> None:
        self.primitives = primitives
        self.texts: list[str] = []
        self._compiled: dict[tuple[Any, ...], Compiled] = {}
        self._in_progress: set[Any] = set()

    def function(self, source: Callable[..., Any], constants: dict[str, int] | None = None) -> Compiled:
        """The compiled form of a Python function, with some parameters fixed."""
        fixed = constants or {}
        key = (source, *sorted(fixed.items()))
        known = self._compiled.get(key)
        if known is not None:
            return known
        if key in self._in_progress:
            raise LoweringError(f"{source.__qualname__} calls itself")
        self._in_progress.add(key)
        suffix = "".join(f"_{value}" for value in fixed.values())
        stem = f"{source.__module__.rpartition('.')[2]}.{source.__name__}{suffix}"
        symbol = f"@{stem.replace('-', 'm')}.{len(self._compiled)}"
        try:
            compiled, text = _compile_function(self, source, fixed, symbol)
        finally:
            self._in_progress.discard(key)
        self._compiled[key] = compiled
        self.texts.append(text)
        return compiled

    def add(self, key: Any, compiled: Compiled, text: str) -> Compiled:
        """Enter a function whose text was made elsewhere."""
        self._compiled[(key,)] = compiled
        self.texts.append(text)
        return compiled


def _annotation(node: ast.arg) -> str:
    return node.annotation.id if isinstance(node.annotation, ast.Name) else ""


def _compile_function(
    program: Program, source: Callable[..., Any], fixed: dict[str, int], symbol: str
) -> tuple[Compiled, str]:
    tree = parse_function(source)
    values: dict[str, Value] = {}
    signature = []
    for argument in tree.args.args:
        if argument.arg in fixed:
            values[argument.arg] = constant(fixed[argument.arg])
            continue
        kind = "ptr" if argument.arg == "h" else TYPES.get(_annotation(argument), "i64")
        # The hart is %h everywhere; other parameters get names that no label has.
        name = "%h" if argument.arg == "h" else f"%p.{argument.arg}"
        values[argument.arg] = Value(name, kind)
        signature.append((name, kind))
    compiled = Compiled(symbol, [kind for _, kind in signature])
    lowering = FunctionLowering(program, source, tree, values)
    lowering.run()
    compiled.returns = lowering.returns or []
    compiled.raises = "raises" in lowering.effects
    compiled.effects = lowering.effects
    out = lowering.out
    result = compiled.result_type
    out.jump("leave")
    out.lines.append("leave:")
    out.terminated = False
    results = [
        out.load(kind, slot) for kind, slot in zip(compiled.returns, lowering.result_slots, strict=True)
    ]
    if compiled.raises:
        results.append(out.load("i1", lowering.raised_slot))
    if result == "void":
        out.terminate("ret void")
    elif len(results) == 1:
        out.terminate(f"ret {result} {results[0].text}")
    else:
        aggregate = "undef"
        for index, value in enumerate(results):
            aggregate = out.op(
                result, f"insertvalue {result} {aggregate}, {value.type} {value.text}, {index}"
            ).text
        out.terminate(f"ret {result} {aggregate}")
    nodes = sum(1 for _ in ast.walk(tree))
    loops = any(isinstance(node, ast.While) for node in ast.walk(tree))
    compiled.small = nodes <= _INLINE_NODES and not loops
    attribute = "alwaysinline" if compiled.small else "noinline"
    parameters = ", ".join(f"{kind} {name}" for name, kind in signature)
    text = f"define internal {result} {symbol}({parameters}) {attribute} nounwind {{\n{out.body()}\n}}\n"
    return compiled, text
