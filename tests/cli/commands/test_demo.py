"""``demo``: the whole of it, and all of it gone when it is stopped."""

from __future__ import annotations

import re
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from reconvene_agent.cli.commands import demo
from reconvene_agent.cli.demo.stage import Stage
from support.commandline import Cli, Ended, Running, command
from support.cores import on_one_core

SLOW_S = 280.0

EPOCHS = demo.TRAINING["epochs"]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Path]:
    """Return the demo as it was played once, in the place of an earlier one, and its folder."""
    out = tmp_path_factory.mktemp("demo") / "result"
    Stage(out).build("mqtt://earlier")
    with on_one_core(), Running("demo", "--out", out, "--json") as running:
        return running.end(SLOW_S), out


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_whole_job_ends_with_a_smaller_model(played: tuple[Ended, Path]) -> None:
    ended, out = played
    assert ended.code == 0, ended.err
    document = ended.document
    assert list(document) == ["pruned", "dense", "bench", "seconds", "bundle", "models"]
    pruned, dense, bench = (document[name] for name in ("pruned", "dense", "bench"))
    assert pruned["release"]["bytes"] <= 4 << 20 < dense["release"]["bytes"] / 10
    assert bench["ratio"]["params"] > 10
    assert bench["pruned"]["latency_ms"]["p50"] < bench["dense"]["latency_ms"]["p50"]
    assert pruned["training"]["accuracy"] > 0.6, "a loaded board is slower, so its plan narrows the model more"
    assert dense["plan"]["chosen"]["sparsity"] == 0
    assert pruned["plan"]["chosen"]["sparsity"] > 0.5
    assert (document["bundle"], document["models"]) == (str(Stage(out).bundle), str(Stage(out).models))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_whole_job_is_told_while_it_runs(played: tuple[Ended, Path]) -> None:
    said = played[0].err
    for text in (
        r"^• a broker listens on mqtt://127\.0\.0\.1:\d+$",
        r"^• the agent is up and takes \d+\.\d MiB$",
        r"^→ cmd/specialize/demo-1 ",
        r"^← cmd/specialize/demo-1   scheduled$",
        rf"^← e/epoch +epoch {EPOCHS}/{EPOCHS}: ",
        r"^← e/model_promoted ",
        r"^← cmd/specialize/demo-1   successful$",
        r"^• both are timed in turn in ONNX Runtime$",
    ):
        assert re.search(text, said, re.MULTILINE), text
    assert "error" not in said


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_the_demo_leaves_behind_can_be_used(played: tuple[Ended, Path]) -> None:
    out = played[1]
    assert [path.name for path in out.parent.iterdir()] == ["result"]
    stage = Stage(out)
    assert not (out / "dense").exists()
    assert "mqtt://earlier" not in stage.config.read_text(), "an earlier result is replaced"
    ended = command("predict", stage.data.with_name("3.png"), stage.data.with_name("7.png"), "--model", stage.models, "--json")
    assert ended.code == 0
    assert all("classes" in each for each in ended.document["predictions"])
    status = command("status", "--config", stage.config, "--json")
    assert (status.code, status.document["state"]) == (3, "not running")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_whole_job_is_told_to_people_as_a_table(
    played: tuple[Ended, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, out = played
    monkeypatch.chdir(out.parent)
    demo._show(ended.document, Stage(out))
    told = capsys.readouterr().out
    for row in ("parameters", "bytes on disk", "latency p50", "latency p95", "training memory", "training speed"):
        assert f"\n{row} " in told
    assert "The model: result/state/models/current/model.onnx\n" in told
    assert " predict result/state/data/3.png result/state/data/7.png --model result/state/models\n" in told


def test_a_demo_that_is_stopped_leaves_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("stopped")  # short: a socket's path has but 107 bytes
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143}
    with ExitStack() as stack:
        words = {number: ("demo", "--out", folder / number.name, "--json") for number in codes}
        demos = {number: stack.enter_context(Running(*words[number])) for number in codes}
        for number, running in demos.items():
            running.wait_line("executing p")
            assert len(running.family()) >= 2
            running.signal(number)
        endings = {number: running.end() for number, running in demos.items()}
    for number, ended in endings.items():
        assert ended.code == codes[number]
        ended.error("INTERRUPTED")
        assert ended.complaint == "stopped: nothing is left running or lying about"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_earlier_demo_stays(kind: str, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    if kind == "file":
        out.write_text("mine")
    else:
        (out / "mine").mkdir(parents=True)
    ended = cli("demo", "--out", out, "--json")
    assert ended.code == 2
    ended.error("SCHEMA")
    assert ended.complaint == f"{out} is there and is not an earlier demo's: name another folder with --out"
    assert list(tmp_path.iterdir()) == [out]


def test_a_demo_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = command("demo", "--out", tmp_path / "file" / "result")
    assert ended.code == 1
    assert ended.complaint
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
