"""Pseudo-instructions: what the assembler accepts for the sake of the reader, and what it makes of it.

From the assembly programmer's handbook of the RISC-V manuals; ``{0}``, ``{1}``... stand for the operands.
"""

from __future__ import annotations

from doppel.isa.words import Word, ctz, sext, sra

__all__ = ["PSEUDO_INSTRUCTIONS", "load_immediate"]

# By mnemonic and number of operands.
PSEUDO_INSTRUCTIONS: dict[tuple[str, int], tuple[str, ...]] = {
    ("nop", 0): ("addi zero, zero, 0",),
    ("unimp", 0): ("csrrw zero, cycle, zero",),
    ("c.nop", 0): ("c.addi zero, 0",),
    ("mv", 2): ("addi {0}, {1}, 0",),
    ("not", 2): ("xori {0}, {1}, -1",),
    ("neg", 2): ("sub {0}, zero, {1}",),
    ("negw", 2): ("subw {0}, zero, {1}",),
    ("sext.w", 2): ("addiw {0}, {1}, 0",),
    ("zext.b", 2): ("andi {0}, {1}, 255",),
    ("zext.w", 2): ("add.uw {0}, {1}, zero",),
    ("seqz", 2): ("sltiu {0}, {1}, 1",),
    ("snez", 2): ("sltu {0}, zero, {1}",),
    ("sltz", 2): ("slt {0}, {1}, zero",),
    ("sgtz", 2): ("slt {0}, zero, {1}",),
    ("beqz", 2): ("beq {0}, zero, {1}",),
    ("bnez", 2): ("bne {0}, zero, {1}",),
    ("blez", 2): ("bge zero, {0}, {1}",),
    ("bgez", 2): ("bge {0}, zero, {1}",),
    ("bltz", 2): ("blt {0}, zero, {1}",),
    ("bgtz", 2): ("blt zero, {0}, {1}",),
    ("bgt", 3): ("blt {1}, {0}, {2}",),
    ("ble", 3): ("bge {1}, {0}, {2}",),
    ("bgtu", 3): ("bltu {1}, {0}, {2}",),
    ("bleu", 3): ("bgeu {1}, {0}, {2}",),
    ("j", 1): ("jal zero, {0}",),
    ("jal", 1): ("jal ra, {0}",),
    ("jr", 1): ("jalr zero, 0({0})",),
    ("jalr", 1): ("jalr ra, 0({0})",),
    ("ret", 0): ("jalr zero, 0(ra)",),
    ("la", 2): ("auipc {0}, %pcrel_hi({1})", "addi {0}, {0}, %pcrel_lo({1})"),
    ("call", 1): ("auipc ra, %pcrel_hi({0})", "jalr ra, %pcrel_lo({0})(ra)"),
    ("tail", 1): ("auipc t1, %pcrel_hi({0})", "jalr zero, %pcrel_lo({0})(t1)"),
    ("fence", 0): ("fence iorw, iorw",),
    ("sfence.vma", 0): ("sfence.vma zero, zero",),
    ("sfence.vma", 1): ("sfence.vma {0}, zero",),
    ("csrr", 2): ("csrrs {0}, {1}, zero",),
    ("csrw", 2): ("csrrw zero, {0}, {1}",),
    ("csrs", 2): ("csrrs zero, {0}, {1}",),
    ("csrc", 2): ("csrrc zero, {0}, {1}",),
    ("csrwi", 2): ("csrrwi zero, {0}, {1}",),
    ("csrsi", 2): ("csrrsi zero, {0}, {1}",),
    ("csrci", 2): ("csrrci zero, {0}, {1}",),
    ("rdcycle", 1): ("csrrs {0}, cycle, zero",),
    ("rdtime", 1): ("csrrs {0}, time, zero",),
    ("rdinstret", 1): ("csrrs {0}, instret, zero",),
    ("frcsr", 1): ("csrrs {0}, fcsr, zero",),
    ("frrm", 1): ("csrrs {0}, frm, zero",),
    ("frflags", 1): ("csrrs {0}, fflags, zero",),
    ("fscsr", 1): ("csrrw zero, fcsr, {0}",),
    ("fsrm", 1): ("csrrw zero, frm, {0}",),
    ("fsflags", 1): ("csrrw zero, fflags, {0}",),
    **{
        (f"{name}.{size}", 2): (f"{base}.{size} {{0}}, {{1}}, {{1}}",)
        for name, base in (("fmv", "fsgnj"), ("fneg", "fsgnjn"), ("fabs", "fsgnjx"))
        for size in "sd"
    },
}


def load_immediate(register: str, value: int) -> list[str]:
    """The instructions of ``li``: few for common constants, at most eight."""
    value = sext(value, 64)
    lower = sext(value, 12)
    if lower == value:
        return [f"addi {register}, zero, {_signed(lower)}"]
    if sext(value, 32) == value:
        code = [f"lui {register}, {(value + 0x800) >> 12 & 0xFFFFF:#x}"]
        return [*code, f"addiw {register}, {register}, {_signed(lower)}"] if lower != 0 else code
    # The upper bits first, without their trailing zeros, then shifted into place.
    shift = 12 + ctz(sra(value - lower, 12))
    code = load_immediate(register, sra(value - lower, shift))
    code.append(f"slli {register}, {register}, {int(shift)}")
    return [*code, f"addi {register}, {register}, {_signed(lower)}"] if lower != 0 else code


def _signed(value: Word) -> int:
    return int(value) - (1 << 64) if value >> 63 else int(value)
