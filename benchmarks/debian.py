"""Debian's kernel with doppel's busybox initramfs: the guest that both machines boot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.machines import doppel_command
from benchmarks.measure import DOPPEL, Settings
from benchmarks.serial import SerialProcess
from doppel.guests.catalog import prepare

__all__ = ["PROMPT", "Starter", "starters"]

PROMPT = rb"# "
MEMORY = 512
# For both, though doppel's device tree names the console as well.
APPEND = "console=ttyS0"


@dataclass(frozen=True)
class Starter:
    """Starts a machine with one hart and 512 MiB of memory that boots the guest."""

    name: str
    command: list[str]
    environment: Mapping[str, str]

    def start(self) -> SerialProcess:
        """A process of its own, for a ``with`` statement."""
        return SerialProcess(self.name, self.command, self.environment)


def starters(settings: Settings, *, doppel_options: list[str], peer_options: list[str]) -> list[Starter]:
    """doppel and its peer, with further options of each; downloads the guest if it is not in the cache."""
    files = prepare("debian")
    kernel, initrd = str(files.kernel), str(files.initrd)
    commands = {
        DOPPEL: doppel_command(
            *("--kernel", kernel, "--initrd", initrd, "--append", APPEND, "--memory", f"{MEMORY}M"),
            *doppel_options,
        )
    }
    if settings.peer is not None:
        commands[settings.peer.name] = settings.peer.command(
            *("-bios", "default", "-kernel", kernel, "-initrd", initrd, "-append", APPEND),
            *peer_options,
            memory=MEMORY,
        )
    return [Starter(name, command, settings.environment) for name, command in commands.items()]
