"""What a guest can do with a shared directory."""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from doppel.devices.backends.share import ShareServer, tree
from doppel.devices.virtio.ninep import VirtioNineP
from doppel.errors import DoppelError

from .ninep import Client, refused, string
from .support import Driver

RDONLY, WRONLY, RDWR, EXCL, TRUNC, APPEND, DIRECT, SYNC = 0, 1, 2, 0o200, 0o1000, 0o2000, 0o40000, 0o4010000
MODE, UID, GID, SIZE, ATIME, MTIME, ATIME_SET, MTIME_SET = 1, 2, 4, 8, 0x10, 0x20, 0x80, 0x100


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "shared"
    (path / "sub" / "deep").mkdir(parents=True)
    (path / "hello.txt").write_bytes(b"hello world")
    (path / "sub" / "data.bin").write_bytes(bytes(range(256)) * 400)
    (path / "link").symlink_to("hello.txt")
    return path


@pytest.fixture(params=[128, 0], ids=["descriptors kept", "descriptors closed"])
def client(root: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(tree, "_MAX_DESCRIPTORS", request.param)
    client = Client(root)
    yield client
    client.close()


def test_mount_tag(root: Path) -> None:
    driver = Driver(VirtioNineP(ShareServer(root), tag="src"))
    assert driver.read(0x008) == 9
    assert driver.transport.read(0x100, 2) == 3
    assert bytes(driver.transport.read(0x102 + at, 1) for at in range(3)) == b"src"
    for tag in ("", "x" * 32, "a\nb"):
        with pytest.raises(DoppelError):
            VirtioNineP(ShareServer(root), tag=tag)


def test_directories_that_cannot_be_shared(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DoppelError, match="no directory"):
        ShareServer(tmp_path / "none")
    with pytest.raises(DoppelError, match="not a directory"):
        ShareServer(root / "hello.txt")


def test_version(root: Path) -> None:
    client = Client(root, attach=False)
    assert client.version(8192) == (8192, b"9P2000.L")
    assert client.version(1 << 30)[0] == 1 << 20
    assert client.version(8192, "9P2000.u") == (8192, b"unknown")
    with refused(errno.EMSGSIZE):
        client.version(100)
    client.attach(5)
    client.version()
    with refused(errno.EBADF):
        client.getattr(5)


def test_attach_walk_and_clunk(client: Client, root: Path) -> None:
    qid = client.attach(1)
    assert qid[0] == 0x80
    assert qid[2] == root.stat().st_ino
    with refused(errno.EBADF):
        client.attach(1)
    with refused(errno.EBADF):
        client.attach(0xFFFF_FFFF)
    fid = client.walk(0, "sub", "data.bin")
    assert client.getattr(fid)["size"] == 102400
    clone = client.walk(fid)
    client.clunk(fid)
    assert client.getattr(clone)["size"] == 102400
    with refused(errno.EBADF):
        client.clunk(fid)
    with refused(errno.EBADF):
        client.walk(fid, "x")
    with refused(errno.EBADF):
        client.walk(0, "sub", new=clone)
    # A fid may be walked to another file in place.
    assert client.walk(1, "sub", new=1) == 1
    assert client.walk(1, "deep") != 1


def test_walk_in_part(client: Client) -> None:
    assert len(client.walk_qids(0, 50, "sub", "none", "x")) == 1
    with refused(errno.EBADF):
        client.clunk(50)
    with refused(errno.ENOENT):
        client.walk_qids(0, 50, "none")
    with refused(errno.ENOTDIR):
        client.walk_qids(client.walk(0, "hello.txt"), 50, "x")
    with refused(errno.EINVAL):
        client.walk_qids(0, 50, *["sub"] * 17)


def test_read(client: Client, root: Path) -> None:
    fid = client.walk(0, "sub", "data.bin")
    with refused(errno.EBADF):
        client.read(fid, 0, 10)
    assert client.lopen(fid)[0] == 0
    content = (root / "sub" / "data.bin").read_bytes()
    assert client.read(fid, 1000, 50_000) == content[1000:51_000]
    assert client.read(fid, 102_000, 50_000) == content[102_000:]
    assert client.read(fid, 102_400, 10) == b""
    assert client.read(fid, 0, 0) == b""
    # No more than there is room for, and no more than a message may have.
    assert len(client.read(fid, 0, 10_000, room=1011)) == 1000
    assert len(client.read(fid, 0, 0xFFFF_FFFF)) == 65536 - 11
    with refused(errno.EINVAL):
        client.read(fid, (1 << 64) - 1, 10)
    with refused(errno.EBADF):
        client.write(fid, 0, b"x")
    with refused(errno.EBADF):
        client.lopen(fid)


def test_create_and_write(client: Client, root: Path) -> None:
    fid = client.walk(0, "sub")
    old_umask = os.umask(0o077)
    try:
        client.lcreate(fid, "new", RDWR | EXCL, 0o6664)
    finally:
        os.umask(old_umask)
    assert client.write(fid, 0, b"0123456789") == 10
    assert client.write(fid, 5, b"abc") == 3
    assert client.read(fid, 0, 100) == b"01234abc89"
    path = root / "sub" / "new"
    assert path.read_bytes() == b"01234abc89"
    assert stat.S_IMODE(path.stat().st_mode) == 0o664, "no set-user-ID, and the guest's own umask"
    with refused(errno.EISDIR):
        client.lopen(client.walk(0, "sub"), RDWR)
    with refused(errno.EEXIST):
        client.lcreate(client.walk(0, "sub"), "new", RDWR | EXCL)
    with refused(errno.ENOTDIR):
        client.lcreate(client.walk(0, "hello.txt"), "x")
    with refused(errno.EBADF):
        client.lcreate(0xFFFF_FFF0, "x")
    # Without O_EXCL an existing file is opened.
    again = client.walk(0, "sub")
    client.lcreate(again, "new", RDONLY)
    assert client.read(again, 0, 3) == b"012"
    cut = client.walk(0, "sub")
    client.lcreate(cut, "new", WRONLY | TRUNC)
    assert path.read_bytes() == b""


def test_open_flags(client: Client, root: Path) -> None:
    fid = client.walk(0, "hello.txt")
    client.lopen(fid, WRONLY | APPEND | DIRECT | SYNC)
    client.write(fid, 0, b"HE")
    assert (root / "hello.txt").read_bytes() == b"HEllo world", (
        "positions are the guest's, also with O_APPEND"
    )
    cut = client.walk(0, "hello.txt")
    client.lopen(cut, RDWR | TRUNC)
    assert (root / "hello.txt").read_bytes() == b""
    with refused(errno.EINVAL):
        client.lopen(client.walk(0, "hello.txt"), 3)


def test_large_transfers_in_pieces(client: Client, root: Path) -> None:
    client.version(1 << 20)
    client.attach(0)
    data = os.urandom(300_000)
    fid = client.walk(0)
    client.lcreate(fid, "big")
    assert client.write(fid, 0, data) == len(data)
    assert (root / "big").read_bytes() == data
    assert client.read(fid, 100, 250_000, room=300_000) == data[100:250_100]
    # A request that promises more than it carries.
    body = struct.pack("<IQI", fid, 0, 1000) + b"only this"
    assert client.call(118, body) == struct.pack("<I", 9)
    client.version(4096)
    client.attach(0)
    fid = client.walk(0, "big")
    client.lopen(fid, RDWR)
    with refused(errno.EMSGSIZE):
        client.write(fid, 0, bytes(5000))


def test_attributes(client: Client, root: Path) -> None:
    host = (root / "hello.txt").stat()
    fid = client.walk(0, "hello.txt")
    guest = client.getattr(fid)
    assert guest["valid"] == 0x7FF
    assert guest["mode"] == host.st_mode
    assert (guest["uid"], guest["gid"]) == (host.st_uid, host.st_gid)
    assert (guest["size"], guest["nlink"]) == (11, 1)
    assert guest["mtime"] * 10**9 + guest["mtime_ns"] == host.st_mtime_ns
    client.setattr(fid, MODE | SIZE, mode=0o100600 | stat.S_ISUID, size=5)
    assert stat.S_IMODE((root / "hello.txt").stat().st_mode) == 0o600
    assert (root / "hello.txt").read_bytes() == b"hello"
    client.setattr(fid, ATIME | ATIME_SET | MTIME | MTIME_SET, times=(1000, 1, 2000, 999_999_999))
    host = (root / "hello.txt").stat()
    assert (host.st_atime_ns, host.st_mtime_ns) == (1000 * 10**9 + 1, 2000 * 10**9 + 999_999_999)
    client.setattr(fid, MTIME)
    host = (root / "hello.txt").stat()
    assert host.st_atime_ns == 1000 * 10**9 + 1
    assert abs(host.st_mtime - time.time()) < 60
    client.setattr(fid, MTIME | MTIME_SET, times=(0, 0, (1 << 64) - 10, 5))
    assert (root / "hello.txt").stat().st_mtime_ns == -10 * 10**9 + 5
    assert client.getattr(fid)["mtime"] == (1 << 64) - 10
    with refused(errno.EINVAL):
        client.setattr(fid, MTIME | MTIME_SET, times=(0, 0, 0, 10**9))
    with refused(errno.EINVAL):
        client.setattr(fid, SIZE, size=1 << 63)


def test_owners_stay(client: Client, root: Path) -> None:
    before = (root / "hello.txt").stat()
    client.setattr(client.walk(0, "hello.txt"), UID | GID)
    after = (root / "hello.txt").stat()
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


def test_attributes_of_directories_and_links(client: Client, root: Path) -> None:
    directory = client.walk(0, "sub")
    client.setattr(directory, MODE, mode=0o3700)
    assert stat.S_IMODE((root / "sub").stat().st_mode) == 0o1700
    with refused(errno.EISDIR):
        client.setattr(directory, SIZE, size=0)
    link = client.walk(0, "link")
    assert stat.S_ISLNK(client.getattr(link)["mode"])
    with refused(errno.EOPNOTSUPP):
        client.setattr(link, MODE, mode=0o777)
    with refused(errno.EINVAL):
        client.setattr(link, SIZE, size=0)
    client.setattr(link, MTIME | MTIME_SET, times=(0, 0, 77, 0))
    assert (root / "link").lstat().st_mtime == 77
    assert (root / "hello.txt").stat().st_mtime != 77
    assert (root / "hello.txt").read_bytes() == b"hello world"


def test_an_open_file_is_cut_whatever_its_permissions(client: Client, root: Path) -> None:
    fid = client.walk(0)
    client.lcreate(fid, "sealed", RDWR, 0o400)
    client.write(fid, 0, b"content")
    client.setattr(fid, SIZE, size=3)
    assert (root / "sealed").read_bytes() == b"con"


def test_readdir(client: Client, root: Path) -> None:
    fid = client.walk(0)
    with refused(errno.EBADF):
        client.readdir(fid)
    assert client.lopen(fid)[0] == 0x80
    entries = {name: kind for name, kind, _ in client.readdir(fid)}
    assert entries == {b".": 4, b"..": 4, b"sub": 4, b"hello.txt": 8, b"link": 10}
    assert client.list(fid) == client.list(fid)
    with refused(errno.EISDIR):
        client.read(fid, 0, 10)
    with refused(errno.EINVAL):
        client.readdir(fid, count=10)
    with refused(errno.EINVAL):
        client.readdir(fid, position=1 << 63)
    file = client.walk(0, "hello.txt")
    client.lopen(file)
    with refused(errno.ENOTDIR):
        client.readdir(file)


def test_readdir_of_a_large_directory(client: Client, root: Path) -> None:
    names = {f"file-{number:04}-{'x' * (number % 60)}".encode() for number in range(2000)}
    (root / "many").mkdir()
    for name in names:
        (root / "many" / os.fsdecode(name)).touch()
    fid = client.walk(0, "many")
    client.lopen(fid)
    for count in (300, 5000, 60_000):
        listed = client.list(fid, count)
        assert len(listed) == len(names)
        assert set(listed) == names


def test_the_root_does_not_tell_what_is_above_it(client: Client, root: Path) -> None:
    fid = client.walk(0)
    client.lopen(fid)
    answer = client.call(40, struct.pack("<IQI", fid, 0, 60_000))
    above = struct.pack("<Q", root.parent.stat().st_ino)
    assert above not in answer


def test_directories(client: Client, root: Path) -> None:
    old_umask = os.umask(0o077)
    try:
        assert client.mkdir(0, "made", 0o2775)[0] == 0x80
    finally:
        os.umask(old_umask)
    assert stat.S_IMODE((root / "made").stat().st_mode) == 0o775
    with refused(errno.EEXIST):
        client.mkdir(0, "made")
    fid = client.walk(0, "made")
    client.mkdir(fid, "inner")
    with refused(errno.ENOTEMPTY):
        client.unlinkat(0, "made", 0x200)
    with refused(errno.EISDIR):
        client.unlinkat(fid, "inner")
    client.unlinkat(fid, "inner", 0x200)
    client.unlinkat(0, "made", 0x200)
    assert not (root / "made").exists()
    with refused(errno.ENOTDIR):
        client.unlinkat(0, "hello.txt", 0x200)


def test_remove(client: Client, root: Path) -> None:
    fid = client.walk(0, "hello.txt")
    client.remove(fid)
    assert not (root / "hello.txt").exists()
    with refused(errno.EBADF):
        client.clunk(fid)
    directory = client.walk(0, "sub")
    with refused(errno.ENOTEMPTY):
        client.remove(directory)
    with refused(errno.EBADF):
        client.clunk(directory)
    client.remove(client.walk(0, "sub", "deep"))
    assert not (root / "sub" / "deep").exists()
    client.attach(7)
    with refused(errno.EBUSY):
        client.remove(7)
    assert root.exists()


def test_a_deleted_file_can_still_be_used(client: Client, root: Path) -> None:
    fid = client.walk(0, "hello.txt")
    client.lopen(fid, RDWR)
    path = client.walk(0, "hello.txt")
    client.unlinkat(0, "hello.txt")
    assert client.read(fid, 0, 5) == b"hello"
    assert client.getattr(fid)["nlink"] == client.getattr(path)["nlink"] == 0
    client.setattr(fid, SIZE, size=2)
    assert client.getattr(path)["size"] == 2
    with refused(errno.ESTALE):
        client.remove(path)
    with refused(errno.ESTALE):
        client.rename(fid, 0, "back")
    # A new file of the same name is another one.
    (root / "hello.txt").write_bytes(b"another")
    other = client.walk(0, "hello.txt")
    assert client.getattr(other)["size"] == 7
    assert client.getattr(fid)["size"] == 2


def test_symbolic_links(client: Client, root: Path) -> None:
    link = client.walk(0, "link")
    assert client.readlink(link) == b"hello.txt"
    assert client.symlink(0, "outside", "/etc/passwd")[0] == 0x02
    assert os.readlink(root / "outside") == "/etc/passwd"
    assert client.readlink(client.walk(0, "outside")) == b"/etc/passwd"
    with refused(errno.EINVAL):
        client.readlink(client.walk(0, "hello.txt"))
    with refused(errno.EINVAL):
        client.symlink(0, "bad", b"a\0b")
    with refused(errno.ENOENT):
        client.symlink(0, "bad", b"")
    with refused(errno.ENAMETOOLONG):
        client.symlink(0, "bad", b"x" * 5000)


def test_hard_links(client: Client, root: Path) -> None:
    fid = client.walk(0, "hello.txt")
    client.link(client.walk(0, "sub"), fid, "second")
    assert (root / "sub" / "second").read_bytes() == b"hello world"
    assert client.getattr(fid)["nlink"] == 2
    client.link(0, client.walk(0, "link"), "link2")
    assert os.readlink(root / "link2") == "hello.txt"
    with refused(errno.EEXIST):
        client.link(0, fid, "link")


def test_rename(client: Client, root: Path) -> None:
    sub = client.walk(0, "sub")
    known = client.walk(0, "sub", "data.bin")
    client.renameat(sub, "data.bin", 0, "moved")
    assert (root / "moved").exists()
    client.rename(known, sub, "again")
    assert (root / "sub" / "again").exists()
    client.rename(client.walk(0, "hello.txt"), sub, "again")
    assert (root / "sub" / "again").read_bytes() == b"hello world"
    assert client.getattr(known)["nlink"] == 0
    client.renameat(sub, "again", sub, "again")
    with refused(errno.ENOENT):
        client.renameat(sub, "none", 0, "x")
    with refused(errno.EINVAL):
        client.renameat(0, "sub", client.walk(0, "sub", "deep"), "x")
    client.attach(9)
    with refused(errno.EBUSY):
        client.rename(9, sub, "root")


def test_a_name_that_was_given_away_is_used_again(client: Client, root: Path) -> None:
    moved = client.walk(0, "hello.txt")
    client.renameat(0, "hello.txt", 0, "moved")
    (root / "hello.txt").write_bytes(b"new")
    assert client.getattr(client.walk(0, "hello.txt"))["size"] == 3
    assert client.getattr(moved)["size"] == 11
    client.remove(moved)
    assert sorted(path.name for path in root.iterdir()) == ["hello.txt", "link", "sub"]


def test_files_below_a_renamed_directory_move_along(client: Client, root: Path) -> None:
    deep = client.walk(0, "sub", "deep")
    data = client.walk(0, "sub", "data.bin")
    client.renameat(0, "sub", 0, "renamed")
    client.mkdir(deep, "made")
    assert (root / "renamed" / "deep" / "made").is_dir()
    client.rename(data, deep, "here")
    assert (root / "renamed" / "deep" / "here").is_file()
    # The way up is the new one.
    assert client.walk(deep, "..", "..", "renamed")


def test_sync_and_locks(client: Client) -> None:
    fid = client.walk(0, "hello.txt")
    client.lopen(fid, RDWR)
    assert client.call(50, struct.pack("<II", fid, 0)) == b""
    assert client.call(50, struct.pack("<II", fid, 1)) == b""
    assert client.call(52, struct.pack("<IBIQQI", fid, 1, 1, 0, 0, 5) + string("guest")) == b"\0"
    answer = client.call(54, struct.pack("<IBQQI", fid, 1, 3, 4, 5) + string("guest"))
    assert answer == struct.pack("<BQQI", 2, 3, 4, 5) + string("guest")
    unopened = client.walk(0, "hello.txt")
    with refused(errno.EBADF):
        client.call(50, struct.pack("<II", unopened, 0))


def test_file_system(client: Client, root: Path) -> None:
    host = os.statvfs(root)
    values = struct.unpack("<IIQQQQQQI", client.call(8, struct.pack("<I", 0)))
    assert values[0] == 0x01021997
    assert values[1] == host.f_bsize
    assert values[2] == host.f_blocks
    assert values[8] == host.f_namemax


def test_what_there_is_not(client: Client) -> None:
    with refused(errno.EOPNOTSUPP):
        client.call(102, struct.pack("<I", 5) + string("u") + string("a") + struct.pack("<I", 0))
    with refused(errno.EOPNOTSUPP):
        client.call(30, struct.pack("<II", 0, 99) + string("security.capability"))
    with refused(errno.EPERM):
        client.mknod(0, "device", stat.S_IFCHR | 0o666)
    for kind in (0, 6, 98, 112, 114, 124, 126, 127, 255):
        with refused(errno.EOPNOTSUPP):
            client.call(kind, struct.pack("<II", 0, 0))
    assert client.call(108, struct.pack("<H", 5)) == b""


def test_read_only(root: Path) -> None:
    client = Client(root, readonly=True)
    fid = client.walk(0, "hello.txt")
    attempts = [
        lambda: client.lopen(fid, WRONLY),
        lambda: client.lopen(fid, TRUNC),
        lambda: client.lcreate(client.walk(0), "x"),
        lambda: client.mkdir(0, "x"),
        lambda: client.symlink(0, "x", "y"),
        lambda: client.link(0, fid, "x"),
        lambda: client.rename(fid, 0, "x"),
        lambda: client.renameat(0, "hello.txt", 0, "x"),
        lambda: client.unlinkat(0, "hello.txt"),
        lambda: client.setattr(fid, MODE, mode=0),
        lambda: client.mknod(0, "x", stat.S_IFIFO),
        lambda: client.remove(client.walk(0, "hello.txt")),
    ]
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    for attempt in attempts:
        with refused(errno.EROFS):
            attempt()
    client.lopen(fid)
    assert client.read(fid, 0, 5) == b"hello"
    with refused(errno.EBADF):
        client.write(fid, 0, b"x")
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before
    client.close()


def test_odd_names(client: Client, root: Path) -> None:
    for name in (b"sp ace", b"\xff\xfe", "ümläut".encode(), b"-rf", b"new\nline", b"...", b"x" * 255):
        fid = client.walk(0)
        client.lcreate(fid, name)
        assert os.path.exists(os.fsencode(root) + b"/" + name)
        assert client.walk(0, name)
    with refused(errno.ENAMETOOLONG):
        client.mkdir(0, b"x" * 256)


def test_move_to_another_machine(client: Client, root: Path) -> None:
    fid = client.walk(0, "sub", "data.bin")
    client.lopen(fid, RDWR)
    directory = client.walk(0, "sub")
    gone = client.walk(0, "hello.txt")
    lost = client.walk(0, "link")
    client.unlinkat(0, "link")
    state = client.driver.transport.save()
    (root / "hello.txt").unlink()
    copy = Client(root, attach=False)
    copy.driver.transport.load(state)
    copy.driver.rings = client.driver.rings
    copy.driver.rings[0].driver = copy.driver
    copy.driver.memory = client.driver.memory
    for ring in copy.driver.rings:
        ring.memory = copy.driver.transport.memory
        ring.memory.data[:] = client.driver.memory.data
    assert copy.read(fid, 0, 4) == b"\0\1\2\3"
    assert copy.write(fid, 0, b"new") == 3
    copy.mkdir(directory, "x")
    for bad in (gone, lost):
        with refused(errno.EBADF):
            copy.getattr(bad)
    with pytest.raises(DoppelError):
        copy.server.load({"message_size": 1, "fids": [[1, "x", 0]]})
    copy.close()
