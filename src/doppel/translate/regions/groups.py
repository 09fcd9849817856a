"""Accesses of a block that have the same base register can share one look into the TLB.

A prologue that saves registers, a loop that copies by the word and the fields of a structure are such groups.
They must lie in one page; where they do not, the interpreter executes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from doppel.translate.regions.flow import writes
from doppel.translate.regions.graph import Block, Step

__all__ = ["Group", "groups"]

# Bytes from the first to the last: the more, the likelier is a page's end between them.
_LONGEST = 512


@dataclass(frozen=True)
class Group:
    """Accesses in order, from ``low`` up to ``high`` bytes behind what the register ``base`` holds.

    The one at ``anchor`` is as large as any, so that all are aligned if it is. ``probe``: kind and size to
    look up.
    """

    steps: tuple[Step, ...]
    base: int
    anchor: int
    low: int
    high: int
    probe: str


def groups(block: Block) -> list[Group]:
    """The groups of a block that are worth it."""
    found = []
    open_groups: dict[int, list[Step]] = {}
    for step in block.steps:
        if step.template.direct is not None and step.rs1:
            members = open_groups.get(step.rs1, [])
            # D is not set before a store is certain (privileged manual, Svadu), so one begins a group.
            if members and _stores(step) and not _stores(members[0]):
                found.append(open_groups.pop(step.rs1))
            open_groups.setdefault(step.rs1, []).append(step)
        changed = writes(step)
        for base in [base for base in open_groups if changed >> base & 1]:
            found.append(open_groups.pop(base))
    found.extend(open_groups.values())
    made = (_group(members) for members in found)
    return [group for group in made if group is not None]


def _stores(step: Step) -> bool:
    return step.template.access.startswith("store")


def _size(step: Step) -> int:
    return int(step.template.access.split()[1])


def _group(members: list[Step]) -> Group | None:
    first = members[0]
    anchor = max(members, key=_size)
    near = [
        step
        for step in members
        if (step.imm - anchor.imm) % _size(step) == 0 and -_LONGEST < step.imm - first.imm < _LONGEST
    ]
    if len(near) < 2 or first not in near or anchor not in near:
        return None
    low = min(step.imm for step in near)
    high = max(step.imm + _size(step) for step in near)
    kind = "store" if _stores(first) else "load"
    return Group(tuple(near), first.rs1, anchor.imm, low, high, f"{kind} {_size(anchor)}")
