"""The guests that doppel knows by name, made ready in the cache once and found there from then on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from doppel.cache import Cache, CacheEntry
from doppel.errors import DoppelError
from doppel.guests import initramfs, modules
from doppel.guests.deb import Deb
from doppel.guests.debian import KERNEL, Package, Source, fetch, lookup
from doppel.guests.progress import Progress, Silent

__all__ = ["GUESTS", "GuestFiles", "prepare"]

# To be raised whenever the same packages are to give different files.
_FORMAT = 1
_DESCRIPTION = "guest.json"
_FIRMWARE_FOLDER = "usr/lib/riscv64-linux-gnu/opensbi/generic/"


@dataclass(frozen=True, slots=True)
class GuestFiles:
    """A guest as files ready to be loaded.

    `kernel` and `initrd` make a whole guest, with `append` for the kernel's command line; `firmware` is what
    a machine without firmware of its own runs in M-mode first. `files` has all of them by name, `packages`
    the versions of the packages they come from.
    """

    name: str
    kernel: Path | None = None
    initrd: Path | None = None
    firmware: Path | None = None
    append: str = ""
    files: Mapping[str, Path] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)


class _Description(msgspec.Struct, frozen=True):
    """What guest.json says; paths are names within its folder."""

    files: list[str]
    packages: dict[str, str]
    kernel: str | None = None
    initrd: str | None = None
    firmware: str | None = None
    append: str = ""


# Takes the packages' files by wanted name, gives the guest's files, and how they are to be used.
_Build = Callable[[Mapping[str, Deb], Progress, Sequence[str]], tuple[dict[str, bytes], dict[str, str]]]


def _build_debian(
    packages: Mapping[str, Deb], progress: Progress, wanted_modules: Sequence[str]
) -> tuple[dict[str, bytes], dict[str, str]]:
    progress.step("unpacking the kernel")
    kernel = packages[KERNEL]
    contents = kernel.files(lambda name: name.startswith("boot/vmlinu") or ".ko" in Path(name).name)
    busybox = packages["busybox-static"].files(lambda name: name in ("usr/bin/busybox", "bin/busybox"))
    images = sorted(name for name in contents if name.startswith("boot/"))
    if not images or not busybox:
        culprit = packages["busybox-static"] if images else kernel
        raise DoppelError(f"{culprit.path} does not hold what {culprit.package} should", "get the file again")
    progress.step("making the initramfs")
    release = ""
    files: dict[str, bytes] = {}
    for name, data in contents.items():
        if match := re.fullmatch(r"(?:usr/)?lib/modules/([^/]+)/(.*)", name):
            release = match[1]
            files[match[2]] = data
    drivers = modules.select(files, wanted_modules)
    initrd = initramfs.build(next(iter(busybox.values())), release, drivers)
    return {"kernel": contents[images[-1]], "initrd": initrd}, {"kernel": "kernel", "initrd": "initrd"}


def _build_opensbi(
    packages: Mapping[str, Deb], progress: Progress, wanted_modules: Sequence[str]
) -> tuple[dict[str, bytes], dict[str, str]]:
    progress.step("unpacking the firmware")
    deb = packages["opensbi"]
    contents = deb.files(lambda name: name.startswith(_FIRMWARE_FOLDER + "fw_"))
    files = {name.removeprefix(_FIRMWARE_FOLDER): data for name, data in contents.items()}
    if not {"fw_dynamic.bin", "fw_jump.bin"} <= files.keys():
        raise DoppelError(f"{deb.path} does not hold what {deb.package} should", "get the file again")
    return files, {"firmware": "fw_dynamic.bin"}


@dataclass(frozen=True, slots=True)
class _Guest:
    description: str
    packages: tuple[str, ...]
    build: _Build


_GUESTS = {
    "debian": _Guest("Debian's Linux and a busybox shell", (KERNEL, "busybox-static"), _build_debian),
    "opensbi": _Guest("OpenSBI, the firmware that runs in M-mode", ("opensbi",), _build_opensbi),
}
GUESTS: Mapping[str, str] = {name: guest.description for name, guest in _GUESTS.items()}
"""The guests' names, and what each of them is in a few words."""


def prepare(
    name: str,
    source: Source | None = None,
    progress: Progress | None = None,
    *,
    cache: Cache | None = None,
    wanted_modules: Sequence[str] = initramfs.DEFAULT_MODULES,
) -> GuestFiles:
    """A guest's files, from the cache if they are there, else downloaded, unpacked and put there.

    Ready files need neither network nor a writable cache, unless `source` asks to refresh. `DoppelError` if
    the name is not one of `GUESTS`, and for whatever keeps the files from being made.
    """
    source, progress, cache = source or Source(), progress or Silent(), cache or Cache()
    guest = _GUESTS.get(name)
    if guest is None:
        raise DoppelError(f"there is no guest called {name!r}", f"the guests are: {', '.join(GUESTS)}")

    packages = lookup(guest.packages, source, cache)
    if packages.keys() == set(guest.packages) and not source.refresh:
        ready = _ready(name, _folder(name, packages, wanted_modules, cache))
        if ready is not None:
            return ready
    packages = fetch(guest.packages, source, cache, progress)
    folder = _folder(name, packages, wanted_modules, cache)
    with cache.lock("guests", lambda: progress.step("waiting for another doppel")):
        return _ready(name, folder) or _make(name, folder, packages, progress, wanted_modules, cache)


def _make(
    name: str,
    folder: Path,
    packages: Mapping[str, Package],
    progress: Progress,
    wanted_modules: Sequence[str],
    cache: Cache,
) -> GuestFiles:
    debs = {wanted: Deb(package.path) for wanted, package in packages.items()}
    files, uses = _GUESTS[name].build(debs, progress, wanted_modules)
    versions = {package.name: package.version for package in packages.values()}
    description = _Description(files=sorted(files), packages=versions, **uses)
    if folder.exists():
        cache.remove(CacheEntry("guests", folder.name, folder, 0, 0))
    with cache.folder(f"guests/{folder.name}") as place:
        for file, data in files.items():
            (place / file).write_bytes(data)
        (place / _DESCRIPTION).write_bytes(msgspec.json.format(msgspec.json.encode(description)))
    ready = _ready(name, folder)
    if ready is None:
        raise DoppelError(f"the guest {name} has vanished from the cache {cache.root}", "try again")
    return ready


def _folder(name: str, packages: Mapping[str, Package], wanted_modules: Sequence[str], cache: Cache) -> Path:
    """Where a guest made of these packages, in this way, has its place."""
    parts = [str(_FORMAT), name, initramfs.recipe(), *wanted_modules]
    parts += [package.sha256 for _, package in sorted(packages.items())]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    first = packages[_GUESTS[name].packages[0]]
    version = re.sub(r"[^A-Za-z0-9.+~-]", "_", first.version)
    return cache.root / "guests" / f"{name}-{version}-{key}"


def _ready(name: str, folder: Path) -> GuestFiles | None:
    try:
        description = msgspec.json.decode((folder / _DESCRIPTION).read_bytes(), type=_Description)
    except (OSError, msgspec.MsgspecError):
        return None
    files = {file: folder / file for file in description.files}
    if not all(path.is_file() for path in files.values()):
        return None
    return GuestFiles(
        name,
        kernel=files.get(description.kernel or ""),
        initrd=files.get(description.initrd or ""),
        firmware=files.get(description.firmware or ""),
        append=description.append,
        files=files,
        packages=description.packages,
    )
