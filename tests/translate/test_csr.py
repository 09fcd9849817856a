"""Every CSR natively and by the model: read, written, set and cleared, from every mode, in any state around
it."""

from __future__ import annotations

import random

import pytest

from doppel.isa.csr import CSR_TABLE, Csr
from doppel.isa.extensions import rv64gc
from doppel.isa.privileged.constants import EnvironmentConfig, Mode, Status
from doppel.isa.state import PMP_ENTRIES
from doppel.isa.words import MASK64
from doppel.translate.exits import Request

from .support import ALL_ADDRESSES, PMP_EVERYTHING, RAM_BASE, TIERS, Board, Pair

OPERATIONS = [i for i in rv64gc().instructions if i.extension == "Zicsr"]
UNKNOWN = [
    Csr(number, f"{number:#x}", "")
    for number in (0x000, 0x0FF, 0x3B0 + 16, 0x3A1, 0x7B0, 0xABC, 0xC80, 0xFFF)
]
INTERRUPTS = 0xAAA
S_INTERRUPTS = 0x222


@pytest.fixture(scope="module")
def pair(tier: str) -> Pair:
    made = Pair(Board(size=0x1_0000))
    made.set(mtvec=RAM_BASE + 0x1000, stvec=RAM_BASE + 0x2000)
    made.write(RAM_BASE + 0x1000, bytes.fromhex("13000000") * 64)
    made.write(RAM_BASE + 0x2000, bytes.fromhex("13000000") * 64)
    return made


def around(pair: Pair, choice: random.Random, mode: Mode) -> None:
    """A legal state with anything in it that a CSR could look at."""

    def bits(mask: int = MASK64) -> int:
        return choice.choice((0, mask, choice.getrandbits(64) & mask))

    status = 0xA_0000_0000 | bits(
        Status.FS | Status.SUM | Status.MXR | Status.SPP | Status.SPIE | Status.MPIE
    )
    status |= bits(Status.TVM | Status.TW | Status.TSR) | choice.choice((0, 1, 3)) << 11
    pair.set(mode=mode, mstatus=status, pc=RAM_BASE, fflags=bits(31), frm=bits(7))
    pair.set(mcounteren=bits(0xFFFFFFFF), scounteren=bits(0xFFFFFFFF), mcountinhibit=bits(5))
    pair.set(cycle_offset=bits(), instret_offset=bits(), medeleg=bits(0xB3FF), mideleg=bits(S_INTERRUPTS))
    pair.set(mie=0, mip=bits(S_INTERRUPTS), lines=bits(INTERRUPTS))
    pair.set(menvcfg=bits(EnvironmentConfig.STCE | EnvironmentConfig.ADUE | 0xF1), senvcfg=bits(0xF1))
    pair.set(
        stimecmp=choice.choice((0, MASK64, pair.native.state.spent // 10)),
        mtimecmp=choice.choice((0, MASK64)),
    )
    pair.set(mscratch=bits(), sscratch=bits(), mepc=bits(MASK64 - 1), sepc=bits(MASK64 - 1), satp=0)
    # Everything is allowed by the first entry; those behind it may be locked.
    configuration = [
        PMP_EVERYTHING,
        *(choice.choice((0, 0x0F, 0x88, 0x8F, 0x1B)) for _ in range(PMP_ENTRIES - 1)),
    ]
    pair.set(pmpcfg=configuration, pmpaddr=[ALL_ADDRESSES, *(bits(ALL_ADDRESSES) for _ in configuration[1:])])
    pair.native.request(Request.FLUSH)


@pytest.mark.parametrize("row", [*CSR_TABLE, *UNKNOWN], ids=lambda row: row.name)
def test_every_register(pair: Pair, row: Csr) -> None:
    choice = random.Random(row.number)
    for mode in Mode:
        for operation in OPERATIONS:
            for _ in range(2):
                around(pair, choice, mode)
                source = choice.choice((0, 5))
                values = {f.name: choice.choice((source, 21)) for f in operation.pattern.fields}
                word = operation.pattern.encode(values | {"csr": row.number, "rd": choice.choice((0, 6))})
                pair.write(RAM_BASE, word.to_bytes(4, "little") + bytes.fromhex("73600034"))
                value = choice.choice((0, MASK64, 1 << choice.randrange(64), choice.getrandbits(64)))
                pair.set_x(x5=value, x6=0x66, x21=choice.getrandbits(64))
                pair.run(1)
                # One more, so that what the first has changed is in force.
                pair.run(1)


@TIERS
@pytest.mark.parametrize("seed", range(8))
def test_counters_in_a_row(pair: Pair, seed: int) -> None:
    """Reads and writes of the counters inside a block, not one by one."""
    choice = random.Random(seed)
    around(pair, choice, Mode.M)
    pair.set(mie=0, lines=0, mip=0)
    names = ["mcycle", "minstret", "cycle", "instret", "time", "mcountinhibit"]
    text = []
    for _ in range(30):
        name = choice.choice(names)
        if name in ("cycle", "instret", "time") or choice.random() < 0.6:
            text.append(f"csrr x{choice.randrange(5, 20)}, {name}")
        else:
            text.append(f"csrw {name}, x{choice.randrange(5, 20)}")
        text += ["nop"] * choice.randrange(3)
    pair.load("\n".join([*text, "again: nop; j again"]))
    pair.run(len(text) + 100, exact=False)
