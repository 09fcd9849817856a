from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from doppel.cache import Cache, default_root
from doppel.errors import DoppelError


def _everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert default_root() == Path("/some/where/doppel")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_root() == Path("/home/someone/.cache/doppel")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert Cache().root == Path("/home/someone/.cache/doppel")


def test_nothing_is_made_by_looking(cache: Cache) -> None:
    assert cache.entries() == []
    assert not cache.root.exists()


def test_write_and_replace(cache: Cache) -> None:
    assert cache.write("known/x", b"one").read_bytes() == b"one"
    assert cache.write("known/x", b"two").read_bytes() == b"two"
    assert _everything(cache.root) == ["known/x"]


def test_folder_appears_whole(cache: Cache) -> None:
    with cache.folder("guests/g") as place:
        (place / "sub").mkdir()
        (place / "sub/file").write_bytes(b"x")
        assert not (cache.root / "guests/g").exists()
    assert _everything(cache.root) == ["guests/g/sub/file"]


def test_folder_of_the_faster_one_stays(cache: Cache) -> None:
    with cache.folder("guests/g") as mine:
        (mine / "by").write_bytes(b"me")
        with cache.folder("guests/g") as theirs:
            (theirs / "by").write_bytes(b"them")
    assert (cache.root / "guests/g/by").read_bytes() == b"them"
    assert _everything(cache.root) == ["guests/g/by"]


@pytest.mark.parametrize("exception", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_stays_of_what_fails(cache: Cache, exception: type[BaseException]) -> None:
    with pytest.raises(exception), cache.folder("guests/g") as place:
        (place / "file").write_bytes(b"half")
        raise exception
    with pytest.raises(exception), cache.scratch() as folder:
        (folder / "deep").mkdir()
        raise exception
    assert _everything(cache.root) == []
    assert not list((cache.root / "tmp").iterdir())


def test_listing_and_removing(cache: Cache) -> None:
    cache.write("packages/b.deb", b"12345")
    with cache.folder("guests/a-1") as place:
        (place / "kernel").write_bytes(b"1234")
        (place / "initrd").write_bytes(b"123")
    entries = {entry.name: entry for entry in cache.entries()}
    assert {(e.shelf, e.name, e.size) for e in entries.values()} == {
        ("packages", "b.deb", 5),
        ("guests", "a-1", 7),
    }
    assert abs(entries["a-1"].modified - time.time()) < 60
    cache.remove(entries["a-1"])
    cache.remove(entries["a-1"])
    assert [entry.name for entry in cache.entries()] == ["b.deb"]
    cache.remove(entries["b.deb"])
    assert _everything(cache.root) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room(cache: Cache, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DoppelError, match=r"no room in the cache folder .* free space"):
        cache.write("packages/x", b"data")
    assert _everything(cache.root) == []


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs root to mount a small disk")
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        cache = Cache(disk / "doppel")
        cache.write("packages/small", b"fits")
        with pytest.raises(DoppelError, match="no room"):
            cache.write("packages/large", bytes(1 << 20))
        with pytest.raises(DoppelError, match="no room"), cache.folder("guests/g") as place:
            (place / "file").write_bytes(bytes(1 << 20))
        with pytest.raises(DoppelError, match=r"no room.* 9 MB are needed and 0 MB are free"):
            cache.reserve(9_000_000)
        assert _everything(cache.root) == ["packages/small"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_not_writable(cache: Cache, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(self: Path, *args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    for attempt in (
        lambda: cache.write("packages/x", b""),
        lambda: cache.lock("x").__enter__(),
        lambda: cache.reserve(1),
    ):
        with pytest.raises(DoppelError, match=r"cannot be written .*XDG_CACHE_HOME"):
            attempt()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_bytes(b"")
    cache = Cache(tmp_path / "occupied")
    with pytest.raises(DoppelError, match=r"cannot be used: .*XDG_CACHE_HOME"):
        cache.write("packages/x", b"")
    with pytest.raises(DoppelError, match="cannot be used"):
        cache.entries()


def test_reserve(cache: Cache) -> None:
    cache.reserve(1)
    with pytest.raises(DoppelError, match=r"no room.*needed"):
        cache.reserve(1 << 60)


def test_locks_exclude_threads(cache: Cache) -> None:
    order = []
    inside = threading.Event()

    def second() -> None:
        inside.wait(10)
        with cache.lock("x", lambda: order.append("waits")):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with cache.lock("x"):
        inside.set()
        while "waits" not in order:
            time.sleep(0.001)
        order.append("first")
    thread.join(10)
    assert order == ["waits", "first", "second"]


def test_other_locks_do_not_wait(cache: Cache) -> None:
    def never() -> None:
        raise AssertionError

    with cache.lock("a", never), cache.lock("b", never):
        pass
    with cache.lock("a", never):
        pass


_WRITER = """
import sys, time
from pathlib import Path
from doppel.cache import Cache
with Cache(Path(sys.argv[1])).folder("guests/g") as place:
    (place / "file").write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(("number", "cleaned"), [(signal.SIGINT, True), (signal.SIGKILL, False)])
def test_a_writer_that_dies(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, cleaned: bool
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(cache.root)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        (leftover,) = (cache.root / "tmp").iterdir()
        old = time.time() - 3600
        os.utime(leftover, (old, old))
        cache.write("packages/x", b"")
        assert leftover.exists(), "what is being written is not taken for a leftover, however old"
        process.send_signal(number)
        process.wait(10)
    assert cache.entries() == [e for e in cache.entries() if e.shelf == "packages"]
    if cleaned:
        assert not leftover.exists()
    else:
        assert leftover.exists()
        os.utime(leftover, (old, old))
        cache.write("packages/y", b"")
        assert not leftover.exists()


def test_works_without_flock(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with cache.lock("x"):
        cache.write("packages/x", b"data")
    leftover = cache.root / "tmp/old"
    leftover.mkdir()
    os.utime(leftover, (0, 0))
    cache.write("packages/y", b"data")
    assert leftover.exists(), "without locks nobody can tell whether it is being written"
