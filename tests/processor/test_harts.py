"""Several harts on threads of their own: atomics, order, messages, and code that one changes for another."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence

import pytest

from doppel.isa.assembler import assemble, assemble_program
from doppel.isa.privileged.constants import Interrupt, Mode, SatpMode
from doppel.processor.exits import Exit, ExitReason
from doppel.processor.processor import Hart

from ..translate.streams import DATA, HANDLER, TABLE, Stream
from ..translate.support import ALL_ADDRESSES, PMP_EVERYTHING, RAM_BASE, Board
from ..translate.tables import PageTables

SHARED = RAM_BASE + 0x1_0000
PATIENCE = 20
STOPS = "\n sd x0, (x0)\n"
MSI = 1 << Interrupt.MSI


class Harts:
    """A board whose harts run at the same time; all stand still when decoded code must be discarded."""

    def __init__(self, count: int = 2, size: int = 0x4_0000, **options: object) -> None:
        self.board = Board(count, size=size, clock="host", **({"devices": True} | options))
        # All of memory is there from the start: nobody faults.
        self.board.memory.write(RAM_BASE, bytes(size))
        self.discarded = 0
        self._changed = threading.Condition()
        self._active = self._standing = 0
        self._full = False

    def load(self, texts: Sequence[str]) -> dict[str, int]:
        """One program for each hart; a0 is the hart's number, a1 the shared page."""
        symbols: dict[str, int] = {}
        for hart, text in zip(self.board.harts, texts, strict=True):
            at = RAM_BASE + 0x1000 * hart.index
            program = assemble_program(text + STOPS, at, {"SHARED": SHARED} | symbols)
            self.board.memory.write(at, program.code)
            symbols |= program.symbols
            hart.state.pc = at
            hart.state.x[10], hart.state.x[11] = hart.index, SHARED
        return symbols

    def run(self, budget: int = 1 << 40) -> list[Exit]:
        """Run all of them to their ends."""
        exits: dict[int, Exit] = {}

        def work(hart: Hart) -> None:
            end = hart.state.spent + budget
            while True:
                exit = self.board.run(end - hart.state.spent, hart)
                if exit.reason is ExitReason.CODE_FULL:
                    self._stand_still(hart, full=True)
                elif exit.reason is ExitReason.STOPPED:
                    self._stand_still(hart, full=False)
                else:
                    break
            exits[hart.index] = exit
            with self._changed:
                self._active -= 1
                self._discard()

        self._active = len(self.board.harts)
        threads = [threading.Thread(target=work, args=(hart,), daemon=True) for hart in self.board.harts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        if any(thread.is_alive() for thread in threads):
            for hart in self.board.harts:
                hart.stop()
            where = [hex(hart.state.pc) for hart in self.board.harts]
            raise AssertionError(f"the harts did not come to an end: {where}")
        return [exits[hart.index] for hart in self.board.harts]

    def _stand_still(self, hart: Hart, *, full: bool) -> None:
        """Stop all harts and wait until decoded code has been discarded."""
        with self._changed:
            if full and not self._full:
                self._full = True
                for other in self.board.harts:
                    if other is not hart:
                        other.stop()
            if self._full:
                self._standing += 1
                before = self.discarded
                self._discard()
                self._changed.wait_for(lambda: self.discarded != before, PATIENCE)

    def _discard(self) -> None:
        if self._full and self._standing == self._active:
            self.board.processor.discard_code()
            self.discarded += 1
            self._full, self._standing = False, 0
            self._changed.notify_all()

    def finish(self) -> None:
        """Run all of them to their stores to address 0, nowhere else."""
        assert all((e.reason, e.address) == (ExitReason.DEVICE, 0) for e in self.run())

    def word(self, offset: int) -> int:
        return self.board.memory.read_u64(SHARED + offset)


ROUNDS = 100_000


@pytest.mark.parametrize("count", [2, 4])
def test_atomic_adds_lose_nothing(count: int) -> None:
    """To a double word and to a word of it, from all sides."""
    harts = Harts(count)
    harts.load(
        [
            f"""
            li s0, {ROUNDS}
            li a2, 1
            addi a4, a1, 64
            addi a5, a1, 132
        again:
            amoadd.d x0, a2, (a1)
            amoadd.w x0, a2, (a4)
            amoadd.w.aqrl x0, a2, (a5)
            addi s0, s0, -1
            bnez s0, again
            """
        ]
        * count
    )
    harts.finish()
    total = ROUNDS * count
    assert (harts.word(0), harts.word(64), harts.word(128)) == (total, total, total << 32)


def test_other_atomics_lose_nothing() -> None:
    """Each hart sets and clears bits of its own, in one word with the other's."""
    harts = Harts()
    harts.load(
        [
            f"""
            li s0, {ROUNDS}
            li a2, {bit}
            not a3, a2
            li s2, 0
        again:
            amoor.d s1, a2, (a1)
            and s1, s1, a2
            add s2, s2, s1
            amoand.d s1, a3, (a1)
            and s1, s1, a2
            bne s1, a2, wrong
            amoxor.w x0, a2, (a1)
            amoxor.w s1, a2, (a1)
            amomaxu.d x0, x0, (a1)
            addi s0, s0, -1
            bnez s0, again
        wrong:
            """
            for bit in (0x10, 0x100)
        ]
    )
    harts.finish()
    assert [hart.state.x[8] for hart in harts.board.harts] == [0, 0]
    assert [hart.state.x[18] for hart in harts.board.harts] == [0, 0]


@pytest.mark.parametrize("size", ["w", "d"])
def test_reservations_lose_nothing(size: str) -> None:
    harts = Harts()
    harts.load(
        [
            f"""
            li s0, {ROUNDS}
        again:
            lr.{size} a2, (a1)
            addi a2, a2, 1
            sc.{size} a3, a2, (a1)
            bnez a3, again
            addi s0, s0, -1
            bnez s0, again
            """
        ]
        * 2
    )
    harts.finish()
    assert harts.word(0) == 2 * ROUNDS


@pytest.mark.parametrize("count", [2, 3])
def test_a_spinlock_protects_what_is_not_atomic(count: int) -> None:
    harts = Harts(count)
    rounds = ROUNDS // 10
    harts.load(
        [
            f"""
            li s0, {rounds}
            li a2, 1
        again:
            amoswap.w.aq a3, a2, (a1)
            bnez a3, again
            ld a4, 64(a1)
            addi a4, a4, 1
            sd a4, 64(a1)
            ld a5, 192(a1)
            addi a5, a5, 3
            sd a5, 192(a1)
            amoswap.w.rl x0, x0, (a1)
            addi s0, s0, -1
            bnez s0, again
            """
        ]
        * count
    )
    harts.finish()
    assert (harts.word(64), harts.word(192)) == (count * rounds, 3 * count * rounds)


def test_a_message_comes_after_what_it_is_about() -> None:
    """Message passing: data, fence, flag; flag, fence, data."""
    harts = Harts()
    rounds = ROUNDS
    harts.load(
        [
            f"""
            li s0, {rounds}
            li s1, 0
        again:
            addi s1, s1, 1
            sd s1, (a1)
            fence w, w
            sd s1, 64(a1)
            bne s1, s0, again
            """,
            f"""
            li s0, {rounds}
            li s2, 0
        again:
            ld s1, 64(a1)
            fence r, r
            ld a2, (a1)
            sltu a3, a2, s1
            add s2, s2, a3
            bne s1, s0, again
            """,
        ]
    )
    harts.finish()
    assert harts.board.harts[1].state.x[18] == 0


def test_store_buffers_are_fenced() -> None:
    """Store, fence, load of the other's: not both may see nothing of the other (SB+fences)."""
    harts = Harts()
    rounds = 20_000
    results = 0x1000
    harts.load(
        [
            f"""
            li s0, {rounds}
            li s1, 0
            slli t0, a0, 6
            add s2, a1, t0
            xori t0, t0, 64
            add s3, a1, t0
            li t0, {SHARED + results}
            slli t1, a0, 16
            add s4, t0, t1
        again:
            addi s1, s1, 1
            li a2, 1
            addi a3, a1, 128
            amoadd.d x0, a2, (a3)
            slli a4, s1, 1
        wait:
            ld a5, (a3)
            bltu a5, a4, wait
            sd s1, (s2)
            fence rw, rw
            ld a6, (s3)
            sltu a7, a6, s1
            sb a7, (s4)
            addi s4, s4, 1
            bne s1, s0, again
            """
        ]
        * 2
    )
    harts.finish()
    first = harts.board.memory.read(SHARED + results, rounds)
    second = harts.board.memory.read(SHARED + results + (1 << 16), rounds)
    assert not any(a and b for a, b in zip(first, second, strict=True))


def test_interprocessor_interrupts() -> None:
    """A device wakes the one hart and interrupts the other (set_lines from the thread of another)."""
    harts = Harts()
    harts.load(
        [
            """
            la t0, handler
            csrw mtvec, t0
            li t0, 8
            csrw mie, t0
            csrsi mstatus, 8
            li s1, 100
        again:
            sd x0, 8(x0)
            wfi
            bnez s1, again
            j end
        .balign 4
        handler:
            addi s1, s1, -1
            sd x0, 16(x0)
            mret
        end:
            """,
            """
            li s1, 100
            li s2, 0
        again:
            ld a2, (a1)
            beq a2, s2, again
            addi s2, s2, 1
            sd x0, 24(x0)
            bne s2, s1, again
            """,
        ]
    )
    board = harts.board
    first, second = board.harts
    asked = []

    def serve(hart: Hart) -> None:
        while True:
            exit = board.run(1 << 40, hart)
            if exit.reason is not ExitReason.DEVICE or exit.address == 0:
                asked.append((hart.index, exit.reason))
                return
            if exit.address == 8:
                board.memory.write_u64(SHARED, board.memory.read_u64(SHARED) + 1)
            elif exit.address == 16:
                first.set_lines(MSI, False)
            elif exit.address == 24:
                first.set_lines(MSI, True)
            hart.answer(0)

    threads = [threading.Thread(target=serve, args=(hart,), daemon=True) for hart in board.harts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(asked) == [(0, ExitReason.DEVICE), (1, ExitReason.DEVICE)]
    assert (first.state.x[9], second.state.x[18]) == (0, 100)


@pytest.mark.parametrize("where", ["a page of its own", "the writer's page"])
def test_code_that_one_hart_writes_and_another_runs(where: str) -> None:
    """Write, fence, flag; flag, FENCE.I, run: what runs is what was written, thousands of times."""
    rounds = 800
    harts = Harts()
    target = SHARED + 0x2000 if where == "a page of its own" else RAM_BASE + 0x800
    harts.load(
        [
            f"""
            li s0, {rounds}
            li s1, 0
            li s2, {target}
            li s3, {int.from_bytes(assemble("li a2, 0"), "little")}
        again:
            addi s1, s1, 1
            andi t0, s1, 1023
            slli t0, t0, 20
            or t0, t0, s3
            sw t0, (s2)
            fence w, w
            sd s1, (a1)
        wait:
            ld t1, 64(a1)
            bne t1, s1, wait
            bne s1, s0, again
            """,
            f"""
            li s0, {rounds}
            li s1, 0
            li s2, {target}
            li s4, 0
        again:
            addi s1, s1, 1
        wait:
            ld t1, (a1)
            bne t1, s1, wait
            fence.i
            jalr s2
            andi t0, s1, 1023
            sub t0, t0, a2
            snez t0, t0
            add s4, s4, t0
            fence rw, w
            sd s1, 64(a1)
            bne s1, s0, again
            """,
        ]
    )
    harts.board.memory.write(target, assemble("li a2, 0; ret"))
    harts.finish()
    assert harts.board.harts[1].state.x[20] == 0


def test_code_that_appears_while_another_hart_stores_to_its_page() -> None:
    """A page is first run by one hart while the other, with stores to it cached, writes more code there."""
    rounds = 600
    harts = Harts(size=0x80_0000)
    pages = SHARED + 0x1_0000
    one = int.from_bytes(assemble("li a2, 1"), "little")
    two = int.from_bytes(assemble("li a2, 2"), "little")
    back = int.from_bytes(assemble("ret"), "little")
    harts.load(
        [
            # For each page: code that says 1, go; then at once code that says 2, and done.
            f"""
            li s0, {rounds}
            li s1, 0
            li s2, {pages}
            li s3, {one}
            li s4, {two}
            li s5, {back}
            li s6, 4096
        again:
            addi s1, s1, 1
            sw s3, (s2)
            sw s5, 4(s2)
            sw s3, 64(s2)
            sw s5, 68(s2)
            fence w, w
            sd s1, (a1)
            nop
            nop
            nop
            nop
            sw s4, 64(s2)
            fence w, w
            sd s1, 64(a1)
        wait:
            ld t1, 128(a1)
            bne t1, s1, wait
            add s2, s2, s6
            bne s1, s0, again
            """,
            f"""
            li s0, {rounds}
            li s1, 0
            li s2, {pages}
            li s4, 0
            li s6, 4096
        again:
            addi s1, s1, 1
        wait:
            ld t1, (a1)
            bne t1, s1, wait
            fence.i
            jalr s2
            addi s7, s2, 64
            jalr s7
        done:
            ld t1, 64(a1)
            bne t1, s1, done
            fence.i
            jalr s7
            addi a2, a2, -2
            snez t0, a2
            add s4, s4, t0
            add s2, s2, s6
            fence rw, w
            sd s1, 128(a1)
            bne s1, s0, again
            """,
        ]
    )
    harts.finish()
    assert harts.board.harts[1].state.x[20] == 0


def test_memory_written_from_outside_while_harts_run_it() -> None:
    """DMA into a page that runs: after its FENCE.I every hart runs what is there then."""
    harts = Harts()
    target = SHARED + 0x2000
    text = f"""
        li s2, {target}
    again:
        fence.i
        jalr s2
        sd a2, 64(a1)
        ld t0, (a1)
        beqz t0, again
    """
    harts.load([text, text.replace("64(a1)", "128(a1)")])
    harts.board.memory.write(target, assemble("li a2, 0; ret"))
    errors = []

    def write() -> None:
        try:
            for value in range(1, 100):
                harts.board.memory.write(target, assemble(f"li a2, {value}"))
                # Both come by there sooner or later.
                for offset in (64, 128):
                    for _ in range(100_000):
                        if harts.word(offset) == value:
                            break
                    else:
                        raise AssertionError(f"{value} was never run, but {harts.word(offset)}")
        except BaseException as error:
            errors.append(error)
        finally:
            harts.board.memory.write_u64(SHARED, 1)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    harts.finish()
    thread.join(PATIENCE)
    assert not errors


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("seed", range(2))
def test_harts_that_store_into_each_others_code_do_no_harm(count: int, seed: int) -> None:
    """No fences, no order: whatever they come to run, they run it as guests and end with their budgets."""
    torture(count, seed, 300_000)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("seed", range(6))
def test_harts_that_store_into_each_others_code_at_length(count: int, seed: int) -> None:
    # With the least room for decoded code most of the time goes into discarding it.
    budget, code_bytes = ((1_000_000, 0), (10_000_000, 1 << 20), (20_000_000, 8 << 20))[seed % 3]
    torture(count, 100 + seed, budget, code_bytes)


def torture(count: int, seed: int, budget: int, code_bytes: int = 0) -> None:
    choice = random.Random(seed)
    stream = Stream(choice, size=250, patching=0.25, chunk=50)
    harts = Harts(count, size=1 << 20, devices=False, code_bytes=code_bytes)
    board = harts.board
    board.memory.write(HANDLER, stream.handler)
    board.memory.write(stream.base, stream.code)
    board.memory.write(TABLE, stream.table)
    board.memory.write(DATA - 0x1000, stream.data())
    tables = PageTables(0x800E_0000, SatpMode.SV39, board.memory.write)
    tables.map(RAM_BASE, RAM_BASE, pages=256)
    tables.map(0x4000_0000, RAM_BASE, pages=256)
    for hart in board.harts:
        state = hart.state
        for number, value in enumerate(stream.registers()):
            state.x[number] = value
        state.pc, state.mtvec, state.mstatus = stream.base, HANDLER, 0xA_0000_6000
        state.pmpcfg[0], state.pmpaddr[0] = PMP_EVERYTHING, ALL_ADDRESSES
        state.satp, state.mode = tables.satp, Mode.S
        if hart.index % 2:
            state.x[26] = 0x4000_0000 - RAM_BASE
    for exit in harts.run(budget):
        assert exit.reason is ExitReason.BUDGET
    if code_bytes == 0:
        assert harts.discarded
    assert all(hart.state.spent == budget for hart in board.harts)
