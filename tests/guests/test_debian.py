"""The package fetcher against a small archive of our own, signed with a key made for the test."""

from __future__ import annotations

import hashlib
import http.server
import lzma
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from doppel.cache import Cache
from doppel.errors import DoppelError
from doppel.guests.apt import Apt, HostApt, MirrorError
from doppel.guests.deb import Deb
from doppel.guests.debian import KERNEL, Source, fetch, lookup
from doppel.guests.progress import Silent

pytestmark = pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("gpg") and shutil.which("gpgv")),
    reason="needs apt-get, gpg and gpgv",
)

WANTED = [KERNEL, "busybox-static", "opensbi"]
LARGE = bytes(range(256)) * 2000


class Key:
    """A signing key; gpg wants a short path, so not below pytest's own folder."""

    def __init__(self, home: Path, name: str) -> None:
        self._gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback"]
        self._gpg += ["--passphrase", "", "-u", f"{name} <{name}@example.org>"]
        self._run("--quick-gen-key", f"{name} <{name}@example.org>", "ed25519", "sign", "never")
        self.public = home / f"{name}.gpg"
        self.public.write_bytes(self._run("--export", f"{name}@example.org"))

    def sign(self, text: bytes) -> bytes:
        return self._run("--clearsign", data=text)

    def _run(self, *arguments: str, data: bytes = b"") -> bytes:
        return subprocess.run([*self._gpg, *arguments], input=data, capture_output=True, check=True).stdout


@pytest.fixture(scope="session")
def keys() -> Iterator[tuple[Key, Key]]:
    home = Path(tempfile.mkdtemp(prefix="doppel-key-"))
    try:
        yield Key(home, "archive"), Key(home, "stranger")
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


@dataclass
class Archive:
    """A mirror on the loopback interface. Handler and tests share it."""

    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    # Seconds between pieces of a .deb.
    slowness: float = 0.0
    uri: str = ""
    started: threading.Event = field(default_factory=threading.Event)

    def publish(self, debs: Mapping[str, bytes], sign: Callable[[bytes], bytes] | None) -> None:
        """Replace everything by these packages (file name to contents), signed or not."""
        self.files = {f"pool/{name}": data for name, data in debs.items()}
        stanzas = []
        for name, data in debs.items():
            package, version, rest = name.split("_")
            depends = "linux-image-6.99-riscv64 (= 1)" if package == KERNEL else ""
            stanzas.append(
                f"Package: {package}\nVersion: {version}\nArchitecture: {rest.removesuffix('.deb')}\n"
                + (f"Depends: {depends}\n" if depends else "")
                + f"Filename: pool/{name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
            )
        index = "\n".join(stanzas).encode()
        place = "main/binary-riscv64/Packages"
        indexes = {place: index, place + ".xz": lzma.compress(index)}
        release = "Origin: Debian\nLabel: Debian\nSuite: stable\nCodename: trixie\n"
        release += "Date: Sat, 01 Nov 2025 00:00:00 UTC\nArchitectures: riscv64\nComponents: main\nSHA256:\n"
        for path, data in indexes.items():
            release += f" {hashlib.sha256(data).hexdigest()} {len(data)} {path}\n"
            self.files[f"dists/trixie/{path}"] = data
        if sign is None:
            self.files["dists/trixie/Release"] = release.encode()
        else:
            self.files["dists/trixie/InRelease"] = sign(release.encode())

    def debs_requested(self) -> list[str]:
        return [path for path in self.requests if path.endswith(".deb")]


@pytest.fixture
def archive() -> Iterator[Archive]:
    shared = Archive()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            # A client that takes us for its proxy asks for a whole URI.
            path = self.path.split("/debian/", 1)[-1].replace("%2b", "+").replace("%3a", ":")
            shared.requests.append(self.path)
            data = shared.files.get(path)
            if data is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            step = 1000 if shared.slowness and path.endswith(".deb") else len(data)
            for start in range(0, len(data), step):
                try:
                    self.wfile.write(data[start : start + step])
                except OSError:
                    self.close_connection = True
                    return
                if step == 1000:
                    if start:
                        shared.started.set()
                    time.sleep(shared.slowness)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        shared.uri = f"http://127.0.0.1:{server.server_port}/debian"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield shared
        server.shutdown()
        thread.join()


