"""A board of RAM and harts with nothing else on it, and the reference model in step with one of them.

Every test that makes a board can run in each *tier*: ``off`` interprets, ``all`` compiles everything before
it is executed, ``mixed`` compiles what was executed before at random moments. ``TIERS`` as a module's or a
test's mark runs it in all of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextvars import ContextVar

import pytest

from doppel.isa.assembler import Program, assemble_program
from doppel.isa.model import HartModel, ModelMemory
from doppel.isa.privileged.constants import EnvironmentConfig, Interrupt
from doppel.isa.privileged.trap import interrupts_pending, update_timers
from doppel.isa.state import ARCHITECTURAL_STATE
from doppel.isa.words import MASK64, Word
from doppel.memory.entry import PAGE_SHIFT, PAGE_SIZE
from doppel.memory.fmap import FMap
from doppel.memory.frames import FramePool
from doppel.memory.pager import ZeroPager
from doppel.memory.view import GuestMemory
from doppel.processor.exits import Exit, ExitReason
from doppel.processor.processor import Hart, Processor
from doppel.translate.engine.attention import LONGEST_BLOCK
from doppel.translate.layout import NEW_PAGES

RAM_BASE = 0x8000_0000
RAM_SIZE = 1 << 20
CODE_BYTES = 2 << 20
TICK = 10
# A store to address 0: nothing is there, so it leaves native code with all registers as they are.
STOP = bytes.fromhex("23300000")
ALL_ADDRESSES = (1 << 54) - 1
PMP_EVERYTHING = 0x1F

#: The tier of boards for which nothing else is said.
TIER: ContextVar[str] = ContextVar("TIER", default="off")
TIERS = pytest.mark.parametrize("tier", ["off", "all", "mixed"], indirect=True)
COMPILED = pytest.mark.parametrize("tier", ["all", "mixed"], indirect=True)


@pytest.fixture(scope="module", autouse=True)
def tier(request: pytest.FixtureRequest) -> Iterator[str]:
    """The tier of all boards that are made meanwhile; a fixture of a wider scope than a test asks for it."""
    name = getattr(request, "param", "off")
    token = TIER.set(name)
    yield name
    TIER.reset(token)


class Board:
    """Harts over RAM; VM-faults are answered, and accesses to anything else fault unless ``devices``."""

    def __init__(
        self, harts: int = 1, *, size: int = RAM_SIZE, devices: bool = False, **options: object
    ) -> None:
        self.pool = FramePool(size)
        self.fmap = FMap((RAM_BASE + size) >> PAGE_SHIFT)
        self.fmap.add_memory(RAM_BASE >> PAGE_SHIFT, size >> PAGE_SHIFT)
        self.pager = ZeroPager(self.fmap, self.pool)
        self.memory = GuestMemory(self.fmap, self.pool, self.pager)
        settings: dict[str, object] = {
            "clock": "icount",
            "instructions_per_tick": TICK,
            "code_bytes": CODE_BYTES,
            "compile": "all" if TIER.get() == "all" else "off",
        }
        self.processor = Processor(self.fmap, self.pool, harts, **(settings | options))  # type: ignore[arg-type]
        self.memory.code_written = self.processor.code_written
        self.harts = self.processor.harts
        self.size = size
        self.devices = devices
        self.exits: list[ExitReason] = []
        self.mixer = Mixer(self.processor) if TIER.get() == "mixed" else None

    @property
    def hart(self) -> Hart:
        return self.harts[0]

    def run(self, budget: int, hart: Hart | None = None, *, exact: bool = True) -> Exit:
        """Spend ``budget``, unless there is a reason to leave that the board does not know how to serve."""
        hart = hart or self.hart
        end = hart.state.spent + budget
        while True:
            if self.mixer:
                self.mixer.mix()
            exit = hart.run(end - hart.state.spent, exact=exact)
            self.exits.append(exit.reason)
            if exit.reason is ExitReason.VM_FAULT:
                if not self.fmap.is_present(exit.address >> PAGE_SHIFT):
                    self.pager.fault(exit.address >> PAGE_SHIFT)
            elif exit.reason is ExitReason.DEVICE and not self.devices:
                hart.fault()
            elif exit.reason is ExitReason.CODE_FULL and len(self.harts) == 1:
                self.processor.discard_code()
            else:
                return exit

    def load(self, text: str, address: int = RAM_BASE, **symbols: int) -> Program:
        """Put a program into memory and hart 0 at its beginning."""
        program = assemble_program(text, address, symbols)
        self.memory.write(address, program.code)
        self.hart.state.pc = address
        return program

    def close(self) -> None:
        self.processor.close()
        self.fmap.close()
        self.pool.close()


class Mixer:
    """Compiles at random moments what was executed before: whenever it is asked, and unless ``quiet`` also
    when something is met for the first time.
    """

    def __init__(self, processor: Processor, seed: int = 1, *, quiet: bool = False) -> None:
        self._processor = processor
        self._compilation = processor.compilation
        self._choice = random.Random(seed)
        self._compile_now = self._compilation.compile_now
        if not quiet:
            # Harts leave where they are about to decode something, as in the mode "all".
            processor._state.compile_all = 1
            self._compilation.compile_now = self._meet  # type: ignore[method-assign]

    def mix(self) -> None:
        """Compile something, or nothing."""
        count = min(self._processor._state.new_page_count, NEW_PAGES)
        pages = sorted({*self._processor._state.new_pages[:count]})
        if not pages or self._choice.random() < 0.3:
            return
        page = self._compilation._page(self._choice.choice(pages))
        if page is None:
            return
        executed = self._compilation._request(page, 0).executed
        offsets = [2 * index for index, flag in enumerate(executed) if flag]
        if offsets:
            self._compile_now(page.number * PAGE_SIZE + self._choice.choice(offsets))

    def _meet(self, address: int) -> None:
        if self._choice.random() < 0.05:
            self.mix()


class Ram(ModelMemory):
    """The model's memory, where an access at the end of the address space does not wrap around."""

    def contains(self, address: int, size: int) -> bool:
        return super().contains(int(address), size)


