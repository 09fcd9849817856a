"""Guests made ready, with word of how far that is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from doppel.cli.progress import ConsoleProgress
from doppel.errors import DoppelError
from doppel.guests.catalog import GuestFiles, prepare
from doppel.guests.debian import Source

__all__ = ["package_source", "prepare_guest"]


def package_source(mirror: str, debs: Sequence[Path], keyring: Path | None, refresh: bool) -> Source:
    """Where packages come from, as the options say."""
    for path in (*debs, *([keyring] if keyring else [])):
        if not path.is_file():
            raise DoppelError(f"there is no file {path}", "check the name")
    return Source(tuple(debs), mirror or None, keyring, refresh)


def prepare_guest(name: str, packages: Source) -> GuestFiles:
    """A guest's files, with progress on stderr if that takes a while."""
    with ConsoleProgress() as progress:
        return prepare(name, packages, progress)
