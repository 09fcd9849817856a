from __future__ import annotations

import contextlib
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.errors import DoppelError
from doppel.guests import cpio

parts = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
paths = st.lists(parts.filter(lambda part: part not in (".", "..")), min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(paths, st.binary(max_size=60)))
def test_files_come_back(files: dict[str, bytes]) -> None:
    archive = cpio.Archive()
    added = {}
    for path, data in files.items():
        try:
            archive.file(path, data)
        except DoppelError:
            assert path == "TRAILER!!!" or any(
                path.startswith(other + "/") or other.startswith(path + "/") for other in files
            )
        else:
            added[path] = data
    entries = list(cpio.read(archive.to_bytes()))
    assert {e.name: e.data for e in entries if stat.S_ISREG(e.mode)} == added
    seen: set[str] = set()
    for entry in entries:
        parent = entry.name.rpartition("/")[0]
        assert not parent or parent in seen, "a folder comes before what is in it"
        seen.add(entry.name)


def _sample() -> cpio.Archive:
    archive = cpio.Archive()
    archive.file("usr/bin/x", b"abc", 0o755)
    archive.directory("/tmp", 0o1777)
    archive.symlink("bin", "usr/bin")
    archive.device("dev/console", "c", 5, 1)
    archive.device("dev/vda", "b", 254, 0)
    return archive


def test_kinds() -> None:
    entries = {entry.name: entry for entry in cpio.read(_sample().to_bytes())}
    assert list(entries) == sorted(entries)
    assert entries["usr/bin/x"].mode == stat.S_IFREG | 0o755
    assert entries["tmp"].mode == stat.S_IFDIR | 0o1777
    assert entries["bin"] == cpio.Entry("bin", stat.S_IFLNK | 0o777, b"usr/bin")
    assert entries["dev/console"] == cpio.Entry("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1))
    assert stat.S_ISBLK(entries["dev/vda"].mode)
    assert entries["usr"].mode == stat.S_IFDIR | 0o755


def test_the_same_entries_give_the_same_bytes() -> None:
    other = cpio.Archive()
    for entry in reversed(_sample().entries()):
        other._add(entry.name, entry.mode, entry.data, entry.device)
    assert other.to_bytes() == _sample().to_bytes()
    assert len(_sample().to_bytes()) % 512 == 0


@pytest.mark.skipif(shutil.which("cpio") is None, reason="no cpio on this host")
def test_cpio_agrees(tmp_path: Path) -> None:
    archive = cpio.Archive()
    archive.file("a/b", b"contents", 0o640)
    archive.symlink("a/c", "b")
    listing = subprocess.run(
        ["cpio", "-itv", "--quiet"], input=archive.to_bytes(), capture_output=True, check=True
    ).stdout.decode()
    lines = [line.split() for line in listing.splitlines()]
    assert [(line[0], line[1], line[8:]) for line in lines] == [
        ("drwxr-xr-x", "2", ["a"]),
        ("-rw-r-----", "1", ["a/b"]),
        ("lrwxrwxrwx", "1", ["a/c", "->", "b"]),
    ]
    subprocess.run(["cpio", "-id", "--quiet"], input=archive.to_bytes(), cwd=tmp_path, check=True)
    assert (tmp_path / "a/c").read_bytes() == b"contents"


def test_later_file_replaces_earlier() -> None:
    archive = cpio.Archive()
    archive.file("init", b"old")
    archive.file("/init", b"new", 0o755)
    (entry,) = cpio.read(archive.to_bytes())
    assert (entry.data, entry.mode & 0o777) == (b"new", 0o755)


def test_concatenated_archives_are_read_in_order() -> None:
    first, second = cpio.Archive(), cpio.Archive()
    first.file("a", b"1")
    second.file("b", b"2")
    assert [e.name for e in cpio.read(first.to_bytes() + second.to_bytes())] == ["a", "b"]


@pytest.mark.parametrize(
    "path", ["", "/", "..", "a/../b", "a\0b", "TRAILER!!!", "x" * 4096, "y/" * 2048 + "z"]
)
def test_unusable_paths(path: str) -> None:
    with pytest.raises(DoppelError):
        cpio.Archive().file(path, b"")


def test_limits_of_the_format() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 1 << 32

    archive = cpio.Archive()
    with pytest.raises(DoppelError, match="more than an initramfs can hold"):
        archive.file("huge", Huge())
    with pytest.raises(DoppelError):
        archive.device("d", "c", 1 << 12, 0)
    with pytest.raises(DoppelError):
        archive.device("d", "c", 0, 1 << 20)
    with pytest.raises(DoppelError):
        archive.symlink("l", "t" * 4097)
    with pytest.raises(DoppelError):
        archive.symlink("l", "")
    assert not archive.entries()


def test_a_path_cannot_be_file_and_folder() -> None:
    archive = cpio.Archive()
    archive.file("a/b", b"")
    with pytest.raises(DoppelError, match="file and a folder"):
        archive.file("a", b"")
    with pytest.raises(DoppelError, match="not a folder"):
        archive.file("a/b/c", b"")
    with pytest.raises(DoppelError, match="file and a folder"):
        archive.directory("a/b")


@given(st.integers(0, 1500), st.integers(1, 255))
def test_damage_is_told_or_harmless(position: int, flip: int) -> None:
    """A damaged archive gives entries or a DoppelError, and nothing else."""
    data = bytearray(_sample().to_bytes())
    data[position % len(data)] ^= flip
    with contextlib.suppress(DoppelError):
        list(cpio.read(bytes(data)))


def test_truncation_is_told() -> None:
    data = _sample().to_bytes()
    whole = len(data.rstrip(b"\0"))
    for end in range(1, whole - 20, 7):
        entries: list[cpio.Entry] = []
        try:
            entries.extend(cpio.read(data[:end]))
        except DoppelError:
            continue
        assert len(entries) < len(_sample().entries()) or end > whole - 124
