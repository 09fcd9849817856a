"""Builders of small files in the formats that `doppel.guests` reads."""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from doppel.cache import Cache

AR = Callable[[Mapping[str, bytes]], bytes]
DEB = Callable[..., bytes]
MODULE = Callable[..., bytes]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may see or touch the cache of whoever runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def _ar(members: Mapping[str, bytes]) -> bytes:
    parts = [b"!<arch>\n"]
    for name, data in members.items():
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
        parts.append(data + b"\n" * (len(data) % 2))
    return b"".join(parts)


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo("./" + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("./a-link")
        link.type, link.linkname = tarfile.SYMTYPE, "nowhere"
        tar.addfile(link)
    return buffer.getvalue()


_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "xz": lzma.compress,
    "gz": gzip.compress,
    "": bytes,
    "zst": bytes,
}


def _deb(
    package: str = "example",
    files: Mapping[str, bytes] | None = None,
    *,
    version: str = "1.0-1",
    architecture: str = "riscv64",
    depends: str = "",
    compression: str = "xz",
) -> bytes:
    control = f"Package: {package}\nVersion: {version}\nArchitecture: {architecture}\n"
    control += f"Depends: {depends}\n" if depends else ""
    control += "Description: made for a test\n of several\n lines\n"
    suffix = f".{compression}" if compression else ""
    return _ar(
        {
            "debian-binary": b"2.0\n",
            "control.tar.xz": lzma.compress(_tar({"control": control.encode()})),
            f"data.tar{suffix}": _COMPRESSORS[compression](_tar(files or {})),
        }
    )


def _module(modinfo: list[str], symbols: int = 3, signed: bool = False) -> bytes:
    """A relocatable ELF file: .text, its relocations, .modinfo, and a symbol table, most of it not needed.

    Symbols: 0 null, then `symbols` local labels of which the last is used by a relocation, a local function,
    a global.
    """
    text = bytes(16)
    info = b"".join(fact.encode() + b"\0" for fact in modinfo)
    strings = bytearray(b"\0")
    table = bytearray(24)

    def add(name: str, kind: int, section: int, value: int) -> None:
        table.extend(struct.pack("<IBBHQQ", len(strings), kind, 0, section, value, 4))
        strings.extend(name.encode() + b"\0")

    for number in range(symbols):
        add(f".L{number}", 0, 1, number)
    add("a_function", 2, 1, 8)
    add("init_module", 0x12, 1, 12)
    used, outside = symbols, symbols + 2
    relocations = struct.pack("<QQq", 0, used << 32 | 19, 5) + struct.pack("<QQq", 8, outside << 32 | 2, 0)
    names = b"\0.text\0.rela.text\0.modinfo\0.symtab\0.strtab\0.shstrtab\0"

    def name(text: bytes) -> int:
        return names.index(b"\0" + text + b"\0") + 1

    bodies = [text, relocations, info, bytes(table), bytes(strings), names]
    kinds = [(b".text", 1, 0, 0, 4, 0), (b".rela.text", 4, 4, 1, 8, 24), (b".modinfo", 1, 0, 0, 1, 0)]
    kinds += [
        (b".symtab", 2, 5, symbols + 2, 8, 24),
        (b".strtab", 3, 0, 0, 1, 0),
        (b".shstrtab", 3, 0, 0, 1, 0),
    ]
    image = bytearray(64)
    headers = [bytes(64)]
    for body, (label, kind, link, extra, alignment, entry) in zip(bodies, kinds, strict=True):
        image += bytes(-len(image) % alignment)
        fields = (name(label), kind, 0, 0, len(image), len(body), link, extra, alignment, entry)
        headers.append(struct.pack("<IIQQQQIIQQ", *fields))
        image += body
    image += bytes(-len(image) % 8)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = (ident, 1, 243, 1, 0, 0, len(image), 0, 64, 0, 0, 64, len(headers), 6)
    struct.pack_into("<16sHHIQQQIHHHHHH", image, 0, *header)
    image += b"".join(headers)
    if signed:
        image += b"s" * 40 + struct.pack(">5B3xI", 0, 0, 2, 0, 0, 40) + b"~Module signature appended~\n"
    return bytes(image)


@pytest.fixture
def make_ar() -> AR:
    return _ar


@pytest.fixture
def make_deb() -> DEB:
    return _deb


@pytest.fixture
def make_module() -> MODULE:
    return _module
