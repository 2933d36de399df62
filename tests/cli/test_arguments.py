"""How words become values."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from reconvene_agent.cli import arguments
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.options import MethodOptions


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for add in (arguments.add_common, arguments.add_board, arguments.add_method, arguments.add_budget):
        add(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(("text", "value"), [("1", 1.0), ("-0.5", -0.5), ("1e3", 1000.0), (" 2 ", 2.0)])
def test_numbers(text: str, value: float) -> None:
    assert arguments.number(text) == value


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "-inf", "1e999", "1,5"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number"):
        arguments.number(text)


def test_paths_must_be_text() -> None:
    assert arguments.path("é/b") == Path("é/b")
    with pytest.raises(argparse.ArgumentTypeError, match=r"'/\\udcff' is not UTF-8: rename it"):
        arguments.path("/\udcff")


def test_a_new_folder_is_absolute_and_may_be_there_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert arguments.new_folder(Path("a/../b")) == tmp_path / "b"
    assert arguments.new_folder(tmp_path) == tmp_path
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is a file: name a folder"):
        arguments.new_folder(Path("file"))


def test_what_was_not_given_is_left_to_the_defaults() -> None:
    nothing = parsed()
    assert (arguments.method(nothing), arguments.budget(nothing)) == ({}, {})
    assert (nothing.json, nothing.debug, nothing.config, nothing.profile, nothing.threads) == (False, False, None, None, None)


def test_every_knob_of_the_method_can_be_given() -> None:
    names = {"criterion": "synflow", "average": "mean", "width": "sqrt", "sensitive": "shrink", "trunk": "prune"}
    numbers = {"width_multiplier": 0.75, "min_width": 2, "width_multiple": 8}
    words = [str(word) for name, value in {**names, **numbers}.items() for word in (f"--{name.replace('_', '-')}", value)]
    assert arguments.method(parsed(*words)) == {**names, **numbers}
    assert {*names, *numbers} == set(MethodOptions.__struct_fields__)


@pytest.mark.parametrize(
    "words",
    [
        ("--criterion", "fisher"),
        ("--trunk", "yes"),
        ("--width-multiplier", "half"),
        ("--width-multiplier", "nan"),
        ("--width-multiple", "1.5"),
    ],
    ids=" ".join,
)
def test_values_that_no_knob_has_are_refused_with_the_options_name(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed(*words)
    assert caught.value.code == 2
    assert f"argument {words[0]}: " in capsys.readouterr().err


def test_data_for_scoring_become_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    arguments.add_scoring_data(parser)
    monkeypatch.chdir(tmp_path)
    assert arguments.resolved(parser.parse_args(["--data", "a/../b"]).data) == tmp_path / "b"
    assert arguments.resolved(parser.parse_args([]).data) is None


def test_what_was_given_is_named_as_in_the_configuration() -> None:
    given = parsed(
        "--min-width", "8", "--width", "sqrt", "--sensitive", "dense", "--average", "weighted", "--criterion", "magnitude"
    )
    names = {"criterion": "magnitude", "average": "weighted", "width": "sqrt", "sensitive": "dense", "min_width": 8}
    assert arguments.method(given) == names
    limits = parsed("--latency-ms", "5", "--memory-mb", "1.5", "--training-memory-mb", "0", "--model-mb", "4")
    assert arguments.budget(limits) == {"latency_ms": 5.0, "memory_mb": 1.5, "training_memory_mb": 0.0, "model_mb": 4.0}
