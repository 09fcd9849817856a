"""The initramfs of the default guest: static busybox, `init.sh`, and the modules for doppel's devices."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from importlib import resources

from doppel.errors import DoppelError
from doppel.guests import cpio, modules

__all__ = ["DEFAULT_MODULES", "build", "overlay", "recipe", "run_argument"]

# What Debian's kernel has only as modules and doppel's machine has a use for, without dependencies.
DEFAULT_MODULES = (
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "virtio_balloon",
    "ext4",
    # ext4 and jbd2 ask for it by an alias (crypto-crc32c) that no dependency names.
    "crc32c_generic",
    "9p",
    "9pnet_virtio",
)

# Linux on RISC-V takes a command line of at most 1024 bytes (COMMAND_LINE_SIZE), final NUL included.
_COMMAND_LINE_ROOM = 900

_ETC = {
    "etc/passwd": "root::0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    # What mount tries when nobody names a type: the kernel's own list lacks what is not loaded yet.
    "etc/filesystems": "ext4\n",
}


def build(
    busybox: bytes,
    release: str = "",
    drivers: Iterable[modules.Module] = (),
    extra: Mapping[str, bytes] | None = None,
) -> bytes:
    """The archive. `release` is the kernel's (`uname -r`), under which its modules `drivers` are put.

    `extra` maps further paths to contents; a file whose contents start with `#!` or the ELF magic becomes
    executable. The archive is not compressed: unpacking costs a guest far more instructions than copying.
    """
    archive = cpio.Archive()
    # The kernel opens the console for the first process before anything is mounted.
    archive.device("dev/console", "c", 5, 1)
    archive.device("dev/null", "c", 1, 3, 0o666)
    archive.file("bin/busybox", busybox, 0o755)
    archive.file("init", _init(), 0o755)
    for folder in ("proc", "sys", "mnt", "run", "sbin", "usr/bin", "usr/sbin"):
        archive.directory(folder)
    archive.directory("root", 0o700)
    archive.directory("tmp", 0o1777)
    for path, text in _ETC.items():
        archive.file(path, text.encode())
    place = f"lib/modules/{release}"
    drivers = list(drivers)
    for module in drivers:
        archive.file(f"{place}/{module.path}", module.data)
    if drivers:
        archive.file(f"{place}/modules.dep", modules.dependency_table(drivers).encode())
        archive.file(f"{place}/modules.alias", modules.alias_table(drivers).encode())
    _add(archive, extra or {})
    return archive.to_bytes()


def overlay(files: Mapping[str, bytes]) -> bytes:
    """A second archive with further files, to be appended to a ready one: Linux unpacks them in order."""
    archive = cpio.Archive()
    _add(archive, files)
    return archive.to_bytes()


def run_argument(command: str) -> str:
    """The kernel argument that makes the guest run a shell command and power off with its exit status."""
    text = base64.b64encode(command.encode("utf-8", "surrogateescape")).decode("ascii")
    if len(text) > _COMMAND_LINE_ROOM:
        raise DoppelError(
            f"the command has {len(command)} characters, too many for the kernel's command line",
            "put it into a script and give that to the guest as a file",
        )
    return f"doppel.run64={text}"


def recipe() -> str:
    """A digest of everything in the archive that comes from doppel itself."""
    digest = hashlib.sha256(_init())
    digest.update(repr(sorted(_ETC.items())).encode())
    return digest.hexdigest()


def _init() -> bytes:
    return resources.files("doppel.guests").joinpath("init.sh").read_bytes()


def _add(archive: cpio.Archive, files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        archive.file(path, data, 0o755 if data.startswith((b"#!", b"\x7fELF")) else 0o644)
