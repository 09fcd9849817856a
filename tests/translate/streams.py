"""Random programs: straight lines, branches near and far, chunks at page ends, stores into the program
itself."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from doppel.isa.assembler import assemble
from doppel.isa.csr import CSR_BY_NAME
from doppel.isa.extensions import rv64gc
from doppel.isa.instruction import Instruction
from doppel.isa.syntax import parse_syntax

__all__ = ["DATA", "HANDLER", "TABLE", "Stream"]

PAGE = 4096
# The handler and the data have pages of their own.
HANDLER = 0x8000_1000
DATA = 0x8008_0000
TABLE = DATA + 0x4000
TABLE_WORDS = 64
# x2 and x9 point to aligned data, x8 to misaligned data, x25 to the table; x26 is the distance to an alias of
# the code. x23 and x24 make random numbers for loops, x27 to x29 are for stores into the code, x30 and x31
# for the handler.
POINTERS = {2: DATA, 8: DATA + 0x1805, 9: DATA + 0x1000, 25: TABLE, 26: 0, 23: 0x5851_F42D_4C95_7F2D}
RESERVED = {*POINTERS, 24, 27, 28, 29, 30, 31}

HANDLER_TEXT = """
    csrr x31, mcause
    bltz x31, interrupt
    csrr x31, mepc
    lhu x30, 0(x31)
    andi x30, x30, 3
    addi x30, x30, -3
    seqz x30, x30
    slli x30, x30, 1
    addi x31, x31, 2
    add x31, x31, x30
    csrw mepc, x31
    mret
interrupt:
    csrr x31, time
    addi x31, x31, 37
    csrw stimecmp, x31
    mret
