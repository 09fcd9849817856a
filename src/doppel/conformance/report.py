"""What a suite came to, as a Markdown table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from doppel.conformance.runner import Result, Verdict

__all__ = ["markdown_table", "summary"]


def summary(results: Iterable[Result]) -> str:
    """One line: how many tests passed, failed and so on."""
    counts = Counter(result.verdict for result in results)
    return (
        ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict])
        or "no tests"
    )


def markdown_table(results: Iterable[Result]) -> str:
    """The results, one row each, with the summary above."""
    results = list(results)
    lines = [summary(results) + ".", "", "| test | result | instructions |", "|---|---|---:|"]
    for result in results:
        verdict = result.verdict.value + (f" ({result.detail})" if result.detail else "")
        count = result.instructions or ""
        lines.append(f"| {_cell(result.name)} | {_cell(verdict)} | {count} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
