"""One test program on one hart of a bare processor: memory, no devices, M mode from the entry on."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from doppel.conformance.program import NotATestError, TestProgram, load_program
from doppel.memory.entry import PAGE_SHIFT
from doppel.memory.fmap import FMap
from doppel.memory.frames import FramePool
from doppel.memory.pager import ZeroPager
from doppel.memory.view import GuestAddressError, GuestMemory
from doppel.processor.compilation import CompileMode
from doppel.processor.exits import ExitReason
from doppel.processor.processor import Hart, Processor

__all__ = ["CompileMode", "Result", "Verdict", "run_program", "run_test"]

MEMORY_BASE = 0x8000_0000
MEMORY_SIZE = 64 << 20
CODE_BYTES = 8 << 20
# Instructions after which a program is given up: the longest public tests take well under a million.
INSTRUCTION_LIMIT = 50_000_000
# tohost is looked at after so many instructions, then after twice as many each time.
FIRST_SLICE, LAST_SLICE = 20_000, 5_000_000
PUTCHAR = 0x0101


class Verdict(enum.Enum):
    """What a test came to."""

    PASSED = "passed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    NOT_APPLICABLE = "not applicable"
    NOT_A_TEST = "not a test"


@dataclass(frozen=True)
class Result:
    """The verdict on one file, what more there is to say, and the instructions it retired."""

    name: str
    verdict: Verdict
    detail: str = ""
    instructions: int = 0


def run_test(path: Path, limit: int = INSTRUCTION_LIMIT, compile: CompileMode = "hot") -> Result:
    """Run a test file, for at most about ``limit`` instructions; ``compile`` as for a Processor."""
    try:
        program = load_program(path)
    except NotATestError as error:
        return Result(path.name, Verdict.NOT_A_TEST, str(error))
    except OSError as error:
        return Result(path.name, Verdict.NOT_A_TEST, f"cannot be read ({error.strerror or error})")
    return run_program(path.name, program, limit, compile)


def run_program(
    name: str, program: TestProgram, limit: int = INSTRUCTION_LIMIT, compile: CompileMode = "hot"
) -> Result:
    """Run a program that has been read."""
    pool = FramePool(MEMORY_SIZE)
    fmap = FMap((MEMORY_BASE + MEMORY_SIZE) >> PAGE_SHIFT)
    fmap.add_memory(MEMORY_BASE >> PAGE_SHIFT, MEMORY_SIZE >> PAGE_SHIFT)
    pager = ZeroPager(fmap, pool)
    # Time by instruction count makes a run repeatable, and a wait for nothing ends with an exit.
    processor = Processor(fmap, pool, clock="icount", code_bytes=CODE_BYTES, compile=compile)
    memory = GuestMemory(fmap, pool, pager, processor.code_written)
    try:
        for address, data in program.segments:
            memory.write(address, data)
        memory.read(program.tohost, 8)
        return _Run(name, program, processor, pager, memory).run(limit)
    except GuestAddressError as error:
        return Result(name, Verdict.NOT_A_TEST, f"needs memory at {error.address:#x}, where there is none")
    finally:
        processor.close()
        fmap.close()
        pool.close()


class _Run:
    def __init__(
        self, name: str, program: TestProgram, processor: Processor, pager: ZeroPager, memory: GuestMemory
    ) -> None:
        self.name = name
        self.processor = processor
        self.pager = pager
        self.memory = memory
        self.tohost = program.tohost
        self.hart: Hart = processor.harts[0]
        self.hart.state.pc = program.entry
        self.output = bytearray()

    def run(self, limit: int) -> Result:
        length = FIRST_SLICE
        executed = 0
        while executed < limit:
            waits = self.slice(length)
            executed += length
            value = self.memory.read_u64(self.tohost)
            if value >> 48 == PUTCHAR:
                self.output.append(value & 0xFF)
                self.memory.write_u64(self.tohost, 0)
                length = FIRST_SLICE
                continue
            # Old tests store only the low half of the word.
            if value & 0xFFFF_FFFF:
                return self.judge(value & 0xFFFF_FFFF)
            if waits:
                return self.result(Verdict.TIMEOUT, f"waits for an interrupt that never comes, {self.place}")
            length = min(2 * length, LAST_SLICE)
        return self.result(Verdict.TIMEOUT, f"at {self.place}")

    def slice(self, length: int) -> bool:
        """Execute ``length`` instructions; whether the hart waits for ever."""
        state = self.hart.state
        end = state.spent + length
        while state.spent < end:
            result = self.hart.run(end - state.spent)
            if result.reason is ExitReason.VM_FAULT:
                self.pager.fault(result.address >> PAGE_SHIFT)
            elif result.reason is ExitReason.DEVICE:
                self.hart.fault()
            elif result.reason is ExitReason.CODE_FULL:
                self.processor.discard_code()
            elif result.reason is ExitReason.WAIT:
                return True
        return False

    def judge(self, value: int) -> Result:
        if value == 1:
            return self.result(Verdict.PASSED)
        if value & 1:
            return self.result(Verdict.FAILED, f"case {value >> 1}")
        return self.result(Verdict.FAILED, f"strange value {value:#x} in tohost")

    def result(self, verdict: Verdict, detail: str = "") -> Result:
        if verdict is not Verdict.PASSED and (said := self.output.decode("ascii", "replace").strip()):
            detail = f"{detail}: {' '.join(said.split())}"
        return Result(self.name, verdict, detail, self.hart.instructions)

    @property
    def place(self) -> str:
        state = self.hart.state
        return f"pc {state.pc:#x}, last trap cause {state.mcause:#x} at {state.mepc:#x}"
