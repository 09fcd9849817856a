"""Tables on stdout: fitted to a terminal, as wide as they are elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["print_table"]

# Columns, where there is no terminal that has its own number of them.
WIDE = 240


def print_table(
    rows: Iterable[Sequence[str | Text]], headings: Sequence[str] = (), *, right: Sequence[int] = ()
) -> None:
    """Print rows of cells; the columns with the numbers ``right`` are flush right."""
    rows = list(rows)
    table = Table(*headings, box=None, show_header=bool(headings), pad_edge=False)
    for column in range(len(headings), max(map(len, rows), default=0)):
        table.add_column(str(column))
    for column in right:
        table.columns[column].justify = "right"
    for row in rows:
        # Cells are text, never rich's markup.
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    console.print(table)
