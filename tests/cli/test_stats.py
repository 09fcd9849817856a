"""What is said and written about compiled code: ``--stats``, ``--compile``, ``--perf-map``, ``--symbols``."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from doppel.cli.summary import detail_lines
from doppel.machine import EngineStatistics, Statistics

from .elf import executable
from .support import PATIENCE, doppel_run, environment

# Three functions, each in a page of its own so that none is compiled together with another; the middle one is
# a loop, the last one for the test finisher.
GUEST = """
first:
    li t0, 30000
    la t1, middle
    jr t1
    .balign 4096
middle:
    addi t0, t0, -1
    xor a0, a0, t0
    bnez t0, middle
    la t1, last
    jr t1
    .balign 4096
last:
    li t0, 0x100000
    li t1, 0x5555
    sw t1, 0(t0)
stop: j stop
"""
MAP = """\
0000000080000000 T first
80001000 t middle_of_map
0000000080001ffc B behind
"""


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "kernel"
    path.write_bytes(executable(GUEST, symbol_type=2))
    return path


@pytest.fixture
def perf_map(kernel: Path) -> Iterator[PerfRun]:
    run = PerfRun()
    yield run
    if run.path is not None:
        run.path.unlink(missing_ok=True)


class PerfRun:
    """doppel with a map for perf, which it leaves behind."""

    path: Path | None = None

    def __call__(self, *arguments: str | Path) -> dict[str, tuple[int, int]]:
        """Run it; starts and sizes by name."""
        process = subprocess.Popen(
            [sys.executable, "-m", "doppel.cli", "run", *map(str, arguments), "--perf-map"],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        self.path = Path(f"/tmp/perf-{process.pid}.map")
        lines = [line.split(" ") for line in self.path.read_text().splitlines()]
        return {name: (int(start, 16), int(size, 16)) for start, size, name in lines}


def table(text: str) -> dict[str, str]:
    """The values of a table by their names."""
    rows = (re.split(r" {2,}", line.strip()) for line in text.splitlines() if not line.startswith("doppel:"))
    return {row[0]: row[1] for row in rows}


@pytest.mark.parametrize("clock", ["host", "icount"])
def test_a_table_at_the_end(kernel: Path, clock: str) -> None:
    for mode in ("off", "hot", "all"):
        result = doppel_run("run", kernel, "--stats", "--compile", mode, "--clock", clock)
        assert result.returncode == 0
        assert "MIPS" in result.stderr.splitlines()[0]
        rows = table(result.stderr)
        # The last loop goes on until the machine stops.
        assert int(rows["instructions"].replace(",", "")) >= 90_000
        assert rows["device"] == "1"
        assert rows["accesses to test"] == "1"
        compiled = int(rows["regions"])
        assert compiled == 0 if mode == "off" else compiled >= 0
        if mode == "all":
            assert compiled > 0
            assert int(rows["guest instructions"]) > 0
            assert float(rows["compiler"].removesuffix(" s")) > 0
        assert re.fullmatch(r"\d+\.\d [KM]iB", rows["memory of the engine"])


def test_without_the_option_there_is_one_line(kernel: Path) -> None:
    assert len(doppel_run("run", kernel).stderr.splitlines()) == 1


def test_nothing_is_divided_by_zero() -> None:
    rows = table("\n".join(detail_lines(Statistics(0, 0.0))))
    assert rows["instructions"] == "0"
    assert rows["in compiled code"] == "-"


def test_the_columns_are_in_line() -> None:
    engine = EngineStatistics("hot", compiled_share=0.5, regions=3, instructions=10, code_bytes=1000)
    lines = list(detail_lines(Statistics(10**9, 1.0, {"device": 7}, {"uart0": 3}, engine)))
    ends = {re.match(r" *\S+( \S+)* {2,}(- |\S+( s| %| [KM]iB)?)", line).end() for line in lines}  # type: ignore[union-attr]
    assert len(ends) == 1, lines
    assert any("1,000,000,000" in line for line in lines)
    assert any("50.0 %" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--compile", "cold"), "cold"),
        (("--compile", ""), "compile"),
        (("--symbols", "/nowhere/System.map"), "no symbol file"),
        (("--symbols", "/"), "folder"),
    ],
)
def test_wrong_values(kernel: Path, arguments: tuple[str, ...], complaint: str) -> None:
    result = doppel_run("run", kernel, *arguments)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert complaint in result.stderr


def test_a_stub_of_a_map(kernel: Path, tmp_path: Path) -> None:
    stub = tmp_path / "System.map"
    stub.write_text("ffffffffffffffff B The real System.map is elsewhere\n")
    result = doppel_run("run", kernel, "--symbols", stub)
    assert result.returncode == 2
    assert "no symbols of functions" in result.stderr


def test_perf_learns_the_names_of_functions(kernel: Path, perf_map: PerfRun) -> None:
    names = perf_map(kernel, "--compile", "all")
    assert {"guest:first", "guest:last"} <= names.keys()
    assert any(name.startswith("guest:middle") for name in names)
    assert "doppel:doppel_run" in names
    assert any(".addi." in name for name in names)
    assert perf_map.path is not None
    assert perf_map.path.stat().st_mode & 0o077 == 0
    ranges = sorted(names.values())
    assert all(start + size <= following for (start, size), (following, _) in pairwise(ranges))
    assert all(size > 0 for _, size in ranges)


def test_names_from_a_file(kernel: Path, tmp_path: Path, perf_map: PerfRun) -> None:
    system_map = tmp_path / "System.map"
    system_map.write_text(MAP)
    names = perf_map(kernel, "--compile", "all", "--symbols", system_map)
    assert "guest:first" in names
    assert any(name.startswith("guest:middle_of_map") for name in names)
    assert "guest:last" not in names


def test_places_where_there_are_no_names(tmp_path: Path, perf_map: PerfRun) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(executable(GUEST))
    names = perf_map(kernel, "--compile", "all")
    assert "guest:0x80000000+0x0" in names


def test_symbols_are_known_at_the_monitor_prompt_too(kernel: Path) -> None:
    from doppel.cli.guest import GuestOptions, choose_guest
    from doppel.guests.debian import Source

    options = GuestOptions("", kernel, None, "", "", None, Source(), symbols=kernel)
    assert choose_guest(options).symbols["last"] > 0x8000_0000
