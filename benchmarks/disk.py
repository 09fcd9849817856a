"""Sequential reads of a virtio block device in the guest, from a file in the host's page cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.debian import PROMPT, starters
from benchmarks.images import MIB, write_image
from benchmarks.measure import Benchmark, Measured, Metric, Settings
from benchmarks.serial import SerialProcess

__all__ = ["DISK"]

FILE_SIZE = 512 * MIB
PROMISE_MBPS = 300.0
CENTISECOND = 0.01
# What busybox's time says.
TIMES = rb"real\s+(\d+)m ([0-9.]+)s\s+user.*\s+sys.*\s"


@dataclass(frozen=True)
class _Disk:
    """A machine at its prompt, which stays there between the measurements."""

    process: SerialProcess
    size: int

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
        self.process.send(f"time dd if=/dev/vda of=/dev/null bs=1M{flags}\n")
        match, ended = self.process.wait_for(TIMES)
        self.process.wait_for(PROMPT)
        seconds = 60 * int(match[1]) + float(match[2])
        return self.size / max(seconds, CENTISECOND) / 1e6, self.size / (ended - began) / 1e6

    def _command(self, command: str) -> None:
        self.process.send(command + "\n")
        self.process.wait_for(PROMPT)


@contextmanager
def _subjects(settings: Settings) -> Iterator[Sequence[_Disk]]:
    path = settings.folder / "disk.img"
    size = write_image(path, settings.scaled(FILE_SIZE))
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
        yield [_Disk(process, size) for process in processes]
    path.unlink()


DISK = Benchmark(
    "disk",
    "virtio-blk: dd of 512 MiB from the host's page cache, one hart",
    (
        Metric("guest", "through the guest's page cache, guest's clock", "MB/s", "higher"),
        Metric("host", "through the guest's page cache, host's clock", "MB/s", "higher"),
        Metric(
            "direct", "past the guest's page cache, guest's clock", "MB/s", "higher", promise=PROMISE_MBPS
        ),
    ),
    _subjects,
)
