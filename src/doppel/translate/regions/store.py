"""Compiled regions on disk: the next boot of the same guest finds its code ready.

One file for all doppels of a user. A region is found by the version (a digest of everything that its code
depends on except guest bytes: options, engine, host processor) and by its anchor (see `stored`). Nothing here
is needed for correct work: when the file is damaged it is put aside and made anew, when it cannot be used the
store is empty and keeps nothing, and `CodeStore.problem` says why.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import time
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING

from doppel.cache import Cache
from doppel.errors import DoppelError
from doppel.translate.build import object_key
from doppel.translate.regions.stored import CHUNKS, StoredRegion, chunk_hashes, pack, unpack
from doppel.translate.regions.trouble import StoreError, Trouble

if TYPE_CHECKING:
    from doppel.translate.regions.database import Database, Found

__all__ = ["CODE_FILE", "CodeStore", "StoredRegion", "chunk_hashes", "default_store"]

# In doppel's cache; in a folder of its own, so that what SQLite puts beside it is shown and removed with it.
CODE_FILE = "code/regions/regions.sqlite"

# A batch is full with so many regions, or so many bytes.
_BATCH_REGIONS, _BATCH_BYTES = 64, 512 << 10
# Bytes of regions that wait while another doppel has the file; more are not kept.
_WAITING_BYTES = 8 << 20
# Seconds without another try when another doppel had the file for longer than a write takes.
_PAUSE = 1.0
# Regions that have more bytes, or take more than this share of the file, are not kept.
_REGION_BYTES, _SHARE = 1 << 20, 16
# When a region was last used is noted in seconds since the epoch, no finer than this.
_USED_EVERY = 600
# Files put aside, or found to be others than before, in the life of one store.
_REOPENINGS = 3

# To be joined with the chunks' hashes to anchors.
_CHUNKS = tuple(chunk << 32 for chunk in range(CHUNKS))
_Key = tuple[int, tuple[tuple[int, int], ...], bytes]


def default_store(*, every_branch: bool) -> CodeStore:
    """The user's store, for regions of this engine on this host that were compiled with this option."""
    version = hashlib.sha256(f"{object_key()} {every_branch}".encode()).hexdigest()[:32]
    try:
        path = Cache().root / CODE_FILE
    except DoppelError:
        # There is no place for a cache: in a folder that is no folder nothing is kept.
        path = Path(__file__) / CODE_FILE
    return CodeStore(path, version)


