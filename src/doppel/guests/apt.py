"""apt-get driven with a configuration of our own, so that it needs no root and changes nothing of the host's.

All of apt's state lives in a folder of its own that can go when the packages are there. Of the host's own
configuration only what says how to get at files is taken over (proxies, time limits, certificates: the
`Acquire` tree of apt.conf(5)); hooks, preferences, sources and anything that would relax the checking of
signatures are not.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from doppel.errors import DoppelError
from doppel.guests import mirrors, stanza

__all__ = ["ARCHITECTURE", "OTHER_WAYS", "Apt", "File", "HostApt", "MirrorError"]

ARCHITECTURE = "riscv64"
OTHER_WAYS = "name another mirror with --mirror, or give the packages as files with --deb"

# The host's settings that are not about how to get at files, or that would relax checks.
_NOT_OURS = re.compile(
    r"Acquire::(AllowInsecureRepositories|AllowWeakRepositories|AllowDowngradeToInsecureRepositories"
    r"|IndexTargets|Languages|GzipIndexes|CompressionTypes|Changelogs|cdrom)\b",
    re.IGNORECASE,
)
_SETTING = re.compile(r'^(Acquire::[^ "]+) "([^"\n]+)";$', re.MULTILINE)
# Seconds without an answer after which a mirror counts as unreachable, where the host does not say otherwise.
_PATIENCE = 10

_PRINTED_URI = re.compile(r"'[^']+' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")
# What is to be installed comes with a weaker digest, which nobody needs.
_PRINTED_FILE = re.compile(r"'[^']+' ([^_\s]+)_\S+ \d+ ")
_STATUS = re.compile(rb"dlstatus:\d+:([0-9.]+):")
_GETTING = re.compile(r"^Get:\d+ \S+ \S+ \S+ (\S+) ", re.MULTILINE)

# apt gives the reason on the line after the one that says what failed.
_REASON = re.compile(r"^Err:.*\n +(.*)", re.MULTILINE)
_COMPLAINT = re.compile(r"^E: (.*)", re.MULTILINE)
_NO_ROOM = re.compile(r"No space left on device|Disk quota exceeded|enough free space")
_NO_VERIFIER = re.compile(r"gpgv?[^\n]*(?:required|not installed)|sqv[^\n]*(?:required|not installed)")
_SIGNATURE = re.compile(
    r"NO_PUBKEY|BADSIG|EXPKEYSIG|REVKEYSIG|ERRSIG|is not signed|not signed by|Missing key|invalid signature"
)
_ABSENT = re.compile(r"\b404\b|File not found|doesn't support architecture")
_TORN = re.compile(r"Hash Sum mismatch|unexpected size")


class MirrorError(DoppelError):
    """A mirror that cannot serve; another one may."""


@dataclass(frozen=True, slots=True)
class File:
    """A package file as the mirror's signed index describes it; `size` in bytes."""

    name: str
    size: int
    sha256: str


class HostApt:
    """What the host's own apt is configured with."""

    def __init__(self) -> None:
        if shutil.which("apt-get") is None:
            raise DoppelError(
                "this host has no apt-get to download Debian's packages with",
                "download them elsewhere and give them as files with --deb",
            )
        wanted = {
            "sources": "Dir::Etc::sourcelist/f",
            "source_folder": "Dir::Etc::sourceparts/d",
            "netrc": "Dir::Etc::netrc/f",
            "netrc_folder": "Dir::Etc::netrcparts/d",
            "methods": "Dir::Bin::methods/d",
        }
        shell = self._ask("apt-config", "shell", *(word for pair in wanted.items() for word in pair))
        answers = dict(word.partition("=")[::2] for word in shlex.split(shell))
        self.paths = {key: Path(answers[key]) for key in wanted if answers.get(key)}
        self.acquire = [
            (name, value)
            for name, value in _SETTING.findall(self._ask("apt-config", "dump", "Acquire"))
            if not _NOT_OURS.match(name)
        ]

    def mirrors(self) -> list[mirrors.Mirror]:
        """Where the host gets Debian from, best first; empty if it does not."""
        found = mirrors.from_index_targets(self._ask("apt-get", "indextargets"))
        if found:
            return found
        nowhere = Path("/nonexistent")
        return mirrors.from_sources(
            self.paths.get("sources", nowhere), self.paths.get("source_folder", nowhere)
        )

    @staticmethod
    def _ask(*command: str) -> str:
        environment = {**os.environ, "LC_ALL": "C"}
        try:
            answer = subprocess.run(command, capture_output=True, env=environment)
        except OSError as error:
            raise DoppelError(f"cannot run {command[0]}: {error.strerror}", OTHER_WAYS) from error
        return answer.stdout.decode("utf-8", "replace")


