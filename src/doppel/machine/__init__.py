"""The machine: board, boot, firmware, device tree, clock, console."""

from doppel.machine.lifecycle import Outcome
from doppel.machine.machine import BARE, Machine
from doppel.machine.shell import ShellResult
from doppel.machine.statistics import EngineStatistics, Statistics

__all__ = ["BARE", "EngineStatistics", "Machine", "Outcome", "ShellResult", "Statistics"]
