"""Debian packages for riscv64: from the user's files, from the cache, or from a mirror, in this order."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from doppel.cache import Cache
from doppel.errors import DoppelError
from doppel.guests import mirrors
from doppel.guests.apt import ARCHITECTURE, OTHER_WAYS, Apt, File, HostApt, MirrorError
from doppel.guests.deb import Deb
from doppel.guests.progress import Progress

__all__ = ["KERNEL", "SUITE", "Package", "Source", "fetch", "lookup"]

SUITE = "trixie"
# A package without contents that depends on the newest kernel.
KERNEL = "linux-image-riscv64"

_KERNEL_IMAGE = re.compile(r"\b(linux-image-[^\s,|(]+)")
_URI = re.compile(r"[a-z][a-z0-9+.-]*:[^\s\[\]\"']+")
# Bytes that apt's lists and a guest made of the packages need beyond the packages themselves.
_HEADROOM = 160 << 20
_KNOWN = f"known/{SUITE}-{ARCHITECTURE}.json"


@dataclass(frozen=True, slots=True)
class Source:
    """Where packages may come from.

    `files` are .deb files the user gives; `mirror` is the address of a mirror, by default the one the host's
    own apt uses; `keyring` is a file of keys that the mirror is signed with, by default Debian's; `refresh`
    asks the mirror for newer packages than those in the cache.
    """

    files: tuple[Path, ...] = ()
    mirror: str | None = None
    keyring: Path | None = None
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class Package:
    """A package file; `name` is the real one where a meta package was asked for, `sha256` the file's."""

    name: str
    version: str
    path: Path
    sha256: str


class _Record(msgspec.Struct, frozen=True):
    """What is remembered of a downloaded package."""

    name: str
    version: str
    file: str
    sha256: str


def lookup(wanted: Sequence[str], source: Source, cache: Cache) -> dict[str, Package]:
    """Those of the wanted packages that the user gave or that have been downloaded before.

    The file of a downloaded package may have been removed from the cache since. Nothing is written.
    """
    found = {
        name: Package(record.name, record.version, cache.root / "packages" / record.file, record.sha256)
        for name, record in _read_known(cache).items()
        if name in wanted
    }
    return found | _given(wanted, source.files)


def fetch(wanted: Sequence[str], source: Source, cache: Cache, progress: Progress) -> dict[str, Package]:
    """All of the wanted packages, their files whole, downloaded if need be; `DoppelError` if that fails."""
    given = _given(wanted, source.files)
    missing = [name for name in wanted if name not in given]
    if missing and (source.refresh or not _present(missing, cache)):
        with cache.lock("packages", lambda: progress.step("waiting for another doppel's download")):
            # Whoever held the lock may have fetched the same.
            if source.refresh or not _present(missing, cache):
                _download(missing, source, cache, progress)
    return lookup(missing, source, cache) | given


def _given(wanted: Sequence[str], files: Iterable[Path]) -> dict[str, Package]:
    packages = {}
    for path in files:
        deb = Deb(path)
        name = KERNEL if _is_kernel(deb) else deb.package
        if name not in wanted:
            continue
        if deb.architecture not in (ARCHITECTURE, "all"):
            raise DoppelError(
                f"{path} is a package for {deb.architecture}", f"give {deb.package} for {ARCHITECTURE}"
            )
        packages[name] = Package(deb.package, deb.version, path, deb.sha256)
    return packages


def _is_kernel(deb: Deb) -> bool:
    meta = _KERNEL_IMAGE.search(deb.control.get("Depends", ""))
    return deb.package.startswith("linux-image-") and not deb.package.endswith("-dbg") and not meta


def _read_known(cache: Cache) -> dict[str, _Record]:
    try:
        return msgspec.json.decode((cache.root / _KNOWN).read_bytes(), type=dict[str, _Record])
    except (OSError, msgspec.MsgspecError):
        return {}


def _present(wanted: Iterable[str], cache: Cache) -> bool:
    known = _read_known(cache)
    return all(name in known and _holds(cache, known[name].file, known[name].sha256) for name in wanted)


def _holds(cache: Cache, name: str, sha256: str) -> bool:
    try:
        return _digest(cache.root / "packages" / name) == sha256
    except OSError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _download(wanted: Sequence[str], source: Source, cache: Cache, progress: Progress) -> None:
    host = HostApt()
    failure: MirrorError | None = None
    for mirror in _candidates(source, host):
        keyrings = [source.keyring] if source.keyring else [*mirror.keyrings, *mirrors.keyrings()]
        if not keyrings:
            raise DoppelError(
                "this host does not have the keys to check Debian's signatures with",
                "install the package debian-archive-keyring, or give the packages as files with --deb",
            )
        try:
            return _download_from(mirror.uri, keyrings, host, wanted, cache, progress)
        except MirrorError as error:
            failure = failure or error
    raise failure or DoppelError(
        "this host's apt is not configured with a mirror of Debian",
        "name one with --mirror, or give the packages as files with --deb",
    )


def _candidates(source: Source, host: HostApt) -> list[mirrors.Mirror]:
    if source.mirror is None:
        return host.mirrors()
    uri = f"file:{source.mirror}" if source.mirror.startswith("/") else source.mirror
    if not _URI.fullmatch(uri):
        raise DoppelError(
            f"{source.mirror!r} is not the address of a mirror", "give one like http://HOST/debian"
        )
    return [mirrors.Mirror(uri.rstrip("/"))]


def _download_from(
    mirror: str,
    keyrings: Sequence[Path],
    host: HostApt,
    wanted: Sequence[str],
    cache: Cache,
    progress: Progress,
) -> None:
    cache.reserve(_HEADROOM)
    with cache.scratch() as scratch:
        apt = Apt(scratch / "apt", host, mirror, SUITE, keyrings)
        progress.step(f"reading the package lists of {mirror}")
        apt.update()
        resolved = {name: _resolve(apt, name) for name in wanted}
        files = apt.files([fields["Package"] for fields in resolved.values()])
        absent = {name: file for name, file in files.items() if not _holds(cache, file.name, file.sha256)}
        if absent:
            total = sum(file.size for file in absent.values())
            cache.reserve(total + _HEADROOM)
            apt.download(
                list(absent),
                scratch,
                lambda package, share: progress.transfer(package, int(share * total), total),
            )
            for file in absent.values():
                _adopt(cache, scratch, file, mirror)
            progress.transfer("", total, total)
    records = _read_known(cache)
    for name, fields in resolved.items():
        file = files[fields["Package"]]
        records[name] = _Record(fields["Package"], fields["Version"], file.name, file.sha256)
    cache.write(_KNOWN, msgspec.json.format(msgspec.json.encode(records)))


def _resolve(apt: Apt, name: str) -> dict[str, str]:
    """The index's entry for a package, or for the kernel that a meta package stands for."""
    fields = apt.show(name)
    if name == KERNEL and (real := _KERNEL_IMAGE.search(fields.get("Depends", ""))):
        return apt.show(real[1])
    return fields


def _adopt(cache: Cache, folder: Path, file: File, mirror: str) -> None:
    path = folder / file.name
    # apt has checked it; this is about the disk, and about an apt that reports success all the same.
    if not path.is_file() or _digest(path) != file.sha256:
        raise MirrorError(
            f"the mirror {mirror} did not deliver {file.name} whole", f"try again, or {OTHER_WAYS}"
        )
    path.chmod(0o644)
    cache.adopt(path, f"packages/{file.name}")
