"""The suite: its programs check themselves, on the host and in a guest, and its arithmetic is right."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.boot import code_cache, separate_cache
from benchmarks.debian import Guest
from benchmarks.measure import DOPPEL, BenchmarkError, Metric, Result
from benchmarks.suite.catalog import PAIR, PROGRAMS, Program
from benchmarks.suite.report import to_json, to_markdown
from benchmarks.suite.subjects import (
    NATIVE,
    PAIR_ON_ONE,
    PAIR_ON_TWO,
    Machine,
    Native,
    Work,
    pair,
    seconds,
    work_of,
)
from benchmarks.suite.summary import goals, summarize
from benchmarks.suite.toolchain import GUEST, HOST, SOURCES, executable, guest_files

from benchmarks import newer
from doppel.cache import Cache
from doppel.errors import DoppelError
from doppel.guests import initramfs

ROOT = Path(__file__).parents[2]
# It needs busybox, which a host may lack and the guest has.
ON_THE_HOST = [program for program in PROGRAMS if program.name != "build"]

needs_gcc = pytest.mark.skipif(shutil.which(HOST.compiler) is None, reason=f"needs {HOST.compiler}")


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return executable(HOST, Cache(tmp_path_factory.mktemp("cache")))


def output(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


@needs_gcc
@pytest.mark.parametrize("program", ON_THE_HOST, ids=lambda program: program.name)
def test_each_program_checks_itself_on_the_host(native: Path, program: Program) -> None:
    done = output(native, program.name, "2")
    assert done.returncode == 0, done.stdout
    assert 0 < seconds(program.name, done.stdout) < 60


@needs_gcc
def test_processes_at_the_same_time(native: Path) -> None:
    done = output(native, "collatz", "3", "2")
    assert done.returncode == 0
    assert seconds("collatz", done.stdout) > 0


@needs_gcc
@pytest.mark.parametrize(
    "arguments", [(), ("collatz",), ("collatz", "0"), ("racing", "1"), ("sort", "1", "65")]
)
def test_mistaken_arguments_of_a_program(native: Path, arguments: tuple[str, ...]) -> None:
    done = output(native, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: suite NAME UNITS")


@needs_gcc
def test_a_wrong_answer_is_found(native: Path, tmp_path: Path) -> None:
    """The sieve's sources with one more number to look at make it find another number of primes."""
    for source in SOURCES.glob("*.[ch]"):
        text = source.read_text()
        (tmp_path / source.name).write_text(text.replace("LIMIT = 1000000 ", "LIMIT = 1000004 "))
    wrong = tmp_path / "suite"
    subprocess.run(["gcc", "-o", wrong, *tmp_path.glob("*.c"), "-lm"], check=True, timeout=60)
    done = output(wrong, "sieve", "1")
    assert done.returncode == 1
    with pytest.raises(BenchmarkError, match="sieve failed: sieve: wrong answer 00000000000132a3 instead of"):
        seconds("sieve", done.stdout)


@needs_gcc
def test_native_measurements(native: Path) -> None:
    notes: list[str] = []
    measured = Native(native, work_of(ON_THE_HOST[:2], 0.0001), os.environ, notes.append).measure()
    assert list(measured) == notes == ["collatz", "sieve"]
    assert all(value > 0 for value in measured.values())


@needs_gcc
def test_programs_are_compiled_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    program = executable(HOST, cache)
    before = program.stat().st_mtime_ns
    assert executable(HOST, cache) == program
    assert program.stat().st_mtime_ns == before
    assert program.with_name("build.sh").read_bytes() == (SOURCES / "build.sh").read_bytes()


def test_a_missing_compiler_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DoppelError, match=r"there is no riscv64-linux-gnu-gcc .*libc6-dev-riscv64-cross"):
        executable(GUEST, Cache(tmp_path))


