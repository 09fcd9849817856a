"""Machine code to text, in the assembler's plain form: canonical mnemonics, no pseudo-instructions."""

from __future__ import annotations

from functools import cache

from doppel.isa.extensions import rv64gc
from doppel.isa.instruction import Instruction, InstructionSet
from doppel.isa.names import ROUNDING_MODES
from doppel.isa.syntax import format_operand, parse_syntax

__all__ = ["disassemble"]

_ORDERING = ("", ".rl", ".aq", ".aqrl")


@cache
def _standard() -> InstructionSet:
    return rv64gc()


def disassemble(word: int, pc: int = 0, instructions: InstructionSet | None = None) -> str:
    """The text of one instruction at address ``pc``; branch targets are written as addresses.

    ``word`` holds its 32 bits; of a compressed one only the lower 16 count. What is not an instruction comes
    out as ``.word`` or, where the bits say it is compressed, ``.half``.
    """
    instruction = (instructions or _standard()).decode(word)
    if instruction is None:
        return f".word {word & 0xFFFFFFFF:#010x}" if word & 3 == 3 else f".half {word & 0xFFFF:#06x}"
    values = {field.name: field.extract(word) for field in instruction.pattern.fields}
    operands = [
        format_operand(operand, values, pc)
        for operand in parse_syntax(instruction.syntax)
        # The dynamic rounding mode is what is meant when none is written.
        if operand.kind != "rounding" or values[operand.field] != ROUNDING_MODES["dyn"]
    ]
    return f"{_mnemonic(instruction, values)} {', '.join(operands)}".rstrip()


def _mnemonic(instruction: Instruction, values: dict[str, int]) -> str:
    if "aq" in values:
        return instruction.name + _ORDERING[values["aq"] << 1 | values["rl"]]
    return instruction.name
