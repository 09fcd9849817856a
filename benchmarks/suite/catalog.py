"""The programs of the suite: what each is for, and how much of its work is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["PAIR", "PROGRAMS", "Program"]


@dataclass(frozen=True)
class Program:
    """``units`` of work take QEMU about a second; "compute" programs hardly need the kernel."""

    name: str
    title: str
    kind: Literal["compute", "system"]
    units: int


PROGRAMS = (
    Program("collatz", "integer loops", "compute", 150),
    Program("sieve", "integer loops over bytes", "compute", 80),
    Program("sha256", "hashing", "compute", 250),
    Program("compress", "compression-like bit work", "compute", 100),
    Program("sort", "quicksort and heapsort", "compute", 100),
    Program("calls", "recursion and calls", "compute", 1000),
    Program("bytecode", "indirect dispatch", "compute", 300),
    Program("chase-l1", "pointer chasing, 16 KiB", "compute", 800),
    Program("chase-32m", "pointer chasing, 32 MiB", "compute", 3),
    Program("copy", "memcpy", "compute", 60),
    Program("divide", "division", "compute", 1500),
    Program("nbody", "n-body, double", "compute", 50),
    Program("matrix-double", "matrices of doubles", "compute", 50),
    Program("matrix-float", "matrices of floats", "compute", 30),
    Program("strings", "string work", "compute", 700),
    Program("syscalls", "system calls", "system", 50),
    Program("fork-exec", "fork and exec", "system", 12),
    Program("pipes", "pipe ping-pong", "system", 12),
    Program("page-faults", "page faults", "system", 10),
    Program("signals", "signals", "system", 8),
    Program("switches", "context switches", "system", 7),
    Program("build", "build-like load: processes and scripts", "system", 2),
)

PAIR = PROGRAMS[0]
"""What two processes do at the same time, on one hart and on two."""