class CodeStore:
    """The regions of one version in the file at `path`, which is kept below `limit_bytes`.

    Nothing is raised for the state of the file or the disk. The file is opened when it is first needed. One
    thread uses the store; `close` may come from any. `problem` is empty, or says in words what keeps regions
    from being found or kept; `damaged` counts the entries that were ignored because they were damaged.
    """

    def __init__(self, path: Path, version: str, limit_bytes: int = 64 << 20) -> None:
        self.problem = ""
        self.damaged = 0
        self._path = path
        self._version = version
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._database: Database | None = None
        self._writable = True
        self._reopenings = 0
        self._not_before = 0.0
        self._loaded = False
        # Something is not as it was written: a reason to look at the whole file.
        self._suspicious = False
        self._anchors: set[int] = set()
        # Anchors of regions that wait and had none when they were put.
        self._unknown: set[int] = set()
        self._waiting: dict[_Key, tuple[StoredRegion, bytes]] = {}
        self._waiting_bytes = 0
        self._used: set[int] = set()
        self._bad: set[int] = set()

    def open(self) -> None:
        """Look at the file now rather than when it is first needed."""
        with self._lock:
            self._open()

    def match(self, page: bytes | memoryview) -> list[StoredRegion]:
        """The regions anchored in a guest page of 4096 bytes whose guest bytes are those of the page.

        What of a region's guest bytes lies in other pages is not looked at. Counts as use of the regions.
        """
        hashes = chunk_hashes(page)
        with self._lock:
            if not self._loaded:
                self._open()
            anchors = self._anchors.intersection(map(or_, _CHUNKS, hashes))
            if not anchors:
                return []
            found = {_key(region): region for region in self._read(anchors)}
            found.update((key, region) for key, (region, _) in self._waiting.items() if key[0] in anchors)
            return [region for region in found.values() if region.fits(page)]

    def put(self, region: StoredRegion) -> None:
        """Keep a region, in place of one made from the same guest bytes; it is written in a batch.

        One of more than 1 MiB is not kept. `struct.error` if it has an offset that does not fit 32 bits or
        more than 65535 ranges or entries.
        """
        content = pack(region)
        with self._lock:
            if not self._writable or len(content) > min(_REGION_BYTES, self._limit_bytes // _SHARE):
                return
            key = _key(region)
            replaced = self._waiting.pop(key, None)
            self._waiting_bytes += len(content) - (len(replaced[1]) if replaced else 0)
            self._waiting[key] = region, content
            if region.anchor not in self._anchors:
                self._unknown.add(region.anchor)
                self._anchors.add(region.anchor)
            if len(self._waiting) >= _BATCH_REGIONS or self._waiting_bytes >= _BATCH_BYTES:
                self._write()

    def flush(self) -> None:
        """Write what waits, unless another doppel has the file."""
        with self._lock:
            if self._waiting:
                self._write()

    def close(self) -> None:
        """Write what waits and let go of the file: from now on the store is empty and keeps nothing."""
        with self._lock:
            if self._waiting or self._used or self._bad:
                self._not_before = 0.0
                self._write()
            if self._suspicious and self._writable and self._database is not None:
                try:
                    self._database.check()
                except StoreError as error:
                    self._failed(error, reading=False)
            self._stop()

    def _open(self) -> None:
        """Read which regions there are."""
        while not self._loaded and not self._paused():
            try:
                if self._database is None:
                    # Takes a few milliseconds, and not every Python has SQLite.
                    from doppel.translate.regions.database import Database

                    self._database = Database(self._path, self._version, self._limit_bytes)
                self._anchors |= self._database.load()
                self._loaded = True
            except ImportError as error:
                self.problem = f"compiled code is not kept: this Python has no sqlite3 ({error})"
                self._stop()
            except StoreError as error:
                self._failed(error, reading=True)

    def _read(self, anchors: set[int]) -> list[StoredRegion]:
        if self._database is None or self._paused():
            return []
        try:
            found = self._database.fetch(list(anchors))
        except StoreError as error:
            self._failed(error, reading=True)
            return []
        stale = time.time() - _USED_EVERY
        regions = []
        for one in found:
            region = _region(one)
            if region is None:
                self.damaged += 1
                self._bad.add(one.id)
                continue
            regions.append(region)
            if one.used < stale:
                self._used.add(one.id)
        missing = anchors.difference(region.anchor for region in regions)
        if missing and (missing := missing - self._waiting_anchors()):
            # Removed by another doppel, or damage that no digest shows.
            self._suspicious = True
            self._anchors -= missing
        return regions

    def _write(self) -> None:
        if not self._writable or self._paused():
            self._limit_waiting()
            return
        self._open()
        if self._database is None or not self._loaded:
            self._limit_waiting()
            return
        records = [(region.anchor, region.identity(), content) for region, content in self._waiting.values()]
        try:
            written = self._database.write(records, self._used, self._bad, int(time.time()))
            # By another doppel at the same time, or they were not found because of damage.
            self._suspicious |= not self._unknown.isdisjoint(written.replaced)
            if written.some_went:
                self._anchors = self._database.load() | self._waiting_anchors()
        except StoreError as error:
            self._failed(error, reading=False)
            if error.trouble in (Trouble.MOVED, Trouble.DAMAGED):
                # Into the file that is there now; comes to an end as no file is opened for ever.
                self._write()
            self._limit_waiting()
            return
        self._used.clear()
        self._bad.clear()
        self._drop_waiting()

    def _failed(self, error: StoreError, reading: bool) -> None:
        match error.trouble:
            case Trouble.BUSY:
                self._not_before = time.monotonic() + _PAUSE
            case Trouble.MOVED:
                self._reopen("")
            case Trouble.DAMAGED:
                self._put_aside(error)
            case Trouble.FULL | Trouble.REFUSED if not reading:
                self.problem = f"compiled code cannot be kept in {self._path}: {error}"
                self._writable = False
                self._drop_waiting()
            case _:
                self.problem = f"compiled code cannot be kept in {self._path}: {error}"
                self._stop()

    def _put_aside(self, error: StoreError) -> None:
        assert self._database is not None
        try:
            aside = self._database.put_aside()
        except OSError as refused:
            self.problem = (
                f"{self._path} is damaged ({error}) and cannot be put aside ({refused.strerror}): remove it"
            )
            self._stop()
            return
        self._reopen(f"{self._path} was damaged ({error})" + (f": it is now {aside}" if aside else ""))

    def _reopen(self, problem: str) -> None:
        """Begin anew with the file that has the name now, or with none."""
        self.problem = problem or self.problem
        self._reopenings += 1
        if self._reopenings > _REOPENINGS:
            self.problem = f"{self.problem or self._path}; compiled code is not kept any more"
            self._stop()
            return
        if self._database is not None:
            self._database.close()
        self._used.clear()
        self._bad.clear()
        self._suspicious = False
        self._anchors = self._waiting_anchors()
        self._loaded = False

    def _stop(self) -> None:
        self._writable = False
        self._drop_waiting()
        self._anchors = set()
        self._used.clear()
        self._bad.clear()
        self._loaded = True
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _paused(self) -> bool:
        return time.monotonic() < self._not_before

    def _limit_waiting(self) -> None:
        if self._waiting_bytes > _WAITING_BYTES:
            self.problem = f"some compiled code was not kept: {self._path} is used by another doppel"
            self._drop_waiting()

    def _waiting_anchors(self) -> set[int]:
        return {region.anchor for region, _ in self._waiting.values()}

    def _drop_waiting(self) -> None:
        self._waiting.clear()
        self._unknown.clear()
        self._waiting_bytes = 0


def _key(region: StoredRegion) -> _Key:
    return region.anchor, region.ranges, region.guest


def _region(found: Found) -> StoredRegion | None:
    if found.content is None:
        return None
    try:
        return unpack(found.anchor, found.content)
    except (struct.error, ValueError):
        return None
