"""The engine's object file: built once, found by content, never trusted when damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from doppel.translate import build
from doppel.translate.build import EXPORTED, Built, EngineCode, build_object, load_engine, object_key
from doppel.translate.module import module_text

Load = Callable[[], EngineCode]


@pytest.fixture(scope="session")
def image() -> Built:
    """The object as the session's cache has it, or else as it is built."""
    return build._load_parts()[0]


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch, image: Built) -> list[int]:
    """Building costs nothing here, and is counted."""
    made: list[int] = []

    def instead() -> Built:
        made.append(len(made))
        return image

    monkeypatch.setattr(build, "build_object", instead)
    return made


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    """Load as a new process does, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "_load_parts", build._load_parts.__wrapped__)
    return load_engine.__wrapped__


def cached(tmp_path: Path) -> Path:
    return tmp_path / "doppel" / "engine" / f"{object_key()}.o"


def test_built_once_and_then_loaded(load: Load, builds: list[int], tmp_path: Path) -> None:
    first, second = load(), load()
    assert (first.built, second.built, len(builds)) == (True, False, 1)
    assert set(first.addresses) == set(second.addresses) == set(EXPORTED)
    assert all(first.addresses.values())
    # Two copies of the same code, each at its own place.
    assert first.addresses != second.addresses
    assert [path.name for path in cached(tmp_path).parent.iterdir()] == [cached(tmp_path).name]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:1000],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"\x7fELF" + bytes(5000),
        lambda content: content[:50_000] + bytes([content[50_000] ^ 1]) + content[50_001:],
        lambda content: bytes([content[0] ^ 0x80]) + content[1:],
    ],
    ids=[
        "empty",
        "cut to the head",
        "cut by a byte",
        "longer",
        "something else",
        "a bit",
        "a bit of the digest",
    ],
)
def test_a_damaged_object_is_replaced(
    load: Load, builds: list[int], tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    load()
    path = cached(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert load().built
    assert path.read_bytes() == whole
    assert not load().built
    assert len(builds) == 2


def test_a_cache_that_cannot_be_written_does_not_matter(
    load: Load, builds: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in place of a folder stands for all that can be wrong; root may write to everything else."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load().built and load().built
    (tmp_path / "doppel").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert load().built
    assert len(builds) == 3


def test_a_folder_in_its_place_does_not_matter(load: Load, builds: list[int], tmp_path: Path) -> None:
    cached(tmp_path).mkdir(parents=True)
    (cached(tmp_path) / "inside").write_text("")
    assert load().built and load().built


def test_the_key_follows_sources_and_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = object_key.__wrapped__
    assert key() == object_key() == key()
    root = tmp_path / "doppel"
    (root / "translate").mkdir(parents=True)
    (root / "isa").mkdir()
    (root / "memory").mkdir()
    (root / "memory" / "entry.py").write_text("one")
    monkeypatch.setattr(build, "__file__", str(root / "translate" / "build.py"))
    seen = [key()]
    (root / "isa" / "words.py").write_text("two")
    seen.append(key())
    (root / "isa" / "words.py").write_text("three")
    seen.append(key())
    (root / "isa" / "words.py").rename(root / "isa" / "other.py")
    seen.append(key())
    (root / "memory" / "entry.py").write_text("four")
    seen.append(key())
    (root / "memory" / "pager.py").write_text("nothing that the engine is made of")
    assert key() == seen[-1]
    monkeypatch.setattr(build.llvm, "get_host_cpu_name", lambda: "another")
    seen.append(key())
    assert len(set(seen)) == len(seen)


def test_the_engines_text_is_the_same_every_time() -> None:
    """So that what was built of it can be found by content."""
    texts = {
        hashlib.sha256(repr(module_text("x86_64-pc-linux-gnu", "e")).encode()).digest() for _ in range(2)
    }
    assert len(texts) == 1


@pytest.mark.slow
def test_building(tmp_path: Path) -> None:
    """The real thing, which is the same each time but for nothing."""
    first, second = build_object(), build_object()
    assert first.object[:4] == b"\x7fELF"
    assert first == second
    code = build._link(first.object)
    assert all(int(code[symbol]) for symbol in EXPORTED)
