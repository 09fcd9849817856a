from __future__ import annotations

import itertools
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import doppel
from doppel.cache import Cache
from doppel.translate.regions import database
from doppel.translate.regions import store as store_module
from doppel.translate.regions.store import CODE_FILE, CodeStore, StoredRegion, chunk_hashes

from . import samples
from .samples import page, region

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / CODE_FILE


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass for what is noted as used."""
    passed = 0.0
    real = time.time

    def sleep(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    monkeypatch.setattr(time, "time", lambda: real() + passed)
    return sleep


def fill(
    path: Path, numbers: range, version: str = "version", limit: int = 64 << 20, size: int = 1500
) -> None:
    store = CodeStore(path, version, limit)
    for number in numbers:
        store.put(region(number, size))
    store.close()
    assert not store.problem


def present(path: Path, numbers: range, version: str = "version", size: int = 1500) -> set[int]:
    """Those of the regions that are stored; nothing else must be."""
    store = CodeStore(path, version)
    found = {number: store.match(page(number)) for number in numbers}
    store.close()
    assert not store.problem and not store.damaged
    assert all(regions in ([], [region(number, size)]) for number, regions in found.items())
    return {number for number, regions in found.items() if regions}


def test_round_trip(path: Path) -> None:
    store = CodeStore(path, "version")
    assert store.match(page(1)) == []
    assert not path.parent.exists(), "looking makes nothing"
    store.put(region(1))
    assert store.match(page(1)) == [region(1)], "before it is written"
    assert store.match(page(2)) == []
    store.flush()
    assert store.match(memoryview(page(1))) == [region(1)]
    store.close()
    assert present(path, range(3)) == {1}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_closed_store_is_empty(path: Path) -> None:
    store = CodeStore(path, "version")
    store.put(region(1))
    store.close()
    store.put(region(2))
    assert store.match(page(1)) == store.match(page(2)) == []
    store.flush()
    store.open()
    store.close()
    assert present(path, range(3)) == {1}


def test_full_batches_are_written(path: Path) -> None:
    store = CodeStore(path, "version")
    for number in range(70):
        store.put(region(number))
    assert present(path, range(70)) == set(range(64))
    for number in range(100, 109):
        store.put(region(number, 60_000))
    assert present(path, range(100, 109), size=60_000) == set(range(100, 109))
    store.close()


def test_the_same_guest_bytes_replace(path: Path) -> None:
    for code in (b"one", b"two"):
        store = CodeStore(path, "version")
        new = StoredRegion(2, chunk_hashes(page(1))[2], ((128, 4),), page(1)[128:132], (128,), code)
        store.put(new)
        store.put(new)
        assert store.match(page(1)) == [new]
        store.flush()
        assert store.match(page(1)) == [new]
        store.close()


def test_only_what_fits_the_page(path: Path) -> None:
    """The anchor's chunk is the same in both pages, what lies behind it is not."""
    one = bytes(range(256)) * 16
    other = one[:192] + bytes(4096 - 192)
    store = CodeStore(path, "version")
    fits_one = StoredRegion(
        2, chunk_hashes(one)[2], ((-4, 8), (160, 64)), b"????" + one[:4] + one[160:224], (160,), b"1"
    )
    fits_both = StoredRegion(
        2, chunk_hashes(one)[2], ((160, 8), (5000, 1)), one[160:168] + b"?", (160,), b"2"
    )
    store.put(fits_one)
    store.put(fits_both)
    for _ in range(2):
        assert sorted(found.code for found in store.match(one)) == [b"1", b"2"]
        assert store.match(other) == [fits_both]
        assert store.match(one[64:] + one[:64]) == [], "in another chunk"
        store.flush()
    store.close()


def test_chunk_hashes_are_the_same_everywhere() -> None:
    hashes = chunk_hashes(bytes(range(256)) * 16)
    assert len(hashes) == 64 and list(hashes[:4]) == list(hashes[60:])
    assert hashes[0] == 0x100ECE8C, "the CRC-32 of the numbers 0 to 63"
    with pytest.raises(struct.error):
        chunk_hashes(bytes(4095))


