"""What a run came to, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from doppel.processor.statistics import EngineStatistics

__all__ = ["EngineStatistics", "Statistics"]


@dataclass(frozen=True)
class Statistics:
    """Counted since the machine was made.

    ``seconds`` is the time it was running, ``exits`` counts by reason how often native code handed over
    to the monitor, ``accesses`` by device how often its registers were read or written. ``engine`` has what
    native code counted, what was compiled, and how much memory that takes.
    """

    instructions: int
    seconds: float
    exits: Mapping[str, int] = field(default_factory=dict)
    accesses: Mapping[str, int] = field(default_factory=dict)
    engine: EngineStatistics = field(default_factory=lambda: EngineStatistics("off"))

    @property
    def mips(self) -> float:
        """Millions of instructions a second."""
        return self.instructions / self.seconds / 1e6 if self.seconds else 0.0

    @property
    def native_share(self) -> float:
        """The share of instructions that ran without the monitor, 0 to 1."""
        if not self.instructions:
            return 0.0
        return max(0.0, 1 - sum(self.exits.values()) / self.instructions)
