"""The smaller commands, what is shown at the end of a run, and that nothing is loaded that is not needed."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from doppel.cli.progress import ConsoleProgress
from doppel.cli.summary import detail_lines, summary_line
from doppel.machine import Statistics

from .support import doppel_run, environment


def test_version() -> None:
    result = doppel_run("--version")
    assert result.returncode == 0
    assert re.match(r"\d+\.\d+|unknown", result.stdout)


@pytest.mark.parametrize(
    "command", [(), ("run",), ("images",), ("images", "fetch"), ("doctor",), ("conformance",)]
)
def test_help(command: tuple[str, ...]) -> None:
    result = doppel_run(*command, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: doppel")
    assert result.stderr == ""


def test_without_arguments_help_is_shown() -> None:
    assert doppel_run().stdout == doppel_run("--help").stdout


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["run", "--bogus"], ["run", "--memory", "x"]]
)
def test_answers_come_without_loading_the_machine(arguments: list[str]) -> None:
    program = f"""
import sys
from doppel.cli import main
main({arguments!r})
heavy = {{"llvmlite", "doppel.machine", "doppel.processor", "doppel.translate.build"}} & set(sys.modules)
print("loaded:", *heavy)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True
    )
    assert result.stdout.splitlines()[-1] == "loaded:", result


def test_doctor(tmp_path: Path) -> None:
    result = doppel_run("doctor", env={"XDG_CACHE_HOME": str(tmp_path)})
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    words = {
        match[1]: match[2] for line in lines if (match := re.match(r"(\S.*?) +(ok|note|missing) ", line))
    }
    assert {"Python", "processor", "LLVM", "engine", "memory", "cache", "KVM"} <= set(words)
    assert words["Python"] == words["LLVM"] == "ok"
    assert "will be built" in result.stdout
    assert result.returncode == (1 if "missing" in words.values() else 0)
    # Looking changes nothing.
    assert list(tmp_path.iterdir()) == []


def test_doctor_on_a_host_without_apt(tmp_path: Path) -> None:
    result = doppel_run("doctor", env={"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert result.returncode == 0
    assert re.search(r"^apt +note +.*--deb", result.stdout, re.MULTILINE)


def test_doctor_with_a_useless_home(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    result = doppel_run("doctor", env={"XDG_CACHE_HOME": str(file)})
    assert re.search(r"^cache +note +.*XDG_CACHE_HOME", result.stdout, re.MULTILINE)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    for name in ("guests/debian-1-aaaa/kernel", "guests/debian-2-bbbb/kernel", "packages/some.deb"):
        path = tmp_path / "doppel" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(2_000_000))
    return tmp_path


def images(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return doppel_run("images", *arguments, env={"XDG_CACHE_HOME": str(cache)})


def test_images_of_an_empty_cache(tmp_path: Path) -> None:
    result = images(tmp_path)
    assert result.returncode == 0
    assert "debian" in result.stdout
    assert "is empty" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_images_list(cache: Path) -> None:
    result = images(cache, "list")
    assert re.search(r"^debian-1-aaaa +guests +2\.0 MB", result.stdout, re.MULTILINE)
    assert f"6.0 MB in {cache}/doppel" in result.stdout
    assert images(cache).stdout == result.stdout


def test_images_remove(cache: Path) -> None:
    assert images(cache, "remove", "some.deb").stdout == "removed some.deb (2.0 MB)\n"
    assert images(cache, "remove", "some.deb").returncode == 2
    # A guest's name stands for all of its versions.
    assert len(images(cache, "remove", "debian").stdout.splitlines()) == 2
    assert "is empty" in images(cache).stdout


def test_images_remove_all(cache: Path) -> None:
    assert images(cache, "remove", "--all", "some.deb").returncode == 2
    assert len(images(cache, "remove", "--all").stdout.splitlines()) == 3
    assert images(cache, "remove", "--all").returncode == 0


def test_output_that_nobody_reads_to_its_end() -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        [sys.executable, "-m", "doppel.cli", "run", "--help"],
        env=environment(),
        stdout=write,
        stderr=subprocess.PIPE,
    )
    os.close(write)
    _, errors = process.communicate(timeout=60)
    assert b"Traceback" not in errors


@pytest.mark.parametrize(
    ("statistics", "line"),
    [
        (
            Statistics(0, 0.0),
            "0 instructions in 0.0 s (0 MIPS), 0 exits, 0.0 % of the instructions without the monitor",
        ),
        (
            Statistics(1_250_000_000, 2.5, {"device": 400, "trap": 600}),
            "1.25 billion instructions in 2.5 s (500 MIPS), 1000 exits (trap 600, device 400), "
            "99.999920 % of the instructions without the monitor",
        ),
        (
            Statistics(2_000_000, 1.0, {"device": 1_000_000, "vm_fault": 0}),
            "2.00 million instructions in 1.0 s (2 MIPS), 1000000 exits (device 1000000), "
            "50.0 % of the instructions without the monitor",
        ),
        (
            Statistics(1 << 60, 1.0, {"stopped": 1}),
            f"{(1 << 60) / 1e9:.2f} billion instructions in 1.0 s ({(1 << 60) / 1e6:.0f} MIPS), "
            "1 exits (stopped 1), 100 % of the instructions without the monitor",
        ),
    ],
)
def test_summary(statistics: Statistics, line: str) -> None:
    assert summary_line(statistics) == line


@pytest.mark.parametrize("exits", [1, 7, 12_345, 999_999])
def test_the_share_is_never_rounded_up(exits: int) -> None:
    line = summary_line(Statistics(10_000_000, 1.0, {"device": exits}))
    (percent,) = re.findall(r"(\S+) % of", line)
    assert float(percent) < 100 * (1 - exits / 10_000_000) + 1e-9
    assert float(percent) > 100 * (1 - 1.2 * exits / 10_000_000)


def test_details() -> None:
    statistics = Statistics(1, 1.0, {}, {"plic": 1, "uart": 20, "rtc": 0})
    assert [line.split() for line in detail_lines(statistics)][-2:] == [
        ["accesses", "to", "uart", "20"],
        ["accesses", "to", "plic", "1"],
    ]


def test_progress_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with ConsoleProgress() as progress:
        progress.step("reading [brackets]")
        for done in range(0, 101, 10):
            progress.transfer("linux", done * 1_000_000, 100_000_000)
        progress.step("unpacking")
    assert stderr.getvalue().splitlines() == [
        "doppel: reading [brackets]",
        "doppel: downloading 100 MB",
        "doppel: unpacking",
    ]


def test_progress_on_a_terminal_is_left_tidy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    stderr = Screen()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    progress = ConsoleProgress()
    with pytest.raises(KeyboardInterrupt), progress:
        progress.step("reading")
        progress.transfer("linux", 1, 2)
        raise KeyboardInterrupt
    shown = stderr.getvalue()
    assert "linux" in shown
    # The cursor that the bar hides is shown again.
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
