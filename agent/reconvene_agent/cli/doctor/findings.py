"""What a check can find: kinds of findings, whose texts docs/troubleshooting.md repeats, and findings of these kinds."""

from __future__ import annotations

import shlex
from enum import Enum
from pathlib import Path

from msgspec import Struct


class Verdict(str, Enum):
    """How bad a finding is: ``problem`` keeps the agent from its work, ``warning`` may, ``skipped`` could not be looked at."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


class Finding(Struct, frozen=True):
    """One thing that was found.

    Attributes:
        check: which check found it.
        code: names the kind of finding for programs, such as ``clock.unsynchronised``; it does not change between versions.
        found: one line that says what was found.
        advice: one line that says what to do; empty where there is nothing to be done.
    """

    check: str
    code: str
    verdict: Verdict
    found: str
    advice: str = ""


class Kind(Struct, frozen=True):
    """What may be found: ``says`` and ``do`` are templates for ``str.format``."""

    code: str
    verdict: Verdict
    says: str
    do: str = ""

    def __call__(self, **facts: object) -> Finding:
        """Return a finding of this kind. Facts are kept to what a line can show; in what is to be typed, paths are quoted."""
        shown = {name: _line(value) for name, value in facts.items()}
        typed = {name: shlex.quote(shown[name]) if isinstance(value, Path) else shown[name] for name, value in facts.items()}
        return Finding(self.code.partition(".")[0], self.code, self.verdict, self.says.format(**shown), self.do.format(**typed))


def _line(value: object) -> str:
    """Return a fact without what would break the line or steer the terminal, since much of it was said by others."""
    return "".join(character if character.isprintable() else " " for character in str(value))


def ok(code: str, says: str) -> Kind:
    return Kind(code, Verdict.OK, says)


def warning(code: str, says: str, do: str) -> Kind:
    return Kind(code, Verdict.WARNING, says, do)


def problem(code: str, says: str, do: str) -> Kind:
    return Kind(code, Verdict.PROBLEM, says, do)


def skipped(code: str, says: str, do: str) -> Kind:
    return Kind(code, Verdict.SKIPPED, says, do)