"""
CSRS = (
    *("mscratch", "sscratch", "sepc", "scause", "stval", "fflags", "fcsr", "cycle", "instret", "time"),
    *("mcycle", "minstret", "mcounteren", "scounteren", "mcountinhibit", "mhartid", "misa", "senvcfg"),
)
CONTROL = {"jal", "jalr", "beq", "bne", "blt", "bge", "bltu", "bgeu"}
BRANCHES = ("beq", "bne", "blt", "bge", "bltu", "bgeu")
PATCH_STORES = ("sb", "sh", "sw", "sd", "amoswap.w", "sc.w")
LENGTHS = {"branch": 4, "jal": 4, "far": 8, "c.j": 2, "c.branch": 2, "loop": 16, "patch": 24}
# Encodings that nothing has, and c.ebreak.
GARBAGE = (0x0000, 0x8002, 0x9C41, 0x6101, 0x9002)


@dataclass
class _Item:
    """``length`` bytes: the instruction ``word``, or something that refers to the item ``target``."""

    kind: str
    length: int
    word: int = 0
    target: int = 0
    seed: int = 0


@cache
def _instructions() -> dict[str, Instruction]:
    return {i.name: i for i in rv64gc().instructions}


@cache
def _plain() -> tuple[list[Instruction], list[Instruction]]:
    """Instructions that go on behind themselves: on integers, on floats."""
    plain = [
        i
        for i in _instructions().values()
        if i.base.name not in CONTROL
        and i.base.extension not in ("Privileged", "Zicsr")
        and i.name != "c.ebreak"
    ]
    floats = [i for i in plain if i.base.extension in ("F", "D")]
    return [i for i in plain if i not in floats], floats


class Stream:
    """A program of ``size`` items from ``base`` up, the same for the same ``choice``.

    ``patching``, ``floats`` and ``traps`` say how much of it stores into the program, computes with floats,
    traps; ``spread`` how many of the branches go anywhere rather than near by. Branches go forward, except
    for loops, which turn back by chance, and the end, which leads to the beginning: the program comes
    everywhere.
    """

    def __init__(
        self,
        choice: random.Random,
        base: int = 0x8000_2000,
        size: int = 300,
        *,
        patching: float = 0.0,
        floats: float = 0.05,
        traps: float = 0.02,
        chunk: int = 40,
        spread: float = 0.2,
    ) -> None:
        self.choice = choice
        self.spread = spread
        self.base = base
        self.patching, self.floats, self.traps = patching, floats, traps
        self._items = [self._item(index, size) for index in range(size)]
        # Chunks end in a jump over a gap to the end of a page, so that instructions come to straddle pages.
        self._breaks = set(range(chunk, size, chunk))
        self._addresses: list[int] = []
        self.code = self._lay_out()
        self.handler = assemble(HANDLER_TEXT, HANDLER)
        self.table = b"".join(self._table_word().to_bytes(4, "little") for _ in range(TABLE_WORDS))

    @property
    def end(self) -> int:
        """The address behind the program."""
        return self.base + len(self.code)

    def registers(self) -> list[int]:
        """Values for x0 to x31 to begin with."""
        values = [self.choice.getrandbits(self.choice.choice((4, 16, 32, 64))) for _ in range(32)]
        for number, value in (POINTERS | {0: 0}).items():
            values[number] = value
        return values

    def data(self) -> bytes:
        """Values for the pages at DATA."""
        return self.choice.randbytes(0x3000)

    # --- what it is made of ---

    def _item(self, index: int, size: int) -> _Item:
        choice = self.choice
        near = choice.random() >= self.spread
        behind = min(size - 1, index + (choice.randint(1, 12) if near else choice.randrange(size)))
        before = max(0, index - choice.randint(0, 15)) if near else choice.randrange(index + 1)
        if choice.random() < self.patching:
            target = choice.choice((behind, before))
            return _Item("patch", LENGTHS["patch"], target=target, seed=choice.getrandbits(30))
        roll = choice.random()
        if roll < 0.12:
            kind = choice.choice(
                ("branch", "branch", "branch", "jal", "far", "c.j", "c.branch", "loop", "loop")
            )
            target = before if kind == "loop" else behind
            return _Item(kind, LENGTHS[kind], target=target, seed=choice.getrandbits(30))
        if roll < 0.12 + self.traps:
            name = choice.choice(("ecall", "ebreak", "garbage", "garbage", "sfence.vma"))
            if name == "garbage":
                return _Item("word", 2, choice.choice(GARBAGE))
            pattern = _instructions()[name].pattern
            return _Item("word", 4, pattern.encode({f.name: 0 for f in pattern.fields}))
        if roll < 0.15 + self.traps:
            return self._csr()
        return self._ordinary()

    def _csr(self) -> _Item:
        name = self.choice.choice(("csrrw", "csrrs", "csrrc", "csrrwi", "csrrsi", "csrrci"))
        pattern = _instructions()[name].pattern
        values = {f.name: self.choice.randrange(26) for f in pattern.fields}
        values |= {"csr": CSR_BY_NAME[self.choice.choice(CSRS)].number, "rd": self.choice.choice((0, 10, 11))}
        return _Item("word", 4, pattern.encode(values))

    def _ordinary(self, length: int = 0) -> _Item:
        integers, floats = _plain()
        while True:
            instruction = self.choice.choice(floats if self.choice.random() < self.floats else integers)
            if length in (0, instruction.length):
                word = self._encode(instruction)
                if word is not None:
                    return _Item("word", instruction.length, word)

    def _encode(self, instruction: Instruction) -> int | None:
        values = {}
        for field in instruction.pattern.fields:
            allowed = field.values()
            values[field.name] = self.choice.choice((self.choice.choice(allowed), allowed[0], allowed[-1]))
            if field.name in ("rd", "rs1", "rs2"):
                values[field.name] = self.choice.choice(allowed)
            if field.name == "rm":
                values[field.name] = self.choice.choice((0, 0, 0, 1, 2, 3, 4, 7))
        if any(o.kind == "memory" for o in parse_syntax(instruction.syntax)):
            if "rs1" in values:
                values["rs1"] = self.choice.choice((2, 9, 9, 8))
            if "rs1'" in values:
                values["rs1'"] = self.choice.choice((8, 9, 9))
        word = instruction.pattern.encode(values)
        if not instruction.matches(word):
            return None
        if instruction.destination == "rd" and instruction.operands(word).rd in RESERVED:
            return None
        return word

    def _table_word(self) -> int:
        """Four bytes of instructions to patch the program with."""
        first = self._ordinary()
        return first.word if first.length == 4 else first.word | self._ordinary(2).word << 16

    # --- laying it out ---

    def _lay_out(self) -> bytes:
        at = self.base
        for index, item in enumerate(self._items):
            if index in self._breaks:
                page = (at + 4) // PAGE + 1 + self.choice.choice((0, 0, 1, 3))
                at = page * PAGE + PAGE - self.choice.randrange(2, 60, 2)
            self._addresses.append(at)
            at += item.length
        code = bytearray(at + 4 - self.base)

        def put(address: int, data: bytes) -> None:
            code[address - self.base : address - self.base + len(data)] = data

        for index, item in enumerate(self._items):
            if index in self._breaks:
                behind = self._addresses[index - 1] + self._items[index - 1].length
                put(behind, assemble(f"j {self._addresses[index]}", behind))
            put(self._addresses[index], self._bytes(item, self._addresses[index]))
        put(at, assemble(f"j {self.base}", at))
        return bytes(code)

    def _bytes(self, item: _Item, at: int) -> bytes:
        if item.kind == "word":
            return item.word.to_bytes(item.length, "little")
        target = self._addresses[item.target]
        distance = target - at
        upper = distance + 0x800 >> 12
        lower = distance - (upper << 12)
        match item.kind:
            case "patch":
                text = self._patch(item.seed, upper & 0xFFFFF, lower)
            case "loop":
                turn = f"bltz x24, {target}; nop" if distance >= -4000 else f"bgez x24, {at + 16}; j {target}"
                text = f"mul x24, x24, x23; addi x24, x24, {item.seed % 1000}; {turn}"
            case "far":
                text = f"auipc x1, {upper & 0xFFFFF}; jalr x1, {lower}(x1)"
            case "c.j" if -2048 <= distance < 2048:
                text = f"c.j {target}"
            case "c.branch" if -256 <= distance < 256:
                text = f"c.{('beqz', 'bnez')[item.seed & 1]} x{10 + (item.seed >> 1) % 6}, {target}"
            case "branch" if -4096 <= distance < 4096:
                text = f"{BRANCHES[item.seed % 6]} x{item.seed >> 3 & 31}, x{item.seed >> 8 & 31}, {target}"
            case "branch" | "jal":
                text = f"jal x{(0, 1, 5)[item.seed % 3]}, {target}"
            case _:
                text = "c.nop"
        return assemble(text, at)

    def _patch(self, seed: int, upper: int, lower: int) -> str:
        """A store of an instruction from the table into the program, through the alias."""
        store = PATCH_STORES[seed % 6]
        atomic = store in ("amoswap.w", "sc.w")
        return f"""
            auipc x28, {upper}
            addi x28, x28, {lower}
            add x28, x28, x26
            lwu x29, {(seed >> 3) % TABLE_WORDS * 4}(x25)
            {"lr.w x27, (x28)" if store == "sc.w" else "nop"}
            {f"{store} x27, x29, (x28)" if atomic else f"{store} x29, (x28)"}
        """
