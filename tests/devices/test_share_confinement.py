"""A hostile guest, and a host that changes the directory meanwhile: nothing outside may be reached."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doppel.devices.backends.share import ShareServer, server, tree

from .ninep import Client, RemoteError, refused, string

SECRET = b"secret of the host"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_bytes(SECRET)
    return path


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    path = tmp_path / "shared"
    (path / "a" / "b" / "c").mkdir(parents=True)
    (path / "a" / "file").write_bytes(b"inside")
    (path / "to-directory").symlink_to(outside)
    (path / "to-file").symlink_to(outside / "secret")
    (path / "to-parent").symlink_to("..")
    (path / "a" / "relative").symlink_to("../../outside/secret")
    return path


@pytest.fixture
def client(root: Path) -> Iterator[Client]:
    client = Client(root)
    yield client
    client.close()


def inode(path: Path) -> int:
    return path.lstat().st_ino


@pytest.mark.parametrize("ups", [1, 2, 5, 16])
def test_dot_dot_stops_at_the_root(client: Client, root: Path, ups: int) -> None:
    assert {qid[2] for qid in client.walk_qids(0, 10, *[".."] * ups)} == {inode(root)}
    up = [".."] * min(ups, 12)
    qids = client.walk_qids(0, 11, "a", "b", "c", *up)
    expected = [root / "a" / "b", root / "a", *[root] * 12][: len(up)]
    assert [qid[2] for qid in qids[3:]] == [inode(path) for path in expected]
    with refused(errno.ENOENT):
        client.walk_qids(10, 12, "outside")


@pytest.mark.parametrize(
    "name", [b"", b".", b"/", b"a/b", b"../outside", b"/etc/passwd", b"a\0b", b"..\0", b"a/../../outside"]
)
def test_names_that_are_paths(client: Client, root: Path, name: bytes) -> None:
    file = client.walk(0, "a", "file")
    attempts = [
        lambda: client.walk_qids(0, 20, name),
        lambda: client.lcreate(client.walk(0), name),
        lambda: client.mkdir(0, name),
        lambda: client.symlink(0, name, "x"),
        lambda: client.link(0, file, name),
        lambda: client.unlinkat(0, name),
        lambda: client.unlinkat(0, name, 0x200),
        lambda: client.renameat(0, name, 0, "x"),
        lambda: client.renameat(0, "a", 0, name),
        lambda: client.rename(file, 0, name),
    ]
    before = sorted(root.rglob("*"))
    for attempt in attempts:
        with refused(errno.EINVAL):
            attempt()
    with refused(errno.EINVAL):
        client.mkdir(0, b"..")
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("link", ["to-file", "to-directory", "to-parent"])
def test_symbolic_links_are_not_followed(client: Client, outside: Path, link: str) -> None:
    fid = client.walk(0, link)
    assert client.getattr(fid)["mode"] & 0o170000 == 0o120000
    with refused(errno.ENOTDIR):
        client.walk_qids(fid, 30, "secret")
    for flags in (0, 1, 2, 0o1000):
        with refused(errno.ELOOP):
            client.lopen(fid, flags)
    for attempt in (
        lambda: client.lcreate(client.walk(0, link), "made"),
        lambda: client.mkdir(fid, "made"),
        lambda: client.symlink(fid, "made", "x"),
        lambda: client.unlinkat(fid, "secret"),
        lambda: client.renameat(fid, "secret", 0, "stolen"),
        lambda: client.renameat(0, "a", fid, "moved"),
        lambda: client.link(fid, client.walk(0, "a", "file"), "made"),
    ):
        with refused(errno.ENOTDIR):
            attempt()
    # The name of a link is no way to what it points to either.
    with refused(errno.ELOOP):
        client.lcreate(client.walk(0), link, 1)
    with refused(errno.EEXIST):
        client.mkdir(0, link)
    assert client.getattr(fid)["size"] < 200
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == SECRET


def test_links_that_a_guest_makes_are_not_followed(client: Client, outside: Path) -> None:
    client.symlink(0, "mine", str(outside))
    client.symlink(0, "absolute", "/")
    with refused(errno.ENOTDIR):
        client.walk_qids(client.walk(0, "mine"), 30, "secret")
    assert len(client.walk_qids(0, 31, "absolute", "etc")) == 1
    client.unlinkat(0, "mine")
    assert (outside / "secret").exists()


def test_hard_links_to_links_do_not_lead_out(client: Client, outside: Path) -> None:
    client.link(0, client.walk(0, "to-file"), "copy")
    with refused(errno.ELOOP):
        client.lopen(client.walk(0, "copy"))
    assert (outside / "secret").stat().st_nlink == 1


def test_the_host_puts_a_link_in_the_place_of_a_directory(
    root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "_MAX_DESCRIPTORS", 0)
    client = Client(root)
    (outside / "b").mkdir()
    (outside / "file").write_bytes(SECRET)
    below = client.walk(0, "a", "b")
    directory = client.walk(0, "a")
    file = client.walk(0, "a", "file")
    (root / "a").rename(root / "old")
    (root / "a").symlink_to(outside)
    for attempt in (
        lambda: client.lopen(file),
        lambda: client.mkdir(directory, "x"),
        lambda: client.mkdir(below, "x"),
        lambda: client.walk_qids(directory, 40, "file"),
        lambda: client.getattr(file),
    ):
        with refused(errno.ESTALE):
            attempt()
    assert sorted(os.listdir(outside)) == ["b", "file", "secret"]
    assert os.listdir(outside / "b") == []
    # Reached anew, it is the link.
    with refused(errno.ELOOP):
        client.lopen(client.walk(0, "a"))
    client.close()


def test_the_host_moves_a_directory_away(client: Client, root: Path, outside: Path) -> None:
    below = client.walk(0, "a", "b", "c")
    (root / "a" / "b").rename(outside / "b")
    qids = client.walk_qids(below, 50, "..", "..", "..", "..")
    assert [qid[2] for qid in qids[1:]] == [inode(root / "a"), inode(root), inode(root)]
    with refused(errno.ENOENT):
        client.walk_qids(client.walk(below, "..", ".."), 51, "b")


def test_the_host_turns_the_tree_upside_down(client: Client, root: Path) -> None:
    """What is known of the tree would become a ring, if it were believed."""
    b = client.walk(0, "a", "b")
    (root / "a" / "b").rename(root / "b")
    client.renameat(0, "a", b, "a")
    assert (root / "b" / "a" / "file").exists()
    for _ in range(3):
        assert client.walk_qids(b, 60, *[".."] * 16)
        client.clunk(60)
        assert client.walk(b, "a", "file")
        assert client.walk(b, "a", "..", "a", "..", "c")
    assert client.walk(0, "b", "a", "file")


def test_above_a_deleted_directory_is_the_root(client: Client, root: Path) -> None:
    fid = client.walk(0, "a", "b", "c")
    client.unlinkat(client.walk(0, "a", "b"), "c", 0x200)
    assert client.walk_qids(fid, 60, "..")[0][2] == inode(root)


def test_special_files_are_not_opened(client: Client, root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        old = os.getcwd()
        os.chdir(root)
        try:
            unix.bind("socket")
        finally:
            os.chdir(old)
    for name in ("pipe", "socket"):
        fid = client.walk(0, name)
        assert client.getattr(fid)["mode"] & 0o170000 in (0o010000, 0o140000)
        for flags in (0, 1, 2):
            with refused(errno.EACCES):
                client.lopen(fid, flags)
        with refused(errno.EACCES):
            client.lcreate(client.walk(0), name, 1)
        for valid in (1, 8, 0x10):
            with refused(errno.EPERM):
                client.setattr(fid, valid)
    assert client.walk(0, "pipe")
    client.unlinkat(0, "pipe")


def test_number_of_fids(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_FIDS", 20)
    for fid in range(1, 20):
        client.walk(0, "a", new=fid)
    with refused(errno.EMFILE):
        client.walk(0, "a", new=20)
    client.clunk(5)
    client.walk(0, "a", new=20)


def test_number_of_open_files(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_OPEN_FILES", 3)
    fids = [client.walk(0, "a", "file") for _ in range(4)]
    for fid in fids[:3]:
        client.lopen(fid)
    with refused(errno.EMFILE):
        client.lopen(fids[3])
    with refused(errno.EMFILE):
        client.lcreate(client.walk(0), "x")
    client.clunk(fids[0])
    client.lopen(fids[3])


def test_number_of_known_files(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_MAX_NODES", 4)
    client.walk(0, "a", "b", "c")
    with refused(errno.ENFILE):
        client.walk(0, "to-file")


def test_depth(client: Client) -> None:
    fid = client.walk(0)
    depth = 0
    with refused(errno.ENAMETOOLONG):
        while True:
            client.mkdir(fid, "d")
            client.walk(fid, "d", new=fid)
            depth += 1
            assert depth < 1000
    assert depth >= 100


def descriptors() -> set[str]:
    links = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            links.add(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return links


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_descriptors_are_bounded_and_given_back(root: Path) -> None:
    before = count_descriptors()
    for number in range(500):
        (root / f"f{number}").touch()
    client = Client(root)
    for number in range(500):
        client.walk(0, f"f{number}")
    assert count_descriptors() - before < 140
    for number in range(500):
        client.unlinkat(0, f"f{number}")
    assert count_descriptors() - before < 210
    client.version()
    assert count_descriptors() - before == 1
    client.close()
    assert count_descriptors() == before


def test_a_reset_of_the_device_forgets_everything(client: Client) -> None:
    client.lopen(client.walk(0, "a", "file"))
    client.driver.negotiate()
    client.driver.set_up(64)
    client.driver.write_status(4)
    client.start = client.driver.next
    with refused(errno.EBADF):
        client.getattr(0)
    client.attach(0)


@pytest.mark.parametrize("size", [0, 1, 4, 6])
def test_requests_without_header(root: Path, size: int) -> None:
    client = Client(root)
    client.driver.rings[0].offer([b"x" * size] if size else [], [100])
    assert client.driver.needs_reset
    client.close()


def test_requests_without_room(root: Path) -> None:
    client = Client(root)
    client.driver.rings[0].offer([struct.pack("<IBH", 7, 108, 1) + b"\0\0"], [10])
    assert client.driver.needs_reset
    client.close()


def test_answers_that_do_not_fit(client: Client) -> None:
    with refused(errno.EMSGSIZE):
        client.call(24, struct.pack("<IQ", 0, 0x7FF), room=100)


def test_sizes_that_are_not_true(client: Client) -> None:
    def send(size: int, body: bytes) -> int:
        answer = client.raw(struct.pack("<IBH", size, 24, 1) + body)
        assert answer[4] == 7
        return int(struct.unpack_from("<I", answer, 7)[0])

    full = struct.pack("<IQ", 0, 0)
    assert send(0, full) == errno.EMSGSIZE
    assert send(6, full) == errno.EMSGSIZE
    assert send(0xFFFF_FFFF, full) == errno.EMSGSIZE
    assert send(15, full) == errno.EINVAL
    assert client.raw(struct.pack("<IBH", 1000, 24, 1) + full)[4] == 25


NAMES = [
    b"a",
    b"b",
    b"c",
    b"file",
    b"..",
    b"to-directory",
    b"to-file",
    b"to-parent",
    b"secret",
    b"outside",
    b"new",
]
fids = st.integers(0, 5)
names = st.one_of(st.sampled_from(NAMES), st.binary(max_size=6))
flags = st.sampled_from([0, 1, 2, 0o102, 0o1002, 0o200, 0o2001])


def body(*parts: object) -> bytes:
    return b"".join(string(part) if isinstance(part, bytes) else struct.pack("<I", part) for part in parts)


u64 = st.integers(0, (1 << 64) - 1)
requests = st.one_of(
    st.builds(
        lambda fid, new, parts: (
            110,
            struct.pack("<IIH", fid, new, len(parts)) + b"".join(map(string, parts)),
        ),
        fids,
        fids,
        st.lists(names, max_size=4),
    ),
    st.builds(lambda fid, how: (12, body(fid, how)), fids, flags),
    st.builds(lambda fid, name, how: (14, body(fid, name, how, 0o644, 0)), fids, names, flags),
    st.builds(lambda fid, name, target: (16, body(fid, name, target, 0)), fids, names, names),
    st.builds(lambda fid, other, name: (20, body(fid, other, name)), fids, fids, names),
    st.builds(lambda fid: (22, body(fid)), fids),
    st.builds(lambda fid: (24, body(fid, 0x7FF, 0)), fids),
    st.builds(
        lambda fid, valid, size, time: (
            26,
            struct.pack("<IIIIIQQQQQ", fid, valid, 0o777, 0, 0, size % 10_000, time, 5, time, 5),
        ),
        fids,
        st.integers(0, 0x1FF),
        u64,
        u64,
    ),
    st.builds(
        lambda fid, at, count: (40, struct.pack("<IQI", fid, at, count)), fids, u64, st.integers(0, 9999)
    ),
    st.builds(lambda other, fid, name: (70, body(other, fid, name)), fids, fids, names),
    st.builds(lambda fid, name: (72, body(fid, name, 0o755, 0)), fids, names),
    st.builds(lambda fid, name, other, new: (74, body(fid, name, other, new)), fids, names, fids, names),
    st.builds(lambda fid, name, how: (76, body(fid, name, how)), fids, names, st.sampled_from([0, 0x200])),
    st.builds(lambda fid: (104, body(fid, 0, b"", b"", 0)), fids),
    st.builds(lambda fid: (116, struct.pack("<IQI", fid, 0, 100)), fids),
    st.builds(
        lambda fid, data: (118, struct.pack("<IQI", fid, 0, len(data)) + data), fids, st.binary(max_size=9)
    ),
    st.builds(lambda kind, fid: (kind, body(fid)), st.sampled_from([120, 122, 50]), fids),
    st.tuples(st.integers(0, 255), st.binary(max_size=30)),
)
host_changes = st.sampled_from(
    [
        ("swap", "a", "to-directory"),
        ("move", "a/b", "../outside/b"),
        ("move", "a", "moved"),
        ("move", "../outside/b", "back"),
        ("link", "../outside", "new"),
    ]
)


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(st.one_of(requests, requests, requests, host_changes), max_size=30), st.sampled_from([0, 128])
)
def test_any_requests(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[int, bytes] | tuple[str, str, str]],
    kept: int,
) -> None:
    base = tmp_path_factory.mktemp("fuzz")
    outside, root = base / "outside", base / "shared"
    (outside / "guarded").mkdir(parents=True)
    (outside / "secret").write_bytes(SECRET)
    (root / "a" / "b" / "c").mkdir(parents=True)
    (root / "a" / "file").write_bytes(b"inside")
    (root / "to-directory").symlink_to(outside)
    (root / "to-file").symlink_to(outside / "secret")
    (root / "to-parent").symlink_to("..")
    before = count_descriptors()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "_MAX_DESCRIPTORS", kept)
        client = Client(root)
        for step in steps:
            if isinstance(step[0], str):
                change(root, *step)
                continue
            kind, content = step
            if kind == 100:
                continue
            try:
                client.call(kind, content)
            except RemoteError as error:
                assert 0 < error.errno < 200
            assert not client.driver.needs_reset
            for link in descriptors():
                if link.startswith(str(base)) and "(deleted)" not in link:
                    # What the host moved away after it was reached is the only exception.
                    assert link.startswith((str(root), str(outside / "b"))), step
        assert (outside / "secret").read_bytes() == SECRET
        assert (outside / "secret").stat().st_nlink == 1
        assert set(os.listdir(outside)) <= {"secret", "guarded", "b"}
        assert os.listdir(outside / "guarded") == []
        assert set(os.listdir(base)) == {"outside", "shared"}
        client.close()
    assert count_descriptors() == before
    shutil.rmtree(base, ignore_errors=True)


def change(root: Path, kind: str, first: str, second: str) -> None:
    """Something that the host does meanwhile; it may be impossible by now."""
    one, two = root / first, root / second
    try:
        if kind == "swap":
            one.rename(root / "swapping")
            two.rename(one)
            (root / "swapping").rename(two)
        elif kind == "move" and not os.path.lexists(two):
            one.rename(two)
        elif kind == "link":
            two.symlink_to(one.resolve())
    except OSError:
        return


@settings(deadline=None)
@given(st.binary(min_size=7, max_size=60))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    base = tmp_path_factory.getbasetemp()
    share = ShareServer(base, readonly=True)
    share.close()
    client = Client(base, readonly=True)
    answer = client.raw(data)
    assert len(answer) == struct.unpack_from("<I", answer)[0]
    assert answer[5:7] == data[5:7]
    client.close()
