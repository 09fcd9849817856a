"""The suite's programs as executables: compiled for the guest and for the host, kept in the cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from doppel.cache import Cache
from doppel.errors import DoppelError

__all__ = ["GUEST", "HOST", "Toolchain", "executable", "guest_files"]

SOURCES = Path(__file__).parent / "programs"
SCRIPT = SOURCES / "build.sh"
FLAGS = ("-O2", "-static")
LIBRARIES = ("-lm",)
COMPILE_SECONDS = 120


@dataclass(frozen=True)
class Toolchain:
    """A compiler, and Debian's packages that have it and its static C library."""

    compiler: str
    packages: str


GUEST = Toolchain("riscv64-linux-gnu-gcc", "gcc-riscv64-linux-gnu libc6-dev-riscv64-cross")
HOST = Toolchain("gcc", "gcc libc6-dev")


def executable(toolchain: Toolchain, cache: Cache | None = None) -> Path:
    """The program ``suite``, with ``build.sh`` next to it; compiled unless the cache has it.

    Raises:
        DoppelError: there is no such compiler, or it fails.
    """
    cache = cache or Cache()
    compiler = shutil.which(toolchain.compiler)
    if compiler is None:
        raise DoppelError(
            f"there is no {toolchain.compiler} to compile the suite's programs with", _remedy(toolchain)
        )
    sources = sorted(SOURCES.glob("*.c"))
    digest = hashlib.sha256(_output([compiler, "--version"], toolchain).encode())
    for part in (*FLAGS, *LIBRARIES):
        digest.update(part.encode())
    for path in (*sources, SOURCES / "suite.h", SCRIPT):
        digest.update(path.read_bytes())
    place = f"benchmarks/{toolchain.compiler}-{digest.hexdigest()[:16]}"
    made = cache.root / place
    if not (made / "suite").is_file():
        with cache.folder(place) as folder:
            output = folder / "suite"
            _output([compiler, *FLAGS, "-o", str(output), *map(str, sources), *LIBRARIES], toolchain)
            shutil.copy(SCRIPT, folder)
    return made / "suite"


def guest_files() -> dict[str, bytes]:
    """What a guest needs, by path."""
    program = executable(GUEST)
    return {f"suite/{name}": program.with_name(name).read_bytes() for name in ("suite", "build.sh")}


def _output(command: Sequence[str], toolchain: Toolchain) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=True)
    except subprocess.CalledProcessError as error:
        raise DoppelError(
            f"{toolchain.compiler} fails: {error.stderr.strip()[-400:]}", _remedy(toolchain)
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DoppelError(f"{toolchain.compiler} does not run: {error}", _remedy(toolchain)) from error
    return done.stdout


def _remedy(toolchain: Toolchain) -> str:
    return f"install Debian's packages {toolchain.packages}"
