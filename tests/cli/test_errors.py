"""Bad input: one line on stderr that says what is wrong and what to do, status 2, and nothing left behind."""

from __future__ import annotations

import gzip
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .elf import EM_X86_64, executable
from .support import PATIENCE, doppel_run, environment

KERNEL = executable("1: j 1b")


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "kernel"
    path.write_bytes(KERNEL)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty cache, so that nothing can succeed by what is there from before."""
    path = tmp_path / "cache"
    path.mkdir()
    return path


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    # On the way there may have been word of progress, each in a line of its own.
    assert all(line.startswith("doppel: ") for line in lines), result.stderr
    assert "Traceback" not in result.stderr
    return lines[-1]


def linux_image(size: int = 4096, *, image_size: int = 0) -> bytes:
    """The header of a Linux Image (Documentation/arch/riscv/boot-image-header.rst), and zeroes."""
    header = struct.pack(
        "<IIQQQIIQ8s4sI", 0x6F, 0, 0x200000, image_size or size, 0, 2, 0, 0, b"RISCV\0\0\0", b"RSC\x05", 0
    )
    return header + bytes(size - len(header))


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("empty", b"", "empty|not a kernel"),
        ("text", b"this is no kernel", "not a kernel"),
        ("x86", executable("1: j 1b", machine=EM_X86_64), "x86-64"),
        ("short-elf", KERNEL[:30], "truncated|damaged"),
        ("shorter-elf", KERNEL[:90], "truncated|damaged"),
        ("short-image", linux_image()[:50], "truncated|not a kernel"),
        ("short-gzip", gzip.compress(linux_image(100_000))[:60], "truncated|damaged"),
        ("random.gz", b"\x1f\x8b" + bytes(range(200)), "damaged|truncated"),
        ("linked-low", executable("1: j 1b", address=0x1000), "memory"),
        ("large-image", linux_image(image_size=1 << 29), "MiB of memory"),
        ("large-elf", executable("1: j 1b", memory_size=1 << 29), "MiB of memory"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_kernels(tmp_path: Path, name: str, data: bytes, complaint: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    line = refused(doppel_run("run", path, "--memory", "64M"))
    assert re.search(complaint, line), line
    assert str(path) in line


def test_kernels_that_are_no_files(tmp_path: Path) -> None:
    assert "/nonexistent" in refused(doppel_run("run", "--kernel", "/nonexistent"))
    assert "neither a guest nor a file" in refused(doppel_run("run", "/nonexistent"))
    assert str(tmp_path) in refused(doppel_run("run", tmp_path))
    assert "two kernels" in refused(doppel_run("run", "/a", "--kernel", "/b"))


def test_initrds(kernel: Path, tmp_path: Path) -> None:
    large = tmp_path / "initrd"
    with large.open("wb") as file:
        file.truncate(100 << 20)
    assert "no initrd" in refused(doppel_run("run", kernel, "--initrd", tmp_path / "nothing"))
    line = refused(doppel_run("run", kernel, "--initrd", large, "--memory", "64M"))
    assert "kernel and initrd need 1" in line
    assert "--memory" in line


def test_firmware(kernel: Path, tmp_path: Path) -> None:
    assert "/nonexistent" in refused(doppel_run("run", kernel, "--firmware", "/nonexistent"))
    other = tmp_path / "firmware"
    other.write_bytes(executable("1: j 1b", machine=EM_X86_64))
    assert "x86-64" in refused(doppel_run("run", kernel, "--firmware", other))


@pytest.mark.parametrize("memory", ["", "lots", "0", "-5M", "12Q", "100000T", "1.5G", "1000001"])
def test_memory(kernel: Path, memory: str) -> None:
    assert "memory" in refused(doppel_run("run", kernel, f"--memory={memory}"))


@pytest.mark.parametrize("harts", ["0", "-1", "65", "1000000000000", "two"])
def test_harts(kernel: Path, harts: str) -> None:
    assert "harts" in refused(doppel_run("run", kernel, f"--harts={harts}"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "--bogus"], "--bogus"),
        (["run", "-x"], "-x"),
        (["run", "a", "b"], "'b'"),
        (["run", "--clock", "sundial"], "sundial"),
        (["run", "--timeout", "soon"], "soon"),
        (["run", "--timeout", "-1"], "timeout"),
        (["run", "--timeout", "nan"], "timeout"),
        (["run", "--memory"], "--memory"),
        (["ruin"], "ruin"),
        (["--bogus"], "--bogus"),
        (["images", "fetch", "windows"], "windows"),
        (["images", "remove"], "names"),
        (["images", "remove", "nothing-like-this"], "nothing-like-this"),
        (["images", "list", "--bogus"], "--bogus"),
        (["doctor", "--bogus"], "--bogus"),
        (["run", "opensbi", "--deb", "/nonexistent.deb"], "/nonexistent.deb"),
        (["run", "--keyring", "/nonexistent.gpg"], "/nonexistent.gpg"),
    ],
)
def test_command_lines(arguments: list[str], complaint: str, home: Path) -> None:
    line = refused(doppel_run(*arguments, env={"XDG_CACHE_HOME": str(home)}))
    assert complaint in line
    # Nothing was fetched, and no cache made, to find that out.
    assert list(home.iterdir()) == []


def test_disks_networks_and_shares(kernel: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.img"
    odd.write_bytes(bytes(1000))
    for option, value, complaint in [
        ("--disk", "/nonexistent.img", "/nonexistent.img"),
        ("--disk", str(tmp_path), "directory"),
        ("--disk", str(odd), "sectors"),
        ("--disk", f"{odd},fast", "'fast'"),
        ("--net", "bridge", "'bridge'"),
        ("--net", "tap:" + "x" * 20, "too long"),
        ("--share", "/nonexistent", "/nonexistent"),
        ("--share", str(odd), "not a folder"),
    ]:
        assert complaint in refused(doppel_run("run", kernel, option, value))


def test_a_disk_in_use(kernel: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(4096))
    assert "in use" in refused(doppel_run("run", kernel, "--disk", disk, "--disk", disk))


def test_too_many_devices(kernel: Path) -> None:
    assert "more than 8" in refused(doppel_run("run", kernel, *["--net", "loopback"] * 9))


def test_a_command_for_a_foreign_kernel(kernel: Path) -> None:
    assert "--command" in refused(doppel_run("run", kernel, "--command", "true"))


def test_unreachable_mirror(home: Path) -> None:
    result = doppel_run("run", "--mirror", "http://127.0.0.1:1/debian", env={"XDG_CACHE_HOME": str(home)})
    line = refused(result)
    assert "127.0.0.1:1" in line
    assert "--deb" in line
    # No package is there, nor half of one.
    left = [path for path in home.rglob("*") if path.is_file() and path.parent.name != "locks"]
    assert left == []


def test_a_mirror_that_is_no_address(home: Path) -> None:
    line = refused(
        doppel_run("images", "fetch", "--mirror", "not an address", env={"XDG_CACHE_HOME": str(home)})
    )
    assert "not an address" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(home: Path) -> None:
    home.chmod(0o500)
    line = refused(doppel_run("images", "fetch", env={"XDG_CACHE_HOME": str(home)}))
    assert "XDG_CACHE_HOME" in line


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    line = refused(doppel_run("images", "fetch", env={"XDG_CACHE_HOME": str(path)}))
    assert "XDG_CACHE_HOME" in line


class Silence:
    """A mirror that takes connections and then says nothing."""

    def __init__(self) -> None:
        import socket

        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}/debian"

    def close(self) -> None:
        self.socket.close()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_while_downloading(home: Path, number: int, status: int) -> None:
    mirror = Silence()
    process = subprocess.Popen(
        [sys.executable, "-m", "doppel.cli", "run", "--mirror", mirror.address],
        env=environment(XDG_CACHE_HOME=str(home)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        mirror.socket.settimeout(PATIENCE)
        connection, _ = mirror.socket.accept()
        time.sleep(0.2)
        process.send_signal(number)
        output, errors = process.communicate(timeout=PATIENCE)
        connection.close()
    finally:
        process.kill()
        process.wait()
        mirror.close()
    assert process.returncode == status
    assert output == ""
    assert "Traceback" not in errors
    assert re.search("interrupt|terminated", errors.splitlines()[-1].lower())
    left = [path for path in home.rglob("*") if path.is_file() and path.parent.name != "locks"]
    assert left == []


TELLING_CHILD = """
import os, sys
class Tell:
    def find_spec(self, name, path=None, target=None):
        if name == "doppel.cli.app":
            os.write(2, b"!")
sys.meta_path.insert(0, Tell())
from doppel.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.2, 0.4])
def test_interrupted_early(kernel: Path, delay: float) -> None:
    """Whenever Ctrl-C comes, it is a clean end."""
    process = subprocess.Popen(
        # The child tells when main() makes its first import: before that, the signal is Python's affair.
        [
            sys.executable,
            "-c",
            TELLING_CHILD,
            "run",
            str(kernel),
            "--timeout",
            "60",
        ],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert process.stderr.read(1) == "!"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert output == ""
    assert "Traceback" not in errors
    assert errors.startswith("doppel: ")
