"""Guests that mean harm, or know no better: whatever they do, it is only their own machine that suffers."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import pytest

from doppel.devices.backends.characters import Buffer
from doppel.devices.backends.disk import MemoryDisk
from doppel.devices.backends.network import Loopback
from doppel.devices.virtio.console import ConsolePort
from doppel.machine import BARE, Machine, Outcome

from .support import MEMORY, PATIENCE, POWEROFF, RAM, RESULTS, SUPERVISOR, bare, program, supervised

CLOCKS = pytest.mark.parametrize("clock", ["host", "icount"])


def _still_obeys(machine: Machine, seconds: float = 0.3) -> None:
    """The machine runs for a while, and then does what it is told."""
    machine.start()
    time.sleep(seconds)
    assert machine.outcome is None
    machine.pause()
    assert machine.statistics.instructions + machine.statistics.exits.get("trap", 0) >= 0
    machine.resume()
    machine.reset()
    machine.stop()
    assert machine.outcome == Outcome("stopped")


JUMPS = {
    "nowhere": "li t0, 0x40000000; jr t0",
    "the end of memory": f"li t0, {RAM + MEMORY - 2}; jr t0",
    "behind memory": f"li t0, {RAM + MEMORY}; jr t0",
    "a device": "li t0, UART; jr t0",
    "the top of the address space": "li t0, -2; jr t0",
    "a page of zeroes": "li t0, RESULTS; jr t0",
    "nowhere, by a trap": "li t0, 0x40000000; csrw stvec, t0; ebreak",
    "itself, by a trap": "la t0, .; csrw stvec, t0; unimp",
    "an address that is not canonical": "li t0, 1 << 62; jr t0",
    "a table that is no memory": "li t0, 8 << 60 | 0x40000; csrw satp, t0; sfence.vma; nop",
    "a table that is a device": "li t0, 8 << 60 | 0x10000; csrw satp, t0; sfence.vma; nop",
    "a table that points to itself": """
        li t0, RESULTS
        li t1, RESULTS >> 2 | 1
        sd t1, 16(t0)
        li t2, 8 << 60 | RESULTS >> 12
        csrw satp, t2
        sfence.vma
        nop
    """,
}


@CLOCKS
@pytest.mark.parametrize("where", JUMPS)
def test_jumping_nowhere(where: str, clock: str) -> None:
    with supervised(JUMPS[where], clock=clock) as machine:
        _still_obeys(machine, 0.1)


@pytest.mark.parametrize("where", ["nowhere", "a device", "behind memory", "the top of the address space"])
def test_jumping_nowhere_without_any_firmware(where: str) -> None:
    with bare(JUMPS[where], harts=2) as machine:
        _still_obeys(machine, 0.1)


LOOPS = {
    "traps": "la t0, trap; csrw stvec, t0; .align 2; trap: ebreak",
    "calls nobody answers": "1: li a7, 0x0A000000; ecall; j 1b",
    "device accesses": "li t0, UART; 1: lbu t1, 5(t0); j 1b",
    "accesses that nobody answers": """
        la t0, trap
        csrw stvec, t0
        li t1, 0x40000000
    1:  lw t2, 0(t1)
    .align 2
    trap:
        la t0, 1b
        csrw sepc, t0
        sret
    """,
    "interrupts that nobody silences": """
        la t0, trap
        csrw stvec, t0
        csrsi sie, 2
        csrsi sstatus, 2
        csrsi sip, 2
    1:  j 1b
    .align 2
    trap:
        sret
    """,
    "waits that end at once": "csrsi sie, 2; csrsi sip, 2; 1: wfi; j 1b",
    "flushes": "1: sfence.vma; fence.i; j 1b",
    "changes to its own code": "la t0, 1f; lwu t1, 0(t0); 1: sw t1, 0(t0); fence.i; j 1b",
    "timers that are due": """
        la t0, trap
        csrw stvec, t0
        li t0, 32
        csrw sie, t0
        csrw stimecmp, zero
        csrsi sstatus, 2
    1:  j 1b
    .align 2
    trap:
        sret
    """,
}


@CLOCKS
@pytest.mark.parametrize("what", LOOPS)
def test_endless_loops(what: str, clock: str) -> None:
    with supervised(LOOPS[what], clock=clock, harts=2) as machine:
        _still_obeys(machine, 0.1)


def test_all_harts_stop() -> None:
    with supervised("li a7, 0x48534D; li a6, 1; ecall", harts=2) as machine:
        _still_obeys(machine, 0.1)


@CLOCKS
def test_resetting_all_the_time(clock: str) -> None:
    with supervised("li t0, TEST; li t1, RESET; sw t1, 0(t0); 1: j 1b", clock=clock, harts=2) as machine:
        _still_obeys(machine, 0.5)
        assert machine.statistics.accesses["test"] > 2


# --- nonsense for devices and firmware ---

# Executes a list of accesses: address, value, and the place of the instruction to use. Traps are passed over.
ACCESSES = (
    """
    la t0, trap
    csrw mtvec, t0
    csrr t0, mhartid
    bnez t0, .
    li s0, LIST
    li s1, COUNT