def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "gcc"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] || { echo no libc.a >&2; exit 1; }\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(DoppelError, match=r"gcc fails: no libc\.a"):
        executable(HOST, Cache(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.skipif(shutil.which(GUEST.compiler) is None, reason=f"needs {GUEST.compiler}")
def test_every_program_in_a_guest(tmp_path: Path) -> None:
    usual = Guest.default()
    initrd = tmp_path / "initrd"
    initrd.write_bytes(usual.initrd.read_bytes() + initramfs.overlay(guest_files()))
    guest = Guest(usual.kernel, initrd)
    starters = [guest.on_doppel(os.environ, harts=harts) for harts in (1, 2)]
    work = work_of(PROGRAMS, 0.0001)
    machine = Machine(starters[0], starters[1], work, [pair("two", 0.02)], lambda _: None)
    measured = machine.measure()
    assert list(measured) == [*(program.name for program in PROGRAMS), "two"]
    assert all(value > 0 for value in measured.values())


def test_work() -> None:
    assert work_of(PROGRAMS[:1], 0.5)[0] == Work(PAIR.name, PAIR, PAIR.units // 2)
    assert work_of(PROGRAMS[-1:], 0.001)[0].units == 1
    assert pair("both", 1.0).arguments == (PAIR.name, str(PAIR.units), "2")
    assert len({program.name for program in PROGRAMS}) == len(PROGRAMS)


def measured(key: str, **values: list[float]) -> Result:
    return Result(
        "suite", Metric(key, key, "s", "lower"), {k.replace("_", " "): v for k, v in values.items()}
    )


ALPHA = Program("alpha", "first", "compute", 1)
BETA = Program("beta", "second", "system", 1)
RESULTS = [
    measured("alpha", doppel=[2.0, 9.0, 1.0], QEMU_7=[8.0], QEMU_11=[16.0], native=[1.0]),
    measured("beta", doppel=[2.0], QEMU_7=[4.0], QEMU_11=[1.0]),
    measured(PAIR_ON_ONE, doppel=[3.0], QEMU_7=[4.0]),
    measured(PAIR_ON_TWO, doppel=[2.0], QEMU_7=[2.0]),
]


def test_summary() -> None:
    summary = summarize([ALPHA, BETA], RESULTS)
    first, second = summary.rows
    assert (first.doppel, first.peer, first.peer_name, first.native) == (2.0, 8.0, "QEMU 7", 1.0)
    assert (first.ratio, first.times_native) == (4.0, 2.0)
    assert (second.peer_name, second.ratio, second.times_native) == ("QEMU 11", 0.5, None)
    assert summary.ratio == pytest.approx((4.0 * 0.5) ** 0.5)
    assert summary.worst is second
    assert summary.times_native == pytest.approx(2.0)
    assert summary.gains == {DOPPEL: 1.5, "QEMU 7": 2.0}
    assert [goal.reached for goal in goals(summary)] == [False, False, True, False]


def test_nothing_to_compare_with() -> None:
    summary = summarize([ALPHA], [measured("alpha", doppel=[2.0])])
    assert (summary.ratio, summary.worst, summary.times_native, summary.gains) == (None, None, None, {})
    assert [goal.reached for goal in goals(summary)] == [None] * 4
    assert summarize([ALPHA], [measured("alpha", native=[2.0])]).rows == []


def test_tables_and_values() -> None:
    summary = summarize([ALPHA, BETA], RESULTS)
    machines = [DOPPEL, "QEMU 7", "QEMU 11", NATIVE]
    text = to_markdown({"date": "today"}, machines, 3, summary)
    assert "- measured: doppel, QEMU 7, QEMU 11, native\n" in text
    assert "| alpha | first | 2.00 | 8.00 | QEMU 7 | 4.00 x | 1.00 | 2.00 x |" in text
    assert "| times faster, worst program (beta) | 0.500 | at least 1 | MISSED |" in text
    assert "| QEMU 7 | 2.00 |" in text
    values = json.loads(to_json({"date": "today"}, machines, 3, summary, RESULTS))
    assert values["programs"][0]["medians"] == {"doppel": 2.0, "QEMU 7": 8.0, "QEMU 11": 16.0, "native": 1.0}
    assert values["programs"][1]["ratio"] == 0.5
    assert values["programs"][2]["values"] == {"doppel": [3.0], "QEMU 7": [4.0]}
    assert [goal["reached"] for goal in values["goals"]] == [False, False, True, False]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "racing"], "the suite has no program 'racing'; they are: collatz,"),
        (["--runs", "0"], "nothing"),
    ],
)
def test_mistakes(arguments: list[str], told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "suite", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cache_without_compiled_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "usual"))
    usual = Cache().root
    (usual / "code").mkdir(parents=True)
    Cache().write("engine/one.o", b"native code")
    environment = separate_cache(tmp_path / "other", {"HOME": "/root"})
    assert environment == {"HOME": "/root", "XDG_CACHE_HOME": str(tmp_path / "other")}
    other = Cache(tmp_path / "other/doppel")
    assert (other.root / "engine/one.o").read_bytes() == b"native code"
    assert not code_cache(tmp_path / "other").exists()
    assert code_cache(tmp_path / "usual") == usual / "code"


def test_the_newest_qemu_in_the_cache(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert newer.newer_qemu(cache) is None
    for age, version in enumerate(("10", "9")):
        folder = tmp_path / f"benchmarks/{newer.PACKAGE}-{version}"
        folder.mkdir(parents=True)
        (folder / newer.SCRIPT).touch()
        os.utime(folder / newer.SCRIPT, (1000 - age, 1000 - age))
    found = newer.newer_qemu(cache)
    assert found is not None
    assert found.parent.name.endswith("-10")


def test_a_program_starts_with_its_own_loader(tmp_path: Path) -> None:
    machine = os.uname().machine
    libraries = tmp_path / f"root/usr/lib/{machine}-linux-gnu"
    libraries.mkdir(parents=True)
    with pytest.raises(DoppelError, match="came without a loader"):
        newer.write_script(tmp_path, "11.0")
    loader = libraries / "ld-linux.so.2"
    loader.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    loader.chmod(0o755)
    newer.write_script(tmp_path, "11.0")
    words = output(tmp_path / newer.SCRIPT, "--version").stdout.splitlines()
    root = tmp_path / "root"
    assert words[0] == "--library-path"
    assert words[1].split(":")[0] == str(libraries)
    assert words[2:] == [
        str(root / "usr/bin/qemu-system-riscv64"),
        *("-L", str(root / "usr/share/qemu"), "-L", str(root / "usr/share/seabios")),
        "--version",
    ]
