"""Tables on stdout, one line a row, whatever the width of what reads them."""

from __future__ import annotations

from collections.abc import Sequence

NO_LIMIT = 10_000


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> None:
    """Print rows under their headings, right-aligned but for the columns in ``left``."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # A narrow terminal may wrap a line; figures cut off to fit into it would be lost.
    needed = Measurement.get(console, console.options.update(width=NO_LIMIT), table).maximum
    console.width = max(console.width, needed)
    console.print(table)
