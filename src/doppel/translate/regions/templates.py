"""Templates: the LLVM IR of every instruction that can stand in a region, made once from its definition.

A template is the lowered body with placeholders for what differs from one occurrence to the next: a prefix
for names, the operands, and the labels that the region provides. Regions are then put together by replacing
text, which takes microseconds an instruction. Templates are made when the engine is built, and kept with it,
since both must agree on the *helpers*: functions of the engine that regions call through a table of pointers
in the hart.
"""

from __future__ import annotations

import msgspec

__all__ = ["HANDLER_HELPERS", "PREFIX", "Template", "TemplateKit", "placeholder"]

# The first of the helpers: handlers of the engine, which regions jump to.
HANDLER_HELPERS = ("attend", "enter", "attend_at", "interpret_at", "decode")
PREFIX = "<n>"


def placeholder(name: str) -> str:
    """What stands for an operand or a label in a template's text."""
    return f"<{name}>"


class Template(msgspec.Struct, frozen=True):
    """An instruction as IR.

    ``kind``: ``plain`` goes on behind itself; ``branch`` goes to pc + imm if ``value`` (i1) holds; ``jal``
    always does; ``jump`` goes to the address ``value``. ``result`` is what ``destination`` (``rd``, ``fd`` or
    empty) gets. ``leaves``: the text goes to ``<leave>`` where the interpreter must execute the instruction,
    nothing having happened yet. ``fp``: it stands for the instruction only while FS is Dirty and, for a
    dynamic rounding mode, frm is RNE. ``single``: it boxes or unboxes a single-precision number. Registers
    are words, but as operands ``ds1`` to ``ds3`` doubles; the result is one if ``double``. ``access``: the
    kind and size of the load or store at rs1 + imm that it is; ``direct`` is then the same with the address
    in the host given as the operand ``host``.
    """

    kind: str
    operands: tuple[str, ...]
    text: str
    allocas: tuple[str, ...]
    value: str = ""
    result: str = ""
    destination: str = ""
    leaves: bool = False
    fp: bool = False
    single: bool = False
    double: bool = False
    access: str = ""
    direct: Template | None = None


class TemplateKit(msgspec.Struct, frozen=True):
    """What regions are put together from: the templates by mnemonic, with the rounding mode behind a space
    where there is one, and the declarations that they need. ``probes``, by kind and size of an access, give
    as ``value`` the host address that guest-virtual address zero has for the page of ``address``.
    """

    templates: dict[str, Template]
    probes: dict[str, Template]
    declarations: str
