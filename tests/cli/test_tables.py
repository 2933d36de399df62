"""Tables: one line a row, and no figure cut off."""

from __future__ import annotations

import os

import pytest

from reconvene_agent.cli.tables import print_table

ROWS = [("a", "1", "short"), ("bb", "1,000,000", "long " * 40 + "end")]


@pytest.mark.parametrize("columns", ["", "20", "80", "500"])
def test_every_row_is_one_line_with_all_that_is_in_it(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    print_table(("name", "count", "why"), ROWS, left=("name", "why"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["name", "count", "why"], *([*row[:2], *row[2].split()] for row in ROWS)]


def test_columns_stand_below_their_headings(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "count", "why"), ROWS, left=("name", "why"))
    headings, first, second = capsys.readouterr().out.splitlines()
    assert headings.startswith("name      count  why")
    assert first.startswith("a             1  short")
    assert second.startswith("bb    1,000,000  long long")


def test_what_looks_like_markup_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "value"), [("limit[0]", "[red]5")])
    assert capsys.readouterr().out.split() == ["name", "value", "limit[0]", "[red]5"]


def test_a_narrow_terminal_does_not_cut_figures_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "30")
    reading, writing = os.openpty()
    with os.fdopen(writing, "w") as terminal, os.fdopen(reading, "rb", buffering=0) as screen:
        monkeypatch.setattr("sys.stdout", terminal)
        print_table(("name", "count"), [("n" * 40, "1,000,000")])
        terminal.flush()
        shown = screen.read(4096).decode()
    assert "n" * 40 in shown
    assert "1,000,000" in shown
    assert "…" not in shown
