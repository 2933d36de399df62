"""Findings for people: a table in which what to do stands below what was found."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from reconvene_agent.cli.doctor.findings import Finding, Verdict

_SIGNS = {Verdict.OK: "ok", Verdict.WARNING: "warning", Verdict.PROBLEM: "PROBLEM", Verdict.SKIPPED: "skipped"}
_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "bold red", Verdict.SKIPPED: "dim"}
_NOUNS = {Verdict.PROBLEM: "problem", Verdict.WARNING: "warning"}


def print_findings(findings: Sequence[Finding]) -> None:
    """Print findings check by check; to what is no terminal in lines of any length, so that they can be searched."""
    if not sys.stdout.isatty():
        for finding in findings:
            print(f"{finding.check:<12} {_SIGNS[finding.verdict]:<8} {finding.found}")
            if finding.advice:
                print(f"{'':<22}→ {finding.advice}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    before = ""
    for finding in findings:
        check = finding.check if finding.check != before else ""
        table.add_row(check, Text(_SIGNS[finding.verdict], _STYLES[finding.verdict]), finding.found)
        if finding.advice:
            table.add_row("", "", Text(f"→ {finding.advice}", "cyan"))
        before = finding.check
    Console(highlight=False, markup=False, emoji=False).print(table)


def summary(findings: Sequence[Finding]) -> str:
    """Return how many problems and warnings there are, in words."""
    counts = Counter(finding.verdict for finding in findings)
    parts = [
        f"{counts[verdict]} {noun}{'s' if counts[verdict] != 1 else ''}" for verdict, noun in _NOUNS.items() if counts[verdict]
    ]
    told = " and ".join(parts) or "nothing is wrong"
    return f"{told}, {counts[Verdict.SKIPPED]} not looked at" if counts[Verdict.SKIPPED] else told
