"""The translated RISC-V processor of one machine: its harts, and the decoded code they share."""

from __future__ import annotations

import ctypes
import mmap
import time

from doppel.errors import DoppelError
from doppel.isa.state import ARCHITECTURAL_STATE
from doppel.memory.entry import PAGE_SIZE
from doppel.memory.fmap import FMap
from doppel.memory.frames import FramePool
from doppel.processor.compilation import MODES, Compilation, CompileMode
from doppel.processor.exits import Exit, ExitReason
from doppel.processor.perfmap import NameOf, PerfMap
from doppel.processor.statistics import EngineStatistics
from doppel.translate.build import load_engine
from doppel.translate.exits import Reply, Request
from doppel.translate.layout import CODE_PAGE, HART, MACHINE, MAX_HARTS, MAX_HELPERS, NEW_PAGES

__all__ = ["TIMEBASE_HZ", "Hart", "Processor"]

# Ticks a second of the time CSR and the ACLINT.
TIMEBASE_HZ = 10_000_000
UNLIMITED = 1 << 60

HartState = HART.structure()
MachineState = MACHINE.structure()
_REASONS = tuple(ExitReason)
_RESET_VALUES = {f.name: f.reset for f in ARCHITECTURAL_STATE if not f.count}
_ARRAYS = {f.name: (f.type, f.count) for f in ARCHITECTURAL_STATE if f.count}


