from __future__ import annotations

from pathlib import Path

import pytest

from doppel.guests.mirrors import Mirror, from_index_targets, from_sources, keyrings

DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

DEB822 = """\
Types: deb deb-src
URIs: http://first.example/debian/ mirror+file:/etc/apt/mirrors
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

# switched off
Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

types: deb-src
uris: http://sources.example/debian
suites: bookworm
components: main
"""

ONE_LINE = """\
# deb http://comment.example/debian bookworm main
deb cdrom:[Debian GNU/Linux 12]/ bookworm main
deb [arch=amd64 signed-by=/etc/keys/company.gpg,/etc/keys/other.asc] https://cache.example/deb sid main # x
deb-src http://src.example/debian bookworm main
deb http://browser.example/linux/ stable main
deb http://docker.example/linux/debian bookworm stable
deb http://ubuntu.example/ubuntu jammy main
deb\thttp://plain.example/debian\ttrixie\tmain
nonsense
"""


def _sources(tmp_path: Path, **files: str) -> list[Mirror]:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return from_sources(tmp_path / "sources.list", folder)


def test_deb822(tmp_path: Path) -> None:
    assert _sources(tmp_path, debian_sources=DEB822) == [
        Mirror("http://first.example/debian", (DEBIAN_KEYS,)),
        Mirror("mirror+file:/etc/apt/mirrors", (DEBIAN_KEYS,)),
    ]


def test_one_line(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(ONE_LINE)
    company = (Path("/etc/keys/company.gpg"), Path("/etc/keys/other.asc"))
    assert _sources(tmp_path) == [
        Mirror("http://plain.example/debian"),
        Mirror("https://cache.example/deb", company),
        Mirror("http://browser.example/linux"),
    ]


def test_likeliest_first(tmp_path: Path) -> None:
    found = _sources(tmp_path, a_list=ONE_LINE, z_sources=DEB822)
    assert found[0] == Mirror("http://first.example/debian", (DEBIAN_KEYS,))
    assert found[-1] == Mirror("http://browser.example/linux")


def test_other_files_are_not_read(tmp_path: Path) -> None:
    line = "deb http://old.example/debian bookworm main\n"
    assert _sources(tmp_path, x_bak=line, y_disabled=line) == []


def test_inline_key_and_fingerprint_are_no_files(tmp_path: Path) -> None:
    text = "Types: deb\nURIs: http://x.example/debian\nSuites: sid\nComponents: main\nSigned-By:{}\n"
    inline = text.format("\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n /not/a/file?no: a line of a key\n")
    assert _sources(tmp_path, a_sources=inline)[0].uri == "http://x.example/debian"
    (tmp_path / "sources.list.d/a.sources").write_text(text.format(" 0123456789ABCDEF"))
    assert from_sources(tmp_path / "none", tmp_path / "sources.list.d")[0].keyrings == ()


def test_no_sources(tmp_path: Path) -> None:
    assert from_sources(tmp_path / "absent", tmp_path / "absent.d") == []


def test_index_targets() -> None:
    listing = """\
MetaKey: main/binary-amd64/Packages
Origin: Debian
Label: Debian-Security
Component: main
Repo-URI: http://a.example/debian-security/

MetaKey: main/binary-amd64/Packages
Origin: Debian
Label: Debian
Component: main
Repo-URI: http://a.example/odd/path/
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Origin: Debian
Label: Debian
Component: main
Repo-URI: http://a.example/odd/path/
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Origin: Debian
Label: Debian
Component: contrib
Repo-URI: http://b.example/debian/

Origin: Vendor
Label: Vendor
Component: main
Repo-URI: http://c.example/
"""
    assert from_index_targets(listing) == [Mirror("http://a.example/odd/path", (DEBIAN_KEYS,))]
    assert from_index_targets("") == []


@pytest.mark.parametrize("name", ["debian-archive-keyring.gpg", "debian-archive-keyring.pgp"])
def test_keyring_of_the_package(tmp_path: Path, name: str) -> None:
    whole = tmp_path / "usr/share/keyrings" / name
    whole.parent.mkdir(parents=True)
    whole.write_bytes(b"keys")
    assert keyrings(tmp_path) == [whole]


def test_keyrings_among_the_trusted(tmp_path: Path) -> None:
    trusted = tmp_path / "etc/apt/trusted.gpg.d"
    trusted.mkdir(parents=True)
    for name in ("debian-archive-trixie-stable.asc", "debian-archive-bookworm.gpg", "vendor.gpg"):
        (trusted / name).write_bytes(b"keys")
    assert [path.name for path in keyrings(tmp_path)] == [
        "debian-archive-bookworm.gpg",
        "debian-archive-trixie-stable.asc",
    ]
    assert keyrings(tmp_path / "nowhere") == []