@pytest.fixture
def debs(make_deb: Callable[..., bytes]) -> dict[str, bytes]:
    meta = make_deb(KERNEL, version="1", depends="linux-image-6.99-riscv64 (= 1)")
    return {
        f"{KERNEL}_1_riscv64.deb": meta,
        "linux-image-6.99-riscv64_1_riscv64.deb": make_deb(
            "linux-image-6.99-riscv64", {"boot/vmlinux-6.99": LARGE}, version="1", compression=""
        ),
        "busybox-static_1.37-6+b9_riscv64.deb": make_deb(
            "busybox-static", {"usr/bin/busybox": b"\x7fELF"}, version="1.37-6+b9"
        ),
        "opensbi_1.6_all.deb": make_deb("opensbi", version="1.6", architecture="all"),
    }


@pytest.fixture
def source(archive: Archive, debs: dict[str, bytes], keys: tuple[Key, Key]) -> Source:
    archive.publish(debs, keys[0].sign)
    return Source(mirror=archive.uri, keyring=keys[0].public)


def test_a_package_with_its_dependencies(
    archive: Archive, debs: dict[str, bytes], keys: tuple[Key, Key], tmp_path: Path
) -> None:
    archive.publish(debs, keys[0].sign)
    apt = Apt(tmp_path / "apt", HostApt(), archive.uri, "trixie", [keys[0].public])
    apt.update()
    assert set(apt.with_dependencies(KERNEL)) == {KERNEL, "linux-image-6.99-riscv64"}
    assert apt.with_dependencies("opensbi") == ["opensbi"]
    with pytest.raises(MirrorError):
        apt.with_dependencies("nothing-like-it")


def test_a_mirror_without_backports(
    archive: Archive, debs: dict[str, bytes], keys: tuple[Key, Key], tmp_path: Path
) -> None:
    archive.publish(debs, keys[0].sign)
    apt = Apt(tmp_path / "apt", HostApt(), archive.uri, "trixie", [keys[0].public], backports=True)
    with pytest.raises(MirrorError):
        apt.update()


class Recorder(Silent):
    def __init__(self) -> None:
        self.steps: list[str] = []
        self.transfers: list[tuple[str, int, int]] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def transfer(self, file: str, done: int, total: int) -> None:
        self.transfers.append((file, done, total))


def _refreshed(source: Source) -> Source:
    return Source(mirror=source.mirror, keyring=source.keyring, refresh=True)


def _files(cache: Cache) -> set[str]:
    """Everything in the cache that counts as present, and what should not be there at all."""
    return {
        str(path.relative_to(cache.root))
        for path in cache.root.rglob("*")
        if path.is_file() and "locks" not in path.parts
    }


def test_download_once(archive: Archive, source: Source, cache: Cache, debs: dict[str, bytes]) -> None:
    progress = Recorder()
    packages = fetch(WANTED, source, cache, progress)
    assert packages.keys() == set(WANTED)
    kernel = packages[KERNEL]
    assert (kernel.name, kernel.version) == ("linux-image-6.99-riscv64", "1")
    for package in packages.values():
        assert package.path.read_bytes() in debs.values()
        assert hashlib.sha256(package.path.read_bytes()).hexdigest() == package.sha256
    assert sorted(_files(cache)) == [
        "known/trixie-riscv64.json",
        *sorted(f"packages/{name}" for name in debs if not name.startswith(KERNEL)),
    ]
    assert len(archive.debs_requested()) == 3, "not the meta package"
    total = sum(len(data) for name, data in debs.items() if not name.startswith(KERNEL))
    assert progress.transfers[-1] == ("", total, total)
    assert all(0 <= done <= whole == total for _, done, whole in progress.transfers)
    assert progress.steps == [f"reading the package lists of {archive.uri}"]

    archive.requests.clear()
    assert fetch(WANTED, source, cache, progress) == packages == lookup(WANTED, source, cache)
    assert archive.requests == []


def test_refresh_gets_what_is_new(
    archive: Archive,
    source: Source,
    cache: Cache,
    debs: dict[str, bytes],
    keys: tuple[Key, Key],
    make_deb: Callable[..., bytes],
) -> None:
    old = fetch(WANTED, source, cache, Silent())
    archive.requests.clear()
    assert fetch(WANTED, _refreshed(source), cache, Silent()) == old
    assert archive.requests and not archive.debs_requested()

    newer = make_deb("opensbi", version="1.7", architecture="all")
    archive.publish({**debs, "opensbi_1.7_all.deb": newer}, keys[0].sign)
    assert fetch(WANTED, source, cache, Silent()) == old
    new = fetch(WANTED, _refreshed(source), cache, Silent())
    assert new["opensbi"].version == "1.7" and new["opensbi"].path.read_bytes() == newer
    assert len(archive.debs_requested()) == 1


