"""Superinstructions: pairs of instructions that often follow one another run as one handler.

A pair saves one indirect jump. The record of the first instruction gets the pair's handler when it is decoded
and the second stands behind it in the same page; the second's record stays as it is for jumps to it. What
pairs there are was counted by sampling the boot of a Debian kernel to its shell: these are the most
frequent ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from doppel.isa.instruction import Instruction, InstructionSet
from doppel.translate.handlers import HandlerCompiler

__all__ = ["PairTable", "pair_table"]

# First instruction, and the second ones that follow; "c." is not the mnemonic but a length of two bytes.
_PAIRS = """
c.add: c.add sltu bltu c.ld sub c.addiw sd bne slli c.addi bgeu beq auipc mul c.jal or add ld bge
c.add: addi c.slli c.jalr srli c.sub
c.ld: c.ld c.addi c.add ld c.addiw xor sub slli lbu sd
c.sd: c.sd c.addi c.ld c.add
sd: sd c.add bne ld c.addiw srli c.addi xor addi slli xori c.sd
c.addi: c.addi bne c.sd c.jalr mul c.add beq c.ld c.jal sd bltu c.beq auipc slli c.andi c.bne blt
c.addi: addi c.addiw lw sub ld andi
ld: ld c.ld sub sd c.addi c.add srli c.lw and xor c.xor or xori mulhu add c.addiw bne c.slli
ld: c.jalr
slli: srli c.add c.srli c.or slli or
sltu: c.add or c.sd srli sd c.or
xor: xor ld c.xor xori srli or c.ld and slli
auipc: jalr addi lw
srli: c.add c.slli srli mul c.srli slli xor or add
addi: addi c.addi beq c.add add auipc bne c.slli
sub: sltiu c.slli sltu c.sub sub c.add and beq addiw
or: c.add sd or ld xor c.slli
c.addiw: c.addi c.add slli bltu bne
lbu: c.addi c.andi lbu addi c.bne
and: sltu ld and xor xori c.sub
sltiu: and
mul: c.add mulhu mul slli bge
c.slli: c.add add or c.slli c.srli lbu c.or
c.srli: c.add c.srli mul
add: lbu c.ld ld c.add beq bne c.addi
subw: slli bgeu c.addi
c.andi: c.bne bne c.beq beq
mulhu: c.add mul
lw: auipc c.add lw
addiw: bgeu beq
xori: xori and sd ld xor
c.or: c.addiw c.slli sd srli slli
c.xor: c.ld xor sd
c.lw: subw c.addi
addw: addw
srliw: slliw
c.sub: beq
sb: sb
"""


@dataclass(frozen=True)
class PairTable:
    """``handlers[first][second]`` are symbols or empty; instructions, by name and length, are numbered from
    1."""

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
