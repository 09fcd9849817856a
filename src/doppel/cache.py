"""doppel's cache: a folder of files that can be made again, shared by all doppels of one user.

Where: `$XDG_CACHE_HOME/doppel`, or `~/.cache/doppel` (XDG Base Directory Specification). What is in it:

    packages/   .deb files as they came
    known/      what is known of the packages: names, versions, digests
    guests/     ready guest systems, one folder each
    engine/     the engine's native code, one object per host and version
    code/       native code of guest code, a database
    locks/      empty files for flock(2)
    tmp/        what is being written; never counts as present

A file or folder appears under its name only when it is complete and on the disk: it is written in tmp/,
synced and renamed. Everything in tmp/ is locked by its writer, so that what a killed writer left can be told
from what is being written, and goes when the next writer comes. Whatever the file system refuses becomes a
`DoppelError`. Only the database in code/ is written in its place, with its own means against all that, by
`doppel.translate.regions.store`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from doppel.errors import DoppelError

__all__ = ["Cache", "CacheEntry", "default_root"]

_SHELVES = ("guests", "packages", "engine", "code")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
# A file system without flock(2), such as some network ones: doppel then works without.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
# Seconds after which something unlocked in tmp/ is a leftover rather than about to be locked.
_LEFTOVER_AGE = 60.0


def default_root() -> Path:
    """The folder that the environment asks for."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(configured):
        return Path(configured) / "doppel"
    try:
        return Path.home() / ".cache" / "doppel"
    except RuntimeError as error:
        raise DoppelError("there is no home folder to keep a cache in", "set XDG_CACHE_HOME") from error


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """Something in the cache that can be listed and removed.

    `shelf` is "guests", "packages", "engine" or "code"; `size` is in bytes; `modified` in seconds since the
    epoch.
    """

    shelf: str
    name: str
    path: Path
    size: int
    modified: float


class Cache:
    """The cache at `root` (by default where the environment says); nothing is created until it is needed."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else default_root()

    @contextlib.contextmanager
    def lock(self, name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Keep other doppels, and other threads, from doing the thing called `name` at the same time.

        `waiting` is called once if somebody else holds the lock. The lock ends with its holder, however that
        ends.
        """
        with self.errors():
            self._make(self.root / "locks")
            handle = os.open(self.root / "locks" / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if not _try_lock(handle):
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def write(self, relative: str, data: bytes) -> Path:
        """Put a file into the cache, whole or not at all, replacing an older one."""
        with self.scratch() as folder, self.errors():
            temporary = folder / "file"
            temporary.write_bytes(data)
            return self._publish(temporary, relative)

    def adopt(self, file: Path, relative: str) -> Path:
        """Move a finished file from a scratch folder to its place, replacing an older one."""
        with self.errors():
            return self._publish(file, relative)

    @contextlib.contextmanager
    def folder(self, relative: str) -> Iterator[Path]:
        """A folder to fill; it appears as `relative` when the block ends without an exception.

        If somebody else was faster, theirs stays.
        """
        with self.scratch() as temporary:
            filled = temporary / "folder"
            with self.errors():
                filled.mkdir()
                yield filled
                self._publish(filled, relative)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder on the cache's disk that is gone after the block."""
        with self.errors():
            self._make(self.root / "tmp")
            self._remove_leftovers()
            folder = self.root / "tmp" / secrets.token_hex(8)
            folder.mkdir()
        handle = -1
        try:
            with self.errors():
                handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                _try_lock(handle)
            with self.errors():
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if handle >= 0:
                os.close(handle)

    def reserve(self, size: int) -> None:
        """Raise `DoppelError` if the disk has less than `size` bytes left."""
        with self.errors():
            self._make(self.root)
            free = shutil.disk_usage(self.root).free
        if free < size:
            raise self._no_room(f", {_megabytes(size)} are needed and {_megabytes(free)} are free")

    def entries(self) -> list[CacheEntry]:
        """Everything that can be removed, shelf by shelf; empty if there is no cache."""
        found = []
        for shelf in _SHELVES:
            with self.errors():
                try:
                    paths = sorted((self.root / shelf).iterdir())
                except FileNotFoundError:
                    continue
            for path in paths:
                with self.errors(), contextlib.suppress(FileNotFoundError):
                    entry = CacheEntry(shelf, path.name, path, _size(path), path.lstat().st_mtime)
                    found.append(entry)
        return found

    def remove(self, entry: CacheEntry) -> None:
        """Remove an entry, all of it at once; one that is gone already is no error."""
        with self.scratch() as folder, self.errors(), contextlib.suppress(FileNotFoundError):
            entry.path.rename(folder / "removed")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what the file system refuses in the block into a `DoppelError` about this cache."""
        try:
            yield
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise self._no_room("") from error
            if error.errno in _NOT_ALLOWED:
                raise DoppelError(
                    f"the cache folder {self.root} cannot be written ({error.strerror})",
                    "correct its permissions, or set XDG_CACHE_HOME to a folder of yours",
                ) from error
            raise DoppelError(
                f"the cache folder {self.root} cannot be used: {error.strerror or error}",
                "look at what is in the way there, or set XDG_CACHE_HOME to another folder",
            ) from error

    def _publish(self, source: Path, relative: str) -> Path:
        target = self.root / relative
        self._make(target.parent)
        _sync(source)
        try:
            source.rename(target)
        except OSError as error:
            # A folder in the way that is not empty: somebody else has put the same there meanwhile.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not target.is_dir():
                raise
        _sync_one(target.parent)
        return target

    def _make(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def _remove_leftovers(self) -> None:
        for path in (self.root / "tmp").iterdir():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime < _LEFTOVER_AGE:
                    continue
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(handle)

    def _no_room(self, detail: str) -> DoppelError:
        return DoppelError(
            f"there is no room in the cache folder {self.root}{detail}",
            "free space on that disk (`doppel images` shows what the cache holds), or set XDG_CACHE_HOME",
        )


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _sync(path: Path) -> None:
    if path.is_dir():
        for inner in path.iterdir():
            _sync(inner)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _size(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        return sum(_size(inner) for inner in path.iterdir())
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        # The journal of a database lives for milliseconds.
        return 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
