"""The file of compiled regions: an SQLite database that all doppels of one user share.

It holds nothing that cannot be made again, which decides how it is used. It is not synced: a process that is
killed leaves a journal from which the next one restores the file, and after a power failure the digests find
what is wrong. It has a rollback journal rather than a write-ahead log: the log needs shared memory, which
network file systems do not have, and its files stay around. It is never mapped into memory: a file that
another process cuts short would then kill this one.

Everything SQLite and the file system refuse becomes a `StoreError` that says what is left to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doppel.translate.regions.trouble import StoreError, Trouble

__all__ = ["Database", "Found", "Record", "Written"]

# What the file is: "dopl", and the number of its format.
_APPLICATION, _FORMAT = 0x646F706C, 1
_SCHEMA = (
    # Numbers of versions are never given twice: another doppel may still use the old one.
    "CREATE TABLE version (id INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB NOT NULL UNIQUE)",
    "CREATE TABLE region (id INTEGER PRIMARY KEY, version INTEGER NOT NULL, anchor INTEGER NOT NULL,"
    " identity INTEGER NOT NULL, used INTEGER NOT NULL, size INTEGER NOT NULL)",
    "CREATE UNIQUE INDEX lookup ON region (version, anchor, identity)",
    # Apart from `region`, so that looking through all regions does not read all code.
    "CREATE TABLE body (id INTEGER PRIMARY KEY, digest BLOB NOT NULL, content BLOB NOT NULL)",
    # All anchors of a version, 64 bits each, a row for each batch written; may have more than there are.
    # Reading them is several times faster than reading them from `region`.
    "CREATE TABLE anchors (id INTEGER PRIMARY KEY, version INTEGER NOT NULL, list BLOB NOT NULL)",
)
_FETCH = (
    "SELECT region.id, region.anchor, region.used, body.digest, body.content FROM region"
    " LEFT JOIN body ON body.id = region.id WHERE region.version = ? AND region.anchor IN ({}) LIMIT 2000"
)
_OLDEST_FIRST = "SELECT id, version, size FROM region ORDER BY version = ?, used, id"

# Milliseconds to wait for another doppel that is writing, which takes it a few.
_BUSY_MS = 100
# Regions with the same anchor that are kept: guests that generate code may have any number of them.
_VARIANTS = 16
# Lists of anchors from which on they are joined.
_MANY_LISTS = 500
# A region to write: its anchor, its identity, its content.
Record = tuple[int, int, bytes]

# Bytes: no value in the file is larger, whatever a damaged one says of itself.
_LARGEST = 32 << 20
_CACHE_KIB = 1024


_TROUBLES = {
    sqlite3.SQLITE_BUSY: Trouble.BUSY,
    sqlite3.SQLITE_LOCKED: Trouble.BUSY,
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_READONLY: Trouble.REFUSED,
    sqlite3.SQLITE_CANTOPEN: Trouble.REFUSED,
    sqlite3.SQLITE_IOERR: Trouble.REFUSED,
    sqlite3.SQLITE_PERM: Trouble.REFUSED,
    sqlite3.SQLITE_AUTH: Trouble.REFUSED,
    sqlite3.SQLITE_PROTOCOL: Trouble.REFUSED,
    sqlite3.SQLITE_NOLFS: Trouble.REFUSED,
    sqlite3.SQLITE_NOMEM: Trouble.REFUSED,
}


@dataclass(frozen=True, slots=True)
class Written:
    """What a write found: whether regions had to go, and the anchors of those put in place of others."""

    some_went: bool
    replaced: set[int]


@dataclass(frozen=True, slots=True)
class Found:
    """A region that was read: `content` is None if it is damaged; `used` as in `Database.write`."""

    id: int
    anchor: int
    used: int
    content: bytes | None


class Database:
    """The regions of `version` in the file at `path`, which is kept below `limit_bytes`.

    Nothing is made before the first `write`. One thread at a time.
    """

    def __init__(self, path: Path, version: str, limit_bytes: int) -> None:
        self._path = path
        self._name = hashlib.sha256(version.encode()).digest()
        self._limit_bytes = limit_bytes
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)
        self._version = 0
        self._many_lists = False

    def load(self) -> set[int]:
        """The anchors of all regions of this version; there may be some of which nothing is left."""
        with _troubles():
            if self._connection is None and not self._open(create=False):
                return set()
            if self._value("PRAGMA user_version") == 0:
                return set()
            self._check_format()
            self._version = self._find_version()
            lists = self._rows("SELECT list FROM anchors WHERE version = ?", (self._version,))
            self._many_lists = len(lists) > _MANY_LISTS
            joined = b"".join(part for (part,) in lists if isinstance(part, bytes) and len(part) % 8 == 0)
            return set(array("Q", joined))

    def fetch(self, anchors: Sequence[int]) -> list[Found]:
        """The regions with one of the anchors, of which there may be 64."""
        if self._connection is None or not self._version:
            return []
        with _troubles():
            rows = self._rows(_FETCH.format(",".join("?" * len(anchors))), (self._version, *anchors))
            return [self._checked(*row) for row in rows]

    def write(
        self, records: Sequence[Record], used: Iterable[int], damaged: Iterable[int], now: int
    ) -> Written:
        """Put regions in, in place of others made from the same bytes, all or none.

        `used` are the ids of regions that shall be noted as used at the time `now`, `damaged` of those that
        shall go. The regions that were used longest ago go if there is no room, those of other versions
        first.
        """
        with _troubles():
            if self._connection is None:
                self._open(create=True)
            try:
                return self._write(records, used, damaged, now, force=False)
            except sqlite3.OperationalError as error:
                if _code(error) == sqlite3.SQLITE_READONLY and self._may_write():
                    raise StoreError(Trouble.DAMAGED, "it says of itself that it is read-only") from error
                if _code(error) != sqlite3.SQLITE_FULL:
                    raise
                # Rarely: what is free in the file is in too many pages.
                return self._write(records, used, damaged, now, force=True)

    def check(self) -> None:
        """Look for what digests do not show, such as entries that are in no index; reads the whole file."""
        if self._connection is None:
            return
        with _troubles():
            rows = self._rows("PRAGMA integrity_check(1)")
            if rows != [(b"ok",)]:
                raise StoreError(Trouble.DAMAGED, str(rows))
            with self._transaction():
                self._join_anchors(self._version)

    def put_aside(self) -> Path | None:
        """Rename the file, unless somebody else did; returns its new path. `OSError` if that is refused."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            if _inode(self._path) != self._inode:
                return None
            # First, or SQLite would apply it to the next file of this name.
            for suffix in ("-journal", "-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            return self._path.replace(self._path.with_suffix(".damaged"))
        return None

    def close(self) -> None:
        """Let go of the file; `load` or `write` open it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _open(self, create: bool) -> bool:
        if not self._path.is_file():
            if self._path.exists():
                raise StoreError(Trouble.REFUSED, "it is no file")
            if not create:
                return False
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch()
        self._inode = _inode(self._path)
        self._connection = sqlite3.connect(
            self._path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False
        )
        try:
            self._set_up(self._connection)
        except BaseException:
            self.close()
            raise
        return True

    def _set_up(self, connection: sqlite3.Connection) -> None:
        connection.text_factory = bytes
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST)
        for setting in (
            "synchronous = OFF",
            "mmap_size = 0",
            f"cache_size = -{_CACHE_KIB}",
            "trusted_schema = OFF",
            "cell_size_check = ON",
        ):
            self._rows(f"PRAGMA {setting}")
        if self._value("PRAGMA journal_mode = DELETE") != b"delete":
            raise StoreError(Trouble.DAMAGED, "it has a write-ahead log")

    def _may_write(self) -> bool:
        effective = os.access in os.supports_effective_ids
        return os.access(self._path, os.W_OK, effective_ids=effective)

    def _check_format(self) -> None:
        found = self._value("PRAGMA application_id"), self._value("PRAGMA user_version")
        if found != (_APPLICATION, _FORMAT):
            raise StoreError(Trouble.DAMAGED, f"it is of another format ({found[0]}, {found[1]})")

    def _find_version(self) -> int:
        rows = self._rows("SELECT id FROM version WHERE name = ?", (self._name,))
        return int(rows[0][0]) if rows else 0

    def _checked(self, id_: int, anchor: object, used: object, digest: object, content: object) -> Found:
        if isinstance(anchor, int) and isinstance(used, int) and isinstance(content, bytes):
            return Found(id_, anchor, used, content if self._digest(anchor, content) == digest else None)
        return Found(id_, 0, 0, None)

    def _digest(self, anchor: int, content: bytes) -> bytes:
        digest = hashlib.blake2b(content, digest_size=16, key=self._name)
        digest.update(anchor.to_bytes(8, "little", signed=True))
        return digest.digest()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """A change of the file, with the tables made if there are none."""
        assert self._connection is not None
        if self._value("PRAGMA page_count") == 0:
            # To be set before there is anything; later it is ignored. Pages given back make the file smaller.
            self._rows("PRAGMA auto_vacuum = INCREMENTAL")
        self._rows("BEGIN IMMEDIATE")
        try:
            if self._value("PRAGMA user_version") == 0:
                for statement in _SCHEMA:
                    self._rows(statement)
                self._rows(f"PRAGMA application_id = {_APPLICATION}")
                self._rows(f"PRAGMA user_version = {_FORMAT}")
            self._check_format()
            self._version = self._find_version()
            if not self._version:
                self._rows("INSERT INTO version (name) VALUES (?)", (self._name,))
                self._version = self._find_version()
            yield
            self._rows("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._rows("ROLLBACK")
            raise

    def _write(
        self, records: Sequence[Record], used: Iterable[int], damaged: Iterable[int], now: int, force: bool
    ) -> Written:
        with self._transaction():
            self._forget(damaged)
            self._many("UPDATE region SET used = ? WHERE id = ?", [(now, id_) for id_ in used])
            some_went = self._make_room(records, force)
            replaced = self._insert(records, now)
        self._shrink()
        return Written(some_went, replaced)

    def _insert(self, records: Sequence[Record], now: int) -> set[int]:
        replaced = set()
        for anchor, identity, content in records:
            key = (self._version, anchor, identity)
            size = len(content)
            rows = self._rows("SELECT id FROM region WHERE version = ? AND anchor = ? AND identity = ?", key)
            if rows:
                replaced.add(anchor)
                self._rows("UPDATE region SET used = ?, size = ? WHERE id = ?", (now, size, rows[0][0]))
            else:
                self._rows(
                    "INSERT INTO region (version, anchor, identity, used, size) VALUES (?, ?, ?, ?, ?)",
                    (*key, now, size),
                )
                rows = self._rows("SELECT last_insert_rowid()")
                surplus = self._rows(
                    "SELECT id FROM region WHERE version = ? AND anchor = ?"
                    f" ORDER BY used DESC, id DESC LIMIT -1 OFFSET {_VARIANTS}",
                    key[:2],
                )
                self._forget(id_ for (id_,) in surplus)
            self._rows(
                "INSERT OR REPLACE INTO body (id, digest, content) VALUES (?, ?, ?)",
                (rows[0][0], self._digest(anchor, content), content),
            )
        if records:
            self._add_anchors(self._version, [anchor for anchor, _, _ in records])
        if self._many_lists:
            self._join_anchors(self._version)
            self._many_lists = False
        return replaced

    def _forget(self, ids: Iterable[int]) -> None:
        keys = [(id_,) for id_ in ids]
        self._many("DELETE FROM region WHERE id = ?", keys)
        self._many("DELETE FROM body WHERE id = ?", keys)

    def _make_room(self, records: Sequence[Record], force: bool) -> bool:
        page = int(self._value("PRAGMA page_size"))
        limit = self._limit_pages()
        # Each in pages of its own, its part of the indexes, and the pages that nobody counts.
        needed = sum(len(content) // page + 2 for _, _, content in records) + 8
        versions: set[int] = set()
        if force or self._pages_used() + needed > limit:
            goal = limit - needed - limit // 8
            # What is forgotten may leave pages half full, so that it takes more than once.
            while (surplus := self._pages_used() - goal) > 0:
                ids, size = [], 0
                for id_, version, one in self._cursor(_OLDEST_FIRST, (self._version,)):
                    ids.append(id_)
                    versions.add(version)
                    size += one + page // 4
                    if size > surplus * page:
                        break
                if not ids:
                    break
                self._forget(ids)
            for version in versions:
                self._join_anchors(version)
        # Nothing if the file is larger than this, see `_shrink`.
        self._rows(f"PRAGMA max_page_count = {limit}")
        return bool(versions)

    def _shrink(self) -> None:
        """Give back what the file has more than its limit, once that is free: the limit was larger before."""
        surplus = int(self._value("PRAGMA page_count")) - self._limit_pages()
        if surplus > 0 and self._connection is not None:
            # Not by `execute`, which ends at the first page given back.
            self._connection.executescript(f"PRAGMA incremental_vacuum({surplus})")

    def _limit_pages(self) -> int:
        return max(self._limit_bytes // int(self._value("PRAGMA page_size")), 16)

    def _pages_used(self) -> int:
        return int(self._value("PRAGMA page_count")) - int(self._value("PRAGMA freelist_count"))

    def _add_anchors(self, version: int, anchors: Collection[int]) -> None:
        packed = array("Q", anchors).tobytes()
        self._rows("INSERT INTO anchors (version, list) VALUES (?, ?)", (version, packed))

    def _join_anchors(self, version: int) -> None:
        self._rows("DELETE FROM anchors WHERE version = ?", (version,))
        anchors = self._rows("SELECT anchor FROM region WHERE version = ?", (version,))
        if anchors:
            self._add_anchors(version, [anchor for (anchor,) in anchors])
        elif version != self._version:
            self._rows("DELETE FROM version WHERE id = ?", (version,))

    def _cursor(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        assert self._connection is not None
        return self._connection.execute(statement, values)

    def _rows(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        return self._cursor(statement, values).fetchall()

    def _value(self, statement: str) -> Any:
        return self._rows(statement)[0][0]

    def _many(self, statement: str, values: Sequence[tuple[int, ...]]) -> None:
        if values:
            assert self._connection is not None
            self._connection.executemany(statement, values)


@contextlib.contextmanager
def _troubles() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = _code(error)
        trouble = _TROUBLES.get(code & 0xFF, Trouble.DAMAGED)
        if code == sqlite3.SQLITE_READONLY_DBMOVED:
            trouble = Trouble.MOVED
        elif code == sqlite3.SQLITE_IOERR_SHORT_READ:
            trouble = Trouble.DAMAGED
        raise StoreError(trouble, str(error)) from error
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        # Values that the tables cannot have.
        raise StoreError(Trouble.DAMAGED, repr(error)) from error
    except (OSError, MemoryError) as error:
        raise StoreError(Trouble.REFUSED, str(error) or repr(error)) from error


def _code(error: sqlite3.Error) -> int:
    """SQLite's extended result code; errors that Python's module finds itself have none."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)


def _inode(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
