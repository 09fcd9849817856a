"""The command ``suite``: which programs on which machines, how often, and where the results go."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from benchmarks.debian import Guest
from benchmarks.host import describe_host
from benchmarks.machines import child_environment
from benchmarks.measure import Benchmark, BenchmarkError, Metric, Settings, Subject, run
from benchmarks.newer import newer_qemu
from benchmarks.peer import PROGRAM, WHERE_FROM, Peer, find_peer
from benchmarks.progress import display
from benchmarks.report import write_markdown
from benchmarks.suite.catalog import PAIR, PROGRAMS, Program
from benchmarks.suite.report import print_summary, to_json, to_markdown
from benchmarks.suite.subjects import PAIR_ON_ONE, PAIR_ON_TWO, Machine, Native, pair, work_of
from benchmarks.suite.summary import summarize
from benchmarks.suite.toolchain import HOST, executable, guest_files
from doppel.errors import DoppelError
from doppel.guests import initramfs

__all__ = ["suite"]

# Columns of what does not go to a terminal.
FILE_WIDTH = 140


def suite(
    *,
    runs: int = 5,
    scale: float = 1.0,
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = (),
    peer: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    markdown_file: Annotated[Path | None, Parameter(name="--markdown")] = None,
) -> int:
    """Run small programs under Linux on doppel, on each QEMU, and on this host itself.

    The peer of each program is the QEMU that is fastest in it.

    Parameters
    ----------
    runs
        How often each machine is booted for all programs, in turn with the others; medians count.
    scale
        Factor for the amount of work.
    only
        Names of the programs to run. Default: all, and two processes on one hart and on two.
    peer
        A QEMU to compare with, a program on PATH or a path; may be repeated; none: do not compare. Default:
        qemu-system-riscv64, and the newer one if `newer-qemu` has put it into the cache.
    json_file
        File for all values.
    markdown_file
        File for the tables. Of a file with the two marker lines only what is between them is replaced.
    """
    programs = _choose(only)
    if runs < 1 or not scale > 0:
        raise DoppelError("there is nothing to measure", "give --runs at least 1 and --scale more than 0")
    stdout, stderr = Console(), Console(stderr=True)
    if not stdout.is_terminal:
        stdout.width = FILE_WIDTH
    peers = _peers(peer, stderr)
    host = describe_host()
    with tempfile.TemporaryDirectory(prefix="doppel-suite-") as name, display(stderr, "suite") as line:
        folder = Path(name)
        settings = Settings(runs, scale, None, folder, child_environment(folder))
        benchmark = _benchmark(programs, peers, line.note, parallel=not only)
        try:
            results = run(benchmark, settings, line.advance)
        except BenchmarkError as error:
            stderr.print(f"suite: {error}", style="red", markup=False, soft_wrap=True)
            return 1
    summary = summarize(programs, results)
    print_summary(stdout, summary)
    machines = list(dict.fromkeys(subject for result in results for subject in result.values))
    try:
        if json_file is not None:
            json_file.write_text(to_json(host, machines, runs, summary, results), "utf-8")
        if markdown_file is not None:
            write_markdown(markdown_file, to_markdown(host, machines, runs, summary))
    except OSError as error:
        raise DoppelError(f"the results cannot be written: {error}", "give another file") from error
    return 0


def _choose(names: Sequence[str]) -> list[Program]:
    known = {program.name: program for program in PROGRAMS}
    for name in names:
        if name not in known:
            raise DoppelError(f"the suite has no program {name!r}", f"they are: {', '.join(known)}")
    return [known[name] for name in names] or list(PROGRAMS)


def _peers(names: Sequence[str], stderr: Console) -> list[Peer]:
    if "none" in names:
        return []
    wanted = list(names)
    if not wanted:
        newer = newer_qemu()
        wanted = [PROGRAM] if newer is None else [PROGRAM, str(newer)]
    found: dict[str, Peer] = {}
    for name in wanted:
        peer = find_peer(name)
        if peer is None:
            stderr.print(
                f"There is no {name} that runs on this host ({WHERE_FROM}).", style="yellow", soft_wrap=True
            )
        else:
            found.setdefault(peer.name, peer)
    return list(found.values())


def _benchmark(
    programs: Sequence[Program], peers: Sequence[Peer], note: Callable[[str], None], *, parallel: bool
) -> Benchmark:
    titles = {program.name: program.title for program in programs}
    if parallel:
        titles[PAIR_ON_ONE] = f"{PAIR.title} in two processes, one hart"
        titles[PAIR_ON_TWO] = f"{PAIR.title} in two processes, two harts"

    @contextmanager
    def subjects(settings: Settings) -> Iterator[Sequence[Subject]]:
        usual = Guest.default()
        initrd = settings.folder / "suite.cpio"
        initrd.write_bytes(usual.initrd.read_bytes() + initramfs.overlay(guest_files()))
        guest = Guest(usual.kernel, initrd)
        native = executable(HOST)
        environment = settings.environment
        work = work_of(programs, settings.scale)
        one = [*work, pair(PAIR_ON_ONE, settings.scale)] if parallel else work
        two = [pair(PAIR_ON_TWO, settings.scale)] if parallel else []
        machines = [(guest.on_doppel(environment), guest.on_doppel(environment, harts=2))]
        machines += [(guest.on_peer(p, environment), guest.on_peer(p, environment, harts=2)) for p in peers]
        yield [
            *(Machine(alone, both, one, two, note) for alone, both in machines),
            Native(native, work, environment, note),
        ]

    metrics = tuple(Metric(key, title, "s", "lower") for key, title in titles.items())
    return Benchmark("suite", "small programs under Debian's kernel", metrics, subjects, warm_up=False)
