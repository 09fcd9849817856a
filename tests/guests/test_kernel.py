from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doppel.errors import DoppelError
from doppel.guests.files import decompress, read_file
from doppel.guests.kernel import Kernel, KernelKind, load_kernel

RAM = 0x8000_0000


def _image(
    *, size: int = 8192, image_size: int = 16384, offset: int = 0x20_0000, flags: int = 0, pe: bool = True
) -> bytes:
    """A Linux Image as its header goes, with the PE header of an EFI stub that covers the whole file."""
    header = struct.pack(
        "<2sHIQQQIIQ8s4sI", b"MZ", 1, 0, offset, image_size, flags, 2, 0, 0, b"RISCV\0\0\0", b"RSC\x05", 0x40
    )
    body = bytearray(header + bytes(size - len(header)))
    if pe:
        struct.pack_into("<4sHHIIIHH", body, 0x40, b"PE\0\0", 0x5064, 1, 0, 0, 0, 16, 0)
        struct.pack_into("<8sIIII", body, 0x40 + 24 + 16, b".text", size - 512, 512, size - 512, 512)
    return bytes(body)


def _elf(
    *,
    machine: int = 243,
    bits: int = 2,
    kind: int = 2,
    entry: int = RAM + 4,
    segments: tuple[tuple[int, int, bytes, int], ...] = ((RAM, RAM, b"code" * 4, 64),),
    symbols: dict[str, int] | None = None,
) -> bytes:
    """An ELF64 executable; segments are (virtual, physical, data, memory size)."""
    ident = b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9)
    start = 64 + 56 * len(segments)
    table, bodies = b"", b""
    for virtual, physical, data, size in segments:
        table += struct.pack("<IIQQQQQQ", 1, 7, start + len(bodies), virtual, physical, len(data), size, 4096)
        bodies += data
    strings, syms = b"\0", bytes(24)
    for name, value in (symbols or {}).items():
        syms += struct.pack("<IBBHQQ", len(strings), 0x10, 0, 0xFFF1, value, 0)
        strings += name.encode() + b"\0"
    sections = b""
    if symbols:
        names = b"\0.symtab\0.strtab\0.shstrtab\0"
        base = start + len(bodies)
        sections = bytes(64)
        sections += struct.pack("<IIQQQQIIQQ", 1, 2, 0, 0, base, len(syms), 2, 1, 8, 24)
        sections += struct.pack("<IIQQQQIIQQ", 9, 3, 0, 0, base + len(syms), len(strings), 0, 0, 1, 0)
        base += len(syms) + len(strings)
        sections += struct.pack("<IIQQQQIIQQ", 17, 3, 0, 0, base, len(names), 0, 0, 1, 0)
        bodies += syms + strings + names
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, kind, machine, 1, entry, 64, start + len(bodies) if symbols else 0, 0,
        64, 56, len(segments), 64, 4 if symbols else 0, 3 if symbols else 0,
    )  # fmt: skip
    return header + table + bodies + sections


def _zboot(payload: bytes, name: bytes = b"gzip", machine: int = 0x5064) -> bytes:
    header = struct.pack("<4s4sII8x8s", b"MZ\0\0", b"zimg", 0x80, len(payload), name)
    header = header.ljust(0x38, b"\0") + struct.pack("<II", 0x818223CD, 0x40)
    header += struct.pack("<4sHHIIIHH", b"PE\0\0", machine, 0, 0, 0, 0, 0, 0)
    return header.ljust(0x80, b"\0") + payload + b"trailing"


@pytest.fixture
def kernel_of(tmp_path: Path) -> Callable[..., Kernel]:
    def load(data: bytes, name: str = "kernel", *, raw: bool = False) -> Kernel:
        path = tmp_path / name
        path.write_bytes(data)
        return load_kernel(path, raw=raw)

    return load


def test_linux_image(kernel_of: Callable[..., Kernel]) -> None:
    kernel = kernel_of(_image())
    assert kernel.kind is KernelKind.LINUX
    assert (kernel.relocatable, kernel.load_offset, kernel.alignment) == (True, 2 << 20, 2 << 20)
    place = RAM + kernel.load_offset
    (segment,) = kernel.segments_at(place)
    assert (segment.address, bytes(segment.data), segment.memory_size) == (place, _image(), 16384)
    assert kernel.entry_at(place) == place
    assert kernel.extent_at(place) == (place, place + 16384)
    assert kernel.symbols == {}


def test_image_size_may_be_missing(kernel_of: Callable[..., Kernel]) -> None:
    assert kernel_of(_image(image_size=0, pe=False)).segments[0].memory_size == 8192


