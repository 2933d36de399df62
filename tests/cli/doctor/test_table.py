from __future__ import annotations

import os
import pty
import sys
import threading

import pytest

from reconvene_agent.cli.doctor.findings import Finding, Verdict
from reconvene_agent.cli.doctor.table import print_findings, summary

FINDINGS = [
    Finding("config", "config.good", Verdict.OK, "/etc/x has no mistakes"),
    Finding("files", "files.absent", Verdict.WARNING, "there is no folder " + "/far" * 40, "sudo install -d [/far]"),
    Finding("files", "files.hidden", Verdict.SKIPPED, "hidden", "sudo doctor"),
    Finding("broker", "broker.no-port", Verdict.PROBLEM, "nobody listens", "start it"),
]


def test_a_file_gets_a_line_for_each_and_one_for_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    print_findings(FINDINGS)
    assert capsys.readouterr().out.splitlines() == [
        "config       ok       /etc/x has no mistakes",
        "files        warning  there is no folder " + "/far" * 40,
        "                      → sudo install -d [/far]",
        "files        skipped  hidden",
        "                      → sudo doctor",
        "broker       PROBLEM  nobody listens",
        "                      → start it",
    ]


def test_a_terminal_gets_a_table_that_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        while piece := os.read(ours, 65536):
            shown.append(piece)
            if b"start it" in b"".join(shown):
                return

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("TERM", "dumb")
        print_findings(FINDINGS)
        terminal.flush()
        reader.join(10)
    os.close(ours)
    lines = b"".join(shown).decode().split("\r\n")
    assert "/far" * 40 in "".join("".join(lines).split()), "what is too long is folded"
    assert all(len(line) <= 80 for line in lines)
    assert sum(line.startswith("files") for line in lines) == 1, "a check is named once"
    assert "sudo install -d [/far]" in " ".join(line.strip() for line in lines)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([0], "nothing is wrong"),
        ([], "nothing is wrong"),
        ([3], "1 problem"),
        ([1, 1, 3, 3, 0], "2 problems and 2 warnings"),
        ([1, 2], "1 warning, 1 not looked at"),
        ([0, 2, 2], "nothing is wrong, 2 not looked at"),
    ],
)
def test_the_sum_of_it_in_words(numbers: list[int], text: str) -> None:
    assert summary([FINDINGS[number] for number in numbers]) == text
