"""Debian's kernel on doppel's machines, with and without firmware of its own, on one hart and on two."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from doppel.devices.backends.disk import MemoryDisk, RawDisk, SnapshotDisk
from doppel.devices.backends.network import Hub
from doppel.guests.catalog import GuestFiles, prepare
from doppel.guests.initramfs import run_argument
from doppel.isa.extensions import isa_names
from doppel.machine import Machine, Outcome

pytestmark = [pytest.mark.slow, pytest.mark.network]

MEMORY = 256 << 20
PATIENCE = 120.0
PROMPT = re.compile(r"~ # ")


@pytest.fixture(scope="module")
def debian() -> GuestFiles:
    return prepare("debian")


@pytest.fixture(scope="module")
def opensbi() -> GuestFiles:
    return prepare("opensbi")


@contextmanager
def booted(debian: GuestFiles, *arguments: object, append: str = "", **options: object) -> Iterator[Machine]:
    """A machine whose guest has come to its shell."""
    with Machine(MEMORY, *arguments, **options) as machine:  # type: ignore[arg-type]
        machine.boot(debian.kernel, debian.initrd, append)
        machine.start()
        machine.console.expect(PROMPT, PATIENCE)
        yield machine


def output(machine: Machine, command: str) -> str:
    """What a command says that must not fail."""
    result = machine.sh(command, PATIENCE)
    assert result.status == 0, result
    return result.output.strip()


def _timer_interrupts(machine: Machine) -> int:
    line = re.search(
        r"^ *\d+:((?: +\d+)+) +RISC-V INTC +5 .*timer", output(machine, "cat /proc/interrupts"), re.M
    )
    assert line is not None
    return sum(map(int, line[1].split()))


@pytest.mark.parametrize("harts", [1, 2])
@pytest.mark.parametrize("firmware", ["", "fw_dynamic.bin", "fw_jump.bin", "fw_dynamic.elf"])
def test_boots_and_reboots(
    debian: GuestFiles, opensbi: GuestFiles, tmp_path: Path, firmware: str, harts: int
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    path = opensbi.files[firmware] if firmware else None
    with booted(debian, harts, firmware=path, disks=[RawDisk(image)]) as machine:
        assert output(machine, "uname -m") == "riscv64"
        assert output(machine, "nproc") == str(harts)
        # The kernel was told the truth, and believed it.
        isa = re.findall(r"^isa\s*: rv64(\S+)$", output(machine, "cat /proc/cpuinfo"), re.M)
        assert len(isa) == harts
        single, *several = isa[0].split("_")
        assert {*single, *several} >= set(isa_names()) - {"svadu"}
        assert abs(int(output(machine, "date +%s")) - time.time()) < 3
        output(machine, "echo written before > /dev/vda; sync")
        machine.sh("echo the machine is a new one; (sleep 1; reboot -f) &", PATIENCE)
        machine.console.expect("Linux version 6", PATIENCE)
        machine.console.expect(PROMPT, PATIENCE)
        assert output(machine, "head -n 1 /dev/vda") == "written before"
        machine.console.send("poweroff -f\n")
        assert machine.wait(PATIENCE) == Outcome("poweroff")
        firm = re.findall(r"OpenSBI v\d", machine.console.text)
        assert len(firm) == (2 if firmware else 0)
    assert image.read_bytes().startswith(b"written before\n")


@pytest.mark.parametrize("harts", [1, 2])
def test_the_guests_clock_keeps_time(debian: GuestFiles, harts: int) -> None:
    with booted(debian, harts) as machine:

        def uptime() -> float:
            return float(output(machine, "cat /proc/uptime").split()[0])

        began, before = time.monotonic(), uptime()
        output(machine, "sleep 3")
        elapsed, passed = time.monotonic() - began, uptime() - before
        assert 3 <= passed <= elapsed + 0.5
        assert elapsed - passed < 1
        # The battery-backed clock agrees with the date; it is what the date was set from.
        assert abs(int(output(machine, "cat /sys/class/rtc/rtc0/since_epoch")) - time.time()) < 3
        # CONFIG_HZ is 250: so many ticks while a hart is busy, and few while none is.
        before_ticks, began = _timer_interrupts(machine), time.monotonic()
        output(machine, "timeout 2 sh -c 'while :; do :; done'; true")
        rate = (_timer_interrupts(machine) - before_ticks) / (time.monotonic() - began)
        assert 50 < rate < 250 * harts + 200
        before_ticks = _timer_interrupts(machine)
        time.sleep(2)
        assert _timer_interrupts(machine) - before_ticks < 300


@pytest.mark.parametrize("firmware", ["", "fw_dynamic.bin"])
def test_harts_come_and_go(debian: GuestFiles, opensbi: GuestFiles, firmware: str) -> None:
    path = opensbi.files[firmware] if firmware else None
    online = "/sys/devices/system/cpu/cpu{}/online"
    with booted(debian, 3, firmware=path) as machine:
        for _ in range(3):
            for hart in (1, 2):
                output(machine, f"echo 0 > {online.format(hart)}")
            assert output(machine, "nproc") == "1"
            for hart in (2, 1):
                output(machine, f"echo 1 > {online.format(hart)}")
            assert output(machine, "nproc") == "3"


def test_work_on_several_harts_at_once(debian: GuestFiles) -> None:
    command = "for i in 1 2 3 4 5 6 7 8; do (seq 1 3000 | md5sum) & done; wait"
    with booted(debian, 2) as machine:
        sums = output(machine, command).split("\n")
        assert len(sums) == 8 and len(set(sums)) == 1
        # What harts tell each other to do (fences, function calls) goes through the firmware.
        assert machine.statistics.exits["trap"] > 100


def test_the_debug_console_is_the_early_console(debian: GuestFiles) -> None:
    with booted(debian, append="earlycon=sbi keep_bootcon") as machine:
        assert "earlycon: sbi0 at I/O port" in machine.console.text
        text = output(machine, "dmesg")
        assert "SBI specification v2.0 detected" in text
        assert "SBI DBCN extension detected" in text
        for extension in ("TIME", "IPI", "RFENCE", "SRST"):
            assert f"SBI {extension} extension detected" in text


def test_disks(debian: GuestFiles, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    contents = b"the original\n".ljust(512, b"\0") + bytes(range(256)) * 8000
    contents += bytes(-len(contents) % 512)
    image.write_bytes(contents)
    snapshot = SnapshotDisk(RawDisk(image, readonly=True))
    disks = [snapshot, MemoryDisk(b"read-only\n", size=512, readonly=True)]
    with booted(debian, disks=disks) as machine:
        assert output(machine, "cat /sys/block/vda/size") == str(len(contents) // 512)
        sums = {output(machine, "md5sum < /dev/vda") for _ in range(2)}
        assert len(sums) == 1
        output(machine, "echo changed > /dev/vda; sync; echo 3 > /proc/sys/vm/drop_caches")
        assert output(machine, "head -n 1 /dev/vda") == "changed"
        assert output(machine, "head -n 1 /dev/vdb") == "read-only"
        assert machine.sh("echo x 2>/dev/null > /dev/vdb", PATIENCE).status != 0
    assert image.read_bytes() == contents


def test_a_shared_directory(debian: GuestFiles, tmp_path: Path) -> None:
    (tmp_path / "from-host").write_text("hello from the host\n")
    with booted(debian, 2, shares=[("files", tmp_path, False)]) as machine:
        # The guest's first process has mounted it.
        assert output(machine, "cat /mnt/files/from-host") == "hello from the host"
        output(machine, "echo hello from the guest > /mnt/files/from-guest")
    assert (tmp_path / "from-guest").read_text() == "hello from the guest\n"


def test_two_machines_on_one_network(debian: GuestFiles) -> None:
    hub = Hub()
    try:
        with booted(debian, networks=[hub.port()]) as one, booted(debian, networks=[hub.port()]) as other:
            for number, machine in enumerate((one, other), 1):
                output(machine, f"ip link set eth0 up; ip address add 10.0.0.{number}/24 dev eth0")
            assert "3 packets received" in output(one, "ping -c 3 10.0.0.2")
    finally:
        hub.close()


@pytest.mark.parametrize("harts", [1, 2])
def test_counted_runs_are_the_same_every_time(debian: GuestFiles, harts: int) -> None:
    command = "date; cat /proc/uptime; head -c 16 /dev/urandom | od -x; exit 5"
    runs = []
    for _ in range(2):
        with Machine(MEMORY, harts, clock="icount") as machine:
            machine.boot(debian.kernel, debian.initrd, "quiet " + run_argument(command))
            assert machine.run(PATIENCE) == Outcome("poweroff", 5)
            runs.append((machine.console.text, machine.statistics.instructions))
    assert runs[0] == runs[1]
    assert "Jan  1 00:00" in runs[0][0]


def test_a_panic_is_not_the_end_of_doppel(debian: GuestFiles) -> None:
    with Machine(MEMORY, reboot=False) as machine:
        machine.boot(debian.kernel, None, "panic=1")
        assert machine.run(PATIENCE) == Outcome("reboot")
        assert "Kernel panic" in machine.console.text


def test_too_little_memory_for_linux_is_linuxs_business(debian: GuestFiles) -> None:
    with Machine(40 << 20) as machine:
        machine.boot(debian.kernel, None, "")
        machine.start()
        time.sleep(2)
        machine.stop()
        assert machine.outcome is not None and machine.outcome.kind != "failed"


def test_pausing_does_not_disturb_linux(debian: GuestFiles) -> None:
    with booted(debian, 2) as machine:
        machine.console.send("seq 1 30000 | md5sum\n")
        for _ in range(100):
            machine.pause()
            time.sleep(0.005)
            machine.resume()
            time.sleep(0.005)
        machine.console.expect(r"\n[0-9a-f]{32}  -\r\n", PATIENCE)
        assert "rcu" not in output(machine, "dmesg | grep -i stall; true")