class Waiting(Exception):
    """The model stands in WFI and nothing will wake it."""


class Reference(HartModel):
    """The model with the instruction-count clock and the bookkeeping of a native hart.

    ``spent`` counts steps: instructions retired and exceptions taken.
    """

    def __init__(self, memory: ModelMemory) -> None:
        super().__init__(memory)
        self.spent = 0
        self.skew = 0

    def step(self) -> None:
        self.time = Word(self.spent // TICK + self.skew)
        update_timers(self)
        if self.waiting and interrupts_pending(self) & self.mie == 0:
            self._sleep()
        super().step()
        self.spent += 1

    def _sleep(self) -> None:
        """Jump ahead to the first timer that is enabled."""
        deadlines = []
        if self.mie & 1 << Interrupt.MTI:
            deadlines.append(int(self.mtimecmp))
        if self.mie & 1 << Interrupt.STI and self.menvcfg & EnvironmentConfig.STCE:
            deadlines.append(int(self.stimecmp))
        deadline = min(deadlines, default=MASK64)
        if deadline == MASK64:
            raise Waiting
        self.skew += max(0, deadline - int(self.time))
        self.time = Word(max(deadline, int(self.time)))


class Pair:
    """A native hart and the model, made to do the same."""

    def __init__(self, board: Board | None = None) -> None:
        self.board = board or Board()
        self.native = self.board.hart
        self.ram = Ram(RAM_BASE, self.board.size)
        self.model = Reference(self.ram)

    def write(self, address: int, data: bytes) -> None:
        """Put bytes into the memory of both."""
        self.board.memory.write(address, data)
        self.ram.data[address - RAM_BASE : address - RAM_BASE + len(data)] = data

    def load(self, text: str, address: int = RAM_BASE, **symbols: int) -> Program:
        """Put a program into the memory of both and start there."""
        program = assemble_program(text, address, symbols)
        self.write(address, program.code)
        self.set(pc=address)
        return program

    def set(self, **fields: int | Iterable[int]) -> None:
        """Set fields of the architectural state of both; arrays from their first element up."""
        for name, value in fields.items():
            if isinstance(value, int):
                setattr(self.native.state, name, value)
                setattr(self.model, name, Word(value))
            else:
                for index, element in enumerate(value):
                    getattr(self.native.state, name)[index] = element
                    getattr(self.model, name)[index] = Word(element)

    def set_x(self, **registers: int) -> None:
        """Set integer registers by number: ``x5=1``."""
        for name, value in registers.items():
            number = int(name.removeprefix("x"))
            self.native.state.x[number] = value & MASK64
            self.model.x[number] = Word(value & MASK64)

    def allow_everything(self) -> None:
        """Let S and U reach all memory."""
        self.set(pmpcfg=[PMP_EVERYTHING], pmpaddr=[ALL_ADDRESSES])

    def run(self, budget: int, *, exact: bool = True) -> Exit:
        """Let both spend the same, and compare what came of it."""
        end = self.native.state.spent + budget
        exit = self.board.run(budget, exact=exact)
        if exit.reason is ExitReason.BUDGET:
            overrun = self.native.state.spent - end
            assert overrun == 0 if exact else 0 <= overrun < LONGEST_BLOCK
        while self.model.spent < self.native.state.spent:
            self.model.step()
        self.check()
        return exit

    def check(self, *, memory: bool = True) -> None:
        """Fail unless both are in the same state."""
        differences = self.differences()
        if memory:
            ours, theirs = self.board.memory.read(RAM_BASE, self.board.size), self.ram.data
            if ours != theirs:
                at = next(i for i in range(len(ours)) if ours[i] != theirs[i])
                found, wanted = ours[at : at + 8].hex(), theirs[at : at + 8].hex()
                differences.append(f"memory at {RAM_BASE + at:#x}: {found} instead of {wanted}")
        if differences:
            raise AssertionError(f"after {self.model.spent} steps: " + "; ".join(differences))

    def differences(self) -> list[str]:
        """What of the architectural state is not as the model has it."""
        state, model = self.native.state, self.model
        found = []
        for field in ARCHITECTURAL_STATE:
            # What the timers drive is computed when it is looked at.
            if field.name == "timer_lines":
                continue
            ours, theirs = getattr(state, field.name), getattr(model, field.name)
            if not field.count:
                if ours != theirs:
                    found.append(f"{field.name}: {ours:#x} instead of {int(theirs):#x}")
                continue
            # The place for writes to x0 has no meaning.
            for index in range(min(field.count, 32)):
                if ours[index] != theirs[index]:
                    found.append(
                        f"{field.name}[{index}]: {ours[index]:#x} instead of {int(theirs[index]):#x}"
                    )
        if self.native.instructions != model.retired:
            found.append(f"retired: {self.native.instructions} instead of {int(model.retired)}")
        if state.spent != model.spent:
            found.append(f"spent: {state.spent} instead of {model.spent}")
        return found
