"""What a suite came to, as text and as Markdown tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from doppel.conformance.runner import Result, Verdict

__all__ = ["markdown_report", "summary"]

# "rv64ui-p-add": the group and the environment that the test runs in.
_GROUP = re.compile(r"(.+?-[a-z]{1,2})-")


def summary(results: Iterable[Result]) -> str:
    """One line: how many tests passed, failed and so on."""
    counts = Counter(result.verdict for result in results)
    parts = [f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict]]
    return ", ".join(parts) or "no tests"


def markdown_report(results: Sequence[Result]) -> str:
    """The summary, a table of the groups that tests' names begin with, and one of all tests."""
    return f"{summary(results)}.\n\n{_group_table(results)}\n{_test_table(results)}"


def _group_table(results: Sequence[Result]) -> str:
    groups: dict[str, list[Result]] = {}
    for result in results:
        match = _GROUP.match(result.name)
        groups.setdefault(match[1] if match else result.name, []).append(result)
    rows = [(name, str(len(members)), summary(members)) for name, members in groups.items()]
    return _table(("group", "tests", "results"), "| --- | ---: | --- |", rows)


def _test_table(results: Sequence[Result]) -> str:
    rows = [
        (
            result.name,
            result.verdict.value + (f" ({result.detail})" if result.detail else ""),
            str(result.instructions or ""),
        )
        for result in results
    ]
    return _table(("test", "result", "instructions"), "| --- | --- | ---: |", rows)


def _table(headings: Sequence[str], alignment: str, rows: Iterable[Sequence[str]]) -> str:
    lines = [alignment, *("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)]
    return "\n".join(["| " + " | ".join(headings) + " |", *lines]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
