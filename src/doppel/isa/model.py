"""The reference hart: the definitions run as the Python that they are.

Slow and plain. It says what the architecture means, and native code is tested against it. It keeps no cached
translations and no decoded code, so stores are seen by the next fetch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from doppel.isa.extensions import rv64gc
from doppel.isa.instruction import Instruction, InstructionSet
from doppel.isa.primitives import AmoOperation
from doppel.isa.privileged.constants import Access, Cause, Mode
from doppel.isa.privileged.pmp import pmp_allows
from doppel.isa.privileged.translation import access_fault, data_mode, translate
from doppel.isa.privileged.trap import (
    NO_RESERVATION,
    interrupts_pending,
    pending_interrupt,
    take_trap,
    update_timers,
)
from doppel.isa.rv_zicbo import BLOCK_SIZE
from doppel.isa.state import ARCHITECTURAL_STATE, SINK
from doppel.isa.words import MASK64, Trap, Word, sext, signed_lt

__all__ = ["HartModel", "ModelMemory"]

PAGE_SIZE = 4096

_AMO: dict[AmoOperation, Callable[[Word, Word], Word]] = {
    "swap": lambda old, value: value,
    "add": lambda old, value: Word(old + value),
    "xor": lambda old, value: Word(old ^ value),
    "and": lambda old, value: Word(old & value),
    "or": lambda old, value: Word(old | value),
    "min": lambda old, value: old if signed_lt(old, value) else value,
    "max": lambda old, value: value if signed_lt(old, value) else old,
    "minu": lambda old, value: min(old, value),
    "maxu": lambda old, value: max(old, value),
}


class ModelMemory:
    """RAM of ``size`` bytes at the guest-physical address ``base``; harts may share it."""

    def __init__(self, base: int, size: int) -> None:
        self.base = base
        self.data = bytearray(size)

    def contains(self, address: int, size: int) -> bool:
        """Whether all the bytes are RAM."""
        return self.base <= address and address + size <= self.base + len(self.data)

    def read(self, address: int, size: int) -> int:
        """``size`` bytes, little endian."""
        offset = address - self.base
        return int.from_bytes(self.data[offset : offset + size], "little")

    def write(self, address: int, size: int, value: int) -> None:
        """Store the low ``size`` bytes of ``value``."""
        offset = address - self.base
        self.data[offset : offset + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


@cache
def _standard() -> InstructionSet:
    return rv64gc()


def _source(instruction: Instruction, parameter: str) -> tuple[str, str]:
    """What kind of argument a body's parameter takes, and the operand slot that says which."""
    match parameter:
        case "h":
            return "hart", ""
        case "pc" | "next_pc":
            return parameter, ""
        case "rs1" | "rs2" | "rs3":
            return "x", parameter
        case "fs1" | "fs2" | "fs3":
            return "f", parameter.replace("f", "r")
        case "rd_index" | "rs1_index" | "rs2_index":
            return "value", parameter.removesuffix("_index")
    return "value", instruction.base.pattern.field(parameter).slot


