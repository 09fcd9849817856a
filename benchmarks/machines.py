"""How to start doppel and its peer as child processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.peer import Peer

__all__ = ["child_environment", "doppel_command", "flat_commands"]


def child_environment(folder: Path) -> dict[str, str]:
    """The environment of children: this one's, with bytecode kept in ``folder``.

    Every start of doppel but the first finds its modules compiled, as it does where it is installed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return environment | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def doppel_command(*arguments: str) -> list[str]:
    """``doppel run`` with these arguments."""
    return [sys.executable, "-m", "doppel.cli", "run", *arguments]


def flat_commands(peer: Peer | None, *, supervised: bool) -> Mapping[str, list[str]]:
    """Command lines for a flat program, to be appended to them, by the name of the machine."""
    firmware = "sbi" if supervised else "none"
    commands = {"doppel": doppel_command("--firmware", firmware, "--kernel")}
    if peer is not None:
        commands[peer.name] = peer.command("-bios", "default" if supervised else "none", "-kernel")
    return commands
