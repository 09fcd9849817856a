"""How many instructions a second a hart executes, in loops of one kind each, in S mode with Sv39 on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.flat import DATA, Loop, bare_image, check_retired, run_flat
from benchmarks.machines import flat_commands
from benchmarks.measure import DOPPEL, Benchmark, Measured, Metric, Settings

__all__ = ["INTERPRETER"]

INTEGER_PROMISE = 250.0
LOOP_INSTRUCTIONS = 120_000_000

STACK = DATA + 0x1000
WALKED = DATA + 0x10_0000

ALU = """
    add a3, a3, a2
    xor a4, a4, a3
    slli a5, a3, 3
    sub a2, a5, a4
    srli a6, a2, 7
    or a7, a6, a4
    andi t1, a7, 255
    addi a3, a3, 13
"""
MEMORY = """
    ld a2, 0(s0)
    addi a2, a2, 1
    sd a2, 0(s0)
    lw a3, 8(s0)
    add a4, a4, a3
    addi a5, a5, 16
    and a5, a5, s2
    add s0, s1, a5
"""
MEMORY_SETUP = f"""
    li s1, {WALKED}
    mv s0, s1
    li s2, 0xffff
    li a5, 0
"""
# A xorshift generator decides; both ways are equally long.
BRANCHES = """
    slli t1, a2, 13
    xor a2, a2, t1
    srli t1, a2, 7
    xor a2, a2, t1
    slli t1, a2, 17
    xor a2, a2, t1
    andi t1, a2, 1
    beqz t1, 1f
    addi a3, a3, 1
    j 2f
1:  addi a3, a3, -1
    nop
2:
"""
CALLS = """
    jal outer
"""
CALLS_SUBROUTINE = """
outer:
    addi sp, sp, -16
    sd ra, 8(sp)
    jal inner
    ld ra, 8(sp)
    addi sp, sp, 16
    ret
inner:
    addi a3, a3, 1
    ret
"""
MULTIPLY = """
    mul a3, a2, a4
    mulhu a5, a2, a4
    add a2, a2, a5
    xor a2, a2, a3
    divu a6, a2, a4
    add a7, a7, a6
"""
FLOATS = """
    fmul.d f1, f2, f3
    fadd.d f4, f4, f1
    fmadd.d f5, f2, f3, f4
    fsub.d f6, f5, f4
    fadd.d f7, f7, f6
"""
FLOATS_SETUP = """
    li t0, 0x3ff8000000000000
    fmv.d.x f2, t0
    li t0, 0x3fe8000000000000
    fmv.d.x f3, t0
    fmv.d.x f4, zero
    fmv.d.x f7, zero
"""
# One access to each of 2048 pages of 4 KiB in turn: more than either machine's TLB holds.
PAGES = """
    ld a2, 0(s0)
    add a3, a3, a2
    add a5, a5, s3
    and a5, a5, s2
    add s0, s1, a5
"""
PAGES_SETUP = f"""
    li s1, {WALKED}
    mv s0, s1
    li s3, 4096 + 64
    li s2, 0x7fffc0
    li a5, 0
"""

KINDS = (
    Loop("alu", ALU, 1, 8, setup="li a2, 12345"),
    Loop("memory", MEMORY, 1, 8, setup=MEMORY_SETUP),
    Loop("branches", BRANCHES, 1, 10, setup="li a2, 88172645463325252"),
    Loop("calls", CALLS, 1, 9, setup=f"li sp, {STACK}", subroutine=CALLS_SUBROUTINE),
    Loop("multiply", MULTIPLY, 1, 6, setup="li a2, 12345; li a4, 0x123456789"),
    Loop("floats", FLOATS, 1, 5, setup=FLOATS_SETUP),
    Loop("pages", PAGES, 1, 5, setup=PAGES_SETUP),
)
TITLES = {
    "alu": "integer arithmetic",
    "memory": "loads and stores, 64 KiB",
    "branches": "branches nobody can predict",
    "calls": "calls and returns",
    "multiply": "multiplication and division",
    "floats": "floating point, double",
    "pages": "loads from 2048 pages in turn",
}
INTEGER = ("alu", "memory", "branches", "calls", "multiply")
# Loops with much slower instructions take as long with fewer of them.
SHARE = {"floats": 0.5, "pages": 0.1}


@dataclass(frozen=True)
class _Machine:
    name: str
    command: Sequence[str]
    image: Path
    loops: Sequence[Loop]
    settings: Settings

    def measure(self) -> Measured:
        timings = run_flat(self.name, self.command, self.image, self.loops, self.settings.environment)
        if self.name == DOPPEL:
            check_retired(self.loops, timings)
        return {loop.key: loop.retired / timings[loop.key].seconds / 1e6 for loop in self.loops}


@contextmanager
def _subjects(settings: Settings) -> Iterator[Sequence[_Machine]]:
    loops = [_with_iterations(loop, settings) for loop in KINDS]
    image = settings.folder / "interpreter.bin"
    image.write_bytes(bare_image(loops))
    yield [
        _Machine(name, command, image, loops, settings)
        for name, command in flat_commands(settings.peer, supervised=False).items()
    ]


def _with_iterations(loop: Loop, settings: Settings) -> Loop:
    wanted = LOOP_INSTRUCTIONS * SHARE.get(loop.key, 1.0)
    iterations = settings.scaled(int(wanted / (loop.instructions + 2)))
    return Loop(loop.key, loop.body, iterations, loop.instructions, loop.setup, loop.subroutine)


INTERPRETER = Benchmark(
    "interpreter",
    "millions of guest instructions a second, one hart, S mode with Sv39",
    tuple(
        Metric(
            key,
            title,
            "M/s",
            "higher",
            promise=INTEGER_PROMISE if key in INTEGER else None,
        )
        for key, title in TITLES.items()
    ),
    _subjects,
    warm_up=False,
)
