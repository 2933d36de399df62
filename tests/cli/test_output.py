"""Results on stdout, all else on stderr."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from reconvene_agent.cli import output
from reconvene_agent.core.errors import AgentError, ErrorCode, NotRunningError


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1536, "1.50 KiB"), (5 << 20, "5.00 MiB"), (1 << 40, "1024.00 GiB")],
)
def test_sizes_are_told_in_the_unit_that_suits_them(count: int, text: str) -> None:
    assert output.size(count) == text


def test_json_is_one_line_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"a": [1, None], "é": "→"})
    assert capsys.readouterr() == ('{"a":[1,null],"é":"→"}\n', "")


def test_json_is_laid_out_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.openpty()
    with os.fdopen(writing, "w") as terminal, os.fdopen(reading, "rb", buffering=0) as screen:
        monkeypatch.setattr("sys.stdout", terminal)
        output.print_json({"a": [1, {"b": None}]})
        shown = screen.read(4096).decode()
    assert json.loads(shown) == {"a": [1, {"b": None}]}
    assert shown.count("\n") > 3


def test_saying_something_is_not_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("hello →")
    assert capsys.readouterr() == ("", "hello →\n")


@pytest.mark.parametrize(("code", "exit_code"), [(ErrorCode.NO_DISK, 7), (ErrorCode.BAD_BUNDLE, 4)])
def test_an_error_is_a_line_and_a_code(code: ErrorCode, exit_code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert output.fail(AgentError("no room", code), as_json=False) == exit_code
    assert capsys.readouterr() == ("", "reconvene-agent: error: no room\n")


def test_an_error_of_several_lines_names_the_program_on_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert output.fail(NotRunningError("one\ntwo"), as_json=False) == 3
    assert capsys.readouterr().err == "reconvene-agent: error: one\nreconvene-agent: error: two\n"


def test_an_error_as_json_keeps_what_there_is_of_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    output.fail(AgentError("no room", ErrorCode.NO_DISK, {"plan": {"chosen": 1}, "error": "not this"}), as_json=True)
    told = {"code": "NO_DISK", "retryable": True, "detail": "no room"}
    assert json.loads(capsys.readouterr().out) == {"plan": {"chosen": 1}, "error": told}


def test_nothing_is_lost_between_a_table_and_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as file:
        monkeypatch.setattr("sys.stdout", file)
        output.prepare()
        print("→ a line")
        output.print_json({"é": 1})
    assert (tmp_path / "out").read_bytes() == '? a line\n{"é":1}\n'.encode()
