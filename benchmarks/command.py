"""The command: which benchmarks, how often, and where the results go."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from benchmarks.block_device import BLOCK_DEVICE
from benchmarks.boot import BOOT
from benchmarks.disk import DISK
from benchmarks.engine import ENGINE
from benchmarks.exits import EXITS
from benchmarks.host import describe_host
from benchmarks.interpreter import INTERPRETER
from benchmarks.machines import child_environment
from benchmarks.measure import Benchmark, BenchmarkError, Result, Settings, run
from benchmarks.memory import MEMORY_USE
from benchmarks.newer import fetch_newer_qemu
from benchmarks.peer import PROGRAM, WHERE_FROM, Peer, find_peer
from benchmarks.progress import display
from benchmarks.report import markdown, print_results, to_json, write_markdown
from benchmarks.suite.command import suite
from doppel.errors import DoppelError

__all__ = ["BENCHMARKS", "main"]

BENCHMARKS = {b.name: b for b in (INTERPRETER, ENGINE, EXITS, BOOT, MEMORY_USE, DISK, BLOCK_DEVICE)}

# Columns of what does not go to a terminal.
FILE_WIDTH = 140

app = App(name="python -m benchmarks", result_action="return_value", help_format="plaintext")
app.command(suite)


def main() -> int:
    """The exit status: 1 if something could not be measured, 2 for a mistaken command line."""
    try:
        status: int = app()
        return status
    except DoppelError as error:
        Console(stderr=True).print(f"benchmarks: {error}", markup=False, soft_wrap=True)
        return 2


@app.default
def benchmarks(
    *names: str,
    runs: int = 5,
    scale: float = 1.0,
    peer: str = PROGRAM,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    markdown_file: Annotated[Path | None, Parameter(name="--markdown")] = None,
) -> int:
    """Measure doppel's speed and size, side by side with QEMU.

    Parameters
    ----------
    names
        Benchmarks: interpreter, engine, exits, boot, memory, disk, block-device. Default: all.
    runs
        How often each is measured; the median counts.
    scale
        Factor for the amount of work, where that can be chosen.
    peer
        The QEMU to compare with, a program on PATH or a path; none: do not compare.
    json_file
        File for all values.
    markdown_file
        File for the tables. Of a file with the two marker lines only what is between them is replaced.
    """
    chosen = _choose(names)
    if runs < 1 or not scale > 0:
        raise DoppelError("there is nothing to measure", "give --runs at least 1 and --scale more than 0")
    stdout, stderr = Console(), Console(stderr=True)
    if not stdout.is_terminal:
        stdout.width = FILE_WIDTH
    found = None if peer == "none" else _find(peer, stderr)
    host = describe_host()
    groups: list[tuple[Benchmark, list[Result]]] = []
    failed = False
    with tempfile.TemporaryDirectory(prefix="doppel-benchmarks-") as name:
        folder = Path(name)
        settings = Settings(runs, scale, found, folder, child_environment(folder))
        for benchmark in chosen:
            try:
                results = _run(benchmark, settings, stderr)
            except (BenchmarkError, DoppelError) as error:
                stderr.print(f"{benchmark.name}: {error}", style="red", markup=False, soft_wrap=True)
                failed = True
                continue
            groups.append((benchmark, results))
            print_results(stdout, benchmark, results)
    _write(host, found, runs, groups, json_file, markdown_file)
    return 1 if failed else 0


@app.command
def newer_qemu() -> int:
    """Download the newest QEMU of Debian into doppel's cache, for the suite to compare with.

    It comes with this host's own apt, for whose Debian it need not be made: it brings its own libraries.
    """
    stderr = Console(stderr=True)
    with display(stderr, "newer QEMU") as line:
        program = fetch_newer_qemu(line.note)
    Console().print(program, soft_wrap=True)
    return 0


def _choose(names: Sequence[str]) -> list[Benchmark]:
    for name in names:
        if name not in BENCHMARKS:
            raise DoppelError(f"there is no benchmark {name!r}", f"they are: {', '.join(BENCHMARKS)}")
    return [BENCHMARKS[name] for name in names] or list(BENCHMARKS.values())


def _find(program: str, stderr: Console) -> Peer | None:
    found = find_peer(program)
    if found is None:
        stderr.print(
            f"There is no {program} that runs on this host ({WHERE_FROM}): only doppel is measured.",
            style="yellow",
            soft_wrap=True,
        )
    return found


def _run(benchmark: Benchmark, settings: Settings, stderr: Console) -> list[Result]:
    with display(stderr, benchmark.name) as line:
        return run(benchmark, settings, line.advance)


def _write(
    host: dict[str, str],
    peer: Peer | None,
    runs: int,
    groups: Sequence[tuple[Benchmark, Sequence[Result]]],
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    name = peer.name if peer else None
    try:
        if json_file is not None:
            every = [result for _, results in groups for result in results]
            json_file.write_text(to_json(host, name, runs, every), "utf-8")
        if markdown_file is not None:
            write_markdown(markdown_file, markdown(host, name, runs, groups))
    except OSError as error:
        raise DoppelError(f"the results cannot be written: {error}", "give another file") from error
