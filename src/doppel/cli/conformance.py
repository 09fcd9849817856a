"""``doppel conformance``: test programs with a bar of progress and a table of what did not pass."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from doppel.cli.tables import print_table
from doppel.conformance.report import markdown_report, summary
from doppel.conformance.runner import CompileMode, Result, Verdict
from doppel.conformance.suite import find_tests, run_suite
from doppel.errors import DoppelError

__all__ = ["conformance"]

GOOD = (Verdict.PASSED, Verdict.NOT_APPLICABLE)


def conformance(folder: Path, jobs: int, compile: CompileMode, write: Path | None) -> int:
    """Run the tests of a folder and tell the results; 0 if none failed."""
    if jobs < 0:
        raise DoppelError(f"{jobs} jobs are too few", "give --jobs a number from 0 up")
    results = _run_with_progress(find_tests(folder), jobs, compile)
    others = [result for result in results if result.verdict is not Verdict.PASSED]
    if others:
        rows = [(r.name, r.verdict.value, r.detail, str(r.instructions or "")) for r in others]
        print_table(rows, ("test", "result", "", "instructions"), right=[3])
    print(summary(results))
    if write is not None:
        try:
            write.write_text(markdown_report(results), "utf-8")
        except OSError as error:
            raise DoppelError(
                f"the table cannot be written to {write}: {error.strerror}", "give another file to --write"
            ) from error
    return 0 if all(result.verdict in GOOD for result in results) else 1


def _run_with_progress(files: list[Path], jobs: int, compile: CompileMode) -> list[Result]:
    stderr = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task("tests", total=len(files))
        return run_suite(files, jobs=jobs, compile=compile, done=lambda result: progress.advance(task))
