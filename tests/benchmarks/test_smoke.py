"""The benchmarks still run, on very little work, and say what they measure correctly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.flat import Loop, Timing, bare_image, check_retired
from benchmarks.measure import DOPPEL, Benchmark, BenchmarkError, Metric, Result
from benchmarks.memory import resident
from benchmarks.report import BEGIN, END, markdown, write_markdown
from benchmarks.serial import SerialProcess

ROOT = Path(__file__).parents[2]
CHEAP = ("interpreter", "exits", "block-device")
SECONDS = Metric("time", "how long", "s", "lower", promise=2.0)
RATE = Metric("rate", "how much", "MB/s", "higher", lead=1.0)
SMAPS = """\
00400000-00500000 r-xp 00000000 00:00 0    /somewhere/python
Rss:                 512 kB
Pss:                 256 kB
7f0000000000-7f0000400000 rw-p 00000000 00:00 0
Rss:                2048 kB
Pss:                2048 kB
7f0000400000-7f0000401000 rw-p 00000000 00:00 0
Rss:                   4 kB
Pss:                   4 kB
"""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_cheap_benchmarks(tmp_path: Path) -> None:
    """Also checks that each loop of the flat programs retires what it claims: a wrong one is an error."""
    values, tables = tmp_path / "values.json", tmp_path / "tables.md"
    done = command(
        *CHEAP,
        *("--runs", "1", "--scale", "0.0005", "--peer", "none"),
        *("--json", str(values), "--markdown", str(tables)),
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(values.read_text())["results"]
    assert {result["benchmark"] for result in results} == set(CHEAP)
    assert len(results) > 20
    for result in results:
        assert len(result["values"][DOPPEL]) == 1
        assert result["medians"][DOPPEL] > 0
        assert result["title"] in done.stdout
        assert f"| {result['title']} |" in tables.read_text()


def test_a_missing_peer_is_reported() -> None:
    done = command("interpreter", "--runs", "1", "--scale", "0.0001", "--peer", "qemu-of-nobody")
    assert done.returncode == 0, done.stderr
    assert "There is no qemu-of-nobody that runs on this host" in done.stderr
    assert "integer arithmetic" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["racing"], "there is no benchmark 'racing'; they are: interpreter,"),
        (["engine", "--runs", "0"], "there is nothing to measure"),
    ],
)
def test_mistakes(arguments: list[str], told: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_comparison() -> None:
    slow = Result("some", SECONDS, {DOPPEL: [3.0, 1.0, 4.0], "QEMU": [1.5]})
    assert (slow.median(DOPPEL), slow.peer, slow.ratio, slow.kept) == (3.0, "QEMU", 0.5, False)
    fast = Result("some", RATE, {DOPPEL: [300.0], "QEMU": [150.0]})
    assert (fast.ratio, fast.kept) == (2.0, True)
    alone = Result("some", RATE, {DOPPEL: [300.0]})
    assert (alone.peer, alone.ratio, alone.kept) == (None, None, None)


def test_retired_instructions_are_checked() -> None:
    loop = Loop("empty", "", iterations=10, instructions=0)
    check_retired([loop], {"empty": Timing(1.0, 23)})
    with pytest.raises(BenchmarkError, match="retired 24 instructions instead of 23"):
        check_retired([loop], {"empty": Timing(1.0, 24)})


def test_programs_have_room() -> None:
    with pytest.raises(BenchmarkError, match="too long"):
        bare_image([Loop("long", "nop", 1, 1, subroutine=".zero 0x40000")])


def test_resident_memory() -> None:
    assert resident(SMAPS, 4 << 20) == {
        "total": pytest.approx(2564 / 1024),
        "guest": 2.0,
        "besides": pytest.approx(516 / 1024),
        "share": pytest.approx(260 / 1024),
    }
    with pytest.raises(BenchmarkError, match="no mapping of its own"):
        resident(SMAPS, 8 << 20)


def test_tables_replace_what_is_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    benchmark = Benchmark("some", "things", (RATE,), lambda _: pytest.fail("not to be run"))
    text = markdown({"date": "today"}, "QEMU", 1, [(benchmark, [Result("some", RATE, {DOPPEL: [3.0]})])])
    write_markdown(page, text)
    assert page.read_text().startswith(f"before\n{BEGIN}\n\n- date: today\n")
    assert page.read_text().endswith(f"\n{END}\nafter\n")
    assert "old" not in page.read_text()
    assert "| how much | MB/s | 3.00 | - | - | no worse than the peer |" in page.read_text()


def test_console_of_a_child() -> None:
    echo = "print('first'); print(input()[::-1])"
    with SerialProcess("echo", [sys.executable, "-u", "-c", echo], os.environ) as process:
        process.wait_for(rb"first\n")
        process.send("abc\n")
        match, seconds = process.wait_for(rb"c(b)a")
        assert match[1] == b"b"
        assert 0 < seconds < 60
        assert process.wait() == b"first\ncba\n"
    assert process.cpu_seconds > 0


def test_a_child_that_fails_is_quoted() -> None:
    dies = "import sys; print('half'); sys.exit('no more')"
    with SerialProcess("it", [sys.executable, "-c", dies], os.environ) as process:
        with pytest.raises(BenchmarkError, match=r"(?s)it never showed .*half\s+no more"):
            process.wait_for(b"whole")
        with pytest.raises(BenchmarkError, match="it ended with status 1"):
            process.wait()