1:  ld a0, 0(s0)
    ld a1, 8(s0)
    ld a2, 16(s0)
    la t0, operations
    slli a2, a2, 3
    add t0, t0, a2
    jalr ra, 0(t0)
    addi s0, s0, 24
    addi s1, s1, -1
    bnez s1, 1b
"""
    + POWEROFF
    + """
operations:
    lb t1, 0(a0)
    ret
    lh t1, 0(a0)
    ret
    lw t1, 0(a0)
    ret
    ld t1, 0(a0)
    ret
    sb a1, 0(a0)
    ret
    sh a1, 0(a0)
    ret
    sw a1, 0(a0)
    ret
    sd a1, 0(a0)
    ret
    amoadd.w t1, a1, (a0)
    ret
    lr.d t1, (a0)
    ret
    cbo.zero 0(a0)
    ret
.align 2
trap:
    csrr t2, mepc
    addi t2, t2, 4
    csrw mepc, t2
    mret
"""
)
LIST = RAM + 0x10_0000
LOADS, STORES, ODD = (0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10)
WINDOWS = {
    "rtc": (0x10_1000, 0x30),
    "clint": (0x200_0000, 0x10000),
    "plic": (0xC00_0000, 0x600000),
    "plic priorities": (0xC00_0000, 0x100),
    "plic enables": (0xC00_2000, 0x200),
    "plic contexts": (0xC20_0000, 0x4000),
    "uart": (0x1000_0000, 0x100),
    "virtio": (0x1000_1000, 0x5000),
    "nobody's": (0x4000_0000, 0x1000),
}


def _values(chance: random.Random) -> int:
    """A value that a register might take seriously."""
    return chance.choice(
        [
            chance.randrange(32),
            1 << chance.randrange(64),
            chance.getrandbits(64),
            RESULTS + 8 * chance.randrange(4096),
            RAM + MEMORY - 16,
            (1 << 64) - chance.randrange(1, 9),
            0x4000_0000,
        ]
    )


def _accesses(seed: int, count: int) -> bytes:
    chance = random.Random(seed)
    records = []
    for _ in range(count):
        base, size = WINDOWS[chance.choice(list(WINDOWS))]
        operation = chance.choice(chance.choice([LOADS, STORES, STORES, (6,), ODD]))
        offset = chance.randrange(size)
        if chance.random() < 0.7:
            offset &= ~7 if operation in (3, 7) else ~3
        records.append(struct.pack("<QQQ", base + offset, _values(chance), operation))
    return b"".join(records)


def _full_machine(**options: object) -> Machine:
    return Machine(
        MEMORY,
        2,
        firmware=BARE,
        disks=[MemoryDisk(size=1 << 20), MemoryDisk(size=512, readonly=True)],
        networks=[Loopback()],
        ports=[ConsolePort(Buffer()), ConsolePort(Buffer(), "extra", console=False)],
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("seed", range(4))
@CLOCKS
def test_nonsense_for_every_device(seed: int, clock: str) -> None:
    count = 8000
    with _full_machine(clock=clock) as machine:
        machine.boot(program(ACCESSES, RAM, {"LIST": LIST, "COUNT": count}))
        machine.memory.write(LIST, _accesses(seed, count))
        machine.memory.write(RESULTS, random.Random(seed).randbytes(1 << 16))
        assert machine.run(PATIENCE) == Outcome("poweroff")
        assert sum(machine.statistics.accesses.values()) > count / 2


def _virtio_nonsense(seed: int, count: int) -> bytes:
    """Drivers that set a queue up by the rules as far as rules go, with rings full of anything."""
    chance = random.Random(seed)
    records = []

    def write(slot: int, offset: int, value: int) -> None:
        records.append(struct.pack("<QQQ", 0x1000_1000 + slot * 0x1000 + offset, value & 0xFFFF_FFFF, 6))

    while len(records) < count:
        slot = chance.randrange(5)
        write(slot, 0x70, 0)
        write(slot, 0x70, 3)
        for word in (0, 1):
            write(slot, 0x24, word)
            write(slot, 0x20, chance.choice([0, 1, 1 << 28, 3 << 28, 1 << 5]))
        write(slot, 0x70, 11)
        for queue in range(chance.randrange(1, 4)):
            write(slot, 0x30, queue)
            write(slot, 0x38, 1 << chance.randrange(9))
            for area in (0x80, 0x90, 0xA0):
                write(
                    slot, area, chance.choice([RESULTS + 4096 * chance.randrange(12), _values(chance)]) & ~15
                )
                write(slot, area + 4, chance.choice([0, 0, 0, 0, 0, 0, 0, 1]))
            write(slot, 0x44, 1)
        write(slot, 0x70, 15)
        for _ in range(3):
            write(slot, 0x50, chance.randrange(3))
    return b"".join(records[:count])


def _rings(seed: int) -> bytes:
    """Memory that looks like descriptors, rings and requests, of which some are in place."""
    chance = random.Random(seed)
    words = []
    for _ in range(1 << 11):
        address = chance.choice([RESULTS + 16 * chance.randrange(4096), _values(chance)])
        length = chance.choice([0, 16, 512, 4096, chance.getrandbits(32)])
        flags = chance.choice([0, 1, 2, 3, 4, 5, chance.getrandbits(16)])
        words.append(
            struct.pack("<QIHH", address, length, flags, chance.choice([0, 1, 2, chance.getrandbits(8)]))
        )
    return b"".join(words)


@pytest.mark.parametrize("seed", range(6))
def test_nonsense_in_virtqueues(seed: int) -> None:
    count = 8000
    with _full_machine() as machine:
        machine.boot(program(ACCESSES, RAM, {"LIST": LIST, "COUNT": count}))
        machine.memory.write(LIST, _virtio_nonsense(seed, count))
        machine.memory.write(RESULTS, _rings(seed) + _rings(seed + 100))
        machine.start()
        try:
            # Devices may have written anything anywhere, the guest's own code included.
            outcome = machine.wait(5)
        except TimeoutError:
            outcome = None
        assert outcome is None or outcome.kind == "poweroff"
        assert machine.statistics.accesses["virtio0"] > 100


# Random calls, with arguments that are sometimes right. Not among them: shutdown, stopping the only hart.
CALLS = (
    """
    li s0, LIST
    li s1, COUNT
