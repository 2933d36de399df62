from __future__ import annotations

from pathlib import Path

from reconvene_agent.cli.doctor.findings import Finding, Verdict, problem

KIND = problem("disk.odd", "{path} is odd: {why}", "chmod 7 {path}; ask {why}")


def test_paths_are_quoted_where_they_are_to_be_typed() -> None:
    found = KIND(path=Path("/my data"), why="so there")
    assert found == Finding("disk", "disk.odd", Verdict.PROBLEM, "/my data is odd: so there", "chmod 7 '/my data'; ask so there")


def test_what_others_say_is_kept_to_one_line_and_off_the_terminal() -> None:
    found = KIND(path=Path("/x"), why="a\nb\x1b[2J{c}")
    assert found.found == "/x is odd: a b [2J{c}"
