"""Tables on stdout, one line a row, whatever the width of what reads them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

MIN_WIDTH = 110


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> None:
    """Print rows under their headings, right-aligned but for the columns in ``left``."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not sys.stdout.isatty():
        console.width = max(console.width, MIN_WIDTH)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
