"""What a region takes in, its blocks, and where it can be entered."""

from __future__ import annotations

import random
from collections.abc import Container

import pytest

from doppel.isa.assembler import assemble_program
from doppel.memory.entry import PAGE_SIZE
from doppel.translate.build import load_kit
from doppel.translate.regions.compiler import RegionRequest, shared_compiler
from doppel.translate.regions.flow import analyse, reads, writes
from doppel.translate.regions.graph import Graph, explore

BASE = 0x200


def region(
    text: str,
    entry: str | int = BASE,
    *,
    executed: Container[int] | None = None,
    limit: int = 400,
    base: int = BASE,
) -> tuple[Graph | None, dict[str, int]]:
    """The region of a text at ``base`` in its page; where labels are."""
    program = assemble_program(text, base)
    page = (bytes(base) + program.code).ljust(PAGE_SIZE, b"\0")[:PAGE_SIZE]
    if executed is None:
        executed = range(base, min(PAGE_SIZE, base + len(program.code)), 2)
    at = program.symbols[entry] if isinstance(entry, str) else entry
    return explore(page, at, executed, load_kit().templates, limit), program.symbols


def found(text: str, entry: str | int = BASE, **options: object) -> tuple[Graph, dict[str, int]]:
    graph, symbols = region(text, entry, **options)  # type: ignore[arg-type]
    assert graph is not None
    return graph, symbols


@pytest.mark.parametrize(
    "text", ["ecall", ".word 0", "csrr a0, time", "wfi", "fence.i", ".half 0xffff, 0xffff"]
)
def test_nothing_where_the_interpreter_must_execute(text: str) -> None:
    assert region(text)[0] is None


def test_nothing_where_nothing_was_executed() -> None:
    assert region("addi a0, a0, 1; addi a0, a0, 1", executed={BASE + 4})[0] is None


def test_a_branch_both_ways() -> None:
    graph, at = found("beqz a0, there; addi a0, a0, 1; j end; there: addi a0, a0, 2; end: addi a0, a0, 3")
    assert list(graph.blocks) == [BASE, BASE + 4, at["there"], at["end"]]
    assert [sorted(b.successors) for b in graph.blocks.values()] == [
        [BASE + 4, at["there"]],
        [at["end"]],
        [at["end"]],
        [],
    ]
    assert (graph.entries, graph.heads, graph.instructions) == ([BASE], set(), 5)
    assert graph.ranges == [(BASE, at["end"] + 4 - BASE)]


def test_code_that_never_ran_is_left_out() -> None:
    text = "beqz a0, rare; addi a0, a0, 1; wfi; rare: addi a0, a0, 2"
    graph, at = found(text, executed={BASE, BASE + 4})
    assert at["rare"] not in graph.blocks
    assert graph.ranges == [(BASE, 8)]


def test_a_loop_has_a_head_that_can_be_entered() -> None:
    graph, at = found("li a0, 9; loop: addi a0, a0, -1; bnez a0, loop; sub a0, a0, a0")
    assert graph.heads == {at["loop"]}
    assert graph.entries == [BASE, at["loop"]]


def test_a_call_is_taken_in_and_what_it_returns_to_can_be_entered() -> None:
    graph, at = found("call: jal there; behind: addi a0, a0, 1; wfi; there: addi a1, a1, 1; ret")
    assert at["behind"] in graph.entries
    assert graph.blocks[at["there"]].successors == [at["behind"]]
    assert graph.blocks[BASE].successors == [at["there"]]


def test_a_return_leads_only_behind_calls_of_its_function() -> None:
    graph, at = found(
        """
            jal f; b1: jal g; b2: jal f; b3: wfi
            f: beqz a0, other; addi a1, a1, 1; ret
            other: jal t0, g; o2: ret
            g: ret
        """
    )
    returns = {
        start: set(b.successors) for start, b in graph.blocks.items() if b.steps[-1].template.kind == "jump"
    }
    assert returns[at["g"]] == {at["b2"], at["o2"]}
    first = next(start for start in returns if at["f"] < start < at["other"])
    assert returns[first] <= {at["b1"], at["b3"]}
    assert returns[first]


def test_what_stands_behind_an_instruction_for_the_interpreter_can_be_entered() -> None:
    graph, at = found("addi a0, a0, 1; ecall; behind: addi a0, a0, 2")
    assert graph.entries == [BASE, at["behind"]]
    assert graph.blocks[BASE].successors == []


@pytest.mark.parametrize("inside", [True, False])
def test_the_end_of_the_page(inside: bool) -> None:
    """An instruction that straddles it is not taken in; one that ends there is, and leads on."""
    base = PAGE_SIZE - (8 if inside else 6)
    graph, _ = found("addi a0, a0, 1; addi a0, a0, 2", base, base=base)
    assert graph.instructions == (2 if inside else 1)
    assert not graph.blocks[base].successors
    assert all(start + length <= PAGE_SIZE for start, length in graph.ranges)


def test_branches_out_of_the_page() -> None:
    graph, _ = found("bnez a0, .+0xff0; beqz a0, .-0xff0; j .+0x4000", executed=range(0, PAGE_SIZE, 2))
    assert graph.instructions == 3


@pytest.mark.parametrize("limit", range(1, 12))
def test_no_more_than_the_limit(limit: int) -> None:
    graph, _ = found(
        "loop: beqz a0, 1f; addi a0, a0, 1; addi a1, a1, 1; 1: addi a2, a2, 1; j loop" + "; nop" * 9,
        limit=limit,
    )
    assert graph.instructions <= limit
    assert sum(len(b.steps) for b in graph.blocks.values()) == len(
        {s.offset for b in graph.blocks.values() for s in b.steps}
    )


