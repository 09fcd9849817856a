"""What the engine of one machine did and holds, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EngineStatistics"]


@dataclass(frozen=True)
class EngineStatistics:
    """Counted since the machine was made.

    ``mode``: what is compiled: ``hot``, ``all`` or ``off``.

    ``compiled_share``: the share of instructions that were executed in compiled regions, 0 to 1. An estimate:
    the share of the points at which harts looked up (every 20,000 instructions or so) that lie in compiled
    code. None where there were no such points.

    ``regions``: pieces of compiled code that harts got, with ``instructions`` of the guest and ``code_bytes``
    of host code in them; ``loaded`` of them were found in the store on disk, the others compiled.
    ``refused``: those that the compiler left to the interpreter. ``outdated``: those that came too late
    because the guest had changed the code. ``discarded``: how often all code was given up to make room.

    ``compiler_seconds``: processor time that compiling took, in processes of its own except in the mode
    ``all``. Machines share these processes: what another machine had compiled meanwhile is counted too.

    ``tlb_misses``, ``itlb_misses``: loads and stores, and jumps, that native code had to look up.
    ``interrupts``: those taken by harts. ``decoded``: instructions decoded.

    Memory in bytes: ``decoded_bytes`` of decoded pages, ``arena_bytes`` of compiled code, ``hart_bytes`` of
    the harts with their TLBs, ``worker_bytes``: resident memory of the processes that compile. The first two
    are the most that there was.
    """

    mode: str
    compiled_share: float | None = None
    regions: int = 0
    loaded: int = 0
    refused: int = 0
    outdated: int = 0
    discarded: int = 0
    instructions: int = 0
    code_bytes: int = 0
    compiler_seconds: float = 0.0
    tlb_misses: int = 0
    itlb_misses: int = 0
    interrupts: int = 0
    decoded: int = 0
    decoded_bytes: int = 0
    arena_bytes: int = 0
    hart_bytes: int = 0
    worker_bytes: int = 0

    @property
    def memory_bytes(self) -> int:
        """All of the memory above together."""
        return self.decoded_bytes + self.arena_bytes + self.hart_bytes + self.worker_bytes
