"""Which mirror of the Debian archive, and which keys, the host's own apt uses.

Two sources of knowledge: apt's own list of index files (`apt-get indextargets`), which knows from signed
Release files who publishes what but only lists what has been downloaded; and apt's source files
(sources.list(5), both formats), which are there on a machine that has never run `apt-get update`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from doppel.guests import stanza

__all__ = ["Mirror", "from_index_targets", "from_sources", "keyrings"]

# Suites by which a source file names the Debian archive itself; security and third-party suites have others.
_SUITES = {"stable", "oldstable", "oldoldstable", "testing", "unstable", "sid", "experimental"}
_SUITES |= {"buster", "bullseye", "bookworm", "trixie", "forky", "duke"}
_KEYRING_FOLDER = Path("usr/share/keyrings")
_ONE_LINE = re.compile(
    r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)"
)


@dataclass(frozen=True, slots=True)
class Mirror:
    """One place that may have the Debian archive; `keyrings` are those the host's apt uses for it alone."""

    uri: str
    keyrings: tuple[Path, ...] = ()


def from_index_targets(listing: str) -> list[Mirror]:
    """The mirrors in the output of `apt-get indextargets`, Debian's main component only."""
    mirrors = []
    for target in stanza.parse(listing):
        if (
            target.get("Origin") == "Debian"
            and target.get("Label") == "Debian"
            and target.get("Component") == "main"
            and (uri := target.get("Repo-URI"))
        ):
            mirrors.append(_mirror(uri, target.get("Signed-By", "")))
    return list(dict.fromkeys(mirrors))


def from_sources(list_file: Path, folder: Path) -> list[Mirror]:
    """The mirrors in apt's source files, the likeliest to be the whole Debian archive first."""
    found: list[tuple[str, Mirror]] = []
    for path in [list_file, *_listdir(folder)]:
        try:
            text = path.read_text("utf-8", "replace")
        except OSError:
            continue
        if path.suffix == ".sources":
            found.extend(_deb822(text))
        elif path.suffix == ".list":
            found.extend(_one_line(text))

    def unlikeliness(item: tuple[str, Mirror]) -> tuple[bool, bool, bool]:
        suite, mirror = item
        by_debian = any(keyring.name.startswith("debian-archive") for keyring in mirror.keyrings)
        return not by_debian, not mirror.uri.endswith("/debian"), suite not in _SUITES

    return list(dict.fromkeys(mirror for _, mirror in sorted(found, key=unlikeliness)))


def keyrings(root: Path = Path("/")) -> list[Path]:
    """The files with Debian's archive keys on this host, the package `debian-archive-keyring`'s own first."""
    for name in ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp"):
        whole = root / _KEYRING_FOLDER / name
        if whole.is_file():
            return [whole]
    trusted = _listdir(root / "etc/apt/trusted.gpg.d")
    return [path for path in trusted if path.name.startswith("debian-archive-")]


def _deb822(text: str) -> Iterator[tuple[str, Mirror]]:
    for fields in stanza.parse(text):
        fields = {name.lower(): value for name, value in fields.items()}
        if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        if "deb" not in fields.get("types", "").split() or "main" not in fields.get("components", "").split():
            continue
        for suite in fields.get("suites", "").split():
            for uri in fields.get("uris", "").split():
                yield from _candidate(uri, suite, fields.get("signed-by", ""))


def _one_line(text: str) -> Iterator[tuple[str, Mirror]]:
    for line in text.splitlines():
        match = _ONE_LINE.match(line.split("#", 1)[0].strip())
        if match is None or "main" not in match["components"].split():
            continue
        options = dict(word.partition("=")[::2] for word in (match["options"] or "").split())
        yield from _candidate(match["uri"], match["suite"], options.get("signed-by", ""))


def _candidate(uri: str, suite: str, signed_by: str) -> Iterator[tuple[str, Mirror]]:
    # Updates and backports live in the same archive; security does not.
    base = re.sub(r"-(updates|proposed-updates|backports|backports-sloppy)$", "", suite)
    if base in _SUITES and not uri.startswith("cdrom:"):
        yield suite, _mirror(uri, signed_by)


def _mirror(uri: str, signed_by: str) -> Mirror:
    # Signed-By may also hold fingerprints or a whole key; those say nothing about files.
    files = [word for word in re.split(r"[\s,]+", signed_by) if word.startswith("/")]
    return Mirror(uri.rstrip("/"), tuple(map(Path, files)))


def _listdir(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
