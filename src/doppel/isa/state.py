"""The architectural state of a hart: every field once, with its type and what it holds.

The native layout, the ctypes view, the Python model, snapshots and the debugger's registers derive from
this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ARCHITECTURAL_STATE", "PMP_ENTRIES", "SINK", "StateField"]

StateType = Literal["u64", "u32", "u8"]

PMP_ENTRIES = 16
# Index in ``x`` that takes what is written to x0.
SINK = 32


@dataclass(frozen=True)
class StateField:
    """``count`` elements of ``type``; an array if ``count`` is not 0."""

    name: str
    type: StateType
    doc: str
    count: int = 0
    reset: int = 0


def _u64(name: str, doc: str, reset: int = 0) -> StateField:
    return StateField(name, "u64", doc, reset=reset)


ARCHITECTURAL_STATE: tuple[StateField, ...] = (
    StateField("x", "u64", "integer registers; x[0] stays zero, x[32] takes writes to x0", SINK + 1),
    StateField("f", "u64", "floating-point registers, raw bits, singles NaN-boxed", 32),
    _u64("pc", "address of the next instruction"),
    _u64("mode", "privilege mode: 0 U, 1 S, 3 M", reset=3),
    _u64("fflags", "accrued exceptions that are not still in the host's status register"),
    _u64("frm", "dynamic rounding mode"),
    _u64("mhartid", "hart number"),
    _u64("mstatus", "machine status; sstatus is a view of it", reset=0xA_0000_0000),
    _u64("medeleg", "exceptions delegated to S"),
    _u64("mideleg", "interrupts delegated to S"),
    _u64("mie", "interrupt enables"),
    _u64("mip", "the interrupt-pending bits that software sets: SSIP, STIP, SEIP"),
    _u64("lines", "the interrupt-pending bits that devices and other harts drive, as in mip"),
    _u64("timer_lines", "STIP and MTIP as the timer comparisons stand"),
    _u64("mtvec", "M trap vector"),
    _u64("mscratch", "M scratch"),
    _u64("mepc", "M exception pc"),
    _u64("mcause", "M trap cause"),
    _u64("mtval", "M trap value"),
    _u64("mcounteren", "counters S may read"),
    _u64("mcountinhibit", "counters that stand still"),
    _u64("menvcfg", "environment of S", reset=1 << 61),
    _u64("stvec", "S trap vector"),
    _u64("sscratch", "S scratch"),
    _u64("sepc", "S exception pc"),
    _u64("scause", "S trap cause"),
    _u64("stval", "S trap value"),
    _u64("scounteren", "counters U may read"),
    _u64("senvcfg", "environment of U"),
    _u64("satp", "root, ASID and mode of the guest's own page tables"),
    _u64("stimecmp", "S timer comparison, in ticks", reset=(1 << 64) - 1),
    _u64("mtimecmp", "M timer comparison of the ACLINT, in ticks", reset=(1 << 64) - 1),
    _u64("cycle_offset", "what software added to mcycle by writing it"),
    _u64("instret_offset", "what software added to minstret by writing it"),
    _u64("tselect", "selected trigger; there are none"),
    StateField("pmpcfg", "u8", "physical memory protection: configuration", PMP_ENTRIES),
    StateField("pmpaddr", "u64", "physical memory protection: address bits 55:2", PMP_ENTRIES),
    _u64("reserved_address", "virtual address of the reservation set, or all ones", reset=(1 << 64) - 1),
    _u64("reserved_value", "what the load-reserved returned"),
)
