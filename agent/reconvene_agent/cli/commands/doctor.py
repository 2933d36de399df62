"""``doctor``: everything that the agent needs on this board, looked at, with what to do about what is not right."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import msgspec

from reconvene_agent import __version__
from reconvene_agent.cli.arguments import add_common
from reconvene_agent.cli.doctor.case import Case
from reconvene_agent.cli.doctor.examination import examine
from reconvene_agent.cli.doctor.findings import Finding, Verdict
from reconvene_agent.cli.doctor.table import print_findings, summary
from reconvene_agent.cli.output import print_json
from reconvene_agent.core import config
from reconvene_agent.core.errors import EXIT_DEGRADED, EXIT_OK, AgentError, ErrorCode

_ERASE = "\r\033[K"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common(parser)
    parser.add_argument("--offline", action="store_true", help="leave the broker alone")


def run(arguments: argparse.Namespace) -> int:
    file = arguments.config or config.find()
    case = Case(file.absolute() if file is not None else None, arguments.offline)
    findings: list[Finding] = []
    try:
        findings.extend(examine(case, _show, arguments.debug))
    except KeyboardInterrupt:
        _clear()
        if not arguments.json:
            print_findings(findings)
        raise AgentError("stopped before everything was looked at", ErrorCode.INTERRUPTED, _document(findings)) from None
    _clear()
    if arguments.json:
        print_json(_document(findings))
    else:
        print_findings(findings)
        print(f"\n{summary(findings)}")
    return EXIT_DEGRADED if any(finding.verdict is Verdict.PROBLEM for finding in findings) else EXIT_OK


def _document(findings: list[Finding]) -> dict[str, Any]:
    counts = {verdict.value: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
    return {"version": __version__, "counts": counts, "findings": msgspec.to_builtins(findings)}


def _show(check: str) -> None:
    """Tell a terminal what is being looked at, since some checks take their time."""
    if sys.stderr.isatty():
        print(f"{_ERASE}looking at: {check}", end="", file=sys.stderr, flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print(_ERASE, end="", file=sys.stderr, flush=True)