@pytest.mark.parametrize(
    "wrap",
    [
        gzip.compress,
        lzma.compress,
        bz2.compress,
        lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
        lambda data: gzip.compress(data) + b"appended",
        lambda data: _zboot(gzip.compress(data)),
        lambda data: _zboot(lzma.compress(data, check=lzma.CHECK_CRC32), b"xzkern"),
        lambda data: gzip.compress(_zboot(gzip.compress(data))),
    ],
)
def test_wrappings(kernel_of: Callable[..., Kernel], wrap: Callable[[bytes], bytes]) -> None:
    kernel = kernel_of(wrap(_image()))
    assert (kernel.kind, bytes(kernel.segments[0].data)) == (KernelKind.LINUX, _image())


def test_debian_package(kernel_of: Callable[..., Kernel], make_deb: Callable[..., bytes]) -> None:
    deb = make_deb("linux-image-6-riscv64", {"boot/config-6": b"", "boot/vmlinux-6-riscv64": _image()})
    assert kernel_of(deb, "linux.deb").kind is KernelKind.LINUX
    with pytest.raises(DoppelError, match="holds no kernel"):
        kernel_of(make_deb("busybox", {"bin/busybox": b"x"}), "busybox.deb")


def test_elf(kernel_of: Callable[..., Kernel]) -> None:
    kernel = kernel_of(
        _elf(
            segments=((RAM, RAM, b"code" * 4, 16), (RAM + 0x2000, RAM + 0x1000, b"data", 4096)),
            symbols={"tohost": RAM + 0x1000, "_start": RAM},
        )
    )
    assert (kernel.kind, kernel.relocatable, kernel.entry) == (KernelKind.ELF, False, RAM + 4)
    found = [(s.address, bytes(s.data), s.memory_size) for s in kernel.segments_at(0)]
    assert found == [(RAM, b"code" * 4, 16), (RAM + 0x1000, b"data", 4096)]
    assert kernel.extent_at(0) == (RAM, RAM + 0x2000)
    assert kernel.symbols == {"tohost": RAM + 0x1000, "_start": RAM}


def test_elf_entry_is_virtual(kernel_of: Callable[..., Kernel]) -> None:
    high = 0xFFFF_FFFF_8000_0000
    kernel = kernel_of(_elf(entry=high + 8, segments=((high, RAM, b"code" * 4, 64),)))
    assert kernel.entry_at(0) == RAM + 8


def test_position_independent_elf(kernel_of: Callable[..., Kernel]) -> None:
    kernel = kernel_of(_elf(kind=3, entry=0, segments=((0, 0, b"code", 64),)))
    assert kernel.relocatable
    assert kernel.segments_at(RAM)[0].address == kernel.entry_at(RAM) == RAM


def test_empty_segments_do_not_count(kernel_of: Callable[..., Kernel]) -> None:
    kernel = kernel_of(_elf(segments=((0, 0, b"", 0), (RAM, RAM, b"code" * 4, 64))))
    assert len(kernel.segments) == 1


def test_raw(kernel_of: Callable[..., Kernel]) -> None:
    for kernel in (
        kernel_of(b"\x13\0\0\0", "program.bin"),
        kernel_of(b"\x13\0\0\0", "test.flat"),
        kernel_of(b"\x13\0\0\0", "x", raw=True),
    ):
        assert (kernel.kind, kernel.load_offset) == (KernelKind.RAW, 0)
        assert kernel.segments_at(RAM)[0].address == kernel.entry_at(RAM) == RAM
    assert kernel_of(_image(), raw=True).kind is KernelKind.RAW


