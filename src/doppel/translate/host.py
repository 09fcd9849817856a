"""What differs between host architectures: the futex call's number and the floating-point status register."""

from __future__ import annotations

import platform
from dataclasses import dataclass

__all__ = ["HOST", "SYS_FUTEX", "SYS_SCHED_YIELD", "FlagMove", "Host"]


@dataclass(frozen=True)
class FlagMove:
    """One accrued exception: its bit in the host's status register and in RISC-V's fflags."""

    host: int
    guest: int


@dataclass(frozen=True)
class Host:
    """``declarations``, then how to read the status (i32 or i64 ``%status``) and how to write ``%status``."""

    futex: int
    sched_yield: int
    status_type: str
    declarations: str
    read_status: str
    write_status: str
    flags: tuple[FlagMove, ...]
    clean_status: int


# Intel SDM volume 1, 10.2.3: MXCSR. All exceptions masked, round to nearest, no flush to zero.
_X86_64 = Host(
    futex=202,
    sched_yield=24,
    status_type="i32",
    declarations="declare void @llvm.x86.sse.stmxcsr(ptr)\ndeclare void @llvm.x86.sse.ldmxcsr(ptr)\n",
    read_status=(
        "call void @llvm.x86.sse.stmxcsr(ptr {scratch})\n  {status} = load volatile i32, ptr {scratch}"
    ),
    write_status=(
        "store volatile i32 {status}, ptr {scratch}\n  call void @llvm.x86.sse.ldmxcsr(ptr {scratch})"
    ),
    flags=(FlagMove(0, 4), FlagMove(2, 3), FlagMove(3, 2), FlagMove(4, 1), FlagMove(5, 0)),
    clean_status=0x1F80,
)
# Arm ARM C5.2.10: FPSR.
_AARCH64 = Host(
    futex=98,
    sched_yield=124,
    status_type="i64",
    declarations="declare i64 @llvm.aarch64.get.fpsr()\ndeclare void @llvm.aarch64.set.fpsr(i64)\n",
    read_status="{status} = call i64 @llvm.aarch64.get.fpsr()",
    write_status="call void @llvm.aarch64.set.fpsr(i64 {status})",
    flags=(FlagMove(0, 4), FlagMove(1, 3), FlagMove(2, 2), FlagMove(3, 1), FlagMove(4, 0)),
    clean_status=0,
)

HOST = _AARCH64 if platform.machine() == "aarch64" else _X86_64
SYS_FUTEX = HOST.futex
SYS_SCHED_YIELD = HOST.sched_yield