1:  ld a7, 0(s0)
    ld a6, 8(s0)
    ld a0, 16(s0)
    ld a1, 24(s0)
    ld a2, 32(s0)
    ld a3, 40(s0)
    ecall
    addi s0, s0, 48
    addi s1, s1, -1
    bnez s1, 1b
"""
    + POWEROFF
)


@pytest.mark.parametrize("seed", range(4))
@CLOCKS
def test_nonsense_for_the_firmware(seed: int, clock: str) -> None:
    chance = random.Random(seed)
    extensions = [0, 1, 2, 0x10, 0x54494D45, 0x735049, 0x52464E43, 0x4442434E, 0x48534D]
    calls = []
    for _ in range(5000):
        extension, function = chance.choice([*extensions, chance.getrandbits(64)]), chance.randrange(8)
        if extension == 0x48534D and function in (1, 3):
            function = 2
        calls.append(struct.pack("<6Q", extension, function, *(_values(chance) for _ in range(4))))
    with supervised("nop", clock=clock, harts=2) as machine:
        machine.boot(program(CALLS, SUPERVISOR, {"LIST": LIST + 0x20_0000, "COUNT": len(calls)}))
        machine.memory.write(LIST + 0x20_0000, b"".join(calls))
        machine.start()
        try:
            # The other hart may have been started anywhere, and console_read writes where it is told.
            outcome = machine.wait(5)
        except TimeoutError:
            outcome = None
        assert outcome is None or outcome.kind == "poweroff"
        assert machine.statistics.exits["trap"] > 100


# --- anything at all ---


@pytest.mark.parametrize("seed", range(12))
def test_random_code(seed: int) -> None:
    """Two harts execute random bytes; a trap sends them to another place among them."""
    chance = random.Random(seed)
    text = """
        la t0, trap
        csrw mtvec, t0
        li s11, 0x123457
    .align 2
    trap:
        li t0, 0xFFFFE
        li t1, 0x80200000
        addi s11, s11, 4
        li t2, 6364136223846793005
        mul s11, s11, t2
        srli t2, s11, 40
        and t2, t2, t0
        add t1, t1, t2
        # Back to M mode with interrupts on or off, and translation as the noise has left it.
        csrr t3, mhartid
        add t1, t1, t3
        andi t1, t1, -2
        jr t1
    """
    with Machine(MEMORY, 2, firmware=BARE, clock=chance.choice(["host", "icount"])) as machine:  # type: ignore[arg-type]
        machine.boot(program(text, RAM))
        machine.memory.write(SUPERVISOR, chance.randbytes(1 << 20))
        machine.start()
        deadline = time.monotonic() + 0.5
        while machine.outcome is None and time.monotonic() < deadline:
            time.sleep(0.05)
        machine.stop()
        assert machine.outcome is not None
        assert machine.outcome.kind in ("stopped", "poweroff"), machine.outcome


@pytest.mark.parametrize("seed", range(4))
def test_random_page_tables(seed: int) -> None:
    """M mode reads and writes through page tables of random entries, as S mode would."""
    chance = random.Random(seed)
    count = 5000
    text = (
        """
        la t0, trap
        csrw mtvec, t0
        # Memory protection lets S mode do anything.
        li t0, 0x1F
        csrw pmpcfg0, t0
        li t0, -1
        csrw pmpaddr0, t0
        li s0, LIST
        li s1, COUNT
    1:  ld a0, 0(s0)
        ld a1, 8(s0)
        ld a2, 16(s0)
        csrw satp, a1
        sfence.vma
        # MPRV with MPP = S: loads and stores go through satp.
        li t0, 1 << 17 | 1 << 11
        csrs mstatus, t0
        andi t1, a2, 1
        beqz t1, 2f
        ld t2, 0(a0)
        j 3f
    2:  sb a2, 0(a0)
    3:  li t0, 1 << 17
        csrc mstatus, t0
        addi s0, s0, 24
        addi s1, s1, -1
        bnez s1, 1b
    """
        + POWEROFF
        + """
    .align 2
    trap:
        csrr t2, mepc
        addi t2, t2, 4
        csrw mepc, t2
        # MPP is S again for the access that is repeated behind it; this handler stays in M.
        li t2, 3 << 11
        csrs mstatus, t2
        mret
    """
    )
    tables = RESULTS
    records, entries = [], []
    for _ in range(count):
        address = chance.choice([chance.getrandbits(39), -chance.getrandbits(38) & (1 << 64) - 1])
        scheme = chance.choice([8, 9])
        root = (tables >> 12) + chance.randrange(8)
        records.append(struct.pack("<QQQ", address, scheme << 60 | root, chance.getrandbits(8)))
    for _ in range(8 * 512):
        page = chance.choice(
            [(tables >> 12) + chance.randrange(8), chance.getrandbits(20), chance.getrandbits(44)]
        )
        entries.append(struct.pack("<Q", page << 10 | chance.getrandbits(10)))
    with Machine(MEMORY, firmware=BARE) as machine:
        machine.boot(program(text, RAM, {"LIST": LIST, "COUNT": count}))
        machine.memory.write(LIST, b"".join(records))
        machine.memory.write(tables, b"".join(entries))
        machine.start()
        try:
            outcome = machine.wait(5)
        except TimeoutError:
            outcome = None
        assert outcome is None or outcome.kind == "poweroff", outcome


def test_a_disk_that_breaks(tmp_path: Path) -> None:
    """An error of the host's is the guest's I/O error, not the end."""

    class Broken(MemoryDisk):
        def readv(self, offset: int, buffers: list[memoryview]) -> None:
            raise OSError(5, "Input/output error")

    # One request: a header, a buffer, a status byte.
    text = """
        li s0, VIRTIO
        li t0, 3
        sw t0, 0x70(s0)
        li t0, 1
        sw t0, 0x24(s0)
        sw t0, 0x20(s0)
        li t0, 11
        sw t0, 0x70(s0)
        li t0, 4
        sw t0, 0x38(s0)
        li s1, RESULTS
        sw s1, 0x80(s0)
        addi t0, s1, 0x100
        sw t0, 0x90(s0)
        addi t0, s1, 0x200
        sw t0, 0xA0(s0)
        li t0, 1
        sw t0, 0x44(s0)
        li t0, 15
        sw t0, 0x70(s0)
        sw zero, 0x50(s0)
    """
    descriptors = b"".join(
        struct.pack("<QIHH", RESULTS + offset, size, flags, following)
        for offset, size, flags, following in ((0x400, 16, 1, 1), (0x800, 512, 3, 2), (0x500, 1, 2, 0))
    )
    with Machine(MEMORY, firmware=BARE, disks=[Broken(size=4096)]) as machine:
        machine.boot(program(text + POWEROFF, RAM))
        machine.memory.write(RESULTS, descriptors)
        machine.memory.write_u16(RESULTS + 0x102, 1)
        machine.memory.write(RESULTS + 0x500, b"\xff")
        assert machine.run(PATIENCE) == Outcome("poweroff")
        # VIRTIO_BLK_S_IOERR, and the request is used.
        assert machine.memory.read(RESULTS + 0x500, 1) == b"\x01"
        assert machine.memory.read_u16(RESULTS + 0x202) == 1
