"""From the start of the process to the guest's shell, without and with code kept from before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.debian import PROMPT, Guest, Starter
from benchmarks.measure import Benchmark, Measured, Metric, Settings, Subject
from doppel.cache import default_root

__all__ = ["BOOT", "code_cache", "separate_cache"]

# What a cache must have for a machine to start at once; compiled guest code is apart.
SHELVES = ("engine", "guests", "known", "packages")


def separate_cache(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a cache in ``folder`` that has the usual one's files, but its own guest code."""
    root, usual = folder / "doppel", default_root()
    root.mkdir(parents=True)
    for shelf in SHELVES:
        (usual / shelf).mkdir(parents=True, exist_ok=True)
        (root / shelf).symlink_to(usual / shelf)
    return {**environment, "XDG_CACHE_HOME": str(folder)}


def code_cache(folder: Path) -> Path:
    """Where a cache in ``folder`` has compiled guest code."""
    return folder / "doppel/code"


@dataclass(frozen=True)
class _Times:
    """Seconds from the start of the process, and of processors until its end."""

    kernel: float
    init: float
    prompt: float
    cpu: float


def _boot(starter: Starter, *, orderly: bool) -> _Times:
    """Boot once; ``orderly`` is an end by the guest's power-off, else the process is killed at the prompt."""
    with starter.start() as process:
        _, kernel = process.wait_for(rb"Linux version")
        _, init = process.wait_for(rb"Run /init")
        _, prompt = process.wait_for(PROMPT)
        if orderly:
            process.send("exit\n")
            process.wait()
    return _Times(kernel, init, prompt, process.cpu_seconds)


@dataclass(frozen=True)
class _Doppel:
    """Boots three times; ``cache`` is the folder of its cache.

    The first boot finds no compiled code, the second may still add to it, the third is the warm one.
    """

    starter: Starter
    cache: Path

    @property
    def name(self) -> str:
        return self.starter.name

    def measure(self) -> Measured:
        shutil.rmtree(code_cache(self.cache), ignore_errors=True)
        cold = _boot(self.starter, orderly=True)
        _boot(self.starter, orderly=True)
        warm = _boot(self.starter, orderly=False)
        return {"cold": cold.prompt} | _warm(warm)


@dataclass(frozen=True)
class _Peer:
    """Boots once: it keeps no code, so that every boot is the same."""

    starter: Starter

    @property
    def name(self) -> str:
        return self.starter.name

    def measure(self) -> Measured:
        times = _boot(self.starter, orderly=False)
        return {"cold": times.prompt} | _warm(times)


def _warm(times: _Times) -> dict[str, float]:
    return {"warm": times.prompt, "console": times.kernel, "init": times.init, "cpu": times.cpu}


@contextmanager
def _subjects(settings: Settings) -> Iterator[Sequence[Subject]]:
    guest = Guest.default()
    cache = settings.folder / "boot-cache"
    environment = separate_cache(cache, settings.environment)
    subjects: list[Subject] = [_Doppel(guest.on_doppel(environment), cache)]
    if settings.peer is not None:
        subjects.append(_Peer(guest.on_peer(settings.peer, settings.environment)))
    yield subjects


BOOT = Benchmark(
    "boot",
    "Debian's kernel to the busybox shell, one hart, 512 MiB",
    (
        Metric("cold", "start to the prompt, no compiled code yet", "s", "lower", lead=1.25),
        Metric("warm", "start to the prompt, code kept from before", "s", "lower", lead=2.5),
        Metric("console", "... to the kernel's first line, code kept", "s", "lower"),
        Metric("init", "... to the first process, code kept", "s", "lower"),
        Metric("cpu", "processor time to the prompt, code kept", "s", "lower"),
    ),
    _subjects,
)
