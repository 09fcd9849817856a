"""What an instruction body asks of the hart around it.

In the Python model each of these is a method of the model hart ``h``; ``doppel.translate`` puts native code
in their place. Those that reach memory may raise :class:`~doppel.isa.words.Trap`.
"""

from __future__ import annotations

from typing import Any, Literal

from doppel.isa.words import Word

__all__ = [
    "AmoOperation",
    "amo",
    "branch",
    "flush_address",
    "flush_space",
    "flush_space_address",
    "flush_translations",
    "instructions_retired",
    "jump",
    "load",
    "load_reserved",
    "memory_fence",
    "physical_compare_exchange",
    "physical_load",
    "read_host_flags",
    "recheck_interrupts",
    "store",
    "store_conditional",
    "synchronize_instructions",
    "ticks",
    "translation_mode_changed",
    "wait_for_interrupt",
    "wait_for_others",
    "write_host_flags",
    "zero_block",
]

Hart = Any
AmoOperation = Literal["swap", "add", "xor", "and", "or", "min", "max", "minu", "maxu"]


def load(h: Hart, address: int, size: int) -> Word:
    """``size`` bytes (1, 2, 4 or 8, constant) at a virtual address, zero-extended; misaligned is allowed."""
    return h.load(address, size)


def store(h: Hart, address: int, size: int, value: int) -> None:
    """Store the low ``size`` bytes of ``value``; misaligned is allowed."""
    h.store(address, size, value)


def load_reserved(h: Hart, address: int, size: int) -> Word:
    """LR: load (zero-extended) and reserve; misaligned traps (unprivileged manual, Zalrsc)."""
    return h.load_reserved(address, size)


def store_conditional(h: Hart, address: int, size: int, value: int) -> Word:
    """SC: 0 if stored, 1 if the reservation was lost; misaligned traps."""
    return h.store_conditional(address, size, value)


def amo(h: Hart, address: int, size: int, operation: AmoOperation, value: int) -> Word:
    """Atomic read-modify-write of 4 or 8 bytes, returns the old value zero-extended; misaligned traps
    (Zaamo)."""
    return h.amo(address, size, operation, value)


def zero_block(h: Hart, address: int) -> None:
    """CBO.ZERO: zero the 64-byte block that contains the virtual address."""
    h.zero_block(address)


def branch(h: Hart, offset: int) -> None:
    """Go on at this instruction's address plus ``offset`` (an operand of the instruction)."""
    h.branch(offset)


def jump(h: Hart, target: int) -> None:
    """Go on at the address ``target``."""
    h.jump(target)


def physical_load(h: Hart, address: int, cause: int, value: int) -> Word:
    """The 8 bytes of a page-table entry at a guest-physical address; raises Trap(cause, value) where no
    memory is."""
    return h.physical_load(address, cause, value)


def physical_compare_exchange(h: Hart, address: int, expected: int, value: int) -> bool:
    """Store ``value`` in the 8 bytes at a guest-physical address if they are ``expected``; whether it did."""
    return h.physical_compare_exchange(address, expected, value)


def ticks(h: Hart) -> Word:
    """The machine's time in timebase ticks."""
    return h.ticks()


def instructions_retired(h: Hart) -> Word:
    """Instructions this hart has retired since reset, without the one that asks."""
    return h.instructions_retired()


def flush_translations(h: Hart) -> None:
    """Forget every cached translation of this hart."""
    h.flush_translations()


def flush_address(h: Hart, address: int) -> None:
    """Forget cached translations of one virtual address (at any page size)."""
    h.flush_address(address)


def flush_space(h: Hart, asid: int) -> None:
    """Forget cached translations of the address spaces with this ASID (the low 16 bits)."""
    h.flush_space(asid)


def flush_space_address(h: Hart, address: int, asid: int) -> None:
    """Forget cached translations of one virtual address (at any page size) in the address spaces with this
    ASID."""
    h.flush_space_address(address, asid)


def translation_mode_changed(h: Hart) -> None:
    """The effective mode, SUM, MPRV or satp may have changed: cached translations of the other mode or
    address space must not serve."""
    h.translation_mode_changed()


def recheck_interrupts(h: Hart) -> None:
    """An enable, a delegation or a pending bit changed: look for interrupts at the next opportunity."""
    h.recheck_interrupts()


def memory_fence(h: Hart) -> None:
    """FENCE: order earlier before later accesses of this hart, as other harts and devices see them."""
    h.memory_fence()


def synchronize_instructions(h: Hart) -> None:
    """FENCE.I: later fetches see earlier stores."""
    h.synchronize_instructions()


def wait_for_interrupt(h: Hart) -> None:
    """Stall until an enabled interrupt is pending (this instruction retires either way)."""
    h.wait_for_interrupt()


def wait_for_others(h: Hart) -> None:
    """PAUSE: this hart waits in a loop for what another one does."""
    h.wait_for_others()


def read_host_flags(h: Hart) -> Word:
    """Accrued floating-point exceptions (NV DZ OF UF NX from bit 4 down) still in the host's status
    register."""
    return h.read_host_flags()


def write_host_flags(h: Hart) -> None:
    """Clear the accrued exceptions in the host's status register."""
    h.write_host_flags()
