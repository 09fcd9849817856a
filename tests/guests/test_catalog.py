from __future__ import annotations

import json
import lzma
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from doppel.cache import Cache
from doppel.errors import DoppelError
from doppel.guests import catalog, cpio, initramfs
from doppel.guests.catalog import GUESTS, GuestFiles, prepare
from doppel.guests.debian import Source
from doppel.guests.kernel import KernelKind, load_kernel
from doppel.guests.progress import Silent

Build = Callable[..., bytes]
KERNEL = bytes(range(256)) * 16
RELEASE = "6.99-riscv64"


@pytest.fixture
def packages(tmp_path: Path, make_deb: Build, make_module: Build) -> Path:
    """A folder with small packages in the shape of Debian's."""
    folder = tmp_path / "debs"
    folder.mkdir()
    place = f"usr/lib/modules/{RELEASE}/kernel"
    files = {
        f"boot/vmlinux-{RELEASE}": KERNEL,
        f"boot/config-{RELEASE}": b"CONFIG_X=y\n",
        f"{place}/drivers/virtio/virtio_mmio.ko.xz": lzma.compress(make_module(["alias=of:Cvirtio,mmio"])),
        f"{place}/drivers/block/virtio_blk.ko.xz": lzma.compress(make_module(["depends="])),
        f"{place}/drivers/gpu/unwanted.ko.xz": b"never looked at",
    }
    (folder / "linux.deb").write_bytes(make_deb(f"linux-image-{RELEASE}", files, version="6.99.1-1"))
    busybox = {"usr/bin/busybox": b"\x7fELF busybox", "usr/share/doc/busybox": b""}
    (folder / "busybox.deb").write_bytes(make_deb("busybox-static", busybox, version="1:1.37"))
    place = "usr/lib/riscv64-linux-gnu/opensbi/generic"
    firmware = {f"{place}/fw_dynamic.bin": b"dynamic", f"{place}/fw_jump.bin": b"jump"}
    firmware["usr/lib/riscv32-linux-gnu/opensbi/generic/fw_jump.bin"] = b"other machine"
    (folder / "opensbi.deb").write_bytes(make_deb("opensbi", firmware, version="1.6-1", architecture="all"))
    return folder


@pytest.fixture
def source(packages: Path) -> Source:
    return Source(files=tuple(sorted(packages.iterdir())))


def test_names() -> None:
    assert {"debian", "opensbi"} == GUESTS.keys()
    with pytest.raises(DoppelError, match=r"no guest called 'minix'.*debian, opensbi"):
        prepare("minix")


def test_debian(source: Source, cache: Cache) -> None:
    guest = prepare("debian", source, cache=cache)
    assert guest.kernel is not None and guest.initrd is not None and guest.firmware is None
    assert guest.kernel.read_bytes() == KERNEL
    assert guest.packages == {f"linux-image-{RELEASE}": "6.99.1-1", "busybox-static": "1:1.37"}
    entries = {entry.name: entry for entry in cpio.read(guest.initrd.read_bytes())}
    assert entries["bin/busybox"].data == b"\x7fELF busybox"
    modules = sorted(name for name in entries if name.endswith(".ko"))
    assert [Path(name).name for name in modules] == ["virtio_blk.ko", "virtio_mmio.ko"]
    assert all(name.startswith(f"lib/modules/{RELEASE}/kernel/") for name in modules)
    assert stat.S_IMODE(guest.kernel.stat().st_mode) & 0o444
    (entry,) = cache.entries()
    assert (entry.shelf, entry.path) == ("guests", guest.kernel.parent)
    assert entry.name.startswith("debian-6.99.1-1-")


def test_opensbi(source: Source, cache: Cache) -> None:
    guest = prepare("opensbi", source, cache=cache)
    assert guest.kernel is None and guest.firmware == guest.files["fw_dynamic.bin"]
    assert {name: path.read_bytes() for name, path in guest.files.items()} == {
        "fw_dynamic.bin": b"dynamic",
        "fw_jump.bin": b"jump",
    }


def test_default_cache(source: Source, tmp_path: Path) -> None:
    guest = prepare("opensbi", source)
    assert guest.firmware is not None
    assert guest.firmware.is_relative_to(tmp_path / "xdg/doppel/guests")


