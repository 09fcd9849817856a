"""Text to machine code.

Accepted are the instructions of the instruction set in the form of their ``syntax``, pseudo-instructions,
labels (also numbered ones: ``1:``, ``1b``, ``1f``), constants (``.equ name, value``), and data directives.
Nothing is relaxed or compressed: a compressed instruction is written as such (``c.addi``). Numbers are
expressions of integers, characters, labels, ``.`` (the address here) and the usual operators.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from doppel.isa.expressions import evaluate
from doppel.isa.extensions import rv64gc
from doppel.isa.instruction import Instruction
from doppel.isa.names import ROUNDING_MODES
from doppel.isa.pseudo import PSEUDO_INSTRUCTIONS, load_immediate
from doppel.isa.syntax import OperandError, parse_operand, parse_syntax

__all__ = ["AssemblyError", "Program", "assemble", "assemble_program"]

# Bytes that one directive may leave free, so that a slip of the pen does not take all memory.
MAX_GAP = 1 << 28
NOP, C_NOP = bytes.fromhex("13000000"), bytes.fromhex("0100")


class AssemblyError(ValueError):
    """A line is not assembly language; the message begins with its number."""


@dataclass(frozen=True)
class Program:
    """Machine code for the address ``origin``, and the values of its labels and constants."""

    origin: int
    code: bytes
    symbols: dict[str, int]


def assemble(text: str, origin: int = 0, symbols: Mapping[str, int] | None = None) -> bytes:
    """The machine code of a text.

    Args:
        text: assembly language.
        origin: the address at which the code will stand.
        symbols: names that the text may use, and their values.

    Raises:
        AssemblyError: the text is wrong.
    """
    return assemble_program(text, origin, symbols).code


def assemble_program(text: str, origin: int = 0, symbols: Mapping[str, int] | None = None) -> Program:
    """The same as :func:`assemble`, with the labels of the text."""
    statements = _statements(text)
    first = _Pass(origin, dict(symbols or {}), final=False)
    first.run(statements)
    second = _Pass(origin, first.symbols, final=True)
    second.run(statements)
    names = {name: value for name, value in second.symbols.items() if not name[0].isdecimal()}
    return Program(origin, bytes(second.code), names)


@dataclass(frozen=True)
class _Statement:
    line: int
    label: str
    operation: str
    operands: tuple[str, ...]


# A string or character, or else a comment, a separator or any other character.
_LEXEME = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)')|(\#.*|//.*)|(;)|(.)""")
_LABEL = re.compile(r"\s*([A-Za-z_.$][\w.$]*|\d+)\s*:(.*)")


def _statements(text: str) -> list[_Statement]:
    statements = []
    for number, line in enumerate(text.splitlines(), 1):
        for part in _split(_LEXEME.sub(lambda m: "" if m[2] else m[0], line), ";"):
            while (label := _LABEL.fullmatch(part)) is not None:
                statements.append(_Statement(number, label[1], "", ()))
                part = label[2]
            if part.strip():
                operation, *rest = part.split(None, 1)
                operands = tuple(operand.strip() for operand in _split(rest[0], ",")) if rest else ()
                statements.append(_Statement(number, "", operation, operands))
    return statements


def _split(text: str, separator: str) -> list[str]:
    """Split at separators outside strings, characters and parentheses."""
    parts, depth = [""], 0
    for lexeme in _LEXEME.finditer(text):
        depth += (lexeme[0] == "(") - (lexeme[0] == ")")
        if lexeme[0] == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += lexeme[0]
    return parts


@cache
def _by_mnemonic() -> dict[str, Instruction]:
    mnemonics: dict[str, Instruction] = {}
    for instruction in rv64gc().instructions:
        mnemonics.setdefault(instruction.name, instruction)
    return mnemonics


_ORDERING = {".aqrl": {"aq": 1, "rl": 1}, ".aq": {"aq": 1}, ".rl": {"rl": 1}}


