"""Random programs as compilers make them: functions that call each other, loops in loops, tables of
addresses; with everything in between that can go wrong for a memory access, floating point, or code that
changes.

A program runs in M or in S mode, the latter under page tables of which it changes entries. Its handler is in
M mode, gets over every trap, and turns floating point on again, as clean or as dirty.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from doppel.isa.assembler import assemble_program
from doppel.isa.privileged.constants import EnvironmentConfig, Interrupt, Mode, SatpMode, Status

from .support import ALL_ADDRESSES, PMP_EVERYTHING, RAM_BASE, Board
from .tables import PageTables

__all__ = ["DEVICE", "GuestProgram"]

HANDLER = RAM_BASE + 0x1000
CODE = RAM_BASE + 0x1_0000
DATA = RAM_BASE + 0x4_0000
STACK = RAM_BASE + 0x5_0000
TABLES = RAM_BASE + 0x6_0000
SIZE = 0x8_0000
# In S mode the same frames are here too, and this page comes and goes.
ALIAS = 0x4000_0000
FICKLE = DATA + 0x3000
DEVICE = 0x1000_0000

# Registers: s0 to s2 count loops, s3 and s4 make random numbers, s5 points to data, s6 to misaligned data, s7
# near a page's end, s8 to the fickle page, s9 to the device, s10 to the entry of the fickle page, s11 is the
# distance to the alias; t3 to t6 are the handler's, t2 and t1 for addresses.
HANDLER_TEXT = """
handler:
    csrr t3, mcause
    bltz t3, interrupt
    csrrw t4, mscratch, x0
    addi t4, t4, 1
    csrw mscratch, t4
    # 0, 1 and 12: there is no instruction; begin again.
    addi t5, t3, -2
    seqz t5, t5
    li t6, 12
    beq t3, t6, lost
    li t6, 1
    bleu t3, t6, lost
    # Floating point may have been off: a state for the next time, whatever the trap was.
    li t6, 0x6000
    csrc mstatus, t6
    andi t5, t4, 3
    slli t5, t5, 13
    csrs mstatus, t5
    li t6, 13
    beq t3, t6, page
    li t6, 15
    beq t3, t6, page
over:
    csrr t5, mepc
    lhu t6, 0(t5)
    andi t6, t6, 3
    addi t6, t6, -3
    seqz t6, t6
    slli t6, t6, 1
    addi t5, t5, 2
    add t5, t5, t6
    csrw mepc, t5
    mret
page:
    # Let the fickle page be there again; every other time the access is given up.
    ld t6, (s10)
    ori t6, t6, 0xC7
    sd t6, (s10)
    sfence.vma
    andi t5, t4, 1
    bnez t5, over
    mret
lost:
    la t5, START
    csrw mepc, t5
    li sp, STACK
    mret
interrupt:
    csrr t3, time
    addi t3, t3, INTERVAL
    csrw stimecmp, t3
    addi x0, x0, 0
    mret
