"""What the values of options mean, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from doppel.cli.options import DiskOption, Share, parse_disk, parse_network, parse_share, parse_size
from doppel.devices.backends.disk import RawDisk, SnapshotDisk
from doppel.devices.backends.network import Loopback
from doppel.errors import DoppelError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512M", 512 << 20),
        ("512m", 512 << 20),
        ("2G", 2 << 30),
        ("2GiB", 2 << 30),
        ("2gb", 2 << 30),
        ("65536K", 64 << 20),
        ("134217728", 128 << 20),
        (" 1M ", 1 << 20),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not an amount"),
        ("lots", "not an amount"),
        ("-1M", "not an amount"),
        ("1.5G", "not an amount"),
        ("0x100M", "not an amount"),
        ("512MM", "not an amount"),
        ("٣M", "not an amount"),
        ("0", "at least 1M"),
        ("4K", "at least 1M"),
        ("2T", "less"),
        ("9" * 15 + "T", "less"),
        ("1048577", "pages"),
    ],
)
def test_wrong_sizes(text: str, complaint: str) -> None:
    with pytest.raises(DoppelError, match=complaint):
        parse_size(text)


def test_disks(tmp_path: Path) -> None:
    assert parse_disk("a.img") == DiskOption(Path("a.img"))
    assert parse_disk("a.img,readonly") == DiskOption(Path("a.img"), readonly=True)
    assert parse_disk("a.img,snapshot") == DiskOption(Path("a.img"), snapshot=True)
    odd = tmp_path / "a,b"
    odd.write_bytes(bytes(512))
    assert parse_disk(str(odd)) == DiskOption(odd)
    assert parse_disk(f"{odd},readonly") == DiskOption(odd, readonly=True)
    disk = parse_disk(f"{odd},snapshot").open()
    assert isinstance(disk, SnapshotDisk)
    disk.close()
    disk = parse_disk(f"{odd}").open()
    assert isinstance(disk, RawDisk)
    disk.close()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "needs a path"),
        (",readonly", "needs a path"),
        ("a.img,fast", "does not know 'fast'"),
        ("a.img,readonly,snapshot", "both"),
    ],
)
def test_wrong_disks(text: str, complaint: str) -> None:
    with pytest.raises(DoppelError, match=complaint):
        parse_disk(text)


def test_shares(tmp_path: Path) -> None:
    odd = tmp_path / "x:y"
    odd.mkdir()
    assert parse_share(str(tmp_path)) == Share(tmp_path, "share")
    assert parse_share(str(tmp_path), 2) == Share(tmp_path, "share2")
    assert parse_share(f"{tmp_path}:home") == Share(tmp_path, "home")
    assert parse_share(f"{tmp_path}:home,readonly") == Share(tmp_path, "home", readonly=True)
    assert parse_share(str(odd)) == Share(odd, "share")
    assert parse_share(f"{odd}:z") == Share(odd, "z")


def test_wrong_shares(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for text, complaint in [
        (str(tmp_path / "nowhere"), "does not exist"),
        (str(tmp_path / "file"), "is not a folder"),
        (f"{tmp_path}:a b", "tag"),
        (f"{tmp_path}:", "tag"),
        (f"{tmp_path}:{'a' * 37}", "tag"),
        (f"{tmp_path},writable", "does not know 'writable'"),
    ]:
        with pytest.raises(DoppelError, match=complaint):
            parse_share(text)


def test_networks() -> None:
    assert isinstance(parse_network("loopback"), Loopback)
    for text in ("", "bridge", "loopback:x", "tap:"):
        with pytest.raises(DoppelError, match="not a network"):
            parse_network(text)
