"""Instructions as data: a pattern and a body each, gathered by extension.

A body is a function in the language of :mod:`doppel.isa.words`. Its parameter names say what it needs:

* ``h``: the hart; ``pc``, ``next_pc``: this instruction's address and the one behind it;
* ``rs1 rs2 rs3``: integer register values; ``fs1 fs2 fs3``: floating-point registers as 64 raw bits;
* ``rd_index rs1_index rs2_index``: register numbers;
* any other field of the pattern by its name (``imm``, ``shamt``, ``csr``, ``rm``, ``zimm``), sign-extended
  where signed.

What it returns is written to ``rd`` (or ``fd``, whichever the pattern names); a body that returns nothing
writes no register.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from doppel.isa.encoding import Operands, Pattern

__all__ = ["Body", "Extension", "Instruction", "InstructionSet"]

Body = Callable[..., Any]

DECODE_KEYS = 256 + 32


@dataclass(frozen=True)
class Instruction:
    """One instruction: ``name`` is the assembler's mnemonic.

    A compressed instruction has the body of the instruction it expands to, and ``bindings`` that give each
    operand slot of that instruction the name of a field here or a constant.
    """

    name: str
    extension: str
    pattern: Pattern
    body: Body
    syntax: str
    nonzero: str = ""
    expands: Instruction | None = None
    bindings: dict[str, str | int] = field(default_factory=dict)

    @property
    def base(self) -> Instruction:
        """The instruction whose body runs."""
        return self.expands or self

    @property
    def length(self) -> int:
        """Bytes."""
        return self.pattern.length

    @property
    def nonzero_mask(self) -> int:
        """Instruction bits of which at least one must be set, or 0."""
        return self.pattern.field(self.nonzero).mask if self.nonzero else 0

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the body's parameters."""
        return tuple(inspect.signature(self.body).parameters)

    @property
    def destination(self) -> str:
        """``"rd"``, ``"fd"`` or ``""``: the register that takes what the body returns."""
        names = {f.name for f in self.base.pattern.fields}
        return "fd" if "fd" in names else "rd" if "rd" in names else ""

    def matches(self, word: int) -> bool:
        """Whether the word is this instruction."""
        if word & self.pattern.mask != self.pattern.match:
            return False
        return not self.nonzero or word & self.nonzero_mask != 0

    def operands(self, word: int) -> Operands:
        """The operands in a word that :meth:`matches`."""
        operands = Operands()
        if self.expands is None:
            for f in self.pattern.fields:
                if f.slot:
                    setattr(operands, f.slot, f.extract(word))
            return operands
        for slot, source in self.bindings.items():
            value = source if isinstance(source, int) else self.pattern.field(source).extract(word)
            setattr(operands, slot, value)
        return operands


class Extension:
    """A named group of instructions, in the order of definition: of two that match, the first is meant."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.instructions: list[Instruction] = []

    def instruction(
        self, pattern: str, *, name: str = "", syntax: str | None = None
    ) -> Callable[[Body], Body]:
        """Define an instruction; its mnemonic is the function's name with dots for underscores."""

        def define(body: Body) -> Body:
            mnemonic = name or body.__name__.rstrip("_").replace("_", ".")
            parsed = Pattern.parse(pattern)
            self.instructions.append(
                Instruction(
                    mnemonic, self.name, parsed, body, _default_syntax(parsed) if syntax is None else syntax
                )
            )
            return body

        return define

    def compressed(
        self,
        name: str,
        pattern: str,
        expands: Extension,
        base: str,
        *,
        nonzero: str = "",
        syntax: str | None = None,
        **bindings: str | int,
    ) -> None:
        """Define a 16-bit form of ``base``: ``rd="rd'", rs1=2, imm="nzuimm"`` and so on; slots not given
        are 0."""
        instruction = next(i for i in expands.instructions if i.name == base)
        parsed = Pattern.parse(pattern)
        self.instructions.append(
            Instruction(
                name,
                self.name,
                parsed,
                instruction.body,
                _default_syntax(parsed) if syntax is None else syntax,
                nonzero,
                instruction,
                bindings,
            )
        )


def _default_syntax(pattern: Pattern) -> str:
    """Operands in the assembler's usual order: destination, sources, then the immediate."""
    slots = ("rd", "rs1", "rs2", "rs3", "imm")
    fields = [f for f in pattern.fields if f.slot]
    fields.sort(key=lambda f: slots.index(f.slot))
    return ", ".join(f.name for f in fields)


class InstructionSet:
    """The instructions of a set of extensions, decodable."""

    def __init__(self, extensions: list[Extension]) -> None:
        self.extensions = tuple(extension.name for extension in extensions)
        self.instructions = [i for extension in extensions for i in extension.instructions]
        self._by_key: dict[int, list[Instruction]] = {}
        for instruction in self.instructions:
            for key in decode_keys(instruction.pattern):
                self._by_key.setdefault(key, []).append(instruction)

    def decode(self, word: int) -> Instruction | None:
        """The instruction that a word (its low 16 bits, if compressed) encodes; None if it is illegal."""
        if word & 3 != 3:
            word &= 0xFFFF
        for instruction in self._by_key.get(decode_key(word), ()):
            if instruction.matches(word):
                return instruction
        return None

    def __getitem__(self, name: str) -> Instruction:
        for instruction in self.instructions:
            if instruction.name == name:
                return instruction
        raise KeyError(name)


def decode_key(word: int) -> int:
    """A number below DECODE_KEYS by which instructions are sorted: major opcode or quadrant, and funct3."""
    if word & 3 == 3:
        return word >> 2 & 0x1F | (word >> 12 & 7) << 5
    return word & 3 | (word >> 13 & 7) << 2 | 256


def decode_keys(pattern: Pattern) -> list[int]:
    """Every key that a word of this pattern can have."""
    bits = {3, 2, 1, 0, 4, 5, 6, 12, 13, 14} if pattern.width == 32 else {0, 1, 13, 14, 15}
    free = [bit for bit in sorted(bits) if not pattern.mask >> bit & 1]
    keys = set()
    for choice in range(1 << len(free)):
        word = pattern.match
        for position, bit in enumerate(free):
            word |= (choice >> position & 1) << bit
        keys.add(decode_key(word))
    return sorted(keys)
