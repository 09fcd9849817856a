"""Sequential reads of a virtio block device in the guest, from a file in the host's page cache."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.debian import PROMPT, starters
from benchmarks.measure import Benchmark, Measured, Metric, Settings
from benchmarks.serial import SerialProcess

__all__ = ["DISK"]

MIB = 1 << 20
FILE_SIZE = 512 * MIB
PROMISE_MBPS = 300.0
COPIED = rb"(\d+) bytes .* copied, ([0-9.]+) seconds"


@dataclass(frozen=True)
class _Disk:
    """A machine at its prompt, which stays there between the measurements."""

    process: SerialProcess

    @property
    def name(self) -> str:
        return self.process.name

    def measure(self) -> Measured:
        # What an earlier run left in the guest's own page cache must not help.
        self._command("echo 3 >/proc/sys/vm/drop_caches")
        guest, host = self._read("")
        direct, _ = self._read(" iflag=direct")
        return {"guest": guest, "host": host, "direct": direct}

    def _read(self, flags: str) -> tuple[float, float]:
        """MB/s by the guest's clock and by the host's."""
        began = self.process.elapsed()
        self.process.send(f"dd if=/dev/vda of=/dev/null bs=1M{flags}\n")
        match, ended = self.process.wait_for(COPIED)
        self.process.wait_for(PROMPT)
        size = int(match[1])
        return size / float(match[2]) / 1e6, size / (ended - began) / 1e6

    def _command(self, command: str) -> None:
        self.process.send(command + "\n")
        self.process.wait_for(PROMPT)


@contextmanager
def _subjects(settings: Settings) -> Iterator[Sequence[_Disk]]:
    path = settings.folder / "disk.img"
    _write(path, max(4 * MIB, settings.scaled(FILE_SIZE) // MIB * MIB))
    peer = [
        "-drive",
        f"file={path},if=none,id=disk,format=raw,readonly=on",
        "-device",
        "virtio-blk-device,drive=disk",
    ]
    machines = starters(settings, doppel_options=["--disk", f"{path},readonly"], peer_options=peer)
    with ExitStack() as stack:
        processes = [stack.enter_context(machine.start()) for machine in machines]
        for process in processes:
            process.wait_for(PROMPT)
        yield [_Disk(process) for process in processes]
    path.unlink()


def _write(path: Path, size: int) -> None:
    """A file without holes, and thereby in the page cache."""
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(block)


DISK = Benchmark(
    "disk",
    "virtio-blk: dd of 512 MiB from the host's page cache, one hart",
    (
        Metric(
            "guest", "through the guest's page cache, guest's clock", "MB/s", "higher", promise=PROMISE_MBPS
        ),
        Metric(
            "host", "through the guest's page cache, host's clock", "MB/s", "higher", promise=PROMISE_MBPS
        ),
        Metric("direct", "past the guest's page cache, guest's clock", "MB/s", "higher"),
    ),
    _subjects,
)