"""
INTEGER = (
    *("add", "sub", "xor", "and", "or", "sll", "srl", "sra", "slt", "sltu", "addw", "subw", "sllw", "sraw"),
    *("mul", "mulh", "mulhu", "mulhsu", "mulw", "div", "divu", "rem", "remu", "divw", "remuw"),
)
IMMEDIATE = ("addi", "xori", "andi", "ori", "slti", "sltiu", "addiw")
LOADS = ("lb", "lbu", "lh", "lhu", "lw", "lwu", "ld")
STORES = ("sb", "sh", "sw", "sd")
ATOMICS = ("amoadd", "amoswap", "amoxor", "amomax", "amominu")
BINARY = ("fadd", "fsub", "fmul", "fdiv")
FUSED = ("fmadd", "fmsub", "fnmsub", "fnmadd")
COMPARE = ("feq", "flt", "fle")
MOVE = ("fsgnj", "fsgnjn", "fsgnjx", "fmin", "fmax")
MODES = ("", "", "", "", ", rne", ", rtz", ", rdn", ", rup", ", rmm")
BRANCHES = ("beq", "bne", "blt", "bge", "bltu", "bgeu")
PLAIN = ("a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "t0")
FLOATS = ("fa0", "fa1", "fa2", "fa3", "ft0", "ft1", "fs0")
BASES = ("s5", "s5", "s5", "s5", "s5", "s6", "s7", "s8")
# What stores into the program leave there.
PATCHES = ("addi a0, a0, 7", "xor a1, a1, a0", "c.addi a2, 3; c.nop", "fadd.d fa0, fa0, fa1", "ld a3, 8(s5)")


@dataclass
class GuestProgram:
    """The program of a seed; ``text`` is it in assembly language."""

    seed: int
    text: str = field(init=False)

    def __post_init__(self) -> None:
        choice = self._choice = random.Random(self.seed)
        self._labels = 0
        self.supervisor = choice.random() < 0.5
        self.interval = choice.choice((0, 0, 20, 90, 700))
        self.floats = choice.choice((0.0, 0.1, 0.5))
        self.trouble = choice.choice((0.0, 0.02, 0.1))
        self.patching = choice.choice((0.0, 0.0, 0.02, 0.08))
        self.dense = choice.random() < 0.3
        self.functions = choice.randint(2, 5)
        self.text = self._program()

    # --- text ---

    def _label(self) -> str:
        self._labels += 1
        return f"l{self._labels}"

    def _program(self) -> str:
        parts = ["START:"]
        parts += self._function(0, main=True)
        for number in range(1, self.functions):
            if self._choice.random() < 0.3:
                # Some come to lie across the end of a page.
                parts.append(f".balign 4096\n.zero {4096 - 2 * self._choice.randrange(1, 60)}")
            parts += self._function(number, main=False)
        parts.append(".balign 8\nfunctions:")
        parts += [f".dword f{self._choice.randrange(1, self.functions)}" for _ in range(8)]
        parts.append("patches:")
        for patch in PATCHES:
            parts.append(f".balign 4\n{patch}")
        return "\n".join(parts)

    def _function(self, number: int, *, main: bool) -> list[str]:
        choice = self._choice
        link = "ra" if main or choice.random() < 0.8 else "t0"
        leaf = number >= self.functions - 2 or link == "t0"
        lines = [f"f{number}:"]
        if main:
            lines += [f"main: li sp, {STACK}"]
        elif not leaf:
            lines += ["addi sp, sp, -32", "sd ra, 8(sp)", "sd s0, 16(sp)", "sd s1, 24(sp)"]
        elif link == "t0":
            lines += ["mv t1, ra"] if choice.random() < 0.3 else []
        lines += self._body(number, leaf, depth=0, size=choice.randint(2, 4))
        if main:
            return [*lines, "addi a7, a7, 1", "j main" if choice.random() < 0.5 else "la t1, main; jr t1"]
        if not leaf:
            lines += ["ld s1, 24(sp)", "ld s0, 16(sp)", "ld ra, 8(sp)", "addi sp, sp, 32"]
        # A function that uses t0 for its numbers returns wherever that leads: the handler gets over it.
        return [*lines, f"jr {link}" if link == "t0" or choice.random() < 0.2 else "c.jr ra"]

    def _body(self, function: int, leaf: bool, depth: int, size: int) -> list[str]:
        lines: list[str] = []
        for _ in range(size):
            roll = self._choice.random()
            if roll < 0.22 and depth < (1 if leaf else 2):
                lines += self._loop(function, leaf, depth)
            elif roll < 0.4:
                lines += self._if(function, leaf, depth)
            elif roll < 0.55 and not leaf:
                lines += self._call(function)
            elif roll < 0.6:
                lines += self._table()
            else:
                lines += [self._simple() for _ in range(self._choice.randint(1, 10 if self.dense else 4))]
        return lines

    def _loop(self, function: int, leaf: bool, depth: int) -> list[str]:
        counter = "s2" if leaf else ("s0", "s1")[depth]
        label = self._label()
        count = self._choice.choice((2, 5, 5, 20, 60))
        body = self._body(function, leaf, depth + 1, self._choice.randint(1, 3))
        turn = self._choice.choice(
            (f"bnez {counter}, {label}", f"bgtz {counter}, {label}", f"beqz {counter}, 9f; j {label}; 9:")
        )
        return [f"li {counter}, {count}", f"{label}:", *body, f"addi {counter}, {counter}, -1", turn]

    def _if(self, function: int, leaf: bool, depth: int) -> list[str]:
        behind, other = self._label(), self._label()
        lines = ["mul s3, s3, s4", f"addi s3, s3, {self._choice.randrange(2000)}"]
        test = self._choice.choice((f"bltz s3, {other}", f"bgez s3, {other}", self._compare(other)))
        first = self._body(function, leaf, max(depth, 1), 1)
        second = self._body(function, leaf, max(depth, 1), 1) if self._choice.random() < 0.5 else []
        return [*lines, test, *first, f"j {behind}", f"{other}:", *second, f"{behind}:"]

    def _compare(self, label: str) -> str:
        return f"{self._choice.choice(BRANCHES)} {self._reg()}, {self._reg()}, {label}"

    def _call(self, function: int) -> list[str]:
        callee = f"f{self._choice.randrange(function + 1, self.functions)}"
        return self._choice.choice(
            (
                [f"jal {callee}"],
                [f"jal {callee}"],
                [f"jal t0, {callee}"],
                [f"la t1, {callee}", "jalr t1"],
                [f"la t1, {callee}", "c.jalr t1"],
                ["la t2, functions", f"ld t1, {8 * self._choice.randrange(8)}(t2)", "jalr t1"]
                if function == 0
                else [f"jal {callee}"],
                # Without a link: who returns returns further up.
                [f"la ra, 1f; j {callee}; 1:"],
            )
        )

    def _table(self) -> list[str]:
        """A jump by a table of addresses, as a switch has it."""
        labels = [self._label() for _ in range(3)]
        table, behind = self._label(), self._label()
        lines = ["mul s3, s3, s4", "addi s3, s3, 13", "srli t1, s3, 62", "slli t1, t1, 3", f"la t2, {table}"]
        lines += ["add t2, t2, t1", "ld t1, (t2)", "jr t1", ".balign 8", f"{table}:"]
        lines += [f".dword {label}" for label in (*labels, labels[0])]
        for label in labels:
            lines += [f"{label}:", self._simple(), f"j {behind}"]
        return [*lines, f"{behind}:"]

    def _reg(self) -> str:
        return self._choice.choice(PLAIN)

    def _float(self) -> str:
        return self._choice.choice(FLOATS)

    def _simple(self) -> str:
        choice = self._choice
        roll = choice.random()
        if roll < self.trouble:
            return self._trouble()
        if roll < self.trouble + self.patching:
            return self._patch()
        if choice.random() < self.floats:
            return self._floating()
        kind = choice.random()
        if kind < 0.4:
            return f"{choice.choice(INTEGER)} {self._reg()}, {self._reg()}, {self._reg()}"
        if kind < 0.55:
            return f"{choice.choice(IMMEDIATE)} {self._reg()}, {self._reg()}, {choice.randint(-2048, 2047)}"
        if kind < 0.6:
            return f"slli {self._reg()}, {self._reg()}, {choice.randrange(64)}"
        if kind < 0.65:
            return f"c.mv {self._reg()}, {self._reg()}; c.add {self._reg()}, {self._reg()}"
        if kind < 0.8:
            return f"{choice.choice(LOADS)} {self._reg()}, {self._place()}"
        if kind < 0.95:
            return f"{choice.choice(STORES)} {self._reg()}, {self._place()}"
        size = choice.choice("wd")
        if choice.random() < 0.5:
            return f"{choice.choice(ATOMICS)}.{size} {self._reg()}, {self._reg()}, ({choice.choice(BASES)})"
        reserve = f"lr.{size} {self._reg()}, (s5); addi {self._reg()}, {self._reg()}, 1"
        return f"{reserve}; sc.{size} {self._reg()}, {self._reg()}, (s5)"

    def _place(self) -> str:
        offset = 8 * self._choice.randint(-8, 60) + self._choice.choice((0, 0, 0, 0, 4, 1))
        return f"{offset}({self._choice.choice(BASES)})"

    def _floating(self) -> str:
        choice = self._choice
        kind, size, a, b, c = (
            choice.random(),
            choice.choice("sd"),
            self._float(),
            self._float(),
            self._float(),
        )
        mode = choice.choice(MODES)
        if kind < 0.4:
            return f"{choice.choice(BINARY)}.{size} {a}, {b}, {c}{mode}"
        if kind < 0.55:
            return f"{choice.choice(FUSED)}.{size} {a}, {b}, {c}, {self._float()}{mode}"
        if kind < 0.6:
            return f"fsqrt.{size} {a}, {b}{mode}"
        if kind < 0.7:
            return f"{choice.choice(COMPARE)}.{size} {self._reg()}, {b}, {c}"
        if kind < 0.8:
            return f"{choice.choice(MOVE)}.{size} {a}, {b}, {c}"
        if kind < 0.85:
            return choice.choice(
                (f"fcvt.d.l {a}, {self._reg()}{mode}", f"fcvt.w.{size} {self._reg()}, {b}{mode}")
            )
        if kind < 0.88:
            return choice.choice(
                (f"fcvt.s.d {a}, {b}{mode}", f"fcvt.d.s {a}, {b}", f"fmv.d.x {a}, {self._reg()}")
            )
        if kind < 0.97:
            return choice.choice(
                (f"fld {a}, {self._place()}", f"fsd {a}, {self._place()}", f"flw {a}, {self._place()}")
            )
        return choice.choice(
            (
                "csrwi frm, 0",
                "csrwi frm, 0",
                "csrwi frm, 3",
                "csrwi frm, 5",
                "csrr a0, fflags",
                "csrwi fflags, 0",
            )
        )

    def _trouble(self) -> str:
        """What the interpreter must see to, or what traps."""
        choice = self._choice
        reg = self._reg()
        lost = choice.choice((~1, ~4, ~0xC0, ~0x80))
        return choice.choice(
            (
                f"{choice.choice(LOADS)} {reg}, 8(s9)",
                f"{choice.choice(STORES)} {reg}, 16(s9)",
                f"amoadd.w {reg}, {reg}, (s6)",
                f"ld {reg}, ({reg})",
                f"sw {reg}, 3({reg})",
                "ecall",
                "ebreak",
                ".word 0",
                f"csrr {reg}, instret",
                f"csrr {reg}, cycle",
                "fence.i",
                "fence",
                "sfence.vma",
                f"jr {reg}",
                # The fickle page: gone, or read-only, or without its bits.
                f"ld t1, (s10); andi t1, t1, {lost}; sd t1, (s10); sfence.vma",
                "cbo.zero (s7)",
                f"addi ra, ra, {choice.choice((2, 4))}",
            )
        )

    def _patch(self) -> str:
        """Store an instruction into the program: a little further on, or anywhere."""
        choice = self._choice
        if choice.random() < 0.6:
            where = "1f"
            tail = choice.choice(("", "fence.i; ")) + "nop; " * choice.randrange(4) + "1: addi a0, a0, 1"
        else:
            where = f"f{choice.randrange(self.functions)}"
            tail = choice.choice(("", "fence.i"))
        offset = 0 if where == "1f" else 4 * choice.randrange(1, 30)
        store = choice.choice(("sw t1, (t2)", "sh t1, (t2)", "amoswap.w t1, t1, (t2)"))
        return (
            f"la t2, patches; lw t1, {4 * choice.randrange(len(PATCHES))}(t2); la t2, {where}; "
            f"addi t2, t2, {offset}; andi t2, t2, -4; add t2, t2, s11; {store}; {tail}"
        )

    # --- putting it into a board ---

    def prepare(self, board: Board, *, timer: bool) -> None:
        """Load the program, and let hart 0 stand at its beginning."""
        choice = random.Random(self.seed + 1)
        program = assemble_program(self.text, CODE, {"STACK": STACK})
        assert len(program.code) < DATA - CODE - 0x1000, len(program.code)
        symbols = {"START": CODE, "STACK": STACK, "INTERVAL": max(1, self.interval)}
        board.memory.write(HANDLER, assemble_program(HANDLER_TEXT, HANDLER, symbols).code)
        board.memory.write(CODE, program.code)
        board.memory.write(DATA - 0x1000, choice.randbytes(0x6000))
        tables = PageTables(TABLES, SatpMode.SV39, board.memory.write)
        tables.map(RAM_BASE, RAM_BASE, pages=SIZE >> 12)
        tables.map(ALIAS, RAM_BASE, pages=SIZE >> 12)
        tables.map(DEVICE, DEVICE)
        fickle = tables.entry_address(FICKLE, 0)
        state = board.hart.state
        for number in range(1, 32):
            state.x[number] = choice.getrandbits(choice.choice((3, 16, 64)))
            state.f[number] = choice.choice(
                (
                    choice.getrandbits(64),
                    choice.getrandbits(32) | 0xFFFF_FFFF << 32,
                    0x7FF8 << 48,
                    0x3FF0 << 48,
                )
            )
        pointers = {19: choice.getrandbits(64), 20: 0x5851_F42D_4C95_7F2D, 21: DATA + 0x800, 22: DATA + 0x803}
        pointers |= {23: DATA + 0x1FC0, 24: FICKLE + 0x400, 25: DEVICE, 26: fickle, 27: 0, 2: STACK}
        if self.supervisor and choice.random() < 0.5:
            pointers[27] = ALIAS - RAM_BASE
        for number, value in pointers.items():
            state.x[number] = value
        state.pc, state.mtvec = CODE, HANDLER
        state.mstatus = 0xA_0000_0000 | choice.choice((0, 1, 2, 3)) << 13 | Status.SUM
        state.pmpcfg[0], state.pmpaddr[0] = PMP_EVERYTHING, ALL_ADDRESSES
        state.menvcfg = EnvironmentConfig.STCE | choice.choice((0, EnvironmentConfig.ADUE)) | 0xF0
        state.mcounteren = 7
        if timer and self.interval:
            state.mie, state.stimecmp = 1 << Interrupt.STI, self.interval
            state.mstatus |= Status.MIE
        if self.supervisor:
            state.satp, state.mode = tables.satp, Mode.S
