"""The control flow of a region: which instructions it takes in, its blocks, and where one may enter it.

A region lies in one page. It takes in what can be reached from its entry by direct branches, calls included,
as far as it was executed before: code that never ran costs no compiling. What a call returns to, and what
stands behind an instruction that the interpreter must execute, belongs to it and can be entered there. If it
jumps to computed addresses, it also takes in what was executed in the page without being reached in another
way: the cases of a ``switch``, the operations of a bytecode interpreter. Offsets are bytes in the page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field
from functools import cache

from doppel.isa.extensions import rv64gc
from doppel.isa.instruction import Instruction
from doppel.memory.entry import PAGE_SIZE
from doppel.translate.regions.templates import Template

__all__ = ["Block", "Graph", "Step", "explore"]

# Registers by which calls return (unprivileged manual, "Unconditional Jumps": the link registers).
LINKS = (1, 5)
# Calls that a return is compared with.
MOST_RETURNS = 6
# Places that a computed jump may lead to, and the instructions of one that are looked at for a way back.
MOST_ISLANDS = 100
LONGEST_LINE = 60


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
    ``heads``: blocks that a loop may come back to.
    """

    blocks: dict[int, Block]
    entries: list[int]
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
        self.islands: list[int] = []
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
        self.drain()
        if any(map(is_computed, self.steps.values())):
            self.islands = self.find_islands()
            self.again += self.islands
            for offset in self.islands:
                self.later(offset)
            self.drain()

    def drain(self) -> None:
        while self.queue and len(self.steps) < self.limit:
            self.follow(self.queue.popleft())

    def find_islands(self) -> list[int]:
        """Where code begins that was executed, that nothing explored leads to, and that leads to it."""
        found = []
        behind: set[int] = set()
        for offset in range(0, PAGE_SIZE, 2):
            if offset not in self.executed:
                continue
            step = self.steps.get(offset) or self.step(offset)[0]
            if offset not in self.steps and offset not in behind and self.leads_back(offset):
                found.append(offset)
            if step is None or step.template.kind not in ("jal", "jump") or step.rd in LINKS:
                behind.add(step.end if step else offset + 4)
        return found[:MOST_ISLANDS]

    def leads_back(self, offset: int) -> bool:
        """Whether a line of code comes to what is explored, or jumps to a computed address itself."""
        for _ in range(LONGEST_LINE):
            if offset in self.steps:
                return True
            step = self.step(offset)[0] if self.inside(offset) else None
            if step is None:
                return False
            match step.template.kind:
                case "branch" if step.target in self.steps:
                    return True
                case "jal" if step.rd not in LINKS:
                    return step.target in self.steps
                case "jump" if step.rd not in LINKS:
                    return is_computed(step)
            offset = step.end
        return False

    def follow(self, offset: int) -> None:
        """Take in what follows in a line."""
        while self.inside(offset):
            if offset in self.steps:
                self.leaders.add(offset)
                return
            if len(self.steps) >= self.limit:
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
    heads = {
        successor
        for block in blocks.values()
        for successor in block.successors
        if successor <= block.steps[-1].offset
    }
    entries = list(dict.fromkeys([entry, *sorted(explorer.again), *sorted(heads)]))
    return Graph(blocks, [e for e in entries if e in blocks], heads)


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
    returns = _returns(blocks)
    for block in blocks.values():
        computed = is_computed(block.steps[-1])
        ways = _ways(block, explorer.islands if computed else returns.get(block.start, []))
        block.successors = [s for s in dict.fromkeys(ways) if s in blocks]
    return blocks


def _ways(block: Block, returns: list[int]) -> list[int]:
    last = block.steps[-1]
    match last.template.kind:
        case "branch":
            return [last.end, last.target]
        case "jal":
            return [last.target]
        case "jump":
            return returns
        case _:
            return [last.end]


def is_return(step: Step) -> bool:
    """Whether a jump is what calls return by."""
    return step.template.kind == "jump" and step.rd == 0 and step.rs1 in LINKS


def is_computed(step: Step) -> bool:
    """Whether it jumps to a computed address, without calling or returning."""
    return step.template.kind == "jump" and step.rd == 0 and step.rs1 not in LINKS


def _returns(blocks: dict[int, Block]) -> dict[int, list[int]]:
    """Where the returns of the region may lead in it: behind the calls of the function that they end.

    By block; of several calls only so many, since each costs a comparison.
    """
    found: dict[int, list[int]] = {}
    bodies: dict[int, list[int]] = {}
    for block in blocks.values():
        call = block.steps[-1]
        if call.template.kind != "jal" or call.rd not in LINKS:
            continue
        if call.target not in blocks or call.end not in blocks:
            continue
        if call.target not in bodies:
            bodies[call.target] = _ends(blocks, call.target)
        for end in bodies[call.target]:
            behind = found.setdefault(end, [])
            if call.end not in behind and len(behind) < MOST_RETURNS:
                behind.append(call.end)
    return found


def _ends(blocks: dict[int, Block], function: int) -> list[int]:
    """The blocks by which a function returns; what it calls comes back."""
    seen = {function}
    queue = [function]
    ends = []
    while queue:
        block = blocks[queue.pop()]
        last = block.steps[-1]
        if is_return(last):
            ends.append(block.start)
        calls = last.template.kind in ("jal", "jump") and last.rd in LINKS
        for way in [last.end] if calls else _ways(block, []):
            if way in blocks and way not in seen:
                seen.add(way)
                queue.append(way)
    return ends