def test_a_damaged_file_is_got_again(archive: Archive, source: Source, cache: Cache) -> None:
    good = fetch(WANTED, source, cache, Silent())
    path = good["busybox-static"].path
    original = path.read_bytes()
    path.write_bytes(original[:-1] + b"?")
    archive.requests.clear()
    assert fetch(WANTED, source, cache, Silent()) == good
    assert path.read_bytes() == original
    assert len(archive.debs_requested()) == 1


def test_a_lost_record_is_no_disaster(archive: Archive, source: Source, cache: Cache) -> None:
    good = fetch(WANTED, source, cache, Silent())
    (cache.root / "known/trixie-riscv64.json").write_text('{"opensbi": 5')
    archive.requests.clear()
    assert fetch(WANTED, source, cache, Silent()) == good
    assert not archive.debs_requested()


def test_not_signed(archive: Archive, source: Source, cache: Cache, debs: dict[str, bytes]) -> None:
    archive.publish(debs, None)
    with pytest.raises(DoppelError, match=r"not signed with a key .*debian-archive-keyring.*--deb"):
        fetch(WANTED, source, cache, Silent())
    assert _files(cache) == set()


def test_signed_by_a_stranger(
    archive: Archive, source: Source, cache: Cache, debs: dict[str, bytes], keys: tuple[Key, Key]
) -> None:
    archive.publish(debs, keys[1].sign)
    with pytest.raises(DoppelError, match="not signed with a key"):
        fetch(WANTED, source, cache, Silent())
    assert _files(cache) == set()


def test_signature_of_something_else(archive: Archive, source: Source, cache: Cache) -> None:
    signed = archive.files["dists/trixie/InRelease"]
    archive.files["dists/trixie/InRelease"] = signed.replace(b"Suite: stable", b"Suite: forged")
    with pytest.raises(DoppelError, match="not signed with a key"):
        fetch(WANTED, source, cache, Silent())


@pytest.mark.parametrize(
    "victim", ["dists/trixie/main/binary-riscv64/Packages.xz", "pool/opensbi_1.6_all.deb"]
)
def test_files_that_differ_from_the_signed_index(
    archive: Archive, source: Source, cache: Cache, victim: str
) -> None:
    data = archive.files[victim]
    archive.files[victim] = bytes([data[0] ^ 1]) + data[1:]
    with pytest.raises(DoppelError, match=r"differs from what its index says.*try again later"):
        fetch(WANTED, source, cache, Silent())
    assert _files(cache) == set()


def test_package_not_there(
    archive: Archive, source: Source, cache: Cache, debs: dict[str, bytes], keys: tuple[Key, Key]
) -> None:
    archive.publish({name: data for name, data in debs.items() if "opensbi" not in name}, keys[0].sign)
    with pytest.raises(DoppelError, match="has no opensbi for riscv64 in Debian trixie"):
        fetch(WANTED, source, cache, Silent())
    assert fetch(WANTED[:2], source, cache, Silent()).keys() == set(WANTED[:2])


def test_suite_not_there(archive: Archive, source: Source, cache: Cache) -> None:
    archive.files.clear()
    with pytest.raises(DoppelError, match="does not have Debian trixie for riscv64"):
        fetch(WANTED, source, cache, Silent())


def test_index_names_a_file_that_is_not_there(archive: Archive, source: Source, cache: Cache) -> None:
    del archive.files["pool/opensbi_1.6_all.deb"]
    with pytest.raises(DoppelError, match=r"--mirror.*--deb"):
        fetch(WANTED, source, cache, Silent())
    assert _files(cache) == set()


def test_mirror_unreachable(source: Source, cache: Cache) -> None:
    start = time.monotonic()
    with pytest.raises(DoppelError, match=r"cannot be used: Could not connect.*--mirror.*--deb") as caught:
        fetch(WANTED, Source(mirror="http://127.0.0.1:9/debian", keyring=source.keyring), cache, Silent())
    assert time.monotonic() - start < 30
    assert "\n" not in str(caught.value)
    assert _files(cache) == set()


