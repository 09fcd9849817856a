"""``doppel images``: the guests by name, and what the cache holds of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from doppel.cache import Cache, CacheEntry
from doppel.cli.downloads import package_source, prepare_guest
from doppel.cli.tables import print_table
from doppel.errors import DoppelError
from doppel.guests.catalog import GUESTS

__all__ = ["fetch", "remove", "show"]


def show() -> int:
    """List guests and cache."""
    print_table(list(GUESTS.items()), ("guest", ""))
    print()
    cache = Cache()
    entries = cache.entries()
    if not entries:
        print(f"The cache {cache.root} is empty.")
        return 0
    rows = [
        (
            entry.name,
            entry.shelf,
            _size(entry.size),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.modified)),
        )
        for entry in entries
    ]
    print_table(rows, ("in the cache", "kind", "size", "made"), right=[2])
    print(f"{_size(sum(entry.size for entry in entries))} in {cache.root}")
    return 0


def fetch(guest: str, mirror: str, debs: Sequence[Path], keyring: Path | None, refresh: bool) -> int:
    """Make a guest ready and say of what and where."""
    files = prepare_guest(guest, package_source(mirror, debs, keyring, refresh))
    for package, version in files.packages.items():
        print(f"{package} {version}")
    for name, path in files.files.items():
        print(f"{name}: {path}")
    return 0


def remove(names: Sequence[str], everything: bool) -> int:
    """Remove entries of the cache by name."""
    if bool(names) == everything:
        raise DoppelError("remove takes either names or --all", "the names are shown by: doppel images list")
    cache = Cache()
    entries = cache.entries()
    chosen = entries if everything else [entry for name in names for entry in _named(name, entries)]
    for entry in dict.fromkeys(chosen):
        cache.remove(entry)
        print(f"removed {entry.name} ({_size(entry.size)})")
    return 0


def _named(name: str, entries: Sequence[CacheEntry]) -> list[CacheEntry]:
    found = [entry for entry in entries if entry.name == name]
    if not found and name in GUESTS:
        found = [entry for entry in entries if entry.shelf == "guests" and entry.name.startswith(f"{name}-")]
    if not found:
        raise DoppelError(f"the cache has nothing called {name!r}", "see: doppel images list")
    return found


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
