"""The entry: which command runs, what becomes of wrong words, and what becomes of output that nobody takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from reconvene_agent import __version__
from reconvene_agent.cli.main import COMMANDS, main
from support.commandline import ERROR, PROGRAM, Cli, Ended, command, surroundings

HEAVY = ("torch", "numpy", "onnx", "onnxruntime", "onnxscript", "safetensors", "PIL")
SHAPE = ("--model", "resnet20", "--input", "1x8x8", "--classes", "10", "--seed", "0")


# --- words -------------------------------------------------------------------------------------------------------------------


def test_the_program_is_installed_under_its_name() -> None:
    (script,) = entry_points(group="console_scripts", name="reconvene-agent")
    assert script.load() is main


def test_the_version_is_told(cli: Cli) -> None:
    assert cli("--version") == Ended(0, f"reconvene-agent {__version__}\n", "")


def test_help_names_every_command(cli: Cli) -> None:
    told = cli("--help")
    assert (told.code, told.err) == (0, "")
    words = " ".join(told.out.split())
    assert all(f" {name} {text}" in words for name, text in COMMANDS.items())


CONFIGLESS = {
    *((name,) for name in ("profiles", "schema", "demo", "bundle", "keys", "models", "fleet")),
    *(("bundle", "verify"), ("keys", "sign")),
}


@pytest.mark.parametrize(
    "words",
    [
        *((name,) for name in COMMANDS),
        *(("bundle", "create"), ("bundle", "verify"), ("models", "list"), ("keys", "sign"), ("fleet", "ls")),
    ],
    ids=" ".join,
)
def test_every_command_explains_itself(words: tuple[str, ...], cli: Cli) -> None:
    told = cli(*words, "--help")
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith(f"usage: reconvene-agent {' '.join(words)} ")
    assert ("--config" in told.out) is (words not in CONFIGLESS)
    if words not in {("run",), ("bundle",), ("keys",), ("models",), ("fleet",)}:
        assert "exactly one JSON document" in told.out


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no command": ((), "the following arguments are required: COMMAND"),
    "an unknown command": (("prun",), "invalid choice: 'prun'"),
    "an unknown option": (("probe", "--jason"), "unrecognized arguments: --jason"),
    "an option of another command": (("probe", "--sparsity", "0.5"), "unrecognized arguments: --sparsity 0.5"),
    "a missing argument": (("prune", "b"), "the following arguments are required: --sparsity, --out"),
    "a missing action": (("bundle",), "the following arguments are required: ACTION"),
    "no number": (("plan", "b", "--latency-ms", "fast"), "argument --latency-ms: 'fast' is not a number"),
    "not a number": (("plan", "b", "--sparsity", "nan"), "argument --sparsity: 'nan' is not a number"),
    "no such choice": (("plan", "b", "--average", "mode"), "argument --average: invalid choice: 'mode'"),
    "a value too many": (("status", "now"), "unrecognized arguments: now"),
    "bytes that are no text": (("plan", "\udcff"), "is not UTF-8: rename it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_words_are_one_line_that_says_where_help_is(case: str, cli: Cli) -> None:
    words, complaint = WRONG[case]
    ended = cli(*words)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.complaint
    assert re.search(r"\(see reconvene-agent( \w+)? --help\)$", ended.complaint)


@pytest.mark.parametrize("words", [("--json",), ("--json", "probe"), ("nonsense", "--json"), ("plan", "--json")], ids=" ".join)
def test_wrong_words_are_told_as_json_too(words: tuple[str, ...], cli: Cli) -> None:
    ended = cli(*words)
    assert ended.code == 2
    assert ended.error("SCHEMA")["error"]["retryable"] is False


# --- configuration -----------------------------------------------------------------------------------------------------------

CONFIGURED: dict[str, tuple[str, ...]] = {
    "status": (),
    "probe": (),
    "plan": ("{bundle}",),
    "prune": ("{bundle}", "--sparsity", "0.9", "--out", "{out}"),
    "specialize": ("--bundle", "{bundle}", "--data", "{out}", "--out", "{out}"),
    "predict": ("x.png",),
    "bench": ("{bundle}", "{out}"),
    "bundle": ("create", "{out}/b", *SHAPE, "--weights"),
}
MISTAKES: dict[str, tuple[str, str]] = {
    "no such file": ("", "cannot be read: No such file or directory"),
    "not TOML": ("[agent", "cannot be read: "),
    "an unknown section": ("[agents]", "agents: there is no such section; is it agent?"),
    "an unknown setting": ("[worker]\npythn = ''", "worker.pythn: there is no such setting; is it python?"),
    "a wrong type": ("[worker]\nattempts = 'three'", "worker.attempts: Expected `int`, got `str`"),
    "a wrong value": ("[training]\nepochs = 0", "training.epochs: Expected `int` >= 1"),
}


def spoilt(folder: Path, content: str) -> Path:
    path = folder / "config.toml"
    if content:
        path.write_text(content)
    return path


@pytest.mark.parametrize("name", CONFIGURED)
def test_every_command_refuses_a_wrong_configuration(name: str, cli: Cli, bundle: Path, tmp_path: Path) -> None:
    config = spoilt(tmp_path, MISTAKES["an unknown setting"][0])
    words = [word.format(bundle=bundle, out=tmp_path / "out") for word in CONFIGURED[name]]
    ended = cli(name, *words, "--config", config, "--json")
    assert ended.code == 2
    ended.error("SCHEMA")
    assert ended.complaint == f"{config}: {MISTAKES['an unknown setting'][1]}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_in_a_configuration_is_named(mistake: str, cli: Cli, tmp_path: Path) -> None:
    content, complaint = MISTAKES[mistake]
    config = spoilt(tmp_path, content)
    ended = cli("probe", "--config", config)
    assert (ended.code, ended.out) == (2, "")
    assert ended.complaint.startswith(f"{config}: {complaint}")


def test_several_mistakes_are_a_line_each(cli: Cli, tmp_path: Path) -> None:
    config = spoilt(tmp_path, "\n".join(MISTAKES[name][0] for name in ("an unknown setting", "a wrong value")))
    lines = cli("probe", "--config", config).err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{ERROR}{config}: ") for line in lines)


def test_the_environment_can_name_the_configuration(tmp_path: Path) -> None:
    ended = command("probe", RECONVENE_AGENT_CONFIG=str(tmp_path / "nowhere.toml"))
    assert (ended.code, ended.complaint) == (2, f"{tmp_path}/nowhere.toml: cannot be read: No such file or directory")


def test_only_debug_shows_a_traceback(cli: Cli, tmp_path: Path) -> None:
    words = ("bundle", "verify", tmp_path)
    assert cli(*words).complaint == f"{tmp_path} is not a bundle: it has no bundle.toml"
    assert "Traceback" in cli(*words, "--debug").err


# --- what is loaded ----------------------------------------------------------------------------------------------------------

_LOADED = """
import sys
from reconvene_agent.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def loaded_by(words: Sequence[object]) -> set[str]:
    """Return the top-level modules that a command leaves loaded."""
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, *map(str, words)], capture_output=True, text=True, env=surroundings(), check=True
    )
    return set(done.stderr.splitlines()[-1].removeprefix("loaded: ").split())


