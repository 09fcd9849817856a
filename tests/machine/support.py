"""Small guests in assembly language, and machines to run them on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from doppel.guests.kernel import Kernel, KernelKind, Segment
from doppel.isa.assembler import assemble_program
from doppel.machine import BARE, Machine, Outcome

RAM = 0x8000_0000
SUPERVISOR = 0x8020_0000
RESULTS = 0x8040_0000
MEMORY = 16 << 20
PATIENCE = 60.0

# Addresses and calls that the guests use by name.
SYMBOLS = {
    "RESULTS": RESULTS,
    "TEST": 0x10_0000,
    "RTC": 0x10_1000,
    "CLINT": 0x200_0000,
    "PLIC": 0xC00_0000,
    "UART": 0x1000_0000,
    "VIRTIO": 0x1000_1000,
    "PASS": 0x5555,
    "RESET": 0x7777,
}

# Extensions and error codes of SBI.
BASE, TIME, IPI, RFENCE = 0x10, 0x54494D45, 0x735049, 0x52464E43
HSM, SRST, DBCN = 0x48534D, 0x53525354, 0x4442434E
SUCCESS, NOT_SUPPORTED, INVALID_PARAM, INVALID_ADDRESS, ALREADY_AVAILABLE = 0, -2, -3, -5, -6
# An address that is neither memory nor a device.
NOWHERE = 0x4000_0000

# The end of a guest that has nothing more to say.
POWEROFF = """
    li t0, TEST
    li t1, PASS
    sw t1, 0(t0)
999: j 999b
"""


def program(text: str, origin: int, symbols: Mapping[str, int] | None = None) -> Kernel:
    """A kernel in assembly language, with :data:`SYMBOLS` and its own labels."""
    assembled = assemble_program(text, origin, {**SYMBOLS, **(symbols or {})})
    segment = Segment(origin, assembled.code, len(assembled.code))
    return Kernel(KernelKind.ELF, Path("guest.elf"), (segment,), origin, relocatable=False)


def bare(text: str, **options: Any) -> Machine:
    """A machine on which the text runs in M mode, booted."""
    return _booted(Machine(MEMORY, firmware=BARE, **options), program(text, RAM))


def supervised(text: str, **options: Any) -> Machine:
    """A machine on which the text runs in S mode above doppel's SBI, booted."""
    return _booted(Machine(MEMORY, **options), program(text, SUPERVISOR))


def _booted(machine: Machine, kernel: Kernel) -> Machine:
    try:
        machine.boot(kernel)
    except BaseException:
        machine.close()
        raise
    return machine


def results(machine: Machine, count: int) -> list[int]:
    """The first 64-bit words that the guest left at RESULTS."""
    return [machine.memory.read_u64(RESULTS + 8 * index) for index in range(count)]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that a machine does by itself."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def has_run(machine: Machine) -> Callable[[], bool]:
    """Whether the machine has executed something from now on."""
    before = machine.statistics.instructions
    return lambda: machine.statistics.instructions > before


def powered_off(machine: Machine, status: int = 0) -> None:
    """Run a machine whose guest powers it off."""
    assert machine.run(PATIENCE) == Outcome("poweroff", status)


def sbi_calls(calls: Sequence[Sequence[int]], **options: Any) -> list[tuple[int, int]]:
    """Error (signed) and value of SBI calls made one after the other: extension, function, arguments."""
    text = ["li s0, RESULTS"]
    for extension, function, *arguments in calls:
        text += [f"li a{index}, {value}" for index, value in enumerate(arguments)]
        text += [f"li a6, {function}", f"li a7, {extension}", "ecall", "sd a0, 0(s0)", "sd a1, 8(s0)"]
        text += ["addi s0, s0, 16"]
    with supervised("\n".join(text) + POWEROFF, **options) as machine:
        powered_off(machine)
        words = results(machine, 2 * len(calls))
    return [(signed(words[2 * index]), words[2 * index + 1]) for index in range(len(calls))]


def signed(word: int) -> int:
    """A 64-bit word as a signed number."""
    return word - (1 << 64) if word >> 63 else word
