"""What is known of registers at each point of a region: which may be changed, and which are needed.

Sets of registers are bits of a number: x1 to x31, then f0 to f31 as 32 to 63.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from dataclasses import dataclass

from doppel.translate.regions.graph import Block, Graph, Step

__all__ = ["Flow", "analyse", "reads", "writes"]

_OPERANDS = {"rs1": "rs1", "rs2": "rs2", "rs3": "rs3"}
_FP_OPERANDS = {f"{kind}s{n}": f"rs{n}" for kind in "fd" for n in (1, 2, 3)}


def reads(step: Step) -> int:
    """The registers that an instruction reads."""
    found = 0
    for operand in step.template.operands:
        if operand in _OPERANDS:
            found |= 1 << getattr(step, operand)
        elif operand in _FP_OPERANDS:
            found |= 1 << 32 + getattr(step, _FP_OPERANDS[operand])
    return found & ~1


def writes(step: Step) -> int:
    """The register that an instruction writes."""
    if step.template.destination == "fd":
        return 1 << 32 + step.rd
    if step.template.destination == "rd":
        return 1 << step.rd & ~1
    return 0


@dataclass
class Flow:
    """By block: ``loop``, a number that it shares with those with which it forms a loop, or -1; ``dirty``,
    what may have been changed there and is not in the hart; ``live``, what must be in a host register at its
    beginning; ``guarded``, whether floating point is known to be on and rounding to nearest.

    In loops registers are put into the hart only on the ways out. Elsewhere that is done where they are
    changed: it costs little that is executed once, and the ways out are many and then short.
    """

    loop: dict[int, int]
    dirty: dict[int, int]
    live: dict[int, int]
    guarded: dict[int, bool]


def analyse(graph: Graph) -> Flow:
    """Find out by iterating until nothing changes any more."""
    blocks = graph.blocks
    predecessors: dict[int, list[int]] = {start: [] for start in blocks}
    for block in blocks.values():
        for successor in block.successors:
            predecessors[successor].append(block.start)
    loop = _loops(blocks)
    changed_by = {
        start: _union(writes(step) for step in block.steps) if loop[start] >= 0 else 0
        for start, block in blocks.items()
    }
    dirty = dict.fromkeys(blocks, 0)
    work = sorted(blocks)
    while work:
        start = work.pop()
        for successor in blocks[start].successors:
            if loop[start] != loop[successor]:
                continue
            new = dirty[successor] | dirty[start] | changed_by[start]
            if new != dirty[successor]:
                dirty[successor] = new
                work.append(successor)
    return Flow(loop, dirty, _liveness(blocks, predecessors, dirty), _guards(graph, predecessors))


def _union(sets: Iterable[int]) -> int:
    return functools.reduce(operator.or_, sets, 0)


def _loops(blocks: dict[int, Block]) -> dict[int, int]:
    """Strongly connected components, by Tarjan's algorithm without recursion; -1 where there is no cycle."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    found: dict[int, int] = {}
    stack: list[int] = []
    for root in blocks:
        if root in index:
            continue
        index[root] = low[root] = len(index)
        stack.append(root)
        work = [(root, iter(blocks[root].successors))]
        while work:
            start, successors = work[-1]
            successor = next(successors, None)
            if successor is None:
                work.pop()
                if work:
                    before = work[-1][0]
                    low[before] = min(low[before], low[start])
                if low[start] == index[start]:
                    at = stack.index(start)
                    component, stack[at:] = stack[at:], []
                    alone = len(component) == 1 and start not in blocks[start].successors
                    found.update(dict.fromkeys(component, -1 if alone else start))
            elif successor not in index:
                index[successor] = low[successor] = len(index)
                stack.append(successor)
                work.append((successor, iter(blocks[successor].successors)))
            elif successor not in found:
                low[start] = min(low[start], index[successor])
    return found


def _liveness(
    blocks: dict[int, Block], predecessors: dict[int, list[int]], dirty: dict[int, int]
) -> dict[int, int]:
    needed, killed = {}, {}
    for start, block in blocks.items():
        # Any block may be left, and what may be changed is then put into the hart.
        use, kill = dirty[start], 0
        for step in block.steps:
            use |= reads(step) & ~kill
            kill |= writes(step)
        needed[start], killed[start] = use, kill
    live = dict(needed)
    work = sorted(blocks)
    while work:
        start = work.pop()
        for before in predecessors[start]:
            new = live[before] | (live[start] & ~killed[before])
            if new != live[before]:
                live[before] = new
                work.append(before)
    return live


def _guards(graph: Graph, predecessors: dict[int, list[int]]) -> dict[int, bool]:
    checks = {start: any(s.template.fp for s in block.steps) for start, block in graph.blocks.items()}
    guarded = {start: start not in graph.entries for start in graph.blocks}
    changed = True
    while changed:
        changed = False
        for start in graph.blocks:
            if guarded[start] and not all(guarded[p] or checks[p] for p in predecessors[start]):
                guarded[start] = False
                changed = True
    return guarded