class HartModel:
    """A hart; its attributes are the fields of ARCHITECTURAL_STATE, each a Word or a list of them.

    ``time`` is what the hart sees as the machine's time, ``retired`` counts instructions, ``waiting`` is
    whether it stands in WFI.
    """

    x: list[Word]
    f: list[Word]
    pc: Word
    mode: Word
    mie: Word
    pmpcfg: list[Word]
    reserved_address: Word
    reserved_value: Word

    def __init__(
        self, memory: ModelMemory, *, hartid: int = 0, instructions: InstructionSet | None = None
    ) -> None:
        self.memory = memory
        self.instructions = instructions or _standard()
        self.time = Word(0)
        self.retired = Word(0)
        self.waiting = False
        self._next = Word(0)
        self._signatures: dict[str, tuple[str, list[tuple[str, str]]]] = {}
        for field in ARCHITECTURAL_STATE:
            value = Word(field.reset)
            setattr(self, field.name, [value] * field.count if field.count else value)
        self.mhartid = Word(hartid)

    def state(self) -> dict[str, Any]:
        """A copy of the architectural state, by field name."""
        values = {field.name: getattr(self, field.name) for field in ARCHITECTURAL_STATE}
        return {name: list(value) if isinstance(value, list) else value for name, value in values.items()}

    # --- execution ---

    def step(self) -> None:
        """Take an interrupt if one is due, then execute one instruction or take its exception.

        Does nothing while the hart waits for an interrupt.
        """
        update_timers(self)
        if self.waiting and interrupts_pending(self) & self.mie == 0:
            return
        self.waiting = False
        interrupt = pending_interrupt(self)
        if interrupt != 0:
            take_trap(self, interrupt, Word(0))
        word = 0
        try:
            word = self.fetch()
            instruction = self.instructions.decode(word)
            if instruction is None:
                raise Trap(Cause.ILLEGAL_INSTRUCTION, 0)
            self.execute(instruction, word)
        except Trap as trap:
            # The value of an illegal instruction is the instruction (privileged manual 3.1.16).
            value = word if trap.cause == Cause.ILLEGAL_INSTRUCTION else trap.value
            take_trap(self, Word(trap.cause), Word(value))

    def fetch(self) -> int:
        """The instruction at ``pc``, in 16 or 32 bits.

        Raises:
            Trap: it cannot be fetched.
        """
        word = self._read(self.pc, 2, Access.FETCH, self.mode)
        if word & 3 == 3:
            word |= self._read(Word(self.pc + 2), 2, Access.FETCH, self.mode) << 16
        return word

    def execute(self, instruction: Instruction, word: int) -> None:
        """Execute the instruction that ``word`` encodes, as if it had been fetched at ``pc``.

        Raises:
            Trap: an exception; the hart's ``pc`` and destination register are as before.
        """
        next_pc = Word(self.pc + instruction.length)
        self._next = next_pc
        operands = instruction.operands(word)
        destination, parameters = self._signature(instruction)
        arguments: list[Any] = []
        for kind, source in parameters:
            match kind:
                case "hart":
                    arguments.append(self)
                case "pc":
                    arguments.append(Word(self.pc))
                case "next_pc":
                    arguments.append(next_pc)
                case "x":
                    arguments.append(Word(self.x[getattr(operands, source)]))
                case "f":
                    arguments.append(Word(self.f[getattr(operands, source)]))
                case _:
                    arguments.append(Word(getattr(operands, source) & MASK64))
        result = instruction.body(*arguments)
        if result is not None:
            if destination == "fd":
                self.f[operands.rd] = Word(result)
            else:
                self.x[operands.rd or SINK] = Word(result)
        self.pc = self._next
        self.retired = Word(self.retired + 1)

    def _signature(self, instruction: Instruction) -> tuple[str, list[tuple[str, str]]]:
        """The destination, and for each parameter of the body where its argument comes from."""
        signature = self._signatures.get(instruction.name)
        if signature is None:
            signature = instruction.destination, [_source(instruction, p) for p in instruction.parameters]
            self._signatures[instruction.name] = signature
        return signature

    def branch(self, offset: int) -> None:
        """See :mod:`doppel.isa.primitives`, as for all methods below."""
        self._next = Word(self.pc + offset)

    def jump(self, target: int) -> None:
        """Go on at ``target``."""
        self._next = Word(target)

    # --- memory by virtual address ---

    def load(self, address: int, size: int) -> Word:
        """Load, zero-extended."""
        return Word(self._read(Word(address), size, Access.LOAD, data_mode(self)))

    def store(self, address: int, size: int, value: int) -> None:
        """Store; nothing is stored if any byte cannot be."""
        pieces = list(self._pieces(Word(address), size, Access.STORE, data_mode(self)))
        for physical, length in pieces:
            self.memory.write(physical, length, value)
            value = int(value) >> 8 * length

    def load_reserved(self, address: int, size: int) -> Word:
        """Load and reserve."""
        if address & (size - 1):
            raise Trap(Cause.LOAD_MISALIGNED, address)
        value = self.load(address, size)
        self.reserved_address, self.reserved_value = Word(address), value
        return value

    def store_conditional(self, address: int, size: int, value: int) -> Word:
        """Store if the address is reserved and still holds what was loaded."""
        if address & (size - 1):
            raise Trap(Cause.STORE_MISALIGNED, address)
        ((physical, _),) = self._pieces(Word(address), size, Access.STORE, data_mode(self))
        reserved = self.reserved_address == address
        self.reserved_address = Word(NO_RESERVATION)
        if not reserved:
            return Word(1)
        if self.memory.read(physical, size) != self.reserved_value & ((1 << 8 * size) - 1):
            return Word(1)
        self.memory.write(physical, size, value)
        return Word(0)

    def amo(self, address: int, size: int, operation: AmoOperation, value: int) -> Word:
        """Read, modify, write."""
        if address & (size - 1):
            raise Trap(Cause.STORE_MISALIGNED, address)
        ((physical, _),) = self._pieces(Word(address), size, Access.STORE, data_mode(self))
        old = self.memory.read(physical, size)
        # Sign extension keeps the order of unsigned numbers too.
        result = _AMO[operation](sext(old, 8 * size), sext(value, 8 * size))
        self.memory.write(physical, size, result)
        return Word(old)

    def zero_block(self, address: int) -> None:
        """Zero the block around the address."""
        mode = data_mode(self)
        physical = self._physical(Word(address), Access.STORE, mode) & ~(BLOCK_SIZE - 1)
        if not self._accessible(Word(physical), BLOCK_SIZE, Access.STORE, mode):
            raise Trap(Cause.STORE_ACCESS_FAULT, address)
        for offset in range(0, BLOCK_SIZE, 8):
            self.memory.write(physical + offset, 8, 0)

    def _read(self, address: Word, size: int, access: Access, mode: Word) -> int:
        value = shift = 0
        for physical, length in list(self._pieces(address, size, access, mode)):
            value |= self.memory.read(physical, length) << shift
            shift += 8 * length
        return value

    def _pieces(self, address: Word, size: int, access: Access, mode: Word) -> Iterator[tuple[int, int]]:
        """The guest-physical address and length of an access's part in each page that it touches."""
        while size:
            length = min(size, PAGE_SIZE - address % PAGE_SIZE)
            physical = self._physical(address, access, mode)
            if not self._accessible(physical, length, access, mode):
                raise Trap(access_fault(Word(access)), address)
            yield physical, length
            address = Word(address + length)
            size -= length

    def _physical(self, address: Word, access: Access, mode: Word) -> Word:
        return translate(self, address, Word(access), mode)[0]

    def _accessible(self, physical: Word, size: int, access: Access, mode: Word) -> bool:
        if not self.memory.contains(physical, size):
            return False
        # Without any entry switched on there is no need to look through them all.
        if int(mode) == Mode.M and not any(self.pmpcfg):
            return True
        return pmp_allows(self, physical, Word(size), Word(access), mode)

    # --- memory by guest-physical address ---

    def physical_load(self, address: int, cause: int, value: int) -> Word:
        """Eight bytes of a page table."""
        if not self.memory.contains(address, 8):
            raise Trap(cause, value)
        return Word(self.memory.read(address, 8))

    def physical_compare_exchange(self, address: int, expected: int, value: int) -> bool:
        """Compare and exchange eight bytes of a page table."""
        if self.memory.read(address, 8) != expected:
            return False
        self.memory.write(address, 8, value)
        return True

    # --- the hart's surroundings ---

    def ticks(self) -> Word:
        """The time."""
        return self.time

    def instructions_retired(self) -> Word:
        """Instructions before this one."""
        return self.retired

    def wait_for_interrupt(self) -> None:
        """Stand still from the next step on."""
        self.waiting = True

    def wait_for_others(self) -> None:
        """There are no others."""

    def read_host_flags(self) -> Word:
        """No flags: softfloat keeps all of them in ``fflags``."""
        return Word(0)

    def write_host_flags(self) -> None:
        """Nothing to clear."""

    def flush_translations(self) -> None:
        """Nothing is cached."""

    def flush_address(self, address: int) -> None:
        """Nothing is cached."""

    def flush_space(self, asid: int) -> None:
        """Nothing is cached."""

    def flush_space_address(self, address: int, asid: int) -> None:
        """Nothing is cached."""

    def translation_mode_changed(self) -> None:
        """Nothing is cached."""

    def recheck_interrupts(self) -> None:
        """Every step looks for interrupts."""

    def memory_fence(self) -> None:
        """Accesses happen in program order."""

    def synchronize_instructions(self) -> None:
        """Every fetch reads memory."""