def test_what_is_no_region_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="no anchor"):
        StoredRegion(64, 0, (), b"", (), b"")
    with pytest.raises(ValueError, match="bytes long"):
        StoredRegion(0, 0, ((0, 2),), b"abc", (), b"")
    with pytest.raises(struct.error):
        CodeStore(path, "version").put(StoredRegion(0, 0, (), b"", (1 << 31,), b""))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 5), st.integers(0, 3), st.integers(0, 3000)),
            st.tuples(st.just("match"), st.integers(0, 5)),
            st.tuples(st.sampled_from(["flush", "reopen", "other version"])),
        ),
        max_size=30,
    )
)
@settings(max_examples=60, deadline=None)
def test_like_a_dictionary(steps: list[tuple[str, *tuple[int, ...]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        versions = itertools.cycle("AB")
        models: dict[str, dict[object, StoredRegion]] = {"A": {}, "B": {}}
        version = next(versions)
        store = CodeStore(Path(folder) / "file", version)
        for step, *numbers in steps:
            if step == "put":
                number, variant, size = numbers
                new = region(number, size, variant)
                store.put(new)
                models[version][new.anchor, new.ranges, new.guest] = new
            elif step == "match":
                found = store.match(page(numbers[0]))
                hashes = chunk_hashes(page(numbers[0]))
                expected = [r for r in models[version].values() if hashes[r.chunk] == r.chunk_hash]
                assert sorted(found, key=repr) == sorted(expected, key=repr)
            elif step == "flush":
                store.flush()
            else:
                store.close()
                version = next(versions) if step == "other version" else version
                store = CodeStore(Path(folder) / "file", version)
        store.close()
        assert not store.problem and not store.damaged


def test_versions_are_apart_and_the_others_go_first(path: Path) -> None:
    limit = 1 << 20
    fill(path, range(100), "mine", limit)
    fill(path, range(100, 200), "other", limit)
    assert present(path, range(200), "mine") == set(range(100))
    assert present(path, range(200), "other") == set(range(100, 200))
    fill(path, range(200, 500), "mine", limit)
    assert present(path, range(500), "other") == set()
    assert present(path, range(500), "mine") >= set(range(250, 500))


def test_the_least_recently_used_go_first(path: Path, clock: Callable[[float], None]) -> None:
    limit = 1 << 20
    fill(path, range(150), limit=limit)
    clock(7200)
    assert present(path, range(50)) == set(range(50)), "this is their use"
    clock(7200)
    fill(path, range(150, 400), limit=limit)
    left = present(path, range(400))
    assert left >= set(range(200, 400))
    assert len(left & set(range(50))) > len(left & set(range(50, 150)))
    assert not left & set(range(50, 150)) or left >= set(range(50))


def test_the_size_is_bounded(path: Path) -> None:
    limit = 1 << 20
    store = CodeStore(path, "version", limit)
    chosen = random.Random(5)
    for number in range(3000):
        store.put(region(number, int(chosen.lognormvariate(7.5, 0.8))))
        if number % 16 == 0:
            store.flush()
            assert path.stat().st_size <= limit
    store.put(region(5000, limit // 8))
    assert store.match(page(5000)) == [], "too large a part of it"
    store.close()
    assert not store.problem
    last = CodeStore(path, "version", limit)
    assert sum(len(last.match(page(number))) for number in range(2900, 3000)) == 100
    last.close()


def test_a_smaller_limit_makes_the_file_smaller(path: Path) -> None:
    fill(path, range(1000))
    assert path.stat().st_size > 2 << 20
    fill(path, range(1000, 1001), limit=1 << 20)
    assert path.stat().st_size <= 1 << 20
    left = present(path, range(1001))
    assert 1000 in left and len(left) > 300


def test_generated_code_does_not_crowd_an_anchor(path: Path) -> None:
    """A guest may generate any number of regions that begin alike."""
    store = CodeStore(path, "version")
    start = bytes(64)
    for number in range(200):
        guest = start + number.to_bytes(4, "little")
        store.put(StoredRegion(0, chunk_hashes(bytes(4096))[0], ((0, 64), (4096, 4)), guest, (0,), b"code"))
    store.flush()
    numbers = [int.from_bytes(found.guest[-4:], "little") for found in store.match(bytes(4096))]
    assert sorted(numbers) == list(range(184, 200))
    store.close()


def test_many_small_batches_are_joined(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_MANY_LISTS", 10)
    for number in range(30):
        fill(path, range(number, number + 1))
    assert present(path, range(31)) == set(range(30))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM anchors").fetchone()[0] <= 12
    connection.close()


def test_close_from_another_thread(path: Path) -> None:
    store = CodeStore(path, "version")
    store.put(region(1))
    store.flush()
    store.put(region(2))
    thread = threading.Thread(target=store.close)
    thread.start()
    thread.join()
    assert not store.problem
    assert present(path, range(3)) == {1, 2}


# Several processes


def writer(path: Path, first: int, count: int, batch: int) -> subprocess.Popen[str]:
    search = [str(Path(doppel.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, samples.__file__, str(path), str(first), str(count), str(batch)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_several_processes_at_once(path: Path) -> None:
    count = 400
    processes = [writer(path, first, count, 10) for first in (0, 200, 1000)]
    reader = CodeStore(path, "version")
    while any(process.poll() is None for process in processes):
        number = random.randrange(1400)
        assert reader.match(page(number)) in ([], [region(number)])
        time.sleep(0.001)
    reader.close()
    for process in processes:
        assert process.communicate(timeout=60)[0].split()[-1] == str(int(process.args[3]) + count)
    assert not reader.problem
    left = present(path, range(1400))
    assert left == {*range(600), *range(1000, 1400)}


def test_killed_while_writing(path: Path) -> None:
    first, chosen, end = 0, random.Random(1), time.monotonic() + 20
    for _ in range(12):
        with writer(path, first, 100_000, 4) as process:
            assert process.stdout is not None
            output = process.stdout.readline()
            time.sleep(chosen.uniform(0, 0.1))
            process.kill()
            output += process.stdout.read()
        written = int(output.split()[-1])
        assert present(path, range(first, written)) == set(range(first, written))
        first = written
        if time.monotonic() > end:
            break
    assert present(path, range(first)) == set(range(first))


def test_another_doppel_has_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for long, and what could not be written is written later."""
    fill(path, range(10))
    store = CodeStore(path, "version")
    store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    assert store.match(page(1)) == []
    for number in range(10, 200):
        store.put(region(number))
    for _ in range(100):
        store.match(page(2))
    assert time.monotonic() - started < 1
    assert store.match(page(100)) == [region(100)]
    other.execute("ROLLBACK")
    other.close()
    monkeypatch.setattr(store_module, "_PAUSE", 0.0)
    time.sleep(1.0)
    assert store.match(page(1)) == [region(1)]
    store.close()
    assert not store.problem
    assert present(path, range(200)) == set(range(200))


def test_what_waits_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_WAITING_BYTES", 200_000)
    fill(path, range(1))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    store = CodeStore(path, "version")
    for number in range(300):
        store.put(region(number))
    assert "another doppel" in store.problem
    store.close()
    other.close()


# Damage


@cache
def whole_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        for first in range(0, 40, 10):
            fill(path, range(first, first + 10))
        fill(path, range(100, 110), size=9000)
        return path.read_bytes()


NUMBERS = [*range(40), *range(100, 110)]


def survive(content: bytes) -> None:
    """Nothing wrong comes from the file, and it is of use again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "regions.sqlite"
        path.write_bytes(content)
        # Damage that no digest shows is found by the second, which misses what the first has written.
        for _ in range(3):
            store = CodeStore(path, "version", 4 << 20)
            for number in {*NUMBERS, *range(30, 45)}:
                size = 9000 if number >= 100 else 1500
                assert store.match(page(number)) in ([], [region(number, size)])
            for number in range(30, 45):
                store.put(region(number))
            store.close()
        store = CodeStore(path, "version")
        assert all(store.match(page(number)) == [region(number)] for number in range(30, 45))
        store.close()
        assert not store.problem and not store.damaged


@given(st.lists(st.tuples(st.integers(0), st.integers(1, 255)), min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_flipped_bytes(flips: list[tuple[int, int]]) -> None:
    content = bytearray(whole_file())
    for position, mask in flips:
        content[position % len(content)] ^= mask
    survive(bytes(content))


@given(st.integers(0, 99), st.integers(0), st.integers(1, 255))
@settings(max_examples=80, deadline=None)
def test_flipped_heads_of_pages(position: int, number: int, mask: int) -> None:
    content = bytearray(whole_file())
    content[4096 * (number % (len(content) // 4096)) + position] ^= mask
    survive(bytes(content))


@given(st.integers(0), st.integers(0, 10_000), st.sampled_from([b"\0", b"\xff", b"x"]))
@settings(max_examples=40, deadline=None)
def test_overwritten_or_cut(position: int, length: int, filler: bytes) -> None:
    content = bytearray(whole_file())
    start = position % len(content)
    survive(bytes(content[:start]))
    content[start : start + length] = filler * length
    survive(bytes(content))


def test_a_damaged_entry_is_replaced(path: Path) -> None:
    fill(path, range(3))
    content = bytearray(path.read_bytes())
    content[content.index(region(1).code) + 700] ^= 1
    path.write_bytes(content)
    store = CodeStore(path, "version")
    assert [store.match(page(number)) for number in range(3)] == [[region(0)], [], [region(2)]]
    assert store.damaged == 1
    store.put(region(1))
    store.close()
    assert not store.problem
    assert present(path, range(3)) == {0, 1, 2}
    assert not path.with_suffix(".damaged").exists()


def test_a_damaged_file_is_put_aside(path: Path) -> None:
    fill(path, range(3))
    for content in (b"not a database" * 1000, b"SQLite format 3\0" + bytes(5000)):
        path.write_bytes(content)
        store = CodeStore(path, "version")
        store.open()
        assert str(path.with_suffix(".damaged")) in store.problem
        assert path.with_suffix(".damaged").read_bytes() == content
        store.put(region(1))
        store.close()
        assert present(path, range(3)) == {1}


def test_another_database_is_put_aside(path: Path) -> None:
    path.parent.mkdir(parents=True)
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE region (x); PRAGMA user_version = 7")
    connection.close()
    store = CodeStore(path, "version")
    store.put(region(1))
    store.close()
    assert "another format" in store.problem
    assert present(path, range(3)) == {1}


def test_a_file_that_says_it_is_read_only(path: Path) -> None:
    """The format's number for writing, byte 18 of the file, is one to come."""
    fill(path, range(3))
    content = bytearray(path.read_bytes())
    content[18] = 9
    path.write_bytes(content)
    store = CodeStore(path, "version")
    assert store.match(page(1)) == [region(1)]
    store.put(region(4))
    store.close()
    assert "was damaged" in store.problem
    assert present(path, range(5)) == {4}


def test_damaged_again_and_again(path: Path) -> None:
    store = CodeStore(path, "version")
    for number in range(10):
        store.put(region(number))
        store.flush()
        path.write_bytes(b"?" * 20_000)
    assert "any more" in store.problem
    store.close()


# What the file system does


def test_removed_while_in_use(tmp_path: Path) -> None:
    """As `doppel images remove` does it."""
    cached = Cache(tmp_path)
    path = cached.root / CODE_FILE
    fill(path, range(10))
    store = CodeStore(path, "version")
    assert store.match(page(1)) == [region(1)]
    (entry,) = cached.entries()
    assert (entry.shelf, entry.name, entry.size) == ("code", "regions", path.stat().st_size)
    cached.remove(entry)
    store.put(region(20))
    store.flush()
    assert store.match(page(20)) == [region(20)]
    store.close()
    assert not store.problem
    assert present(path, range(30)) == {20}


def test_what_a_killed_writer_left_beside_a_removed_file(path: Path) -> None:
    fill(path, range(10))
    journal = Path(f"{path}-journal")
    journal.write_bytes(bytes.fromhex("d9d505f920a163d7") + bytes(range(256)) * 40)
    path.unlink()
    fill(path, range(10, 20))
    assert present(path, range(20)) == set(range(10, 20))


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of ours in which not even root may do anything: we are nobody for the time."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        for inner in [folder, *folder.rglob("*")]:
            inner.chmod(0o755)
        shutil.rmtree(folder)


def test_a_read_only_folder(unprivileged: Path) -> None:
    path = unprivileged / "regions.sqlite"
    fill(path, range(10))
    path.chmod(0o444)
    unprivileged.chmod(0o555)
    store = CodeStore(path, "version")
    assert store.match(page(1)) == [region(1)]
    store.put(region(20))
    store.flush()
    assert "cannot be kept" in store.problem
    store.put(region(21))
    assert store.match(page(2)) == [region(2)], "reading goes on"
    store.close()
    store = CodeStore(unprivileged / "none" / "regions.sqlite", "version")
    store.put(region(1))
    store.close()
    assert "cannot be kept" in store.problem
    path.chmod(0)
    store = CodeStore(path, "version")
    assert store.match(page(1)) == []
    assert "cannot be kept" in store.problem
    store.close()


def test_damaged_in_a_read_only_folder(unprivileged: Path) -> None:
    path = unprivileged / "regions.sqlite"
    path.write_bytes(b"?" * 10_000)
    unprivileged.chmod(0o555)
    store = CodeStore(path, "version")
    assert store.match(page(1)) == []
    store.put(region(1))
    store.close()
    assert "remove it" in store.problem


@pytest.mark.parametrize("kind", ["folder", "fifo", "file as folder"])
def test_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(b"")
        path = path / "y"
    store = CodeStore(path, "version")
    assert store.match(page(1)) == []
    store.put(region(1))
    store.flush()
    assert "cannot be kept" in store.problem
    store.close()


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs root to mount a small disk")
def test_a_full_disk(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        path = tmp_path / "regions.sqlite"
        store = CodeStore(path, "version")
        for number in range(1000):
            store.put(region(number))
        store.close()
        assert "full" in store.problem
        left = present(path, range(1000))
        assert left and left == set(range(len(left)))
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_python_without_sqlite(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "doppel.translate.regions.database", None)
    store = CodeStore(path, "version")
    store.put(region(1))
    assert store.match(page(1)) == []
    store.close()
    assert "sqlite3" in store.problem


def test_opening_takes_no_time(path: Path) -> None:
    """With 20000 regions; generous, as the host may be busy."""
    store = CodeStore(path, "version", 256 << 20)
    chosen, known = random.Random(3), page(1)
    for number in range(20_000):
        chunk_hash = chunk_hashes(known)[5] if number == 77 else chosen.getrandbits(32)
        guest = known[320:330] if number == 77 else chosen.randbytes(10)
        store.put(StoredRegion(5, chunk_hash, ((320, 10),), guest, (320,), chosen.randbytes(500)))
    store.close()
    times = []
    for _ in range(5):
        store = CodeStore(path, "version", 256 << 20)
        started = time.perf_counter()
        store.open()
        times.append(time.perf_counter() - started)
        assert len(store.match(known)) == 1
        store.close()
    print(f"opened in {min(times) * 1000:.1f} ms")
    assert min(times) < 0.05