def test_ready_guests_are_not_made_again(
    source: Source, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare("debian", source, cache=cache)

    def never(*args: object, **options: object) -> None:
        raise AssertionError

    # Nothing is read, written or locked but the record of what is there.
    for owner, name in ((catalog, "fetch"), (catalog, "Deb"), (Cache, "lock"), (Cache, "scratch")):
        monkeypatch.setattr(owner, name, never)
    assert prepare("debian", source, cache=cache) == first


def test_what_changes_the_guest_changes_the_place(
    source: Source, cache: Cache, packages: Path, make_deb: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [prepare("debian", source, cache=cache).kernel]
    places.append(prepare("debian", source, cache=cache, wanted_modules=["virtio_mmio"]).kernel)
    monkeypatch.setattr(initramfs, "recipe", lambda: "another init")
    places.append(prepare("debian", source, cache=cache).kernel)
    (packages / "busybox.deb").write_bytes(make_deb("busybox-static", {"bin/busybox": b"\x7fELF new"}))
    places.append(prepare("debian", source, cache=cache).kernel)
    assert len(set(places)) == 4


def test_an_incomplete_guest_is_made_again(source: Source, cache: Cache) -> None:
    guest = prepare("debian", source, cache=cache)
    assert guest.initrd is not None
    whole = guest.initrd.read_bytes()
    guest.initrd.unlink()
    assert prepare("debian", source, cache=cache) == guest
    assert guest.initrd.read_bytes() == whole
    description = guest.initrd.parent / "guest.json"
    description.write_text(json.dumps({"files": "nonsense"}))
    assert prepare("debian", source, cache=cache) == guest


@pytest.mark.parametrize(
    ("package", "files"),
    [
        ("linux-image-6-riscv64", {"boot/config": b""}),
        ("busybox-static", {"usr/bin/vi": b""}),
    ],
)
def test_package_without_its_contents(
    packages: Path, source: Source, cache: Cache, make_deb: Build, package: str, files: dict[str, bytes]
) -> None:
    name = "linux.deb" if package.startswith("linux") else "busybox.deb"
    (packages / name).write_bytes(make_deb(package, files))
    with pytest.raises(DoppelError, match=f"{name} does not hold what {package} should"):
        prepare("debian", source, cache=cache)
    assert cache.entries() == []


def test_firmware_package_without_firmware(tmp_path: Path, cache: Cache, make_deb: Build) -> None:
    path = tmp_path / "opensbi.deb"
    path.write_bytes(make_deb("opensbi", {"usr/share/doc/x": b""}, architecture="all"))
    with pytest.raises(DoppelError, match="does not hold what opensbi should"):
        prepare("opensbi", Source(files=(path,)), cache=cache)


def test_truncated_package(packages: Path, source: Source, cache: Cache) -> None:
    whole = (packages / "linux.deb").read_bytes()
    (packages / "linux.deb").write_bytes(whole[:-100])
    with pytest.raises(DoppelError, match="truncated"):
        prepare("debian", source, cache=cache)
    assert cache.entries() == []


def test_no_room(source: Source, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Path.write_bytes

    def refuse(self: Path, data: bytes) -> int:
        if self.name == "initrd":
            raise OSError(28, os.strerror(28), str(self))
        return written(self, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(DoppelError, match="no room in the cache folder"):
        prepare("debian", source, cache=cache)
    monkeypatch.undo()
    assert cache.entries() == []
    assert prepare("debian", source, cache=cache).initrd is not None


class Steps(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def step(self, text: str) -> None:
        self.texts.append(text)


def test_progress(source: Source, cache: Cache) -> None:
    steps = Steps()
    prepare("debian", source, steps, cache=cache)
    assert steps.texts == ["unpacking the kernel", "making the initramfs"]
    prepare("debian", source, steps, cache=cache)
    assert len(steps.texts) == 2


# Found out before any test turns the environment elsewhere: what is large is not downloaded for every run.
_USERS_CACHE = Cache()


@pytest.fixture(scope="module")
def real_guest() -> tuple[GuestFiles, GuestFiles]:
    return prepare("debian", cache=_USERS_CACHE), prepare("opensbi", cache=_USERS_CACHE)


@pytest.mark.slow
@pytest.mark.network
def test_debians_own_packages(real_guest: tuple[GuestFiles, GuestFiles]) -> None:
    debian, opensbi = real_guest
    assert debian.kernel is not None and debian.initrd is not None and opensbi.firmware is not None
    kernel = load_kernel(debian.kernel)
    assert kernel.kind is KernelKind.LINUX
    assert kernel.load_offset == 2 << 20
    assert load_kernel(opensbi.firmware).kind is KernelKind.RAW
    assert load_kernel(opensbi.files["fw_jump.elf"]).relocatable
    entries = {entry.name.rpartition("/")[2]: entry for entry in cpio.read(debian.initrd.read_bytes())}
    assert {
        "virtio_mmio.ko",
        "virtio_blk.ko",
        "virtio_net.ko",
        "ext4.ko",
        "jbd2.ko",
        "9p.ko",
    } <= entries.keys()
    assert debian.initrd.stat().st_size < 8 << 20


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.skipif(shutil.which("qemu-system-riscv64") is None, reason="needs qemu-system-riscv64")
class TestInAnotherMachine:
    """The guest's own half of the contract, checked on a machine that is not ours."""

    @staticmethod
    def _boot(guest: GuestFiles, command_line: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [
            "qemu-system-riscv64",
            "-M",
            "virt",
            "-m",
            "256M",
            "-nographic",
            "-kernel",
            str(guest.kernel),
        ]
        command += ["-initrd", str(guest.initrd), "-append", f"console=ttyS0 quiet {command_line}", *options]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=240
        )

    @pytest.mark.parametrize("status", [0, 1, 42])
    def test_exit_status(self, real_guest: tuple[GuestFiles, GuestFiles], status: int) -> None:
        run = initramfs.run_argument(f"echo 'it is \"ran\"'; uname -m; exit {status}")
        result = self._boot(real_guest[0], run)
        assert 'it is "ran"\nriscv64\n' in result.stdout
        assert result.returncode == status, result.stdout

    def test_under_opensbi(self, real_guest: tuple[GuestFiles, GuestFiles]) -> None:
        guest, firmware = real_guest
        result = self._boot(guest, 'doppel.run="tty; exit 3"', "-bios", str(firmware.firmware))
        assert "OpenSBI v1" in result.stdout and "/dev/ttyS0\n" in result.stdout
        assert result.returncode == 3

    def test_disk_and_root(self, real_guest: tuple[GuestFiles, GuestFiles], tmp_path: Path) -> None:
        if shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/sbin:/usr/sbin") is None:
            pytest.skip("needs mkfs.ext4")
        disk = tmp_path / "disk"
        with disk.open("wb") as file:
            file.truncate(32 << 20)
        subprocess.run(["mkfs.ext4", "-qF", disk], check=True, env={"PATH": "/sbin:/usr/sbin:/bin:/usr/bin"})
        drive = ["-drive", f"file={disk},format=raw,if=none,id=d", "-device", "virtio-blk-device,drive=d"]
        install = (
            "mount /dev/vda /mnt && cd /mnt && mkdir -p dev proc sys bin sbin && cp /bin/busybox bin && "
            "printf '#!/bin/busybox sh\\necho booted from disk as $$\\nbusybox poweroff -f\\n' >sbin/init && "
            "chmod 755 sbin/init && grep -c virtio /proc/modules"
        )
        result = self._boot(real_guest[0], initramfs.run_argument(install), *drive)
        assert result.returncode == 0, result.stdout
        result = self._boot(real_guest[0], "root=/dev/vda", *drive)
        assert "booted from disk as 1\n" in result.stdout, result.stdout

    def test_shared_folder(self, real_guest: tuple[GuestFiles, GuestFiles], tmp_path: Path) -> None:
        (tmp_path / "greeting").write_text("hello from the host\n")
        options = ["-fsdev", f"local,id=f,path={tmp_path},security_model=none"]
        options += ["-device", "virtio-9p-device,fsdev=f,mount_tag=my.tag-1"]
        run = initramfs.run_argument("cat /mnt/my.tag-1/greeting; echo and back >/mnt/my.tag-1/answer")
        result = self._boot(real_guest[0], run, *options)
        if "fsdev" in result.stderr:
            pytest.skip("this QEMU cannot share folders")
        assert "hello from the host\n" in result.stdout
        assert (tmp_path / "answer").read_text() == "and back\n"