@pytest.mark.parametrize("name", ["--help", "plan", "specialize", "demo", "create", "status", "probe", "profiles"])
def test_what_needs_no_model_loads_nothing_heavy(name: str, tmp_path: Path) -> None:
    words: tuple[object, ...] = (name, "--json")
    if name in {"plan", "specialize", "demo"}:
        words = (name, "--help")
    elif name == "create":
        words = ("bundle", "create", tmp_path / "b", *SHAPE)
    loaded = loaded_by(words)
    assert "reconvene_agent" in loaded
    assert not loaded & {*HEAVY, "rich"}


def test_a_worker_does_the_heavy_work_elsewhere(
    pruned: Ended, answering: Callable[[dict[str, Any]], Path], bundle: Path, tmp_path: Path
) -> None:
    config = answering(pruned.document)
    loaded = loaded_by(("prune", bundle, "--sparsity", 0.9, "--out", tmp_path / "p", "--config", config))
    assert not loaded & set(HEAVY)
    assert "rich" in loaded


# --- output that nobody takes ------------------------------------------------------------------------------------------------

SAYING: dict[str, tuple[str, ...]] = {
    "--help": ("--help",),
    "help of a command": ("plan", "--help"),
    "--version": ("--version",),
    "lines": ("probe",),
    "json": ("probe", "--json"),
}
FAILING = ("plan", "/nowhere", "--json")


def closed_pipe(words: Sequence[str]) -> Ended:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return command(*words, stdout=writing)
    finally:
        os.close(writing)


@pytest.mark.parametrize("case", SAYING)
def test_a_closed_pipe_ends_a_command_quietly(case: str) -> None:
    assert closed_pipe(SAYING[case]) == Ended(141, "", "")


def test_an_error_behind_a_closed_pipe_is_still_one_line() -> None:
    ended = closed_pipe(FAILING)
    assert (ended.code, ended.complaint) == (4, "/nowhere is not a bundle: it has no bundle.toml")


@pytest.fixture
def full() -> Iterator[int]:
    """Return a descriptor that takes nothing, as a file on a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("NOT TESTED: output to a full disk, since there is no /dev/full here")
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("case", ["lines", "json"])
def test_output_to_a_full_disk_is_told(case: str, unbuffered: str, full: int) -> None:
    ended = command(*SAYING[case], stdout=full, PYTHONUNBUFFERED=unbuffered)
    assert ended.code == 7
    assert ended.complaint == "no space left on the disk while writing the output: free some and try again"


def test_an_error_on_a_full_disk_keeps_its_own_code(full: int) -> None:
    ended = command(*FAILING, stdout=full)
    assert (ended.code, ended.complaint) == (4, "/nowhere is not a bundle: it has no bundle.toml")


@pytest.mark.parametrize(("words", "code"), [(("profiles",), 0), (("profiles", "--json"), 0), (FAILING, 4)], ids=str)
def test_stdout_and_stderr_may_be_closed(words: tuple[str, ...], code: int) -> None:
    for closed in (">&-", "2>&-"):
        shell = f'exec "$@" {closed}'
        done = subprocess.run(
            ["/bin/sh", "-c", shell, "sh", *PROGRAM, *words], capture_output=True, text=True, env=surroundings(), check=False
        )
        assert done.returncode == code
        assert "Traceback" not in done.stderr
        assert "defect" not in done.stderr
        if closed == "2>&-":
            assert ERROR not in done.stdout


def test_a_terminal_that_knows_no_arrows_gets_question_marks() -> None:
    ended = command("profiles", PYTHONIOENCODING="ascii")
    assert (ended.code, ended.err) == (0, "")
    assert len(re.findall(r"^\? ", ended.out, re.MULTILINE)) == 1


def test_json_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    named = tmp_path / "é→"
    ended = command("bundle", "create", named, *SHAPE, "--json", PYTHONIOENCODING="ascii")
    assert ended.document["path"] == str(named)
