"""``doppel doctor``: what this host offers and what is missing, in plain words."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.text import Text

from doppel.cli.tables import print_table
from doppel.errors import DoppelError

__all__ = ["Finding", "doctor", "examine"]

State = Literal["ok", "note", "missing"]
_STYLES: dict[State, str] = {"ok": "green", "note": "yellow", "missing": "red"}

# Bytes: doppel itself needs 150 MB at most, the default machine has 512 MB, the default guest's files 150 MB.
COMFORTABLE_MEMORY = 700 << 20
COMFORTABLE_CACHE = 500 << 20
# Processors for which the engine is built; others that LLVM knows may work.
KNOWN_PROCESSORS = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Finding:
    """One thing looked at: ``missing`` is what doppel cannot do without, ``note`` what limits it."""

    subject: str
    state: State
    text: str


def doctor() -> int:
    """Show all findings; status 1 if something that doppel needs is missing."""
    findings = list(examine())
    print_table([(f.subject, Text(f.state, _STYLES[f.state]), f.text) for f in findings])
    bad = [finding.subject for finding in findings if finding.state == "missing"]
    print()
    if bad:
        print(f"doppel cannot work here yet: {', '.join(bad)}.")
        return 1
    print("doppel can work here: doppel run")
    return 0


def examine() -> Iterator[Finding]:
    """Look at everything, essentials first. One look that fails does not keep from the others."""
    looks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("Python", _python),
        ("processor", _processor),
        ("LLVM", _llvm),
        ("engine", _engine),
        ("compiled code", _compiled_code),
        ("memory", _memory),
        ("cache", _cache),
        ("downloads", _downloads),
        ("network", _network),
        ("direct execution", _kvm),
        ("optional tools", _tools),
    )
    for subject, look in looks:
        try:
            yield from look()
        except DoppelError as error:
            yield Finding(subject, "missing", str(error))


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    yield Finding("Python", "ok", version)
    if not sys.platform.startswith("linux"):
        yield Finding("system", "note", f"{platform.system()}: doppel is made for Linux")


def _processor() -> Iterator[Finding]:
    count = len(os.sched_getaffinity(0))
    kind = platform.machine()
    text = f"{_processor_name() or kind}, {count} to use"
    if kind not in KNOWN_PROCESSORS:
        yield Finding("processor", "note", f"{text}: doppel has not been tried on {kind}")
    elif count == 1:
        yield Finding("processor", "note", f"{text}: devices and harts take turns")
    else:
        yield Finding("processor", "ok", text)


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return ""
    return ""


def _llvm() -> Iterator[Finding]:
    try:
        import llvmlite.binding as llvm
    except (ImportError, OSError) as error:
        yield Finding("LLVM", "missing", f"llvmlite cannot be loaded ({error}): pip install llvmlite")
        return
    version = ".".join(map(str, llvm.llvm_version_info))
    package = importlib.metadata.version("llvmlite")
    yield Finding("LLVM", "ok", f"{version} (llvmlite {package}), makes code for {llvm.get_host_cpu_name()}")


def _engine() -> Iterator[Finding]:
    from doppel.cache import Cache
    from doppel.translate.build import object_key

    if (Cache().root / f"engine/{object_key()}.o").is_file():
        yield Finding("engine", "ok", "is built")
    else:
        yield Finding("engine", "ok", "will be built by the first run, in a few seconds")


def _compiled_code() -> Iterator[Finding]:
    from doppel.translate.regions.link import LINKS_FOR_THIS_HOST
    from doppel.translate.regions.store import default_store

    if not LINKS_FOR_THIS_HOST:
        text = f"the interpreter executes everything: code is compiled for x86-64, not {platform.machine()}"
        yield Finding("compiled code", "note", text)
        return
    store = default_store(every_branch=False)
    store.open()
    text = store.problem or "is kept for the next time"
    yield Finding("compiled code", "note" if store.problem else "ok", text)
    store.close()


def _memory() -> Iterator[Finding]:
    available = _available_memory()
    text = f"{available / 1e9:.1f} GB available"
    if available < COMFORTABLE_MEMORY:
        yield Finding("memory", "note", f"{text}: give machines less than 512M, for instance --memory 128M")
    else:
        yield Finding("memory", "ok", text)


def _available_memory() -> int:
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cache() -> Iterator[Finding]:
    from doppel.cache import Cache

    root = Cache().root
    folder = next(path for path in (root, *root.parents) if path.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        text = f"{root} cannot be written, so every run is a first one: set XDG_CACHE_HOME"
        yield Finding("cache", "note", text)
        return
    free = shutil.disk_usage(folder).free
    text = f"{root}, {free / 1e9:.1f} GB free"
    if free < COMFORTABLE_CACHE:
        yield Finding(
            "cache", "note", f"{text}: the default guest takes {COMFORTABLE_CACHE / 1e9:.1f} GB to make"
        )
    else:
        yield Finding("cache", "ok", text)


def _downloads() -> Iterator[Finding]:
    from doppel.guests import mirrors
    from doppel.guests.apt import HostApt

    if shutil.which("apt-get") is None:
        text = "this host has no apt-get: give the guest's packages as files with --deb"
        yield Finding("apt", "note", text)
        return
    found = HostApt().mirrors()
    if found:
        yield Finding("apt", "ok", f"downloads come from {found[0].uri}")
    else:
        yield Finding("apt", "note", "is not configured with a mirror of Debian: name one with --mirror")
    keyrings = [path for mirror in found for path in mirror.keyrings] + mirrors.keyrings()
    if keyrings:
        yield Finding("Debian's keys", "ok", str(keyrings[0]))
    else:
        text = "not found: install the package debian-archive-keyring, or name them with --keyring"
        yield Finding("Debian's keys", "note", text)


def _network() -> Iterator[Finding]:
    path = Path("/dev/net/tun")
    if not path.exists():
        yield Finding(
            "tap networks", "note", f"there is no {path} (as root: modprobe tun); --net loopback works"
        )
    elif not os.access(path, os.R_OK | os.W_OK):
        yield Finding("tap networks", "note", f"{path} is not yours to open; --net loopback works")
    else:
        text = f"{path} is there"
        if os.geteuid():
            text += '; root makes an interface for you: ip tuntap add dev tap0 mode tap user "$USER"'
        yield Finding("tap networks", "ok", text)


def _kvm() -> Iterator[Finding]:
    path = Path("/dev/kvm")
    try:
        there = stat.S_ISCHR(path.stat().st_mode)
    except OSError:
        there = False
    text = f"{path} is {'there' if there else 'not there'}; doppel translates and does not need it"
    yield Finding("KVM", "ok", text)


def _tools() -> Iterator[Finding]:
    tools = {
        "qemu-system-riscv64": "to compare speeds with",
        "riscv64-linux-gnu-gcc": "to compile programs for guests",
        "mke2fs": "to make disk images",
    }
    for tool, purpose in tools.items():
        path = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")
        yield Finding(tool, "ok" if path else "note", path or f"not installed; only {purpose}")
