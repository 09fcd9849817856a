"""The control flow of a region: which instructions it takes in, its blocks, and where one may enter it.

A region lies in one page. It takes in what can be reached from its entry by direct branches, calls included,
as far as it was executed before: code that never ran costs no compiling. What a call returns to, and what
stands behind an instruction that the interpreter must execute, belongs to it and can be entered there.
Offsets are bytes in the page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from functools import cache

from doppel.isa.extensions import rv64gc
from doppel.isa.instruction import Instruction
from doppel.memory.entry import PAGE_SIZE
from doppel.translate.regions.templates import Template

__all__ = ["Block", "Graph", "Step", "explore"]

# Registers by which calls return (unprivileged manual, "Unconditional Jumps": the link registers).
LINKS = (1, 5)


@dataclass(frozen=True)
class Step:
    """One instruction: where it is, what it is, and the operands it has."""

    offset: int
    length: int
    template: Template
    rd: int
    rs1: int
    rs2: int
    rs3: int
    imm: int

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + self.length

    @property
    def target(self) -> int:
        """Where a branch goes."""
        return self.offset + self.imm


@dataclass
class Block:
    """Instructions of which only the last may branch."""

    start: int
    steps: list[Step] = field(default_factory=list)
    #: Blocks of the region that it may go on to.
    successors: list[int] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.steps[-1].end


@dataclass
class Graph:
    """Blocks by offset. ``entries``: where it can be entered, the first being the one it was made for;
    ``returns``: where calls in it return to; ``heads``: blocks that a loop may come back to.
    """

    blocks: dict[int, Block]
    entries: list[int]
    returns: list[int]
    heads: set[int]

    @property
    def instructions(self) -> int:
        """How many it has."""
        return sum(len(block.steps) for block in self.blocks.values())

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The bytes that it was made from: starts and lengths, in order and apart from each other."""
        found: list[tuple[int, int]] = []
        for start in sorted(self.blocks):
            end = self.blocks[start].end
            if found and start <= sum(found[-1]):
                first = found[-1][0]
                found[-1] = (first, max(end, sum(found[-1])) - first)
            else:
                found.append((start, end - start))
        return found


@cache
def _decode(word: int) -> tuple[Instruction, tuple[int, int, int, int, int]] | None:
    instruction = rv64gc().decode(word)
    if instruction is None:
        return None
    o = instruction.operands(word)
    return instruction, (o.rd, o.rs1, o.rs2, o.rs3, o.imm)


class _Explorer:
    def __init__(
        self,
        page: bytes,
        executed: Container[int],
        templates: dict[str, Template],
        limit: int,
    ) -> None:
        self.page = page
        self.executed = executed
        self.templates = templates
        self.limit = limit
        self.steps: dict[int, Step] = {}
        self.leaders: set[int] = set()
        self.again: list[int] = []
        self.returns: list[int] = []
        self.queue: deque[int] = deque()

    def step(self, offset: int) -> tuple[Step | None, int]:
        """The instruction at an offset, None if the interpreter executes it; and its length, 0 if none."""
        word = int.from_bytes(self.page[offset : offset + 4], "little")
        if word & 3 != 3:
            word &= 0xFFFF
        elif offset + 4 > PAGE_SIZE:
            return None, 0
        decoded = _decode(word)
        if decoded is None:
            return None, 0
        instruction, operands = decoded
        name = instruction.base.name
        if "rm" in instruction.base.parameters:
            name = f"{name} {operands[4]}"
        template = self.templates.get(name)
        if template is None:
            return None, instruction.length
        return Step(offset, instruction.length, template, *operands), instruction.length

    def inside(self, offset: int) -> bool:
        return 0 <= offset < PAGE_SIZE and offset in self.executed

    def later(self, offset: int) -> None:
        """To be explored, as the beginning of a block."""
        if self.inside(offset):
            self.leaders.add(offset)
            self.queue.append(offset)

    def explore(self) -> None:
        while self.queue and len(self.steps) < self.limit:
            self.follow(self.queue.popleft())

    def follow(self, offset: int) -> None:
        """Take in what follows in a line."""
        while len(self.steps) < self.limit and self.inside(offset):
            if offset in self.steps:
                self.leaders.add(offset)
                return
            step, length = self.step(offset)
            if step is None:
                if length and offset + length < PAGE_SIZE:
                    self.again.append(offset + length)
                    self.later(offset + length)
                return
            self.steps[offset] = step
            offset = step.end
            match step.template.kind:
                case "branch":
                    self.later(step.target)
                    self.leaders.add(offset)
                case "jal" | "jump":
                    self.leave(step)
                    return

    def leave(self, step: Step) -> None:
        """Go on where a jump leads, and behind it if it is a call."""
        if step.rd in LINKS:
            self.again.append(step.end)
            self.returns.append(step.end)
            self.later(step.end)
        if step.template.kind == "jal":
            self.later(step.target)


def explore(
    page: bytes, entry: int, executed: Container[int], templates: dict[str, Template], limit: int
) -> Graph | None:
    """The region that begins at ``entry``, of at most ``limit`` instructions; None if there is none.

    ``executed``: offsets of instructions that are worth compiling.
    """
    explorer = _Explorer(page, executed, templates, limit)
    explorer.later(entry)
    explorer.explore()
    if entry not in explorer.steps:
        return None
    blocks = _blocks(explorer)
    heads = _heads(blocks, explorer.returns)
    entries = list(dict.fromkeys([entry, *sorted(explorer.again), *sorted(heads)]))
    returns = [offset for offset in dict.fromkeys(explorer.returns) if offset in blocks]
    return Graph(blocks, [e for e in entries if e in blocks], returns, heads)


def _blocks(explorer: _Explorer) -> dict[int, Block]:
    blocks: dict[int, Block] = {}
    starts = explorer.leaders & explorer.steps.keys()
    for start in sorted(starts):
        block = Block(start)
        offset = start
        while offset in explorer.steps and (offset == start or offset not in starts):
            step = explorer.steps[offset]
            block.steps.append(step)
            offset = step.end
            if step.template.kind != "plain":
                break
        blocks[start] = block
    returns = [offset for offset in explorer.returns if offset in blocks]
    for block in blocks.values():
        block.successors = [s for s in dict.fromkeys(_ways(block, returns)) if s in blocks]
    return blocks


def _ways(block: Block, returns: list[int]) -> list[int]:
    last = block.steps[-1]
    match last.template.kind:
        case "branch":
            return [last.end, last.target]
        case "jal":
            return [last.target]
        case "jump":
            return returns if is_return(last) else []
        case _:
            return [last.end]


def is_return(step: Step) -> bool:
    """Whether a jump is what calls return by."""
    return step.template.kind == "jump" and step.rd == 0 and step.rs1 in LINKS


def _heads(blocks: dict[int, Block], returns: list[int]) -> set[int]:
    """Where an edge leads back, or stays: every loop has one."""
    return {
        successor
        for block in blocks.values()
        for successor in block.successors
        if successor <= block.steps[-1].offset
    }


