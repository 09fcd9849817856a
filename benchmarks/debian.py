"""Debian's kernel with doppel's busybox initramfs: the guest that both machines boot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machines import doppel_command
from benchmarks.measure import DOPPEL, Settings
from benchmarks.peer import Peer
from benchmarks.serial import SerialProcess
from doppel.guests.catalog import prepare

__all__ = ["PROMPT", "Guest", "Starter", "starters"]

PROMPT = rb"# "
MEMORY = 512
# For both, though doppel's device tree names the console as well.
APPEND = "console=ttyS0"


@dataclass(frozen=True)
class Starter:
    """Starts a machine with 512 MiB of memory that boots the guest."""

    name: str
    command: list[str]
    environment: Mapping[str, str]

    def start(self) -> SerialProcess:
        """A process of its own, for a ``with`` statement."""
        return SerialProcess(self.name, self.command, self.environment)


@dataclass(frozen=True)
class Guest:
    """What the machines boot."""

    kernel: Path
    initrd: Path

    @classmethod
    def default(cls) -> Guest:
        """The guest; it is downloaded if it is not in the cache."""
        files = prepare("debian")
        assert files.kernel is not None and files.initrd is not None
        return cls(files.kernel, files.initrd)

    def on_doppel(self, environment: Mapping[str, str], *options: str, harts: int = 1) -> Starter:
        """doppel with that guest."""
        command = doppel_command(
            *("--kernel", str(self.kernel), "--initrd", str(self.initrd), "--append", APPEND),
            *("--memory", f"{MEMORY}M", "--harts", str(harts)),
            *options,
        )
        return Starter(DOPPEL, command, environment)

    def on_peer(self, peer: Peer, environment: Mapping[str, str], *options: str, harts: int = 1) -> Starter:
        """A peer with that guest."""
        command = peer.command(
            *("-bios", "default", "-kernel", str(self.kernel), "-initrd", str(self.initrd)),
            *("-append", APPEND),
            *options,
            memory=MEMORY,
            harts=harts,
        )
        return Starter(peer.name, command, environment)


def starters(settings: Settings, *, doppel_options: list[str], peer_options: list[str]) -> list[Starter]:
    """doppel and its peer, with further options of each."""
    guest = Guest.default()
    made = [guest.on_doppel(settings.environment, *doppel_options)]
    if settings.peer is not None:
        made.append(guest.on_peer(settings.peer, settings.environment, *peer_options))
    return made
