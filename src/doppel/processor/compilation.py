"""Tier 1 of a processor: what is worth compiling, who compiles it, and putting it where harts find it.

Harts note where their slices end; a point that is noted often is hot. A manager thread gathers these samples,
lets a worker process compile the hottest point, and makes the compiled code the handler of its record in the
decoded page, so that the interpreter enters it like any instruction. Nothing of this stops a hart.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from doppel.memory.entry import PAGE_SIZE
from doppel.processor.arena import CodeArena
from doppel.processor.coverage import Coverage
from doppel.processor.perfmap import guest_name
from doppel.translate.exits import Request
from doppel.translate.layout import CODE_PAGE, RECORD, SAMPLES
from doppel.translate.regions.compiler import Region, RegionRequest, shared_compiler
from doppel.translate.regions.link import LINKS_FOR_THIS_HOST
from doppel.translate.regions.store import default_store
from doppel.translate.regions.stored import CHUNK_BYTES, StoredRegion, chunk_hashes
from doppel.translate.regions.templates import HANDLER_HELPERS
from doppel.translate.regions.workers import Usage, Worker, WorkerDiedError, shared_workers

if TYPE_CHECKING:
    from doppel.processor.processor import Processor

__all__ = ["MODES", "Compilation", "CompilationStatistics", "CompileMode"]

CompileMode = Literal["hot", "all", "off"]
MODES: tuple[CompileMode, ...] = get_args(CompileMode)

# Samples that make a point hot. A slice is 20,000 instructions.
_HOT = 2
# Samples that make a point worth a worker's time at once. What has fewer waits until workers have been idle
# for long enough: a worker that is always busy takes from the harts on a host with few processors.
_VERY_HOT = 50
# Seconds that workers may take for a machine's other points: at first, and then as a share of all time.
_FREE_SECONDS, _FREE_SHARE = 1.0, 0.1
# Seconds between two looks at the samples, while they say something new and while they do not.
_SHORT_PAUSE, _LONG_PAUSE = 0.002, 0.02
# Seconds after which a point is given up that the compiler cannot cope with.
_PATIENCE = 20.0
# Instructions of a region on a machine that compiles everything: little that is never executed.
_LIMIT_OF_ALL = 40
# How often it compiles one place: a page that is both code and data that changes is given up again and again.
_TIMES_OF_ALL = 64
_EVERYTHING = b"\1" * (PAGE_SIZE // 2)


@dataclass
class CompilationStatistics:
    """What was compiled so far: ``regions`` in use, of which ``loaded`` were kept from before; guest
    ``instructions`` in them and ``bytes`` of host code; hot points ``refused`` because the interpreter must
    execute them; regions ``outdated`` when they were ready; how often all code was ``discarded``.
    """

    regions: int = 0
    loaded: int = 0
    instructions: int = 0
    bytes: int = 0
    refused: int = 0
    outdated: int = 0
    discarded: int = 0


@dataclass(frozen=True)
class _Page:
    """A decoded page as it was at one time."""

    number: int
    address: int
    epoch: int
    stores: int
    content: bytes


@dataclass(frozen=True)
class _Job:
    """A point that a worker compiles; ``began`` by the monotonic clock."""

    worker: Worker
    point: int
    page: _Page
    generation: int
    began: float


class Compilation:
    """``mode``: ``hot`` compiles what is hot in the background, ``all`` everything before it is executed for
    the first time, ``off`` nothing. It is ``off`` where the host cannot have compiled regions; ``problem``
    then says why.
    """

    def __init__(self, processor: Processor, mode: CompileMode, arena_bytes: int) -> None:
        self.mode = mode
        self.problem = ""
        self.statistics = CompilationStatistics()
        self._processor = processor
        try:
            self._arena = CodeArena(arena_bytes)
        except OSError as error:
            self.mode, self.problem = "off", f"compiled code cannot be executed ({error.strerror})"
            self._arena = CodeArena(0)
        if not LINKS_FOR_THIS_HOST:
            self.mode, self.problem = "off", "regions are compiled for x86-64 only"
        self._lock = threading.RLock()
        self._counts: Counter[int] = Counter()
        self._hot: set[int] = set()
        self._refused: set[int] = set()
        # In the mode "all": how often the places of the guest have been compiled.
        self._times: Counter[int] = Counter()
        self._seen: dict[int, int] = {}
        self._pages_seen = 0
        self._store = default_store(every_branch=processor.counts_instructions)
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._generation = 0
        self._began = time.monotonic()
        # Seconds that workers have spent on this machine's points.
        self._taken = 0.0
        self._coverage = Coverage()
        # Processor time of this process, in the mode "all"; and of the workers before this machine had them.
        self._seconds = self._seconds_before = 0.0
        self._final_usage: Usage | None = None
        self._most_used = 0

    # --- life ---

    def start(self) -> None:
        """Begin to watch; once is enough."""
        if self.mode != "hot" or self._thread is not None:
            return
        with self._lock:
            # Another hart may have been faster.
            if self._thread is None:
                shared_workers.open()
                self._seconds_before = shared_workers.usage().seconds
                self._thread = threading.Thread(target=self._manage, name="compilation", daemon=True)
                self._thread.start()

    def discard(self) -> None:
        """Forget all compiled code. No hart may be running."""
        with self._lock:
            self._generation += 1
            self.statistics.discarded += 1
            self._most_used = self.arena_bytes
            self._coverage.forget()
            self._arena.clear()
            self._counts.clear()
            self._hot.clear()
            self._refused.clear()

    def close(self) -> None:
        """End everything that was begun. No hart may be running."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
            shared_workers.close()
            self._store.close()
        self._arena.close()

    # --- what it came to ---

    @property
    def compiled_share(self) -> float | None:
        """The share of the samples so far that fell on compiled code; None without samples."""
        if self.mode == "all":
            with self._lock:
                self._take_samples()
        return self._coverage.share

    def usage(self) -> Usage:
        """Processor time that compiling took, and memory of the processes that compile."""
        if self._final_usage is not None:
            return self._final_usage
        if self._thread is None:
            return Usage(self._seconds)
        usage = shared_workers.usage()
        return Usage(usage.seconds - self._seconds_before, usage.resident)

    @property
    def arena_bytes(self) -> int:
        """The most of the memory for compiled code that was in use."""
        return max(self._most_used, self._arena.used)

    # --- at once ---

    def compile_now(self, address: int) -> None:
        """Compile what is at a guest-physical address, as far as it can be compiled."""
        page = self._page(address // PAGE_SIZE)
        if page is None or self._times[address] == _TIMES_OF_ALL:
            return
        began = time.thread_time()
        region = shared_compiler().compile(self._request(page, address % PAGE_SIZE))
        with self._lock:
            self._times[address] += 1
            self._seconds += time.thread_time() - began
            self.statistics.refused += region is None
        self._install(page, region)

    # --- in the background ---

    def _manage(self) -> None:
        """Until the end: watch, give a worker what is hottest, install what it made of it."""
        job: _Job | None = None
        while not self._ending.is_set():
            busy = self._gather()
            if job is None:
                job = self._begin()
            if job is None:
                self._ending.wait(_SHORT_PAUSE if busy else _LONG_PAUSE)
            elif self._finish(job):
                job = None
        self._final_usage = self.usage()
        if job is not None:
            shared_workers.give_back(job.worker, usable=False)

    def _begin(self) -> _Job | None:
        """Give the hottest point to a worker, if there are both."""
        point, count = self._hottest()
        now = time.monotonic()
        allowed = _FREE_SECONDS + _FREE_SHARE * (now - self._began)
        page = self._page(point // PAGE_SIZE) if count else None
        if page is None:
            return None
        worker = shared_workers.take() if count >= _VERY_HOT or self._taken < allowed else None
        if worker is None:
            self._note(Counter({point: count}))
            return None
        job = _Job(worker, point, page, self._generation, now)
        try:
            worker.send(self._request(page, point % PAGE_SIZE))
        except WorkerDiedError:
            self._give_up(job)
            return None
        return job

    def _finish(self, job: _Job) -> bool:
        """Wait a little for a worker; whether it has done its job or given it up."""
        try:
            answer = job.worker.poll(_LONG_PAUSE)
        except WorkerDiedError:
            self._give_up(job)
            return True
        seconds = time.monotonic() - job.began
        if answer is None:
            if seconds < _PATIENCE:
                return False
            self._give_up(job)
            return True
        self._taken += seconds
        shared_workers.give_back(job.worker)
        (region,) = answer
        if region is None:
            self._refused.add(job.point)
            self.statistics.refused += 1
        elif job.generation == self._generation:
            self._install(job.page, region)
            self._keep(job.page, region)
        return True

    def _give_up(self, job: _Job) -> None:
        """Have nothing to do any more with a point that ends workers."""
        shared_workers.give_back(job.worker, usable=False)
        self._refused.add(job.point)
        self.statistics.refused += 1

    def _load(self) -> bool:
        """Look for kept code of the guest pages that are executed since the last time; whether there are."""
        made, before = self._processor.new_pages(self._pages_seen)
        self._pages_seen = before
        for number in made:
            page = self._page(number)
            if page is None:
                continue
            for kept in self._store.match(page.content):
                region = Region(kept.entries, kept.ranges, int.from_bytes(kept.extra, "little"), kept.code)
                self.statistics.loaded += self._install(page, region)
            # Harts that come out of native code need the interpreter lock sooner than this thread.
            time.sleep(0)
        return bool(made)

    def _keep(self, page: _Page, region: Region) -> None:
        """Let later machines have a region too."""
        chunk = region.entries[0] // CHUNK_BYTES
        guest = b"".join(page.content[start : start + length] for start, length in region.ranges)
        extra = region.instructions.to_bytes(4, "little")
        self._store.put(
            StoredRegion(
                chunk,
                chunk_hashes(page.content)[chunk],
                region.ranges,
                guest,
                region.entries,
                region.code,
                extra,
            )
        )

    def _gather(self) -> bool:
        """Take note of new samples and new pages of all harts; whether they say anything new."""
        loaded, samples = self._load(), self._take_samples()
        return self._note(samples) or loaded

    def _take_samples(self) -> Counter[int]:
        """The new samples of all harts."""
        found: Counter[int] = Counter()
        for hart in self._processor.harts:
            count = hart.state.sample_count
            before = self._seen.get(hart.index, 0)
            if count == before:
                continue
            self._seen[hart.index] = count
            first, end = max(before, count - SAMPLES) % SAMPLES, count % SAMPLES
            samples = hart.state.samples
            found.update(samples[first:end] if first < end else samples[first:] + samples[:end])
        self._coverage.count(found)
        return found

    def _note(self, samples: Counter[int]) -> bool:
        """Count samples; those of compiled code say nothing new. Whether any does."""
        news = False
        with self._lock:
            for point, times in samples.items():
                if point in self._refused or self._is_compiled(point):
                    continue
                news = True
                self._counts[point] += times
                if self._counts[point] >= _HOT:
                    self._hot.add(point)
        return news

    def _hottest(self) -> tuple[int, int]:
        """The guest-physical address that is worth the most, off the list; its samples, 0 without one."""
        with self._lock:
            while self._hot:
                point = max(self._hot, key=self._counts.__getitem__)
                self._hot.remove(point)
                count = self._counts.pop(point)
                if not self._is_compiled(point):
                    return point, count
        return 0, 0

    # --- pages ---

    def _record(self, page: int, offset: int) -> int:
        return page + offset * RECORD.per_byte

    def _is_compiled(self, point: int) -> bool:
        page = self._processor.code_page(point // PAGE_SIZE)
        return not page or self._arena.holds(_word(self._record(page, point % PAGE_SIZE)))

    def _page(self, number: int) -> _Page | None:
        """A decoded page as it is now."""
        address = self._processor.code_page(number)
        if not address:
            return None
        epoch, stores = _word(address + CODE_PAGE.epoch), _word(address + CODE_PAGE.stores)
        content = ctypes.string_at(_word(address + CODE_PAGE.host), PAGE_SIZE)
        return _Page(number, address, epoch, stores, content)

    def _executed(self, page: _Page) -> bytes:
        """A byte for every two of the page, not 0 where an instruction has been executed."""
        undecoded = self._processor.helper(HANDLER_HELPERS.index("decode"))
        handlers = memoryview(ctypes.string_at(page.address, PAGE_SIZE * RECORD.per_byte)).cast("Q")[::2]
        return bytes(handler != undecoded for handler in handlers)

    def _request(self, page: _Page, offset: int) -> RegionRequest:
        every_branch = self._processor.counts_instructions
        if self.mode == "all":
            return RegionRequest(page.content, offset, _EVERYTHING, _LIMIT_OF_ALL, every_branch=every_branch)
        return RegionRequest(page.content, offset, self._executed(page), every_branch=every_branch)

    def _install(self, page: _Page, region: Region | None) -> bool:
        """Let harts find a region, if the page still is what it was compiled from; whether they do."""
        if region is None:
            return False
        with self._lock:
            host = _word(page.address + CODE_PAGE.host)
            # Before the comparison: a store that comes in between is then one more than what is covered.
            stores = _word(page.address + CODE_PAGE.stores)
            fits = all(
                ctypes.string_at(host + start, length) == page.content[start : start + length]
                for start, length in region.ranges
            )
            if not fits or not self._processor.cover(page.number, page.address, page.epoch, stores):
                self.statistics.outdated += 1
                return False
            address = self._arena.place(region.code)
            if address is None:
                self._processor.harts[0].request(Request.CODE)
                return False
            first, *others = region.entries
            for offset in others:
                if self._arena.holds(_word(self._record(page.address, offset))):
                    continue
                self._processor.enter_at(page.number, page.address, page.epoch, offset, address)
            self._processor.enter_at(page.number, page.address, page.epoch, first, address)
            self._coverage.add(page.number, region.ranges)
            if (perf_map := self._processor.perf_map) is not None:
                names = self._processor.code_names
                perf_map.add(address, len(region.code), guest_name(page.number * PAGE_SIZE, first, names))
            self.statistics.regions += 1
            self.statistics.instructions += region.instructions
            self.statistics.bytes += len(region.code)
            return True


def _word(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value