def test_a_file_mirror(archive: Archive, source: Source, cache: Cache) -> None:
    folder = Path(tempfile.mkdtemp(prefix="doppel-mirror-"))
    try:
        folder.chmod(0o755)
        for path, data in archive.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        packages = fetch(WANTED, Source(mirror=str(folder), keyring=source.keyring), cache, Silent())
        assert (
            packages[KERNEL].path.read_bytes() == archive.files["pool/linux-image-6.99-riscv64_1_riscv64.deb"]
        )
        assert not packages[KERNEL].path.is_symlink()
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("mirror", ["not an address", "http://host/debian trixie main\ndeb", "[x]", "debian"])
def test_not_an_address(cache: Cache, mirror: str) -> None:
    with pytest.raises(DoppelError, match="not the address of a mirror"):
        fetch(WANTED, Source(mirror=mirror), cache, Silent())


def test_no_apt(cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DoppelError, match=r"no apt-get.*--deb"):
        fetch(WANTED, Source(), cache, Silent())


def test_no_keys(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doppel.guests.mirrors.keyrings", list)
    with pytest.raises(DoppelError, match=r"install the package debian-archive-keyring"):
        fetch(WANTED, Source(mirror="http://127.0.0.1:9/debian"), cache, Silent())
    with pytest.raises(DoppelError, match="cannot read the keys in /no/such/file"):
        keyring = Path("/no/such/file")
        fetch(WANTED, Source(mirror="http://127.0.0.1:9/debian", keyring=keyring), cache, Silent())


def test_packages_as_files(
    tmp_path: Path, cache: Cache, debs: dict[str, bytes], make_deb: Callable[..., bytes]
) -> None:
    paths = []
    for number, data in enumerate(debs.values()):
        paths.append(tmp_path / f"{number}.deb")
        paths[-1].write_bytes(data)
    packages = fetch(WANTED, Source(files=tuple(paths)), cache, Silent())
    assert packages[KERNEL].path == paths[1], "the meta package is not the kernel"
    assert packages[KERNEL].name == "linux-image-6.99-riscv64"
    assert packages["opensbi"].sha256 == hashlib.sha256(paths[3].read_bytes()).hexdigest()
    assert not cache.root.exists(), "files stay where they are"

    paths[3].write_bytes(make_deb("opensbi", architecture="amd64"))
    with pytest.raises(DoppelError, match="is a package for amd64"):
        lookup(WANTED, Source(files=tuple(paths)), cache)


def test_a_file_goes_before_the_cache(
    tmp_path: Path, source: Source, cache: Cache, make_deb: Callable[..., bytes]
) -> None:
    fetch(WANTED, source, cache, Silent())
    own = tmp_path / "own.deb"
    own.write_bytes(make_deb("opensbi", version="9", architecture="all"))
    found = fetch(WANTED, Source(files=(own,)), cache, Silent())
    assert found["opensbi"].version == "9" and found["busybox-static"].version == "1.37-6+b9"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Make apt think that the host is configured with these settings and sources."""

    def configure(settings: str, sources: str) -> None:
        etc = tmp_path / "host"
        (etc / "lists/partial").mkdir(parents=True)
        (etc / "sources.list").write_text(sources)
        (etc / "apt.conf").write_text(
            f'Dir::Etc "{etc}";\nDir::Etc::parts "{etc}/none";\nDir::State::lists "{etc}/lists";\n' + settings
        )
        monkeypatch.setenv("APT_CONFIG", str(etc / "apt.conf"))

    return configure


def test_the_hosts_mirror_and_key(
    archive: Archive, source: Source, cache: Cache, keys: tuple[Key, Key], host: Callable[[str, str], None]
) -> None:
    """The first one configured does not answer, and the second is signed with the host's own key."""
    host(
        "",
        "deb http://127.0.0.1:9/debian bookworm main\n"
        f"deb [signed-by={keys[0].public}] {archive.uri}/ bookworm main contrib\n",
    )
    assert fetch(WANTED, Source(), cache, Silent()).keys() == set(WANTED)
    assert len(archive.debs_requested()) == 3


def test_no_mirror_configured(cache: Cache, host: Callable[[str, str], None]) -> None:
    host("", "deb http://127.0.0.1:9/ubuntu noble main\n")
    with pytest.raises(DoppelError, match=r"not configured with a mirror of Debian.*--mirror.*--deb"):
        fetch(WANTED, Source(), cache, Silent())


def test_the_hosts_proxy_but_not_its_hooks(
    archive: Archive, source: Source, cache: Cache, tmp_path: Path, host: Callable[[str, str], None]
) -> None:
    proxy = archive.uri.removesuffix("/debian")
    host(
        f'Acquire::http::Proxy "{proxy}";\n'
        f'APT::Update::Pre-Invoke {{ "touch {tmp_path}/hook"; }};\n'
        'Acquire::AllowInsecureRepositories "true";\nAPT::Architecture "amd64";\n',
        "",
    )
    elsewhere = Source(mirror="http://mirror.invalid/debian", keyring=source.keyring)
    assert fetch(WANTED, elsewhere, cache, Silent()).keys() == set(WANTED)
    assert all(path.startswith("http://mirror.invalid/debian/") for path in archive.requests)
    assert not (tmp_path / "hook").exists()


def test_a_lax_host_does_not_relax_us(
    archive: Archive, source: Source, cache: Cache, debs: dict[str, bytes], host: Callable[[str, str], None]
) -> None:
    lax = "".join(
        f'{name} "true";\n'
        for name in ("Acquire::AllowInsecureRepositories", "APT::Get::AllowUnauthenticated")
    )
    host(lax, "")
    archive.publish(debs, None)
    with pytest.raises(DoppelError, match="not signed"):
        fetch(WANTED, source, cache, Silent())


_FETCH = """
import sys
from pathlib import Path
from doppel.cache import Cache
from doppel.guests.debian import Source, fetch
from doppel.guests.progress import Silent
class Say(Silent):
    def step(self, text):
        print(text, flush=True)
root, mirror, keyring, *wanted = sys.argv[1:]
fetch(wanted, Source(mirror=mirror, keyring=Path(keyring)), Cache(Path(root)), Say())
"""


def _start(cache: Cache, source: Source) -> subprocess.Popen[bytes]:
    arguments = [str(cache.root), str(source.mirror), str(source.keyring), *WANTED]
    return subprocess.Popen(
        [sys.executable, "-c", _FETCH, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_two_at_once_fetch_once(archive: Archive, source: Source, cache: Cache) -> None:
    archive.slowness = 0.002
    processes = [_start(cache, source) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len(archive.debs_requested()) == 3
    assert sum(b"waiting for another doppel" in out for out, _ in outputs) == 1


def _descendants(process: int) -> set[int]:
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == process:
            child = int(path.parent.name)
            found |= {child} | _descendants(child)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_interrupted(archive: Archive, source: Source, cache: Cache) -> None:
    archive.slowness = 0.05
    with _start(cache, source) as process:
        assert archive.started.wait(30)
        helpers = _descendants(process.pid)
        assert len(helpers) >= 2, "apt-get and its http method"
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode != 0 and b"KeyboardInterrupt" in errors
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{helper}").exists() for helper in helpers):
        assert time.monotonic() < deadline, "nothing of apt is left running"
        time.sleep(0.01)
    assert _files(cache) == set()
    assert not list((cache.root / "tmp").iterdir())

    archive.slowness = 0
    assert fetch(WANTED, source, cache, Silent()).keys() == set(WANTED)


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs root to mount a small disk")
def test_disk_full(archive: Archive, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "none", disk], capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        cache = Cache(disk / "doppel")
        with pytest.raises(DoppelError, match=r"no room .*are needed"):
            fetch(WANTED, source, cache, Silent())
        # The same found out the hard way, by apt.
        monkeypatch.setattr(Cache, "reserve", lambda self, size: None)
        with pytest.raises(DoppelError, match=r"no room .*XDG_CACHE_HOME"):
            fetch(WANTED, source, cache, Silent())
        assert _files(cache) == set()
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
@pytest.mark.network
def test_the_real_archive(cache: Cache) -> None:
    """Debian's own archive, by whatever mirror this host uses: small packages only."""
    progress = Recorder()
    packages = fetch(["busybox-static", "opensbi"], Source(), cache, progress)
    assert Deb(packages["busybox-static"].path).architecture == "riscv64"
    assert progress.transfers[-1][1] > 500_000
