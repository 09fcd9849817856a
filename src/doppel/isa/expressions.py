"""Integer expressions of the assembler, with the operators and precedence of C."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

__all__ = ["evaluate"]

Function = Callable[[int, int], int]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F_]+|0[bB][01_]+|\d[\d_]*(?![\d_]*[bf]\b))"
    r"|(?P<name>\d+[bf]\b|[A-Za-z_.$][\w.$]*)"
    r"|'(?P<character>[^'\\]|\\.)'"
    r"|(?P<operator><<|>>|[-+*/&|^~()])"
    r"|%(?P<modifier>[a-z_]+)(?=\())"
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}


def _quotient(a: int, b: int) -> int:
    if b == 0:
        raise ValueError("division by zero")
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _shift(function: Function) -> Function:
    def shift(a: int, b: int) -> int:
        if not 0 <= b < 64:
            raise ValueError(f"shift by {b}")
        return function(a, b)

    return shift


_BINARY: dict[str, tuple[int, Function]] = {
    "|": (1, operator.or_),
    "^": (2, operator.xor),
    "&": (3, operator.and_),
    "<<": (4, _shift(operator.lshift)),
    ">>": (4, _shift(operator.rshift)),
    "+": (5, operator.add),
    "-": (5, operator.sub),
    "*": (6, operator.mul),
    "/": (6, _quotient),
}
_UNARY: dict[str, Callable[[int], int]] = {"-": operator.neg, "+": operator.pos, "~": operator.invert}


def evaluate(text: str, symbol: Callable[[str], int], modify: Callable[[str, int], int]) -> int:
    """The value of an expression.

    Args:
        text: the expression.
        symbol: gives the values of names, among them ``.`` and numbered labels (``1b``).
        modify: gives the value of ``%name(value)``.

    Raises:
        ValueError: the text is not an expression; ``symbol`` and ``modify`` may raise too.
    """
    parser = _Parser(text, symbol, modify)
    value = parser.binary(1)
    if parser.tokens:
        raise ValueError(f"not an expression: {text!r}")
    return value


class _Parser:
    """Precedence climbing over a list of tokens: pairs of kind and text."""

    def __init__(self, text: str, symbol: Callable[[str], int], modify: Callable[[str, int], int]) -> None:
        self.text = text
        self.symbol = symbol
        self.modify = modify
        self.tokens: list[tuple[str, str]] = []
        position, stripped = 0, text.rstrip()
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None or match.lastgroup is None:
                raise ValueError(f"not an expression: {text!r}")
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()
        self.tokens.reverse()

    def next(self) -> tuple[str, str]:
        if not self.tokens:
            raise ValueError(f"not an expression: {self.text!r}")
        return self.tokens.pop()

    def binary(self, lowest: int) -> int:
        value = self.unary()
        while self.tokens and self.tokens[-1][1] in _BINARY and self.tokens[-1][0] == "operator":
            precedence, function = _BINARY[self.tokens[-1][1]]
            if precedence < lowest:
                break
            self.tokens.pop()
            value = function(value, self.binary(precedence + 1))
        return value

    def unary(self) -> int:
        kind, token = self.next()
        match kind:
            case "number":
                return int(token, 0) if token.lower().startswith(("0x", "0b")) else int(token)
            case "character":
                return ord(_ESCAPES.get(token[1], token[1]) if token[0] == "\\" and len(token) > 1 else token)
            case "name":
                return self.symbol(token)
            case "modifier":
                return self.modify(token, self.unary())
        if token == "(":
            value = self.binary(1)
            if self.next() != ("operator", ")"):
                raise ValueError(f"not an expression: {self.text!r}")
            return value
        if token not in _UNARY:
            raise ValueError(f"not an expression: {self.text!r}")
        return _UNARY[token](self.unary())
