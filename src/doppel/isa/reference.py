"""The reference pages of instructions and CSRs, written from the definitions.

``python -m doppel.isa.reference instructions > docs/reference/instructions.md`` brings a page up to date, and
``csrs`` the other.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from doppel.isa.csr import CSR_TABLE, Csr
from doppel.isa.extensions import EXTENSIONS, isa_string
from doppel.isa.instruction import Extension, Instruction
from doppel.isa.names import F_NAMES, X_NAMES
from doppel.isa.privileged.constants import Mode
from doppel.isa.words import MASK64

__all__ = ["PAGES", "csr_page", "instruction_page"]

_HEAD = """\
# Instructions

Every instruction of the machine that guests see:

    {isa}

This page is generated from the definitions that also make the decoder, the native code, the assembler and the
reference model:

    python -m doppel.isa.reference instructions > docs/reference/instructions.md

Each entry has the assembler's syntax, the encoding from the most significant bit down, and the meaning in the
language of `doppel.isa.words`: 64-bit unsigned words that wrap, of which `rs1` and `fs1` are values of
registers and `rs1_index` is a register's number. What is returned goes to `rd` or `fd`. What an instruction
asks of the hart around it (`load`, `jump`...) is in `doppel.isa.primitives`. A compressed instruction shows
what it expands to.
"""


_CSR_HEAD = """\
# Control and status registers

Every CSR of the machine's harts. This page is generated from the table that the native code, the reference
model and the debugger's registers come from too:

    python -m doppel.isa.reference csrs > docs/reference/csrs.md

*Access* is the lowest mode that may read or write a register, as its number says. *A write changes* names the
bits that can be written; the others keep their value, and a write to them is not an exception. Where it says
*see below*, the text behind the table has the register's own functions, in the language of
`doppel.isa.words`.

"""


def instruction_page() -> str:
    """The page of instructions, in Markdown."""
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
    body = _body_text(instruction.body)
    # A body that several formats share names what sets them apart.
    constants = inspect.getclosurevars(instruction.body).nonlocals
    shown = [
        f"{name} = {value:#x}" if value > 64 else f"{name} = {value}" for name, value in constants.items()
    ]
    return f"where {', '.join(shown)}\n{body}" if shown else body


def _body_text(function: Callable[..., Any]) -> str:
    source = textwrap.dedent(inspect.getsource(function))
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.FunctionDef)
    return textwrap.dedent("\n".join(source.splitlines()[definition.body[0].lineno - 1 :]))


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


def csr_page() -> str:
    """The page of CSRs, in Markdown."""
    families = list(_families())
    lines = ["| number | name | access | what it is | a write changes |", "|---|---|---|---|---|"]
    for family in families:
        numbers = _span([f"{row.number:#05x}" for row in family])
        names = _span([f"`{row.name}`" for row in family])
        lines.append(
            f"| {numbers} | {names} | {_access(family[0])} | {family[0].doc} | {_changes(family[0])} |"
        )
    own = "\n\n".join(_functions(family) for family in families if family[0].read or family[0].write)
    return _CSR_HEAD + "\n".join(lines) + f"\n\n```text\n{own}\n```\n"


def _families() -> list[list[Csr]]:
    """The rows by number, those that differ only in it together."""
    families: list[list[Csr]] = []
    for row in sorted(CSR_TABLE, key=lambda row: row.number):
        before = families[-1][0] if families else None
        if before and (row.doc, row.read, row.write) == (before.doc, before.read, before.write):
            families[-1].append(row)
        else:
            families.append([row])
    return families


def _span(names: list[str]) -> str:
    return f"{names[0]} to {names[-1]}" if len(names) > 2 else ", ".join(names)


def _access(row: Csr) -> str:
    mode = Mode(row.number >> 8 & 3).name
    return f"{mode}, read" if row.number >> 10 == 3 else f"{mode}, read and write"


def _changes(row: Csr) -> str:
    if row.number >> 10 == 3:
        return "is an exception"
    if row.write is not None:
        return "see below"
    if not row.field or not row.write_mask:
        return f"nothing: it is {row.constant:#x}" if not row.field else "nothing"
    return "all bits" if row.write_mask == MASK64 else f"{row.write_mask:#x}"


def _functions(family: list[Csr]) -> str:
    row = family[0]
    parts = [_span([member.name for member in family])]
    for word, function in (("read", row.read), ("write", row.write)):
        if function is not None:
            parts += [f"    {word}:", textwrap.indent(_body_text(function), " " * 8)]
    return "\n".join(parts)


PAGES: dict[str, Callable[[], str]] = {"instructions": instruction_page, "csrs": csr_page}
"""The generated pages of docs/reference, by name."""


if __name__ == "__main__":
    sys.stdout.write(PAGES[sys.argv[1]]())
