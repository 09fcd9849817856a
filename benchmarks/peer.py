"""The peer: QEMU's RISC-V system emulator, if this host has it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

__all__ = ["PROGRAM", "WHERE_FROM", "Peer", "find_peer"]

PROGRAM = "qemu-system-riscv64"
WHERE_FROM = "Debian's package qemu-system-misc, from trixie on qemu-system-riscv"


@dataclass(frozen=True)
class Peer:
    """``program`` is what to execute, ``name`` what to call it."""

    program: str
    name: str

    def command(self, *arguments: str, memory: int = 512, harts: int = 1) -> list[str]:
        """A command line: board ``virt``, ``memory`` MiB, the console on stdin and stdout.

        Several harts run in parallel, each in a thread of its own.
        """
        parallel = ["-smp", str(harts), "-accel", "tcg,thread=multi"] if harts > 1 else []
        return [self.program, "-M", "virt", "-m", f"{memory}M", "-nographic", *parallel, *arguments]


def find_peer(program: str) -> Peer | None:
    """The peer with that name or path; None if there is no such program, or it does not run."""
    found = shutil.which(program)
    if found is None:
        return None
    try:
        shown = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"version (\d+(?:\.\d+)*)", shown.stdout)
    return Peer(found, f"QEMU {version[1]}" if version else "QEMU")
