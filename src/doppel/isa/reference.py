"""The instruction reference page, written from the definitions.

``python -m doppel.isa.reference > docs/reference/instructions.md`` brings the page up to date.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap

from doppel.isa.extensions import EXTENSIONS, isa_string
from doppel.isa.instruction import Extension, Instruction
from doppel.isa.names import F_NAMES, X_NAMES

__all__ = ["reference_page"]

_HEAD = """\
# Instructions

Every instruction of the machine that guests see:

    {isa}

This page is generated from the definitions that also make the decoder, the native code, the assembler and the
reference model:

    python -m doppel.isa.reference > docs/reference/instructions.md

Each entry has the assembler's syntax, the encoding from the most significant bit down, and the meaning in the
language of `doppel.isa.words`: 64-bit unsigned words that wrap, of which `rs1` and `fs1` are values of
registers and `rs1_index` is a register's number. What is returned goes to `rd` or `fd`. What an instruction
asks of the hart around it (`load`, `jump`...) is in `doppel.isa.primitives`. A compressed instruction shows
what it expands to.
"""


def reference_page() -> str:
    """The page, in Markdown."""
    sections = [_section(extension) for extension in EXTENSIONS if extension.instructions]
    return "\n".join([_HEAD.format(isa=isa_string()), *sections])


def _section(extension: Extension) -> str:
    entries = "\n\n".join(_entry(instruction) for instruction in extension.instructions)
    return f"## {extension.name}\n\n```text\n{entries}\n```\n"


def _entry(instruction: Instruction) -> str:
    written = f"{instruction.name} {instruction.syntax}".strip()
    head = f"{written:<36}{instruction.pattern.text}"
    if instruction.nonzero:
        head += f"  ({instruction.nonzero} not 0)"
    return f"{head}\n{textwrap.indent(_meaning(instruction), '    ')}"


def _meaning(instruction: Instruction) -> str:
    if instruction.expands is not None:
        return f"{instruction.expands.name} {_expanded_syntax(instruction, instruction.expands)}".strip()
    source = textwrap.dedent(inspect.getsource(instruction.body))
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    body = textwrap.dedent("\n".join(source.splitlines()[function.body[0].lineno - 1 :]))
    # A body that several formats share names what sets them apart.
    constants = inspect.getclosurevars(instruction.body).nonlocals
    shown = [
        f"{name} = {value:#x}" if value > 64 else f"{name} = {value}" for name, value in constants.items()
    ]
    return f"where {', '.join(shown)}\n{body}" if shown else body


def _expanded_syntax(instruction: Instruction, base: Instruction) -> str:
    """The operands of the base instruction, in the names of the compressed one's fields."""
    fields = {field.name: field for field in base.pattern.fields}

    def substitute(match: re.Match[str]) -> str:
        field = fields.get(match[0])
        if field is None:
            return match[0]
        source = instruction.bindings.get(field.slot, 0)
        if isinstance(source, str) or field.slot == "imm":
            return str(source)
        return (F_NAMES if field.name.startswith("f") else X_NAMES)[source]

    return re.sub(r"[a-z][a-z0-9]*", substitute, base.syntax)


if __name__ == "__main__":
    sys.stdout.write(reference_page())
