"""The record of generated IR: what regions of fixed guest code become, so that a change that should not alter
anything can be shown not to.

``python -m tests.translate.regions.record`` (in the repository's folder) shows what differs from the record;
with ``--renew`` it writes the record anew. Digests are kept as text, the IR itself compressed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import lzma
import re
import sys
from pathlib import Path

from doppel.isa import softfloat
from doppel.isa.assembler import assemble_program
from doppel.memory.entry import PAGE_SIZE
from doppel.translate.float_ops import FLOAT_OPERATIONS
from doppel.translate.regions.compiler import RegionRequest, shared_compiler

__all__ = ["SAMPLES", "difference", "generate", "recorded"]

DIGESTS, TEXTS = Path(__file__).with_name("record.txt"), Path(__file__).with_name("record.xz")
# What names the host, and what stands in every region.
HOST = re.compile(r"^(target|declare) [^\n]*\n", re.MULTILINE)
ENTRY = 0x100
LIMIT = 400
SAMPLES = {
    "straight": "add a0, a1, a2; c.addi a0, 3; lui a3, 5; auipc a4, 1; sltu a5, a0, x0; sub x0, a1, a2; wfi",
    "division": "div a0, a1, a2; remu a3, a1, a2; divw a4, a1, a2; mulhsu a5, a1, a2; mulw a6, a1, a2; wfi",
    "counting": "1: addi a0, a0, 1; xor a1, a1, a0; slli a2, a1, 7; bne a0, a3, 1b; wfi",
    "nested loops": """
        1: li a1, 10
        2: add a2, a2, a1; addi a1, a1, -1; bnez a1, 2b
        addi a0, a0, -1; bnez a0, 1b; wfi
    """,
    "two loops": """
        1: c.addi a0, -1; c.bnez a0, 1b; mv a1, a2
        2: addi a1, a1, -2; bgtz a1, 2b; sd a1, (a2); wfi
    """,
    "copying": "1: lbu a3, (a1); sb a3, (a0); addi a1, a1, 1; addi a0, a0, 1; bne a1, a2, 1b; wfi",
    "widths": """
        lb a0, (s0); lh a1, 2(s0)
        lw a2, 4(s0); ld a3, 8(s0); lwu a4, 4(s0); lhu a5, 2(s0)
        sb a0, 16(s0); sh a1, 18(s0); sw a2, 20(s0); sd a3, 24(s0); c.ld a0, 8(s0); c.sdsp a1, 8(sp); wfi
    """,
    "calls": """
        1: jal 2f; jal 3f; addi s0, s0, -1; bnez s0, 1b; wfi
        2: add a0, a0, a1; ret
        3: addi sp, sp, -16; sd ra, 8(sp); jal 2b; ld ra, 8(sp); addi sp, sp, 16; ret
    """,
    "recursion": """
        fib: addi sp, sp, -32; sd ra, 24(sp); sd s0, 16(sp)
        li t0, 2; bltu a0, t0, 1f
        mv s0, a0; addi a0, a0, -1; jal fib
        sd a0, 8(sp); addi a0, s0, -2; jal fib
        ld a1, 8(sp); add a0, a0, a1
        1: ld ra, 24(sp); ld s0, 16(sp); addi sp, sp, 32; ret
    """,
    "a switch": """
        1: lbu t0, (a0); addi a0, a0, 1; slli t0, t0, 3; add t0, t0, a1; ld t0, (t0); jr t0
        addi a2, a2, 1; j 1b
        addi a2, a2, -1; j 1b
        xor a2, a2, a3; j 1b
    """,
    "out of the page": "1: addi a0, a0, 1; beqz a0, .+8; j .+0x2000; bltz a0, 1b; jalr t1; jr t2",
    "a page's end": ".zero 3826; 1: addi a0, a0, 1; bnez a0, 1b; addi a1, a1, 1; c.nop; addi a2, a2, 2",
    "atomics": """
        1: amoadd.d a0, a1, (a2); amoswap.w.aqrl a3, a1, (a2)
        amomaxu.d a4, a1, (a2); amomin.w a5, a1, (a2)
        2: lr.d a6, (a2); addi a6, a6, 1
        sc.d a7, a6, (a2); bnez a7, 2b; fence rw, w; fence; bnez a0, 1b; wfi
    """,
    "what is interpreted": """
        1: add a1, a1, a0; csrr a0, time; fence.i
        ecall; addi a2, a2, 1; bnez a2, 1b; wfi
    """,
    "bits": """
        sh1add a0, a1, a2; andn a3, a1, a2; clz a4, a1
        cpop a5, a2; rori a6, a1, 9; max a7, a1, a2; wfi
    """,
    "doubles": """
        1: fld fa0, (a0); fld fa1, 8(a0)
        fmul.d fa2, fa0, fa1; fadd.d fa3, fa3, fa2; fdiv.d fa4, fa3, fa1
        fsd fa4, 16(a0); addi a0, a0, 24; bne a0, a1, 1b; fsqrt.d fa5, fa3; fcvt.l.d a2, fa5, rtz; wfi
    """,
    "singles": """
        1: flw fa0, (a0); fsub.s fa1, fa0, fa1
        fmin.s fa2, fa1, fa0; fsgnjx.s fa3, fa1, fa2; flt.s a2, fa1, fa0
        fcvt.d.s fa4, fa1; fcvt.s.d fa5, fa4
        fcvt.s.w fa6, a2; fmv.x.w a3, fa5; fsw fa6, (a0); bnez a2, 1b; wfi
    """,
    "rounding": """
        fadd.d fa0, fa1, fa2, rup; fmul.s fa0, fa1, fa2, rmm
        fcvt.w.d a0, fa0, rdn; fclass.d a1, fa0; wfi
    """,
    "fused": """
        1: fmadd.d fa0, fa1, fa2, fa3; fnmsub.s fa4, fa5, fa6, fa7
        feq.d a0, fa0, fa1; beqz a0, 1b; wfi
    """,
}
#: Samples that become something else where the host has no such instruction.
FUSED = {"fused"}


def generate(name: str) -> dict[str, str]:
    """The IR of a sample, for both ways to look at the budget."""
    code = assemble_program(SAMPLES[name], ENTRY).code
    page = (bytes(ENTRY) + code).ljust(PAGE_SIZE, b"\0")[:PAGE_SIZE]
    entry = ENTRY + (len(code) - len(code.lstrip(b"\0"))) // 2 * 2
    end = min(ENTRY + len(code), PAGE_SIZE)
    executed = bytes(ENTRY <= offset < end for offset in range(0, PAGE_SIZE, 2))
    found = {}
    for every_branch in (False, True):
        made = shared_compiler().text(RegionRequest(page, entry, executed, LIMIT, every_branch))
        assert made is not None, name
        found[f"{name}{', every branch' if every_branch else ''}"] = HOST.sub("", made[1])
    return found


def generate_all() -> dict[str, str]:
    """The IR of every sample that this host has."""
    names = [n for n in SAMPLES if n not in FUSED or softfloat.float_fma in FLOAT_OPERATIONS]
    return {key: text for name in names for key, text in generate(name).items()}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recorded() -> dict[str, str]:
    """By sample, the digest that is on record."""
    lines = DIGESTS.read_text().splitlines()
    return {name: value for value, _, name in (line.partition(" ") for line in lines)}


def difference(name: str, text: str, context: int = 3) -> str:
    """How a sample's IR differs from that on record."""
    before = json.loads(lzma.decompress(TEXTS.read_bytes())).get(name, "")
    lines = difflib.unified_diff(before.splitlines(), text.splitlines(), "record", "now", "", "", context)
    return "\n".join((f"--- {name}", *list(lines)[2:]))


def main() -> int:
    made = generate_all()
    if "--renew" in sys.argv[1:]:
        DIGESTS.write_text("".join(f"{digest(text)} {name}\n" for name, text in made.items()))
        TEXTS.write_bytes(lzma.compress(json.dumps(made).encode(), preset=9))
        return 0
    kept = recorded()
    changed = [name for name, text in made.items() if kept.get(name) != digest(text)]
    for name in changed:
        print(difference(name, made[name]))
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
