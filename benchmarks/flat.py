"""Flat programs that time their own loops: the same bytes run on doppel and on QEMU.

For each loop a line on the serial console says its number, the ticks of the ``time`` CSR that it took, and
the instructions retired by ``instret`` (all in hexadecimal); then the program powers the machine off. Two
ways to start:

- *bare*: in M mode at the start of memory. The program opens the PMP and goes to S mode, where it runs its
  loops with Sv39 on: 16 MiB of memory in 4 KiB pages, the rest in 2 MiB pages.
- *supervised*: in S mode behind firmware, where it can make SBI calls, without translation.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import BenchmarkError
from benchmarks.serial import SerialProcess
from doppel.isa.assembler import assemble

__all__ = [
    "DATA",
    "SMALL_PAGES_END",
    "Loop",
    "Timing",
    "bare_image",
    "check_retired",
    "run_flat",
    "supervised_image",
]

# Of the time CSR, on doppel's board and on QEMU's.
TICKS_PER_SECOND = 10_000_000

RAM, MIB = 0x8000_0000, 1 << 20
SUPERVISED = RAM + 2 * MIB
TABLES = RAM + 0x4_0000
DATA = RAM + MIB
"""Where memory begins that a loop may use."""
SMALL_PAGES = 16 * MIB
SMALL_PAGES_END = RAM + SMALL_PAGES
"""Where pages of 2 MiB begin."""

PAGE = 4096
POINTER, LEAF = 0x01, 0xCF

PROLOGUE = """
    li t0, -1
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    li t0, 7
    csrw mcounteren, t0
    li t0, {status}
    csrw mstatus, t0
    la t0, supervisor
    csrw mepc, t0
    mret
supervisor:
    li t0, {satp}
    csrw satp, t0
    sfence.vma
"""
SUPERVISED_PROLOGUE = """
    li t0, 0x6000
    csrs sstatus, t0
"""
TIMED = """
    {setup}
    li s10, {iterations}
    csrr s8, instret
    rdtime s11
loop{number}:
    {body}
    addi s10, s10, -1
    bnez s10, loop{number}
    rdtime a1
    csrr a2, instret
    sub a1, a1, s11
    sub a2, a2, s8
    li a0, {number}
    jal report
"""
EPILOGUE = """
    li t0, 0x100000
    li t1, 0x5555
    sw t1, 0(t0)
halt:
    j halt
{subroutines}
report:
    mv s9, ra
    mv a3, a0
    jal hexadecimal
    mv a3, a1
    jal hexadecimal
    mv a3, a2
    jal hexadecimal
    li a0, 10
    jal put
    jr s9
hexadecimal:
    mv s8, ra
    li s7, 60
1:  srl a0, a3, s7
    andi a0, a0, 15
    li t1, 10
    bltu a0, t1, 2f
    addi a0, a0, 39
2:  addi a0, a0, 48
    jal put
    addi s7, s7, -4
    bgez s7, 1b
    li a0, 32
    jal put
    jr s8
put:
    li t0, 0x10000000
1:  lbu t1, 5(t0)
    andi t1, t1, 0x20
    beqz t1, 1b
    sb a0, 0(t0)
    ret
"""
# MPP = S; FS = dirty.
STATUS = 1 << 11 | 3 << 13
SV39 = 8 << 60
# Retired between the two readings of instret besides the iterations: two readings of time, one of instret.
AROUND = 3
LINE = re.compile(rb"([0-9a-f]{16}) ([0-9a-f]{16}) ([0-9a-f]{16}) \r?\n")


@dataclass(frozen=True)
class Loop:
    """``body`` is repeated ``iterations`` times and always retires ``instructions``, whatever way it takes.

    It may use all registers but s7 to s11. ``setup`` runs once; ``subroutine`` is text behind the program.
    """

    key: str
    body: str
    iterations: int
    instructions: int
    setup: str = ""
    subroutine: str = ""

    @property
    def retired(self) -> int:
        """Instructions of the whole loop, its counter's included."""
        return self.iterations * (self.instructions + 2)


@dataclass(frozen=True)
class Timing:
    """What a loop took, by the guest's own clock; ``retired`` means something on doppel only."""

    seconds: float
    retired: int


def bare_image(loops: Sequence[Loop]) -> bytes:
    """A program for the start of memory, entered in M mode, that runs its loops in S mode with Sv39."""
    prologue = PROLOGUE.format(status=STATUS, satp=SV39 | TABLES // PAGE)
    code = assemble(prologue + _text(loops), RAM)
    if len(code) > TABLES - RAM:
        raise BenchmarkError("the program is too long")
    return code.ljust(TABLES - RAM, b"\0") + _page_tables()


def supervised_image(loops: Sequence[Loop]) -> bytes:
    """A program that firmware starts in S mode."""
    return assemble(SUPERVISED_PROLOGUE + _text(loops), SUPERVISED)


def _text(loops: Sequence[Loop]) -> str:
    timed = "".join(
        TIMED.format(setup=loop.setup, iterations=loop.iterations, body=loop.body, number=number)
        for number, loop in enumerate(loops)
    )
    return timed + EPILOGUE.format(subroutines="".join(loop.subroutine for loop in loops))


def _page_tables() -> bytes:
    """Three levels: devices by one page of 1 GiB, the first GiB of memory by pages of 4 KiB and 2 MiB."""
    middle, last = TABLES + PAGE, TABLES + 2 * PAGE
    root_entries = [0] * 512
    root_entries[0] = LEAF
    root_entries[RAM >> 30] = _entry(middle, POINTER)
    count = SMALL_PAGES >> 21
    middle_entries = [_entry(last + index * PAGE, POINTER) for index in range(count)]
    middle_entries += [_entry(RAM + (index << 21), LEAF) for index in range(count, 512)]
    last_entries = [_entry(RAM + index * PAGE, LEAF) for index in range(SMALL_PAGES // PAGE)]
    entries = root_entries + middle_entries + last_entries
    return struct.pack(f"<{len(entries)}Q", *entries)


def _entry(address: int, flags: int) -> int:
    return address >> 12 << 10 | flags


def run_flat(
    name: str, command: Sequence[str], image: Path, loops: Sequence[Loop], environment: Mapping[str, str]
) -> dict[str, Timing]:
    """Run ``command`` with the image as its last argument; the loops' timings by key.

    Raises:
        BenchmarkError: the program did not come to its end.
    """
    with SerialProcess(name, [*command, str(image)], environment) as process:
        lines = LINE.findall(process.wait())
    if [int(line[0], 16) for line in lines] != list(range(len(loops))):
        raise BenchmarkError(f"{name} did not time all loops of the program")
    return {
        loop.key: Timing(int(ticks, 16) / TICKS_PER_SECOND, int(retired, 16))
        for loop, (_, ticks, retired) in zip(loops, lines, strict=True)
    }


def check_retired(loops: Sequence[Loop], timings: Mapping[str, Timing]) -> None:
    """Compare the machine's count with what the loops say of themselves.

    Raises:
        BenchmarkError: a loop does not retire what it should, so that its speed would be wrong.
    """
    for loop in loops:
        counted, right = timings[loop.key].retired, loop.retired + AROUND
        if counted != right:
            raise BenchmarkError(f"the loop {loop.key} retired {counted} instructions instead of {right}")