def overlapping(choice: random.Random) -> bytes:
    """A page of anything, with many instructions that can be entered at their second half."""
    words = []
    while len(words) < PAGE_SIZE // 2:
        roll = choice.random()
        if roll < 0.3:
            words.append(choice.getrandbits(16))
        elif roll < 0.6:
            words += [0x0513 | choice.randrange(32) << 7 & 0xFFFF, choice.getrandbits(12) << 4]
        elif roll < 0.8:
            words.append(0xC001 | choice.getrandbits(13) | choice.choice((0, 0x2000)))
        else:
            words += [0x0063 | choice.getrandbits(5) << 7, choice.getrandbits(16)]
    return b"".join((w & 0xFFFF).to_bytes(2, "little") for w in words[: PAGE_SIZE // 2])


@pytest.mark.parametrize("seed", range(60))
def test_any_bytes(seed: int) -> None:
    """Blocks are apart from each other, edges lead to blocks, and the flow is what its definitions say."""
    choice = random.Random(seed)
    page = overlapping(choice) if seed % 3 else choice.randbytes(PAGE_SIZE)
    density = choice.choice((0.3, 0.9, 1.0))
    executed = {offset for offset in range(0, PAGE_SIZE, 2) if choice.random() < density}
    flags = bytes(offset in executed for offset in range(0, PAGE_SIZE, 2))
    limit = choice.choice((1, 3, 40, 200))
    for _ in range(10):
        graph = explore(page, 2 * choice.randrange(PAGE_SIZE // 2), executed, load_kit().templates, limit)
        if graph is None:
            continue
        offsets = [step.offset for block in graph.blocks.values() for step in block.steps]
        assert len(offsets) == len(set(offsets)) <= limit
        assert set(graph.entries) | graph.heads <= graph.blocks.keys()
        assert len(graph.entries) == len(set(graph.entries))
        assert set(offsets) <= executed
        assert all(start + length <= PAGE_SIZE for start, length in graph.ranges)
        for block in graph.blocks.values():
            assert set(block.successors) <= graph.blocks.keys()
            assert all(
                a.end == b.offset and a.template.kind == "plain"
                for a, b in zip(block.steps, block.steps[1:], strict=False)
            )
        covered = {at for start, length in graph.ranges for at in range(start, start + length)}
        assert {
            at for b in graph.blocks.values() for s in b.steps for at in range(s.offset, s.end)
        } == covered
        check_flow(graph)
    request = RegionRequest(page, min(executed), flags, 60, bool(seed & 1))
    made = shared_compiler().compile(request)
    assert made is None or made.code


# --- flow, by the naive definition ---


def reachable(graph: Graph, start: int) -> set[int]:
    """Blocks that can come after one, by one or more edges."""
    seen: set[int] = set()
    work = list(graph.blocks[start].successors)
    while work:
        at = work.pop()
        if at not in seen:
            seen.add(at)
            work += graph.blocks[at].successors
    return seen


def check_flow(graph: Graph) -> None:
    """What the analysis says is what the definitions say, path by path."""
    flow = analyse(graph)
    after = {start: reachable(graph, start) for start in graph.blocks}
    for start in graph.blocks:
        assert (flow.loop[start] >= 0) == (start in after[start])
        for other in graph.blocks:
            together = other in after[start] and start in after[other]
            if start != other:
                assert together == (flow.loop[start] >= 0 and flow.loop[start] == flow.loop[other])
    changed = {s: 0 for s in graph.blocks}
    for start, block in graph.blocks.items():
        for step in block.steps:
            changed[start] |= writes(step)
    for start in graph.blocks:
        # In a loop all of its blocks come before any of them; nowhere else is anything kept back.
        wanted = 0
        if flow.loop[start] >= 0:
            for other in graph.blocks:
                if flow.loop[other] == flow.loop[start]:
                    wanted |= changed[other]
        assert flow.dirty[start] == wanted
    check_live(graph, flow.dirty, flow.live)
    check_guards(graph, flow.guarded)


def check_live(graph: Graph, dirty: dict[int, int], live: dict[int, int]) -> None:
    """A register is live if some path reads it, or may have to put it into the hart, before writing it."""
    for register in range(1, 64):
        bit = 1 << register
        wanted = set()
        work = []
        through = {}
        for start, block in graph.blocks.items():
            needs, kills = bool(dirty[start] & bit), False
            for step in block.steps:
                needs |= bool(reads(step) & bit) and not kills
                kills |= bool(writes(step) & bit)
            through[start] = not kills
            if needs:
                wanted.add(start)
                work.append(start)
        while work:
            at = work.pop()
            for start, block in graph.blocks.items():
                if at in block.successors and through[start] and start not in wanted:
                    wanted.add(start)
                    work.append(start)
        assert {start for start in graph.blocks if live[start] & bit} == wanted


def check_guards(graph: Graph, guarded: dict[int, bool]) -> None:
    """A block is guarded only if every way to it comes by a block that looks."""
    looks = {start for start, b in graph.blocks.items() if any(s.template.fp for s in b.steps)}
    for start in graph.blocks:
        # Blocks from which it can be reached without passing one that looks.
        seen, work, open_way = {start}, [start], start in graph.entries
        while work:
            at = work.pop()
            for before, block in graph.blocks.items():
                if at in block.successors and before not in looks and before not in seen:
                    seen.add(before)
                    work.append(before)
                    open_way |= before in graph.entries
        if guarded[start]:
            assert not open_way