class Apt:
    """apt for one mirror and suite, with all state below `folder`; `DoppelError` for whatever goes wrong.

    `keyrings` are files of public keys, at least one of which must have signed the mirror's Release file.
    With `backports` the suite's backports are preferred to the suite itself.
    """

    def __init__(
        self,
        folder: Path,
        host: HostApt,
        mirror: str,
        suite: str,
        keyrings: Iterable[Path],
        *,
        architecture: str = ARCHITECTURE,
        backports: bool = False,
    ) -> None:
        if any(bad in str(folder) for bad in '"\n'):
            raise DoppelError(
                f"apt cannot work in the folder {str(folder)!r}", "set XDG_CACHE_HOME to a plainer path"
            )
        self.mirror = mirror
        self._suite = suite
        self._architecture = architecture
        self._backports = [f"{suite}-backports"] if backports else []
        self._configuration = folder / "apt.conf"
        self._write_state(folder, host, keyrings)

    def update(self) -> None:
        """Get the mirror's signed index, or find that the one at hand is the newest."""
        code, output = self._run(["apt-get", "-q", "update"])
        # apt takes an unreachable mirror for a passing trouble and only warns.
        if code or re.search(r"^(?:E|Err|W: Failed to fetch|W: Some index files)\b", output, re.MULTILINE):
            self._fail(output)

    def show(self, package: str) -> dict[str, str]:
        """The index's fields for the newest version of a package."""
        _, output = self._run(["apt-cache", "--no-all-versions", "show", package])
        found = [fields for fields in stanza.parse(output) if fields.get("Package") == package]
        if not found:
            raise MirrorError(
                f"the mirror {self.mirror} has no {package} for {self._architecture} in Debian {self._suite}",
                OTHER_WAYS,
            )
        return found[0]

    def files(self, packages: Sequence[str]) -> dict[str, File]:
        """The files of the newest versions of these packages, by package."""
        code, output = self._run(["apt-get", "-qq", "--print-uris", "download", *packages])
        uris = _PRINTED_URI.finditer(output)
        files = [File(uri["file"], int(uri["size"]), uri["sha256"]) for uri in uris]
        found = {file.name.partition("_")[0]: file for file in files}
        if code or found.keys() != set(packages):
            self._fail(output)
        return found

    def with_dependencies(self, package: str) -> list[str]:
        """The package and all that it needs on a system that has nothing, recommendations left out."""
        command = ["apt-get", "-qq", "--print-uris", "--no-install-recommends", "install", package]
        code, output = self._run(command)
        found = _PRINTED_FILE.findall(output)
        if code or package not in found:
            self._fail(output)
        return found

    def download(self, packages: Sequence[str], folder: Path, progress: Callable[[str, float], None]) -> None:
        """Get the newest versions of these packages into `folder`, which holds partial files if this fails.

        `progress` is called with the package on its way and the share of all bytes that is there.
        """
        code, output = self._run(["apt-get", "-q", "download", *packages], folder, progress)
        if code:
            self._fail(output)

    def _write_state(self, folder: Path, host: HostApt, keyrings: Iterable[Path]) -> None:
        etc = folder / "etc"
        shutil.rmtree(etc, ignore_errors=True)
        for part in ("etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d", "etc/trusted.gpg.d"):
            (folder / part).mkdir(parents=True)
        for part in ("state/lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "state/status").touch()
        (etc / "sources.list").write_text(
            "".join(
                f"deb [arch={self._architecture}] {self.mirror} {suite} main\n"
                for suite in (self._suite, *self._backports)
            )
        )
        for number, keyring in enumerate(keyrings):
            try:
                keys = keyring.read_bytes()
            except OSError as error:
                raise DoppelError(f"cannot read the keys in {keyring}: {error.strerror}") from error
            # apt goes by the suffix to tell the two forms of a keyring apart.
            suffix = "asc" if keys.lstrip().startswith(b"-----BEGIN PGP") else "gpg"
            (etc / f"trusted.gpg.d/{number}.{suffix}").write_bytes(keys)

        settings = [
            ("Dir", folder),
            ("Dir::State", folder / "state"),
            ("Dir::State::status", folder / "state/status"),
            ("Dir::Cache", folder / "cache"),
            ("Dir::Cache::srcpkgcache", ""),
            ("Dir::Etc", etc),
            ("Dir::Etc::netrc", host.paths.get("netrc", etc / "auth.conf")),
            ("Dir::Etc::netrcparts", host.paths.get("netrc_folder", etc / "auth.conf.d")),
            ("Dir::Bin::methods", host.paths.get("methods", "/usr/lib/apt/methods")),
            ("APT::Architecture", self._architecture),
            ("APT::Architectures::", self._architecture),
            ("APT::Get::AllowUnauthenticated", "false"),
            ("APT::Update::Error-Mode", "any"),
            ("Acquire::Languages::", "none"),
            ("Acquire::GzipIndexes", "true"),
            ("Acquire::Retries", "1"),
            ("Acquire::http::Timeout", _PATIENCE),
            ("Acquire::https::Timeout", _PATIENCE),
            *(("APT::Default-Release", suite) for suite in self._backports),
            *host.acquire,
        ]
        self._configuration.write_text("".join(f'{name} "{value}";\n' for name, value in settings))

    def _run(
        self,
        command: Sequence[str],
        folder: Path | None = None,
        progress: Callable[[str, float], None] | None = None,
    ) -> tuple[int, str]:
        environment = {**os.environ, "APT_CONFIG": str(self._configuration), "LC_ALL": "C"}
        status_reader, status_writer = os.pipe()
        try:
            process = subprocess.Popen(
                [*command, "-o", f"APT::Status-Fd={status_writer}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment,
                pass_fds=[status_writer],
                # Ctrl-C is for us alone: it must not be apt that decides what is left behind.
                start_new_session=True,
            )
        except OSError as error:
            os.close(status_reader)
            raise DoppelError(f"cannot run {command[0]}: {error.strerror}", OTHER_WAYS) from error
        finally:
            os.close(status_writer)
        try:
            output = _follow(process, status_reader, progress)
            return process.wait(), output
        finally:
            os.close(status_reader)
            _end(process)

    def _fail(self, output: str) -> NoReturn:
        reasons = _REASON.findall(output) or _COMPLAINT.findall(output) or output.split("\n")
        where = f"the mirror {self.mirror}"
        if _NO_ROOM.search(output):
            raise DoppelError(
                "there is no room for the download in the cache folder",
                "free space on that disk, or set XDG_CACHE_HOME to a folder on another one",
            )
        if _NO_VERIFIER.search(output):
            raise DoppelError("apt has no program to check signatures with", "install gpgv, then try again")
        if _SIGNATURE.search(output):
            raise MirrorError(
                f"{where} is not signed with a key that this host knows as Debian's",
                "install the newest debian-archive-keyring package, or give the packages as files with --deb",
            )
        if _TORN.search(output):
            raise MirrorError(
                f"{where} sent a file that differs from what its index says",
                f"try again later, or {OTHER_WAYS}",
            )
        if _ABSENT.search(output):
            raise MirrorError(
                f"{where} does not have Debian {self._suite} for {self._architecture}", OTHER_WAYS
            )
        raise MirrorError(f"{where} cannot be used: {reasons[0]}", f"check the network, {OTHER_WAYS}")


def _follow(
    process: subprocess.Popen[bytes], status: int, progress: Callable[[str, float], None] | None
) -> str:
    """All that apt prints, telling `progress` meanwhile what its status descriptor says."""
    assert process.stdout is not None
    printed = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(status, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fd != status:
                    printed += data
                elif progress is not None and (percents := _STATUS.findall(data)):
                    packages = _GETTING.findall(printed.decode("utf-8", "replace"))
                    progress(packages[-1] if packages else "", float(percents[-1]) / 100)
    return printed.decode("utf-8", "replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Make sure that apt and its helpers are gone; nothing of what they do outlives their folder anyway."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
