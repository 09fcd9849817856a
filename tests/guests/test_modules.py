from __future__ import annotations

import contextlib
import gzip
import io
import lzma
from collections.abc import Callable
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile as _ELFFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doppel.errors import DoppelError
from doppel.guests import modules
from doppel.guests.strip import lean

Build = Callable[..., bytes]
# The library's types do not follow from a section's name to its kind.
ELFFile: Any = _ELFFile


def _files(make_module: Build) -> dict[str, bytes]:
    def module(name: str, depends: str = "", *aliases: str) -> bytes:
        return make_module([f"depends={depends}", f"name={name}", *(f"alias={alias}" for alias in aliases)])

    return {
        "kernel/fs/ext4/ext4.ko.xz": lzma.compress(module("ext4", "jbd2,mbcache", "fs-ext4", "ext3")),
        "kernel/fs/jbd2/jbd2.ko.xz": lzma.compress(module("jbd2", "crc-16")),
        "kernel/fs/mbcache.ko": module("mbcache"),
        "kernel/lib/crc16.ko.gz": gzip.compress(module("crc16")),
        "kernel/lib/crc-16.ko.gz": gzip.compress(module("crc_16", "", "crypto-crc16")),
        "kernel/drivers/virtio-rng.ko": module("virtio_rng", "", "virtio:d00000004v*"),
    }


def test_dependencies_come_first(make_module: Build) -> None:
    chosen = modules.select(_files(make_module), ["ext4", "virtio_rng", "builtin_or_absent", "ext4"])
    assert [module.name for module in chosen] == ["crc_16", "jbd2", "mbcache", "ext4", "virtio_rng"]
    assert chosen[3].path == "kernel/fs/ext4/ext4.ko"
    assert chosen[3].depends == ("jbd2", "mbcache")


def test_names_with_dash_and_underscore_are_the_same(make_module: Build) -> None:
    for wanted in ("virtio-rng", "virtio_rng"):
        assert [module.name for module in modules.select(_files(make_module), [wanted])] == ["virtio_rng"]


def test_tables(make_module: Build) -> None:
    chosen = modules.select(_files(make_module), ["ext4", "virtio_rng"])
    assert modules.dependency_table(chosen).splitlines() == [
        "kernel/lib/crc-16.ko:",
        "kernel/fs/jbd2/jbd2.ko: kernel/lib/crc-16.ko",
        "kernel/fs/mbcache.ko:",
        "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc-16.ko kernel/fs/mbcache.ko",
        "kernel/drivers/virtio-rng.ko:",
    ]
    assert modules.alias_table(chosen).splitlines() == [
        "alias crypto-crc16 crc_16",
        "alias fs-ext4 ext4",
        "alias ext3 ext4",
        "alias virtio:d00000004v* virtio_rng",
    ]


def test_missing_dependency(make_module: Build) -> None:
    files = _files(make_module)
    del files["kernel/lib/crc-16.ko.gz"]
    with pytest.raises(DoppelError, match="lacks the module crc_16 that jbd2 depends on"):
        modules.select(files, ["ext4"])


@pytest.mark.parametrize("cycle", [["a"], ["b", "a"], ["b", "c", "a"]])
def test_circular_dependencies(make_module: Build, cycle: list[str]) -> None:
    names = ["a", *cycle[:-1]]
    files = {
        f"{name}.ko": make_module([f"depends={needs}"]) for name, needs in zip(names, cycle, strict=True)
    }
    with pytest.raises(DoppelError, match="depend on each other"):
        modules.select(files, ["a"])


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.ko.xz", b"not xz", "damaged"),
        ("a.ko.gz", b"not gzip", "damaged"),
        ("a.ko", b"not ELF", "damaged"),
        ("a.ko.zst", b"", "cannot read"),
    ],
)
def test_bad_modules(name: str, data: bytes, reason: str) -> None:
    with pytest.raises(DoppelError, match=f"module {name} .*{reason}"):
        modules.select({name: data}, ["a"])


def _symbols(module: bytes) -> list[str]:
    table = ELFFile(io.BytesIO(module)).get_section_by_name(".symtab")
    return [symbol.name for symbol in table.iter_symbols()]


def test_lean_keeps_what_the_kernel_needs(make_module: Build) -> None:
    original = make_module(["name=x"], symbols=500, signed=True)
    stripped = lean(original)
    assert _symbols(stripped) == ["", ".L499", "a_function", "init_module"]
    assert len(stripped) < len(original) / 5

    before, after = ELFFile(io.BytesIO(original)), ELFFile(io.BytesIO(stripped))
    for name in (".text", ".modinfo"):
        assert after.get_section_by_name(name).data() == before.get_section_by_name(name).data()
        assert (
            after.get_section_by_name(name)["sh_addralign"]
            == before.get_section_by_name(name)["sh_addralign"]
        )
    table = after.get_section_by_name(".symtab")
    assert table["sh_info"] == 3, "the number of local symbols"

    def relocations(file: Any) -> list[tuple[int, int, int, str]]:
        section = file.get_section_by_name(".rela.text")
        symbols = file.get_section(section["sh_link"])
        return [
            (r["r_offset"], r["r_info_type"], r["r_addend"], symbols.get_symbol(r["r_info_sym"]).name)
            for r in section.iter_relocations()
        ]

    assert relocations(after) == relocations(before) == [(0, 19, 5, ".L499"), (8, 2, 0, "init_module")]


def test_lean_drops_the_signature_only_if_there_is_one(make_module: Build) -> None:
    assert lean(make_module(["name=x"], signed=True)) == lean(make_module(["name=x"]))
    assert lean(b"anything else") == b"anything else"
    assert lean(b"~Module signature appended~\n") == b"~Module signature appended~\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.integers(0, 2000), st.integers(0, 255))
def test_lean_survives_damage(make_module: Build, position: int, value: int) -> None:
    data = bytearray(make_module(["name=x"], signed=True))
    data[position % len(data)] = value
    assert isinstance(lean(bytes(data)), bytes)
    with contextlib.suppress(DoppelError):
        modules.select({"x.ko": bytes(data)}, ["x"])
