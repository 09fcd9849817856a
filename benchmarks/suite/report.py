"""The suite's figures as tables for people and as files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.measure import Result
from benchmarks.report import markdown_table, number
from benchmarks.suite.summary import Goal, Row, Summary, goals

__all__ = ["print_summary", "to_json", "to_markdown"]

TITLE = "small programs under Debian's kernel, one hart, 512 MiB"
HEADER = ("program", "for", "doppel, s", "peer, s", "peer", "doppel is", "native, s", "of native")
GOALS_HEADER = ("", "measured", "to be", "")
GAINS_HEADER = ("", "with 2 harts, times faster")


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.program.name,
        row.program.title,
        number(row.doppel),
        _optional(row.peer),
        row.peer_name or "-",
        _optional(row.ratio, " x"),
        _optional(row.native),
        _optional(row.times_native, " x"),
    )


def _goal_cells(goal: Goal) -> tuple[str, ...]:
    limit = f"{'at least' if goal.better == 'higher' else 'at most'} {goal.limit:g}"
    return (
        goal.title,
        _optional(goal.value),
        limit,
        {True: "reached", False: "MISSED", None: "-"}[goal.reached],
    )


def _optional(value: float | None, unit: str = "") -> str:
    return "-" if value is None else number(value) + unit


def print_summary(console: Console, summary: Summary) -> None:
    """Show everything; green is where doppel is faster or a goal is reached."""
    table = _table(f"suite: {TITLE}", HEADER, left=("program", "for", "peer"))
    for row in summary.rows:
        cells: list[str | Text] = [*_cells(row)]
        if row.ratio is not None:
            cells[5] = Text(str(cells[5]), "green" if row.ratio >= 1 else "red")
        table.add_row(*cells)
    console.print(table)
    table = _table("", GOALS_HEADER, left=("", "to be"))
    for goal in goals(summary):
        *words, verdict = _goal_cells(goal)
        table.add_row(*words, Text(verdict, {True: "green", False: "red", None: ""}[goal.reached]))
    console.print(table)
    if summary.gains:
        table = _table("", GAINS_HEADER, left=("",))
        for name, gain in summary.gains.items():
            table.add_row(name, number(gain))
        console.print(table)


def _table(title: str, header: Sequence[str], left: Sequence[str]) -> Table:
    table = Table(title=title or None, title_justify="left", box=SIMPLE)
    for name in header:
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    return table


def to_markdown(host: Mapping[str, str], machines: Sequence[str], runs: int, summary: Summary) -> str:
    """The same as Markdown, with the host on which it was measured."""
    lines = [f"- {name}: {value}" for name, value in host.items()]
    lines += [f"- measured: {', '.join(machines)}", f"- runs: {runs} of each, in turn"]
    lines += ["", f"### suite: {TITLE}", "", *markdown_table(HEADER, map(_cells, summary.rows))]
    lines += ["", *markdown_table(GOALS_HEADER, map(_goal_cells, goals(summary)))]
    if summary.gains:
        gains = [(name, number(gain)) for name, gain in summary.gains.items()]
        lines += ["", *markdown_table(GAINS_HEADER, gains)]
    return "\n".join(lines) + "\n"


def to_json(
    host: Mapping[str, str],
    machines: Sequence[str],
    runs: int,
    summary: Summary,
    results: Sequence[Result],
) -> str:
    """Everything measured, and what it comes to."""
    rows = {row.program.name: row for row in summary.rows}
    return json.dumps(
        {
            "host": dict(host),
            "machines": list(machines),
            "runs": runs,
            "programs": [
                {
                    "name": result.metric.key,
                    "title": result.metric.title,
                    "values": {name: list(values) for name, values in result.values.items()},
                    "medians": {name: result.median(name) for name in result.values},
                    **_comparison(rows.get(result.metric.key)),
                }
                for result in results
            ],
            "goals": [
                {
                    "title": goal.title,
                    "value": goal.value,
                    "limit": goal.limit,
                    "better": goal.better,
                    "reached": goal.reached,
                }
                for goal in goals(summary)
            ],
            "two harts": dict(summary.gains),
        },
        indent=2,
    )


def _comparison(row: Row | None) -> dict[str, object]:
    if row is None:
        return {}
    return {
        "kind": row.program.kind,
        "peer": row.peer_name,
        "ratio": row.ratio,
        "times native": row.times_native,
    }
