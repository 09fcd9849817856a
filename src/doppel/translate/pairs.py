"""Superinstructions: pairs of instructions that often follow one another run as one handler.

A pair saves one indirect jump. The record of the first instruction gets the pair's handler when it is decoded and the
second stands behind it in the same page; the second's record stays as it is for jumps to it. What pairs there are was
counted by sampling the boot of a Debian kernel to its shell: these are the most frequent ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from doppel.isa.instruction import Instruction, InstructionSet
from doppel.translate.handlers import HandlerCompiler

__all__ = ["PairTable", "pair_table"]

# First instruction, and the second ones that follow; "c." is not the mnemonic but a length of two bytes.
_PAIRS = """
c.add: c.add sltu bltu c.ld sub c.addiw sd bne slli c.addi bgeu beq auipc mul
c.ld: c.ld c.addi c.add ld c.addiw
ld: ld c.ld sub sd c.add
c.sd: c.sd c.addi
sd: sd c.add bne
c.addi: c.addi bne c.sd c.jalr mul c.add beq c.ld sd
addi: addi c.addi beq c.add sd
slli: srli c.add c.srli
c.slli: c.add add
srli: c.add c.slli srli mul c.srli
c.srli: c.add c.srli mul
sltu: c.add or c.sd srli
sltiu: and
and: sltu
sub: sltiu c.slli
subw: slli
xor: xor
or: c.add sd
auipc: jalr addi ld
mul: c.add mulhu mul slli
mulhu: c.add
lbu: c.addi c.andi lbu
c.andi: c.bne c.beq
add: lbu c.ld
c.addiw: c.addi
lw: auipc
"""


@dataclass(frozen=True)
class PairTable:
    """``handlers[first][second]`` are symbols or empty; instructions have numbers from 1 up, by name and length."""

    firsts: dict[tuple[str, int], int]
    seconds: dict[tuple[str, int], int]
    handlers: list[list[str]]

    def numbers(self, instruction: Instruction) -> tuple[int, int]:
        """An instruction's numbers as a first and as a second one; 0 for none."""
        key = (instruction.base.name, instruction.length)
        return self.firsts.get(key, 0), self.seconds.get(key, 0)

    def text(self) -> str:
        """``@pair_handlers``: a row of pointers for each first instruction."""
        width = len(self.seconds) + 1
        pointers = [f"ptr {symbol}" if symbol else "ptr null" for row in self.handlers for symbol in row]
        return (
            f"@pair_handlers = internal constant [{len(self.handlers) * width} x ptr] "
            f"[{', '.join(pointers)}]\n@pair_row = internal constant i64 {width * 8}\n"
        )


def pair_table(instructions: InstructionSet, compiler: HandlerCompiler) -> PairTable:
    """Compile the pairs."""
    wanted: list[tuple[Instruction, Instruction]] = []
    by_key: dict[tuple[str, int], Instruction] = {}
    for instruction in instructions.instructions:
        by_key.setdefault((instruction.base.name, instruction.length), instruction)
    for line in _PAIRS.strip().splitlines():
        first, _, seconds = line.partition(":")
        wanted.extend((by_key[_key(first)], by_key[_key(second)]) for second in seconds.split())
    firsts: dict[tuple[str, int], int] = {}
    seconds_: dict[tuple[str, int], int] = {}
    for a, b in wanted:
        firsts.setdefault((a.base.name, a.length), len(firsts) + 1)
        seconds_.setdefault((b.base.name, b.length), len(seconds_) + 1)
    handlers = [[""] * (len(seconds_) + 1) for _ in range(len(firsts) + 1)]
    for a, b in wanted:
        row, column = firsts[a.base.name, a.length], seconds_[b.base.name, b.length]
        handlers[row][column] = compiler.pair(a, b)
    return PairTable(firsts, seconds_, handlers)


def _key(text: str) -> tuple[str, int]:
    return (text.removeprefix("c."), 2) if text.startswith("c.") else (text, 4)