def _look_up(mnemonic: str) -> tuple[Instruction, dict[str, int]]:
    """The instruction, and the field values that its suffix gives."""
    if mnemonic in _by_mnemonic():
        return _by_mnemonic()[mnemonic], {}
    for suffix, values in _ORDERING.items():
        instruction = _by_mnemonic().get(mnemonic.removesuffix(suffix))
        if instruction is not None and "aq" in (field.name for field in instruction.pattern.fields):
            return instruction, values
    raise ValueError(f"no such instruction: {mnemonic}")


def _modified(name: str, value: int, start: int) -> int:
    """%hi and %lo are for lui and the instruction after it, %pcrel for auipc and the one after it."""
    if name.startswith("pcrel_"):
        name, value = name.removeprefix("pcrel_"), value - start
    if name not in ("hi", "lo"):
        raise ValueError(f"no such modifier: %{name}")
    upper = value + 0x800 >> 12
    return upper if name == "hi" else value - (upper << 12)


_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}


def _unescape(match: re.Match[str]) -> str:
    return _ESCAPED.get(match[1], match[1])


class _Pass:
    """One run through the statements. The first finds the labels, the final one emits the code."""

    def __init__(self, origin: int, symbols: dict[str, int], *, final: bool) -> None:
        self.origin = origin
        self.symbols = symbols
        self.final = final
        self.code = bytearray()
        # How often each numbered label has been passed; "1.2" is the second "1:".
        self.numbered: dict[str, int] = {}
        self.defined: set[str] = set()

    @property
    def pc(self) -> int:
        return self.origin + len(self.code)

    def run(self, statements: list[_Statement]) -> None:
        for statement in statements:
            try:
                self.statement(statement)
            except ValueError as error:
                raise AssemblyError(f"line {statement.line}: {error}") from error

    def statement(self, statement: _Statement) -> None:
        if statement.label:
            self.label(statement.label)
        elif statement.operation in _DIRECTIVES:
            count, directive = _DIRECTIVES[statement.operation]
            if len(statement.operands) != (count or max(1, len(statement.operands))):
                raise ValueError(f"{statement.operation} takes {count or 'some'} operands")
            directive(self, statement.operands)
        else:
            self.instruction(statement.operation, statement.operands)

    def label(self, name: str) -> None:
        if name.isdecimal():
            self.numbered[name] = self.numbered.get(name, 0) + 1
            name = f"{name}.{self.numbered[name]}"
        self.define(name, self.pc)

    def define(self, name: str, value: int) -> None:
        if name in self.defined:
            raise ValueError(f"{name} is defined twice")
        self.defined.add(name)
        self.symbols[name] = value

    # --- instructions ---

    def instruction(self, mnemonic: str, operands: tuple[str, ...]) -> None:
        if mnemonic == "li" and len(operands) == 2:
            value = self.known(operands[1])
            if not -1 << 63 <= value < 1 << 64:
                raise ValueError(f"{operands[1]} has more than 64 bits")
            expansion = tuple(load_immediate(operands[0], value))
        else:
            templates = PSEUDO_INSTRUCTIONS.get((mnemonic, len(operands)))
            if templates is None:
                self.encode(mnemonic, operands, self.pc)
                return
            expansion = tuple(template.format(*operands) for template in templates)
        start = self.pc
        for text in expansion:
            base, _, rest = text.partition(" ")
            self.encode(base, tuple(o.strip() for o in _split(rest, ",")), start)

    def encode(self, mnemonic: str, operands: tuple[str, ...], start: int) -> None:
        """Emit one instruction; ``start`` is the address that %pcrel is relative to."""
        instruction, values = _look_up(mnemonic)
        if self.final:
            # Fields that the syntax does not name are zero.
            values = {field.name: field.bias for field in instruction.pattern.fields} | values
            word = instruction.pattern.encode(values | self.operand_values(instruction, operands, start))
            if not instruction.matches(word):
                raise OperandError(f"reserved encoding of {mnemonic}")
        else:
            word = 0
        self.code += word.to_bytes(instruction.length, "little")

    def operand_values(
        self, instruction: Instruction, operands: tuple[str, ...], start: int
    ) -> dict[str, int]:
        wanted = parse_syntax(instruction.syntax)
        values: dict[str, int] = {}
        if wanted and wanted[-1].kind == "rounding" and len(operands) == len(wanted) - 1:
            values[wanted[-1].field] = ROUNDING_MODES["dyn"]
            wanted = wanted[:-1]
        if len(operands) != len(wanted):
            raise OperandError(f"{instruction.name} takes {instruction.syntax or 'no operands'}")
        for operand, text in zip(wanted, operands, strict=True):
            values |= parse_operand(operand, text, lambda number: self.evaluate(number, start), self.pc)
        return values

    # --- expressions ---

    def evaluate(self, text: str, start: int) -> int:
        """The value of an expression in an instruction or directive that begins at ``start``.

        In the first pass a label that is still to come counts as the address here.
        """
        return evaluate(
            text,
            lambda name: start if name == "." else self.symbol(name, forward=True),
            lambda name, value: _modified(name, value, start),
        )

    def known(self, text: str) -> int:
        """The value of an expression on which sizes depend: all names must be defined above."""
        return evaluate(
            text,
            lambda name: self.pc if name == "." else self.symbol(name, forward=False),
            lambda name, value: _modified(name, value, self.pc),
        )

    def symbol(self, name: str, *, forward: bool) -> int:
        if name[0].isdecimal():
            passed = self.numbered.get(name[:-1], 0)
            name = f"{name[:-1]}.{passed if name.endswith('b') else passed + 1}"
        if name in self.symbols:
            return self.symbols[name]
        if forward and not self.final:
            return self.pc
        raise ValueError(f"{name} is not defined" if forward else f"{name} is not defined above")

    # --- directives ---

    def integers(self, operands: tuple[str, ...], size: int) -> None:
        for text in operands:
            value = self.evaluate(text, self.pc)
            if self.final and not -1 << 8 * size - 1 <= value < 1 << 8 * size:
                raise ValueError(f"{text} does not fit into {size} bytes")
            self.code += (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def strings(self, operands: tuple[str, ...], end: bytes) -> None:
        for text in operands:
            if len(text) < 2 or text[0] != '"' or text[-1] != '"':
                raise ValueError(f"not a string: {text}")
            self.code += _ESCAPE.sub(_unescape, text[1:-1]).encode() + end

    def align(self, boundary: int) -> None:
        """Pad with instructions that do nothing, as far as whole ones fit."""
        if not 0 < boundary <= MAX_GAP or boundary & boundary - 1:
            raise ValueError(f"cannot align to {boundary} bytes")
        padding = -self.pc % boundary
        self.code += bytes(padding & 1)
        self.code += C_NOP * (padding >> 1 & 1) + NOP * (padding >> 2)

    def zeros(self, count: int) -> None:
        if not 0 <= count <= MAX_GAP:
            raise ValueError(f"cannot leave {count} bytes free")
        self.code += bytes(count)


_Directive = Callable[[_Pass, tuple[str, ...]], None]


def _data(size: int) -> tuple[None, _Directive]:
    return None, lambda run, operands: run.integers(operands, size)


# The number of operands, if it is fixed, and what a directive does.
_DIRECTIVES: dict[str, tuple[int | None, _Directive]] = {
    ".byte": _data(1),
    ".half": _data(2),
    ".word": _data(4),
    ".dword": _data(8),
    ".quad": _data(8),
    ".ascii": (None, lambda run, operands: run.strings(operands, b"")),
    ".asciz": (None, lambda run, operands: run.strings(operands, b"\0")),
    ".string": (None, lambda run, operands: run.strings(operands, b"\0")),
    # As in other RISC-V assemblers, the operand of .align is a power of two.
    ".align": (1, lambda run, operands: run.align(1 << (run.known(operands[0]) & 63))),
    ".balign": (1, lambda run, operands: run.align(run.known(operands[0]))),
    ".zero": (1, lambda run, operands: run.zeros(run.known(operands[0]))),
    ".skip": (1, lambda run, operands: run.zeros(run.known(operands[0]))),
    ".equ": (2, lambda run, operands: run.define(operands[0], run.known(operands[1]))),
    ".set": (2, lambda run, operands: run.define(operands[0], run.known(operands[1]))),
}
