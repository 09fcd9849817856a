"""What is known of a compiled function, and its source as a syntax tree."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from doppel.translate.emitter import LoweringError

__all__ = ["TYPES", "Compiled", "Functions", "parse_function"]

# LLVM types by the annotations of the language; every other parameter is a word.
TYPES = {"bool": "i1", "Wide": "i128", "Pointer": "ptr"}


@dataclass
class Compiled:
    """A compiled function, as a caller needs to know it."""

    symbol: str
    parameters: list[str]
    returns: list[str] = field(default_factory=list)
    raises: bool = False
    #: Small and without loops: compiled into its callers.
    small: bool = False
    effects: set[str] = field(default_factory=set)

    @property
    def result_type(self) -> str:
        """The LLVM type it returns."""
        members = [*self.returns, *(["i1"] if self.raises else [])]
        if not members:
            return "void"
        return members[0] if len(members) == 1 else "{ " + ", ".join(members) + " }"


class Functions(Protocol):
    """Where the code being compiled finds what it calls."""

    @property
    def primitives(self) -> dict[Any, Any]:
        """What emits native code for a call of a Python function, by that function."""

    def function(self, source: Callable[..., Any], constants: dict[str, int] | None = None) -> Compiled:
        """The compiled form of a Python function, with some parameters fixed."""


def parse_function(source: Callable[..., Any]) -> ast.FunctionDef:
    """The syntax tree of a function.

    Raises:
        LoweringError: it is something else, or has other than plain parameters.
    """
    name = getattr(source, "__qualname__", repr(source))
    tree = (
        ast.parse(textwrap.dedent(inspect.getsource(source))).body[0] if inspect.isfunction(source) else None
    )
    if not isinstance(tree, ast.FunctionDef):
        raise LoweringError(f"{name} is not a plain function")
    arguments = tree.args
    if arguments.defaults or arguments.kwonlyargs or arguments.vararg or arguments.kwarg:
        raise LoweringError(f"{name} has other than plain parameters, or defaults for them")
    return tree
