from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doppel.errors import DoppelError
from doppel.guests import stanza
from doppel.guests.deb import Deb, ar_members

names = st.text(st.sampled_from("abcdefgh.-_"), min_size=1, max_size=15)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names, st.binary(max_size=33)))
def test_ar_members_come_back(
    make_ar: Callable[[Mapping[str, bytes]], bytes], members: dict[str, bytes]
) -> None:
    archive = make_ar(members)
    found = {name: archive[start : start + size] for name, start, size in ar_members(archive)}
    assert found == members


def test_ar_names_with_a_slash(make_ar: Callable[[Mapping[str, bytes]], bytes]) -> None:
    """System V's ar ends names with a slash, Debian's does not."""
    assert [name for name, _, _ in ar_members(make_ar({"data.tar/": b""}))] == ["data.tar"]


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("compression", ["xz", "gz", ""])
def test_contents(tmp_path: Path, make_deb: Callable[..., bytes], compression: str) -> None:
    files = {"boot/vmlinux-1": b"kernel" * 1000, "usr/share/doc/x": b"doc", "boot/empty": b""}
    data = make_deb("linux", files, version="1:2.0~rc1-3", compression=compression, depends="a, b")
    deb = Deb(_write(tmp_path / "x.deb", data))
    assert (deb.package, deb.version, deb.architecture) == ("linux", "1:2.0~rc1-3", "riscv64")
    assert deb.control["Depends"] == "a, b"
    assert deb.control["Description"] == "made for a test\nof several\nlines"
    assert deb.files(lambda name: name.startswith("boot/")) == {
        "boot/vmlinux-1": b"kernel" * 1000,
        "boot/empty": b"",
    }
    assert deb.files(lambda name: True) == files, "links and folders are left out"
    assert deb.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg on this host")
def test_packages_of_dpkg(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: m <m@example.org>\nDescription: d\n"
    )
    (tree / "usr").mkdir()
    (tree / "usr/file").write_bytes(b"hello")
    command = ["dpkg-deb", "-Zxz", "--root-owner-group", "--build", str(tree), str(tmp_path / "p.deb")]
    subprocess.run(command, check=True, capture_output=True)
    deb = Deb(tmp_path / "p.deb")
    assert (deb.package, deb.files(lambda name: True)) == ("p", {"usr/file": b"hello"})


def test_unknown_compression(tmp_path: Path, make_deb: Callable[..., bytes]) -> None:
    deb = Deb(_write(tmp_path / "x.deb", make_deb(compression="zst")))
    with pytest.raises(DoppelError, match=r"compressed with zst.*repack"):
        deb.files(lambda name: True)


def test_every_truncation_is_told(tmp_path: Path, make_deb: Callable[..., bytes]) -> None:
    data = make_deb(files={"boot/x": bytes(range(256)) * 8})
    # The last byte only pads the last member to an even length.
    lengths = range(1, len(data) - 1, 3)
    for length in lengths:
        path = _write(tmp_path / "x.deb", data[:length])
        with pytest.raises(DoppelError):
            Deb(path).files(lambda name: True)
    assert len(lengths) > 100


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.integers(0, 5000), st.integers(1, 255))
def test_damage_is_told_or_harmless(
    tmp_path: Path, make_deb: Callable[..., bytes], position: int, flip: int
) -> None:
    files = {"boot/x": bytes(range(256)) * 8}
    data = bytearray(make_deb(files=files))
    data[position % len(data)] ^= flip
    path = _write(tmp_path / "x.deb", bytes(data))
    try:
        deb = Deb(path)
        assert deb.control["Package"] == "example"
        assert deb.files(lambda name: True) == files
    except DoppelError:
        pass


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"hello, world", "not an ar archive"),
        (b"!<arch>\n", "not a Debian package"),
    ],
)
def test_other_files(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(DoppelError, match=reason):
        Deb(_write(tmp_path / "x.deb", data))


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DoppelError, match="No such file"):
        Deb(tmp_path / "absent.deb")
    with pytest.raises(DoppelError, match="directory"):
        Deb(tmp_path)


def test_without_control(tmp_path: Path, make_ar: Callable[[Mapping[str, bytes]], bytes]) -> None:
    deb = Deb(_write(tmp_path / "x.deb", make_ar({"debian-binary": b"2.0\n"})))
    with pytest.raises(DoppelError, match=r"no control\.tar"):
        deb.control  # noqa: B018


def test_stanzas() -> None:
    text = "# a comment\nA: 1\nB: x\n y\n# inside\n .\n\n\nnonsense\nC:\n  z\n"
    assert stanza.parse(text) == [{"A": "1", "B": "x\ny\n."}, {"C": "\nz"}]
    assert stanza.parse("") == []
    assert stanza.parse(" stray continuation\n") == []