class Processor:
    """``harts`` harts over one f-map.

    ``clock`` is ``"host"`` (time follows the host's monotonic clock, starting at 0 now) or ``"icount"`` (a
    tick every ``instructions_per_tick`` instructions). ``supervisor_calls``: traps to M mode end a run with
    ExitReason.TRAP instead of entering M mode. ``code_bytes`` bounds the memory for decoded code,
    ``region_bytes`` that for compiled code; ``compile`` says what is compiled (:class:`Compilation`).
    ``perf_map`` is told of compiled code, named by :attr:`code_names`.
    """

    def __init__(
        self,
        fmap: FMap,
        pool: FramePool,
        harts: int = 1,
        *,
        clock: str = "host",
        instructions_per_tick: int = 10,
        supervisor_calls: bool = False,
        code_bytes: int = 64 << 20,
        slice_length: int = 20_000,
        compile: CompileMode = "hot",
        region_bytes: int = 32 << 20,
        perf_map: PerfMap | None = None,
    ) -> None:
        if compile not in MODES:
            raise DoppelError(f"a machine cannot compile {compile!r}", f"choose one of: {', '.join(MODES)}")
        if not 1 <= harts <= MAX_HARTS:
            raise DoppelError(f"a machine cannot have {harts} harts", f"1 to {MAX_HARTS} are possible")
        self._code = load_engine()
        self._fmap, self._pool = fmap, pool
        capacity = max(16, code_bytes // CODE_PAGE.size)
        self._code_map = mmap.mmap(
            -1, capacity * CODE_PAGE.size + PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        self._code_table_map = mmap.mmap(
            -1, max(1, fmap.pages) * 8, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        self._anchors = [ctypes.c_uint8.from_buffer(m) for m in (self._code_map, self._code_table_map)]
        libc = ctypes.CDLL(None)
        self._state = MachineState()
        self._fill_state(libc, harts, capacity, clock, instructions_per_tick)
        self._state.supervisor_calls = int(supervisor_calls)
        self._state.slice_length = slice_length
        self._run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._code.addresses["doppel_run"])
        self._post = ctypes.CFUNCTYPE(
            None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64
        )(self._code.addresses["doppel_post"])
        self._code_overwritten = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64)(
            self._code.addresses["doppel_code_overwritten"]
        )
        function = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 5)
        self._cover = function(self._code.addresses["doppel_cover"])
        function = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 6)
        self._enter_at = function(self._code.addresses["doppel_enter_at"])
        self._helpers = (ctypes.c_uint64 * MAX_HELPERS).from_address(self._code.addresses["doppel_helpers"])
        self.perf_map = perf_map
        self.code_names: NameOf | None = None
        """The guest's function at a guest-physical address, where that is known."""
        self._most_pages = 0
        self.compilation = Compilation(self, compile, region_bytes)
        self._state.compile_all = int(self.compilation.mode == "all")
        self.harts = [Hart(self, index) for index in range(harts)]
        for hart in self.harts:
            self._state.harts[hart.index] = hart.address
        self.engine_was_built = self._code.built

    def _fill_state(self, libc: ctypes.CDLL, harts: int, capacity: int, clock: str, per_tick: int) -> None:
        def function(name: str) -> int:
            return ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0

        state = self._state
        state.arena = self._pool.address
        state.fmap = self._fmap.address
        state.fmap_pages = self._fmap.pages
        state.code_arena = ctypes.addressof(self._anchors[0])
        state.code_table = ctypes.addressof(self._anchors[1])
        state.code_capacity = capacity
        state.hart_count = harts
        state.clock_kind = {"host": 0, "icount": 1}[clock]
        state.clock_offset = time.monotonic_ns()
        state.instructions_per_tick = per_tick
        state.clock_gettime = function("clock_gettime")
        state.syscall = function("syscall")

    def ticks(self) -> int:
        """The machine's time, in ticks of TIMEBASE_HZ."""
        if self._state.clock_kind:
            first = self.harts[0].state
            return int(first.spent // self._state.instructions_per_tick + first.icount_skew)
        return (time.monotonic_ns() - int(self._state.clock_offset)) // (1_000_000_000 // TIMEBASE_HZ)

    def code_written(self, address: int, length: int) -> None:
        """Forget what is decoded of guest-physical memory that somebody else than a hart writes."""
        for page in range(address // PAGE_SIZE, (address + length - 1) // PAGE_SIZE + 1):
            self._code_overwritten(self.harts[0].address, page)

    def flush_translations(self) -> None:
        """Tell every hart that the f-map has changed; each sees it at its next block end."""
        for hart in self.harts:
            hart.request(Request.FLUSH)

    @property
    def counts_instructions(self) -> bool:
        """Whether the machine's time is the instructions executed."""
        return bool(self._state.clock_kind)

    def helper(self, place: int) -> int:
        """The address of one of the functions that compiled regions call."""
        return self._helpers[place]

    def code_page(self, number: int) -> int:
        """The address of the decoded page of a guest page, or 0."""
        return ctypes.c_uint64.from_address(self._state.code_table + 8 * number).value

    def new_pages(self, seen: int) -> tuple[list[int], int]:
        """Guest pages that became decoded ones after the first ``seen``, and how many there are by now."""
        count = self._state.new_page_count
        first = max(seen, count - NEW_PAGES)
        return [self._state.new_pages[index % NEW_PAGES] for index in range(first, count)], count

    def cover(self, number: int, page: int, epoch: int, stores: int) -> bool:
        """See :func:`doppel.translate.engine.code.cover`."""
        return bool(self._cover(self.harts[0].address, number, page, epoch, stores))

    def enter_at(self, number: int, page: int, epoch: int, offset: int, code: int) -> bool:
        """See :func:`doppel.translate.engine.code.enter_at`."""
        return bool(self._enter_at(self.harts[0].address, number, page, epoch, offset, code))

    def discard_code(self) -> None:
        """Forget all decoded and compiled code. No hart may be running."""
        self._most_pages = max(self._most_pages, int(self._state.code_used))
        self.compilation.discard()
        for page, _ in self._fmap.frames():
            if self._fmap.has_code(page):
                self._fmap.forget_code(page)
        ctypes.memset(self._state.code_table, 0, self._fmap.pages * 8)
        self._state.code_used = 0
        self._state.code_free = 0
        self.flush_translations()

    @property
    def statistics(self) -> EngineStatistics:
        """What the engine did so far; also when it is closed. Exact when no hart is running."""
        compilation = self.compilation
        counts, usage = compilation.statistics, compilation.usage()

        def total(name: str) -> int:
            return sum(getattr(hart.state, name) for hart in self.harts)

        return EngineStatistics(
            mode=compilation.mode,
            compiled_share=compilation.compiled_share,
            regions=counts.regions,
            loaded=counts.loaded,
            refused=counts.refused,
            outdated=counts.outdated,
            discarded=counts.discarded,
            instructions=counts.instructions,
            code_bytes=counts.bytes,
            compiler_seconds=usage.seconds,
            tlb_misses=total("tlb_misses"),
            itlb_misses=total("itlb_misses"),
            interrupts=total("interrupts"),
            decoded=total("decoded"),
            decoded_bytes=max(self._most_pages, int(self._state.code_used)) * CODE_PAGE.size,
            arena_bytes=compilation.arena_bytes,
            hart_bytes=HART.size * len(self.harts),
            worker_bytes=usage.resident,
        )

    def close(self) -> None:
        """Release the memory for code. No hart may be running."""
        self.compilation.close()
        self._anchors.clear()
        self._code_map.close()
        self._code_table_map.close()


class Hart:
    """One hardware thread. ``state`` is its structure (``HART`` in the layout), shared with native code."""

    def __init__(self, processor: Processor, index: int) -> None:
        self.processor = processor
        self.index = index
        # A map of its own: pages of TLB arrays that are never used cost nothing.
        self._map = mmap.mmap(-1, HART.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.state = HartState.from_buffer(self._map)
        self.address = ctypes.addressof(self.state)
        self._run = processor._run
        self.state.machine = ctypes.addressof(processor._state)
        # No instruction: the scratch record is not decoded yet.
        self.state.scratch_bits = (1 << 64) - 1
        for place in range(MAX_HELPERS):
            self.state.helpers[place] = processor.helper(place)
        # Every array has to be emptied before its first use; the first address space is Bare.
        for filled in (self.state.tlb_filled, self.state.itlb_filled):
            for number in range(len(filled)):
                filled[number] = (1 << 64) - 1
        self.state.contexts = 1
        self.reset()

    def reset(self) -> None:
        """The state after reset (privileged manual 3.4): M mode, pc 0; counters go on."""
        for name, value in _RESET_VALUES.items():
            setattr(self.state, name, value)
        for name, (_kind, count) in _ARRAYS.items():
            array = getattr(self.state, name)
            for index in range(count):
                array[index] = 0
        self.state.mhartid = self.index
        self.state.waiting = 0
        self.state.reply = Reply.NONE
        self.request(Request.FLUSH)

    def run(self, budget: int = UNLIMITED, *, exact: bool = True) -> Exit:
        """Execute until there is a reason to leave, at the latest after ``budget`` instructions.

        Exactly so many, or with ``exact`` off as many more as the block has: cheaper and as repeatable.
        A trap counts as one of the budget. The GIL is released meanwhile. One thread at a time may run a
        hart.
        """
        state = self.state
        state.run_end = state.spent + budget
        state.soft_end = not exact
        self.processor.compilation.start()
        self._run(self.address)
        while state.exit_reason == ExitReason.COMPILE:
            self.processor.compilation.compile_now(state.exit_address)
            self._run(self.address)
        return Exit(
            _REASONS[state.exit_reason],
            state.exit_address,
            state.exit_size,
            state.exit_access,
            state.exit_value,
        )

    def answer(self, value: int) -> None:
        """The result of the device access that the last exit was for (0 for a store)."""
        self.state.reply_value = value
        self.state.reply = Reply.DONE

    def fault(self) -> None:
        """The access that the last exit was for reached nothing: the guest gets an access fault."""
        self.state.reply = Reply.FAULT

    def set_lines(self, mask: int, level: bool) -> None:
        """Drive interrupt-pending bits (as in mip) from any thread; a waiting hart wakes up."""
        self.processor._post(self.address, Request.ATTEND, mask if level else 0, 0 if level else mask)

    def request(self, request: int) -> None:
        """Ask something of the hart (bits of Request) from any thread."""
        self.processor._post(self.address, request, 0, 0)

    def stop(self) -> None:
        """Make the current or the next run end with ExitReason.STOPPED, from any thread."""
        self.request(Request.STOP)

    @property
    def running(self) -> bool:
        """Whether native code runs this hart now (also while it waits in wfi)."""
        return bool(self.state.running)

    @property
    def waiting(self) -> bool:
        """Whether it waits for an interrupt."""
        return bool(self.state.waiting)

    @property
    def instructions(self) -> int:
        """Instructions retired since reset of the machine; exact when the hart does not run."""
        return int(self.state.spent - self.state.traps)
