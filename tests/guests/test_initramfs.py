from __future__ import annotations

import base64
import shutil
import stat
import subprocess
from collections.abc import Callable
from importlib import resources

import pytest

from doppel.errors import DoppelError
from doppel.guests import cpio, initramfs, modules

BUSYBOX = b"\x7fELF pretends to be busybox"
INIT = resources.files("doppel.guests").joinpath("init.sh").read_text()


def _entries(archive: bytes) -> dict[str, cpio.Entry]:
    return {entry.name: entry for entry in cpio.read(archive)}


def test_what_the_kernel_needs_to_start() -> None:
    entries = _entries(initramfs.build(BUSYBOX))
    assert entries["init"].mode == stat.S_IFREG | 0o755
    assert entries["init"].data.startswith(b"#!/bin/busybox sh\n")
    assert (entries["bin/busybox"].data, entries["bin/busybox"].mode & 0o111) == (BUSYBOX, 0o111)
    assert (stat.S_ISCHR(entries["dev/console"].mode), entries["dev/console"].device) == (True, (5, 1))
    assert all(stat.S_ISDIR(entries[folder].mode) for folder in ("proc", "sys", "dev", "root", "mnt"))
    assert "lib" not in entries


def test_modules(make_module: Callable[..., bytes]) -> None:
    files = {
        "kernel/a.ko": make_module(["depends=b"]),
        "kernel/b.ko": make_module(["alias=virtio:d00000001v*"]),
    }
    entries = _entries(initramfs.build(BUSYBOX, "6.1-test", modules.select(files, ["a"])))
    place = "lib/modules/6.1-test"
    assert {f"{place}/kernel/a.ko", f"{place}/kernel/b.ko"} <= entries.keys()
    assert b"kernel/a.ko: kernel/b.ko\n" in entries[f"{place}/modules.dep"].data
    assert entries[f"{place}/modules.alias"].data == b"alias virtio:d00000001v* b\n"


def test_extra_files() -> None:
    extra = {"root/script": b"#!/bin/sh\n", "etc/passwd": b"mine", "usr/bin/program": b"\x7fELF..."}
    entries = _entries(initramfs.build(BUSYBOX, extra=extra))
    modes = {path: entries[path].mode & 0o777 for path in extra}
    assert modes == {"root/script": 0o755, "etc/passwd": 0o644, "usr/bin/program": 0o755}
    assert entries["etc/passwd"].data == b"mine"
    whole = initramfs.build(BUSYBOX) + initramfs.overlay(extra)
    assert _entries(whole)["etc/passwd"].data == b"mine"


def test_same_input_same_bytes() -> None:
    assert initramfs.build(BUSYBOX) == initramfs.build(BUSYBOX)
    assert initramfs.recipe() == initramfs.recipe()


def test_run_argument() -> None:
    name, _, text = initramfs.run_argument("echo 'a b' \"$HOME\"; exit 3").partition("=")
    assert name == "doppel.run64"
    assert base64.b64decode(text) == b"echo 'a b' \"$HOME\"; exit 3"
    assert not set(text) & set(" \"'\n")
    with pytest.raises(DoppelError, match="too many for the kernel's command line"):
        initramfs.run_argument("x" * 1000)


def test_init_is_a_shell_script() -> None:
    subprocess.run(["sh", "-n"], input=INIT, text=True, check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck on this host")
def test_init_passes_shellcheck() -> None:
    subprocess.run(["shellcheck", "-s", "dash", "--severity=warning", "-"], input=INIT, text=True, check=True)


@pytest.mark.parametrize(
    ("command_line", "name", "value"),
    [
        ("console=ttyS0 doppel.run=reboot quiet", "doppel.run", "reboot"),
        ('doppel.run="ls -l /; exit 3" quiet', "doppel.run", "ls -l /; exit 3"),
        ('quiet doppel.run="last one"', "doppel.run", "last one"),
        ("root=/dev/vda root=/dev/vdb", "root", "/dev/vdb"),
        ("doppel.run64=YQ==", "doppel.run64", "YQ=="),
        ("doppel.run64=YQ==", "doppel.run", None),
        ("nodoppel.run=x", "doppel.run", None),
        ("doppel.run", "doppel.run", None),
        ("doppel.run= quiet", "doppel.run", ""),
        ("doppel.run=$(reboot) x=*", "doppel.run", "$(reboot)"),
        ("", "root", None),
    ],
)
def test_init_reads_the_command_line(command_line: str, name: str, value: str | None) -> None:
    function = INIT[INIT.index("argument() {") : INIT.index("# Load what the devices ask for")]
    script = f'command_line=" $1 "\n{function}\nif argument "$2"; then printf "=%s" "$value"; fi'
    result = subprocess.run(
        ["sh", "-euc", script, "sh", command_line, name], capture_output=True, text=True, check=True
    )
    assert result.stdout == ("" if value is None else f"={value}")