def _bzimage() -> bytes:
    data = bytearray(4096)
    data[:2], data[0x1FE:0x200], data[0x202:0x206] = b"MZ", b"\x55\xaa", b"HdrS"
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"just some text\n", "not a kernel that doppel knows"),
        (bytes(8192), "not a kernel that doppel knows"),
        (_elf(machine=62), "for x86-64, not for RISC-V"),
        (_elf(machine=183), "for arm64, not for RISC-V"),
        (_elf(machine=9999), "machine number 9999"),
        (_elf(bits=1), "32-bit"),
        (_elf(kind=1), "not an executable"),
        (_elf(segments=()), "not an executable"),
        (_elf()[:40], "damaged ELF headers"),
        (_elf()[:15], "truncated"),
        (_elf()[:-1], "truncated"),
        (_elf(segments=((RAM, RAM, b"longer than its memory", 4),)), "damaged ELF segments"),
        (_elf(segments=((RAM, RAM, b"x", 1 << 40),)), "damaged ELF segments"),
        (_elf(segments=((-(1 << 31) % (1 << 64),) * 2 + (b"code", 64),)), "virtual addresses only.*Image"),
        (_image()[:-1], "truncated"),
        (_image()[:100], "truncated"),
        (_image()[:63], "truncated"),
        (_image(flags=1), "big-endian"),
        (_image(offset=1 << 40), "damaged Linux header"),
        (_image(offset=5), "damaged Linux header"),
        (_image(image_size=1 << 62), "damaged Linux header"),
        (_image(pe=False).replace(b"RSC\x05", b"ARM\x64"), "for arm64, not for RISC-V"),
        (_bzimage(), "for x86-64, not for RISC-V"),
        (_zboot(gzip.compress(_image()), machine=0xAA64), "for arm64"),
        (_zboot(gzip.compress(_image()))[:-40], "truncated"),
        (_zboot(b"\x28\xb5\x2f\xfd" + bytes(50), b"zstd"), "compressed with zstd.*decompress it first"),
        (gzip.compress(_image())[:-30], "truncated"),
        (gzip.compress(_image())[:20] + b"xxxx" + gzip.compress(_image())[24:], "damaged|truncated"),
        (lzma.compress(_image())[:-20], "truncated"),
        (gzip.compress(b"text"), "not a kernel that doppel knows"),
        (b"\x27\x05\x19\x56" + bytes(64), "uImage"),
        (b"\xd0\x0d\xfe\xed" + bytes(64), "device tree"),
        (b"!<arch>\nnonsense", "not a usable Debian package"),
    ],
)
def test_bad_kernels(kernel_of: Callable[..., Kernel], data: bytes, reason: str) -> None:
    with pytest.raises(DoppelError, match=reason) as caught:
        kernel_of(data)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_known_format_is_no_raw_binary(kernel_of: Callable[..., Kernel]) -> None:
    with pytest.raises(DoppelError, match="x86-64"):
        kernel_of(_elf(machine=62), "x.bin")


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(DoppelError, match=r"no kernel .*absent.*check the path"):
        load_kernel(tmp_path / "absent")
    with pytest.raises(DoppelError, match="is a folder"):
        load_kernel(tmp_path)
    with pytest.raises(DoppelError, match="is a device"):
        load_kernel(Path("/dev/zero"))
    with pytest.raises(DoppelError, match="cannot be read"):
        load_kernel(tmp_path / ("x" * 300))
    with pytest.raises(DoppelError, match="cannot be read"):
        load_kernel(Path("nul\0byte"))


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str = "r") -> None:
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "k").write_bytes(b"x")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DoppelError, match="may not be read"):
        load_kernel(tmp_path / "k")


def test_a_pipe_will_do(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"through a pipe"))
    writer.start()
    assert read_file(pipe, "initrd") == b"through a pipe"
    writer.join()


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doppel.guests.files.MAX_SIZE", 1000)
    (tmp_path / "k").write_bytes(bytes(1001))
    with pytest.raises(DoppelError, match="larger than"):
        load_kernel(tmp_path / "k")
    (tmp_path / "k").write_bytes(gzip.compress(bytes(100_000)))
    with pytest.raises(DoppelError, match=r"larger than .* when decompressed"):
        load_kernel(tmp_path / "k")


def test_fitting_into_memory(kernel_of: Callable[..., Kernel]) -> None:
    kernel = kernel_of(_image(image_size=40 << 20))
    place = RAM + kernel.load_offset
    kernel.check_fits(place, RAM, 42 << 20)
    with pytest.raises(DoppelError, match=r"needs 42 MiB of memory and the machine has 41 MiB.*--memory 64M"):
        kernel.check_fits(place, RAM, 41 << 20)
    program = kernel_of(_elf(entry=0, segments=((0x1000, 0x1000, b"code", 64),)))
    with pytest.raises(DoppelError, match="made for the address 0x1000"):
        program.check_fits(0, RAM, 1 << 30)
    with pytest.raises(DoppelError, match="made for the address"):
        kernel_of(_elf(segments=((1 << 50, 1 << 50, b"c", 4),))).check_fits(0, RAM, 1 << 30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(
    st.sampled_from([_elf(symbols={"tohost": RAM}), _image(), _zboot(gzip.compress(_image()))]),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 10000),
)
def test_damage_is_told_or_harmless(
    tmp_path: Path, original: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(original)
    for position, value in changes:
        data[position % len(data)] = value
    path = tmp_path / "kernel.bin"
    path.write_bytes(bytes(data[: max(length, 1)]))
    try:
        kernel = load_kernel(path)
        assert kernel.symbols is not None
        assert all(len(segment.data) <= segment.memory_size for segment in kernel.segments)
        kernel.check_fits(RAM, RAM, 1 << 20)
    except DoppelError:
        pass


@given(st.binary(max_size=200))
def test_decompression_of_nonsense(data: bytes) -> None:
    for name in ("gzip", "xz", "lzma", "bzip2"):
        with contextlib.suppress(DoppelError):
            decompress(data, name, Path("x"))
