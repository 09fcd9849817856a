"""Code that is compiled in the background, and what becomes of it when its page or its memory is gone."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable

import pytest

from doppel.isa.assembler import assemble
from doppel.processor.arena import CodeArena
from doppel.processor.compilation import Compilation
from doppel.processor.exits import ExitReason
from doppel.translate.regions.compiler import shared_compiler
from doppel.translate.regions.workers import Worker, shared_workers

from ..translate.support import RAM_BASE, Board

PATIENCE = 60
LOOP = "again: addi a0, a0, 1; xor a1, a1, a0; bnez a0, again"


def run_until(board: Board, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert board.run(1_000_000).reason is ExitReason.BUDGET
        assert time.monotonic() < deadline


def handler(board: Board, address: int = RAM_BASE) -> int:
    """What is at an address in the decoded page."""
    compilation = board.processor.compilation
    page = board.processor.code_page(address >> 12)
    return ctypes.c_uint64.from_address(compilation._record(page, address & 0xFFF)).value


def is_compiled(board: Board, address: int = RAM_BASE) -> bool:
    return board.processor.compilation._arena.holds(handler(board, address))


def test_a_hot_loop_is_compiled_while_it_runs() -> None:
    board = Board(compile="hot", size=0x1_0000)
    board.load(LOOP)
    run_until(board, lambda: board.processor.compilation.statistics.regions > 0)
    before = board.hart.instructions
    board.run(3_000_000)
    assert board.hart.instructions == before + 3_000_000
    assert board.hart.state.x[10] == board.hart.instructions // 3 + (board.hart.instructions % 3 > 0)
    board.close()
    assert not shared_workers._idle


def test_what_changed_meanwhile_is_not_installed() -> None:
    """Stored by the guest, overwritten from outside, or dropped and decoded anew."""
    board = Board(size=0x2_0000)
    compilation = board.processor.compilation
    program = board.load(f"{LOOP}\nstore: sw a2, (a3); j store")
    board.run(5000)
    page = compilation._page(RAM_BASE >> 12)
    assert page is not None
    region = shared_compiler().compile(compilation._request(page, 0))
    assert region is not None
    state = board.hart.state
    state.pc, state.x[12], state.x[13] = program.symbols["store"], 0x13, RAM_BASE
    board.run(2)
    assert not compilation._install(page, region)
    board.memory.write(RAM_BASE, page.content[:4])
    assert not compilation._install(page, region)
    state.pc = RAM_BASE
    board.run(5000)
    # The same guest page, decoded anew.
    assert not compilation._install(page, region)
    assert (compilation.statistics.outdated, compilation.statistics.regions) == (3, 0)
    # A store elsewhere in the page changes nothing.
    page = compilation._page(RAM_BASE >> 12)
    assert page is not None
    state.pc, state.x[13] = program.symbols["store"], RAM_BASE + 0x800
    board.run(2)
    assert compilation._install(page, region)
    board.close()


def test_a_store_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the comparison with what was compiled and the announcement that it is covered."""
    board = Board(size=0x2_0000)
    compilation = board.processor.compilation
    program = board.load(f"{LOOP}\nstore: sw a2, (a3); j store")
    board.run(5000)
    page = compilation._page(RAM_BASE >> 12)
    assert page is not None
    region = shared_compiler().compile(compilation._request(page, 0))
    cover = board.processor.cover

    def late(*arguments: int) -> bool:
        state = board.hart.state
        state.pc, state.x[12], state.x[13] = program.symbols["store"], 0x13, RAM_BASE
        board.run(2)
        return cover(*arguments)

    monkeypatch.setattr(board.processor, "cover", late)
    assert not compilation._install(page, region)
    board.close()


def test_an_arena_that_is_full_is_no_end() -> None:
    """CODE_FULL, everything is discarded, and the guest goes on."""
    board = Board(compile="all", size=0x8_0000, region_bytes=4096)
    pages = 50
    for number in range(pages):
        at = RAM_BASE + 0x1000 * number
        after = RAM_BASE + 0x1000 * ((number + 1) % pages)
        board.memory.write(at, assemble(f"addi a0, a0, 1; ld a1, (sp); add a2, a2, a1; j {after}", at))
    board.hart.state.pc, board.hart.state.x[2] = RAM_BASE, RAM_BASE + 0x4_0000
    board.run(4000)
    assert board.hart.instructions == 4000
    assert board.exits.count(ExitReason.CODE_FULL) >= 2
    assert board.processor.compilation.statistics.discarded == board.exits.count(ExitReason.CODE_FULL)
    assert board.hart.state.x[10] == 1000
    board.close()


def test_discarding_forgets_and_compiles_anew() -> None:
    board = Board(size=0x1_0000)
    board.load(LOOP)
    board.run(3000)
    board.processor.compilation.compile_now(RAM_BASE)
    assert is_compiled(board)
    board.processor.discard_code()
    board.run(3000)
    assert not is_compiled(board)
    board.processor.compilation.compile_now(RAM_BASE)
    assert is_compiled(board)
    board.run(3000)
    assert board.hart.instructions == 9000 and board.hart.state.x[10] == 3000
    board.close()


def test_a_store_into_compiled_code_drops_it() -> None:
    board = Board(size=0x1_0000)
    board.load(LOOP)
    board.run(3000)
    board.processor.compilation.compile_now(RAM_BASE)
    board.memory.write(RAM_BASE, assemble("addi a0, a0, 5"))
    board.run(3000)
    assert not is_compiled(board)
    assert board.hart.state.x[10] == 1000 + 5000
    board.close()


def test_a_compiler_that_dies_costs_a_point_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    send, died = Worker.send, []

    def dying(self: Worker, request: object) -> None:
        if not died:
            died.append(self._process.pid)
            self._process.kill()
            self._process.wait()
        send(self, request)  # type: ignore[arg-type]

    monkeypatch.setattr(Worker, "send", dying)
    board = Board(compile="hot", size=0x1_0000)
    board.load(f"{LOOP}\nother: addi a2, a2, 1; c.nop; j other")
    run_until(board, lambda: bool(died) and bool(board.processor.compilation._refused))
    board.hart.state.pc = RAM_BASE + 12
    run_until(board, lambda: board.processor.compilation.statistics.regions > 0)
    board.close()


def test_closing_while_something_is_compiled() -> None:
    """No thread and no process is left."""
    for _ in range(3):
        board = Board(compile="hot", size=0x1_0000)
        board.load(LOOP)
        board.run(500_000)
        board.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "compilation"]
    assert not shared_workers._idle and shared_workers._busy == 0


def test_the_mode_off_starts_nothing() -> None:
    board = Board(compile="off", size=0x1_0000)
    board.load(LOOP)
    board.run(500_000)
    compilation: Compilation = board.processor.compilation
    assert compilation._thread is None and compilation.statistics.regions == 0
    board.close()


def test_a_host_that_does_not_let_memory_be_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter does it all, and the processor says why."""

    class Refused(CodeArena):
        def __init__(self, size: int) -> None:
            if size:
                raise PermissionError(13, "Permission denied")
            super().__init__(size)

    monkeypatch.setattr("doppel.processor.compilation.CodeArena", Refused)
    for mode in ("hot", "all"):
        board = Board(compile=mode, size=0x1_0000)
        assert board.processor.compilation.mode == "off"
        assert "Permission denied" in board.processor.compilation.problem
        board.load(LOOP)
        assert board.run(100_000).reason is ExitReason.BUDGET
        board.close()
