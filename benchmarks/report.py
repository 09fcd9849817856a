"""Results as tables for people and as files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.measure import DOPPEL, Benchmark, Result

__all__ = ["markdown", "markdown_table", "number", "print_results", "to_json", "write_markdown"]

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def number(value: float) -> str:
    """Three significant digits, and no fewer than all of those before the point."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def _spread(result: Result, subject: str | None) -> str:
    """The median, and the extremes if there are any."""
    values = result.values.get(subject or "", ())
    middle = result.median(subject or "")
    if middle is None:
        return "-"
    if len(values) < 2:
        return number(middle)
    return f"{number(middle)} ({number(min(values))} to {number(max(values))})"


def _comparison(result: Result) -> str:
    return "-" if result.ratio is None else f"{result.ratio:.2f} x"


def _promise(result: Result) -> str:
    metric = result.metric
    if metric.promise is not None:
        limit = f"{'at least' if metric.better == 'higher' else 'at most'} {metric.promise:g}"
    elif metric.lead is not None:
        limit = "no worse than the peer" if metric.lead == 1 else f"at least {metric.lead:g} x"
    else:
        return "-"
    return limit + {True: ", kept", False: ", MISSED", None: ""}[result.kept]


def _header(results: Sequence[Result]) -> tuple[str, ...]:
    peer = next((result.peer for result in results if result.peer), None)
    return "", "unit", DOPPEL, peer or "peer", "doppel is", "promised"


def _cells(result: Result) -> tuple[str, ...]:
    return (
        result.metric.title,
        result.metric.unit,
        _spread(result, DOPPEL),
        _spread(result, result.peer),
        _comparison(result),
        _promise(result),
    )


def print_results(console: Console, benchmark: Benchmark, results: Sequence[Result]) -> None:
    """A table: medians, in parentheses the least and the most; the factor by which doppel is better."""
    table = Table(title=f"{benchmark.name}: {benchmark.title}", title_justify="left", box=SIMPLE)
    for name in _header(results):
        numbers = name not in ("", "unit", "promised")
        table.add_column(name, justify="right" if numbers else "left", no_wrap=True)
    for result in results:
        style = {True: "green", False: "red", None: ""}[result.kept]
        *cells, promise = _cells(result)
        table.add_row(*cells, Text(promise, style))
    console.print(table)


def to_json(host: Mapping[str, str], peer: str | None, runs: int, results: Iterable[Result]) -> str:
    """Everything measured, in the order in which it was."""
    return json.dumps(
        {
            "host": dict(host),
            "peer": peer,
            "runs": runs,
            "results": [
                {
                    "benchmark": result.benchmark,
                    "metric": result.metric.key,
                    "title": result.metric.title,
                    "unit": result.metric.unit,
                    "better": result.metric.better,
                    "promise": result.metric.promise,
                    "values": {name: list(values) for name, values in result.values.items()},
                    "medians": {name: result.median(name) for name in result.values},
                    "ratio": result.ratio,
                    "kept": result.kept,
                }
                for result in results
            ],
        },
        indent=2,
    )


def markdown(
    host: Mapping[str, str], peer: str | None, runs: int, groups: Iterable[tuple[Benchmark, Sequence[Result]]]
) -> str:
    """The same as Markdown, with the host on which it was measured."""
    lines = [f"- {name}: {value}" for name, value in host.items()]
    lines += [f"- peer: {peer or 'none'}", f"- runs: {runs} of each, in turn"]
    for benchmark, results in groups:
        lines += ["", f"### {benchmark.name}: {benchmark.title}", ""]
        lines += markdown_table(_header(results), map(_cells, results))
    return "\n".join(lines) + "\n"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def write_markdown(path: Path, text: str) -> None:
    """Write a file, or of one that has the two marker lines, only what is between them."""
    try:
        before, rest = path.read_text("utf-8").split(BEGIN)
        _, after = rest.split(END)
    except (FileNotFoundError, ValueError):
        path.write_text(text, "utf-8")
    else:
        path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", "utf-8")
