"""A newer QEMU than the host's own: Debian's packages, unpacked with their libraries into a folder.

They come from the mirror that the host's apt uses. Nothing is installed: a script starts the program by the
loader and with the libraries that it was made for, so the host may have an older Debian.
"""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.peer import find_peer
from doppel.cache import Cache
from doppel.errors import DoppelError
from doppel.guests import mirrors
from doppel.guests.apt import Apt, HostApt, MirrorError
from doppel.guests.debian import SUITE

__all__ = ["fetch_newer_qemu", "newer_qemu", "write_script"]

PACKAGE = "qemu-system-riscv"
SHELF = "benchmarks"
SCRIPT = "qemu-system-riscv64"
# The packages, their contents, and apt's lists.
ROOM = 800 << 20
UNPACK_SECONDS = 120

# Some libraries have folders of their own, which the loader must be told of.
START = """\
#!/bin/sh
# {package} {version} with its own loader and libraries.
root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/root
libraries=$root/{libraries}
export QEMU_MODULE_DIR="$libraries/qemu"
exec "$root/{loader}" --library-path "$libraries:$libraries/systemd:$libraries/pulseaudio" \\
    "$root/usr/bin/qemu-system-riscv64" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" "$@"
"""


def newer_qemu(cache: Cache | None = None) -> Path | None:
    """The program that was downloaded last; None if none was."""
    made = (cache or Cache()).root.joinpath(SHELF).glob(f"{PACKAGE}-*/{SCRIPT}")
    return max(made, key=lambda path: path.stat().st_mtime, default=None)


def fetch_newer_qemu(note: Callable[[str], None], cache: Cache | None = None) -> Path:
    """Download the newest QEMU of Debian and give the program; ``note`` is told what is going on.

    Raises:
        DoppelError: it cannot be had, or does not run on this host.
    """
    cache = cache or Cache()
    host = HostApt()
    failure: DoppelError | None = None
    for mirror in host.mirrors():
        keyrings = [*mirror.keyrings, *mirrors.keyrings()]
        for backports in (True, False):
            try:
                return _fetch(mirror.uri, keyrings, host, cache, note, backports=backports)
            except MirrorError as error:
                failure = error
    raise failure or DoppelError(
        "this host's apt is not configured with a mirror of Debian", "give a QEMU of yours with --peer"
    )


def _fetch(
    mirror: str,
    keyrings: Sequence[Path],
    host: HostApt,
    cache: Cache,
    note: Callable[[str], None],
    *,
    backports: bool,
) -> Path:
    cache.reserve(ROOM)
    architecture = _run("dpkg", "--print-architecture").strip()
    with cache.scratch() as scratch:
        apt = Apt(
            scratch / "apt", host, mirror, SUITE, keyrings, architecture=architecture, backports=backports
        )
        note("package lists")
        apt.update()
        version = apt.show(PACKAGE)["Version"]
        place = f"{SHELF}/{PACKAGE}-{re.sub(r'[^A-Za-z0-9.+~-]', '_', version)}"
        program = cache.root / place / SCRIPT
        if program.is_file():
            return program
        packages = apt.with_dependencies(PACKAGE)
        apt.download(packages, scratch, lambda package, share: note(f"{share:.0%} {package}"))
        with cache.folder(place) as folder:
            for deb in sorted(scratch.glob("*.deb")):
                note(f"unpacking {deb.name}")
                _run("dpkg-deb", "-x", str(deb), str(folder / "root"))
            write_script(folder, version)
            if find_peer(str(folder / SCRIPT)) is None:
                raise DoppelError(
                    f"{PACKAGE} {version} does not run on this host", "give another QEMU with --peer"
                )
    return program


def write_script(folder: Path, version: str) -> None:
    """Make the script that starts what is unpacked in ``folder``/root."""
    root = folder / "root"
    loader = next(iter(sorted(root.glob(f"usr/lib/{platform.machine()}-linux-gnu*/ld-linux*.so.*"))), None)
    if loader is None:
        raise DoppelError(f"{PACKAGE} {version} came without a loader", "give another QEMU with --peer")
    script = folder / SCRIPT
    script.write_text(
        START.format(
            package=PACKAGE,
            version=version,
            loader=loader.relative_to(root),
            libraries=loader.parent.relative_to(root),
        )
    )
    script.chmod(0o755)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=UNPACK_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise DoppelError(f"{command[0]} fails: {error}", "give a QEMU of yours with --peer") from error
    return done.stdout
