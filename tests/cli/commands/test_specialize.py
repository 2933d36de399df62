"""The whole run as a user starts it, stops it, and starts it again."""

from __future__ import annotations

import hashlib
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reconvene_agent.daemon.probe import oom
from support.commandline import Cli, Disturbed, Ended, Running, command
from support.pictures import digits

SPEED = ("seconds", "images_per_second", "peak_rss_mb", "memory_mb")
TRAINING = ("epochs", "best_epoch", "batch", "images", *SPEED, "accuracy", "settings")
RELEASE = ("path", "onnx", "version", "bytes", "sha256", "precision", "latency_ms")

StandIn = Callable[..., Path]


def epochs(ended: Ended) -> list[str]:
    """Return the epochs that a command told of."""
    return [line.split(":")[0] for line in ended.err.splitlines() if line.startswith("epoch ")]


# --- a run that was disturbed ------------------------------------------------------------------------------------------------


def test_ctrl_c_stops_a_run_and_leaves_what_it_goes_on_from(disturbed: Disturbed) -> None:
    first = disturbed.first
    assert first.code == 130
    assert first.error("INTERRUPTED")["error"]["retryable"] is True
    assert first.complaint == "stopped: run the same command again to go on"
    assert "stopping at a safe point; once more to stop at once\n" in first.err
    (work,) = disturbed.left
    assert work.startswith(".work-")


def test_sigterm_does_the_same_and_says_so(disturbed: Disturbed) -> None:
    assert disturbed.second.code == 143
    disturbed.second.error("INTERRUPTED")


def test_no_epoch_is_trained_twice(disturbed: Disturbed) -> None:
    parts = (disturbed.first, disturbed.second, disturbed.third)
    assert [epochs(part) for part in parts] == [["epoch 1/3"], ["epoch 2/3"], ["epoch 3/3"]]


def test_a_run_that_goes_on_keeps_its_plan(disturbed: Disturbed) -> None:
    parts = (disturbed.first, disturbed.second, disturbed.third)
    assert ["plan        0%" in part.err for part in parts] == [True, False, False]
    (told,) = {line for part in parts for line in part.err.splitlines() if line.startswith("plan: ")}
    chosen = disturbed.third.document["plan"]["chosen"]
    assert told == f"plan: sparsity 0.9, {chosen['params']:,} parameters, p95 {chosen['latency_ms']['p95']:.3g} ms"


def test_a_finished_run_leaves_the_release_and_nothing_else(disturbed: Disturbed) -> None:
    version = disturbed.third.document["release"]["version"]
    assert sorted(path.name for path in disturbed.out.iterdir()) == ["current", version, "shelf.json"]


# --- the document ------------------------------------------------------------------------------------------------------------


def test_the_document_of_a_run(disturbed: Disturbed) -> None:
    assert disturbed.third.code == 0
    document = disturbed.third.document
    assert list(document) == ["plan", "prune", "training", "release", "int8", "gate", "parity_max_abs_diff"]
    assert list(document["plan"]) == ["budget", "candidates", "chosen", "nearest_miss"]
    assert list(document["prune"]) == ["sparsity", "width_multiplier", "layers", "params", "macs", "seconds", "speedup"]
    assert tuple(document["training"]) == TRAINING
    assert tuple(document["release"]) == RELEASE
    assert document["plan"]["chosen"]["sparsity"] == document["prune"]["sparsity"] == 0.9
    training = document["training"]
    assert (training["epochs"], training["batch"]) == (3, 64)
    assert training["images"]["train"] + training["images"]["held_out"] == 900
    assert 0 <= document["parity_max_abs_diff"] < 1e-3


def test_the_release_of_a_run_is_the_file_that_the_document_names(disturbed: Disturbed) -> None:
    release = disturbed.third.document["release"]
    onnx = Path(release["onnx"])
    assert onnx == Path(release["path"]) / "model.onnx"
    assert (disturbed.out / "current").resolve() == Path(release["path"])
    assert onnx.stat().st_size == release["bytes"]
    assert hashlib.sha256(onnx.read_bytes()).hexdigest() == release["sha256"]


def test_a_run_is_told_to_people_in_seven_lines(
    disturbed: Disturbed, answering: Callable[[dict[str, Any]], Path], cli: Cli, bundle: Path, tmp_path: Path
) -> None:
    document = disturbed.third.document
    config = answering(document)
    told = cli("specialize", "--bundle", bundle, "--data", "x", "--out", tmp_path / "out", "--config", config)
    assert (told.code, told.err) == (0, "")
    names = ["plan", "parameters", "speed-up", "training", "accuracy", "latency", "model"]
    assert [line.split()[0] for line in told.out.splitlines()] == names
    params = document["prune"]["params"]
    assert f"{params['dense']:,} → {params['stored']:,} ({params['dense'] / params['stored']:.1f}× fewer)" in told.out
    assert f"{document['gate']['accuracy']:.1%} of {document['training']['images']['held_out']} held-out" in told.out
    assert document["release"]["onnx"] in told.out


# --- what the worker is asked for --------------------------------------------------------------------------------------------

ECHO = """
import msgspec
return msgspec.to_builtins(request)
"""


@pytest.fixture
def asked(stand_in: StandIn, cli: Cli, bundle: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return what shows the request that a command line becomes."""
    config = stand_in(ECHO)

    def ask(*words: object) -> dict[str, Any]:
        given = ("--bundle", bundle, "--data", tmp_path / "data", "--out", tmp_path / "out", *words)
        return cli("specialize", *given, "--config", config, "--json").document

    return ask


def test_the_same_words_mean_the_same_run_and_other_words_another(asked: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    work = asked()["work"]
    assert Path(work).parent == tmp_path / "out"
    assert asked()["work"] == asked("--epochs", 10)["work"] == work, "ten epochs are the default"
    others = [asked(*words)["work"] for words in (("--epochs", 9), ("--sparsity", 0.5), ("--data", tmp_path), ("--seed", 1))]
    assert len({work, *others}) == 5


def test_options_go_over_the_configuration(asked: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    with (tmp_path / "stand-in.toml").open("a") as config:
        config.write("[training]\nepochs = 7\nbatch = 16\n[budget]\nmodel_mb = 3.0\nlatency_ms = 5.0\n[method]\nmin_width = 2\n")
    request = asked("--batch", 8, "--latency-ms", 2.5, "--average", "weighted", "--sparsities", 0.1, 0.2)
    plan = request["plan"]
    assert (request["training"]["epochs"], request["training"]["batch"], plan["batch"]) == (7, 8, 8)
    assert plan["budget"]["model_mb"] == {"value": 3.0, "source": "configuration"}
    assert plan["budget"]["latency_ms"] == {"value": 2.5, "source": "command line"}
    assert plan["budget"]["memory_mb"]["source"].startswith("profile ")
    assert (plan["method"]["min_width"], plan["method"]["average"]) == (2, "weighted")
    assert plan["sparsities"] == [0.1, 0.2]
    assert "sparsity" not in plan or plan["sparsity"] is None


def test_paths_are_meant_from_where_one_stands(
    asked: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = asked("--data", "here/data", "--out", "there")
    assert (request["data"], request["models"]) == (f"{tmp_path}/here/data", f"{tmp_path}/there")


# --- what cannot be done -----------------------------------------------------------------------------------------------------


def test_infeasible_tells_the_plan_and_leaves_nothing(bundle: Path, data: Path, tmp_path: Path) -> None:
    limits = ("--sparsities", 0.5, 0.9, "--model-mb", 0.001)
    ended = command("specialize", "--bundle", bundle, "--data", data, "--out", tmp_path / "out", *limits, "--json")
    assert ended.code == 6
    plan = ended.error("INFEASIBLE")["plan"]
    assert plan["chosen"] is None
    assert (plan["nearest_miss"]["sparsity"], plan["nearest_miss"]["limit"]) == (0.9, "model_mb")
    assert "no candidate fits the budget: the nearest, width ×0.25, sparsity 0.9, has model_mb" in ended.complaint
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def unusable(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Ended]]:
    """Return how runs end whose data cannot be used; they take their time, so all are started at once."""
    folder = tmp_path_factory.mktemp("unusable")
    (folder / "empty").mkdir()
    x, y = digits(50)
    np.savez(folder / "torn.npz", x=x, y=y)
    (folder / "torn.npz").write_bytes((folder / "torn.npz").read_bytes()[:-400])
    runs = {}
    for name in ("nowhere", "empty", "torn.npz"):
        words = ("--bundle", bundle, "--data", folder / name, "--out", folder / "out" / name, "--json")
        runs[name] = Running("specialize", *words)
    return {name: (folder / name, run.end()) for name, run in runs.items()}


@pytest.mark.parametrize(("name", "code"), [("nowhere", "NO_DATA"), ("empty", "NO_DATA"), ("torn.npz", "BAD_DATA")])
def test_data_that_cannot_be_used(name: str, code: str, unusable: dict[str, tuple[Path, Ended]]) -> None:
    data, ended = unusable[name]
    assert ended.code == 5
    ended.error(code)
    assert str(data) in ended.complaint
    assert not (data.parent / "out").exists()


def test_a_bundle_whose_weights_were_touched_is_not_used(weighty: Ended, data: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(weighty.document["path"], tmp_path / "bundle"))
    weights = bundle / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    ended = command("specialize", "--bundle", bundle, "--data", data, "--out", tmp_path / "out", "--json")
    assert ended.code == 4
    ended.error("BAD_BUNDLE")
    assert ended.complaint.startswith(f"{weights} is not the file that was shipped: SHA-256 ")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--epochs", 0), "wrong arguments: training.epochs: Expected `int` >= 1"),
        (("--validation", 1), "wrong arguments: training.validation: "),
        (("--sparsities", 0.5, 1), "wrong arguments: sparsities[1]: "),
        (("--memory-mb", 0), "wrong arguments: budget.memory_mb: "),
        (("--threads", 0), "--threads must lie between 1 and "),
        (("--profile", "abacus"), "no profile is named 'abacus'; there are: "),
    ],
)
def test_arguments_that_make_no_run(words: tuple[object, ...], complaint: str, bundle: Path, cli: Cli, tmp_path: Path) -> None:
    ended = cli("specialize", "--bundle", bundle, "--data", "x", "--out", tmp_path / "out", *words)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.complaint
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_output_stays(bundle: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    ended = cli("specialize", "--bundle", bundle, "--data", "x", "--out", tmp_path / "out")
    assert (ended.code, ended.complaint) == (2, f"{tmp_path}/out is a file: name a folder")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_bundle_that_is_not_there_is_told_before_anything_starts(cli: Cli, tmp_path: Path) -> None:
    ended = cli("specialize", "--bundle", tmp_path, "--data", "x", "--out", tmp_path / "out", "--json")
    assert ended.code == 4
    ended.error("BAD_BUNDLE")


# --- signals -----------------------------------------------------------------------------------------------------------------

# Tells that it works, and hears nobody.
DEAF = """
channel.event("warning", {"text": "deaf"})
while True:
    time.sleep(60)
"""


def test_a_second_ctrl_c_stops_at_once(stand_in: StandIn, bundle: Path, tmp_path: Path) -> None:
    config = stand_in(DEAF, stop_timeout_s=600.0)
    words = ("specialize", "--bundle", bundle, "--data", "x", "--out", tmp_path / "out", "--config", config, "--json")
    with Running(*words) as running:
        running.wait_line("warning: deaf")
        assert len(running.family()) == 2
        running.signal(signal.SIGINT)
        running.wait_line("once more to stop at once")
        assert running.process.poll() is None
        running.signal(signal.SIGINT)
        asked = time.monotonic()
        ended = running.end()
    assert time.monotonic() - asked < 5
    assert ended.code == 130
    ended.error("INTERRUPTED")


def test_a_worker_dies_with_a_command_that_is_killed(stand_in: StandIn, bundle: Path, tmp_path: Path) -> None:
    config = stand_in(DEAF)
    with Running("specialize", "--bundle", bundle, "--data", "x", "--out", tmp_path / "out", "--config", config) as running:
        running.wait_line("warning: deaf")
        running.signal(signal.SIGKILL)
        assert running.end().code == -signal.SIGKILL


# --- a worker that the kernel kills for want of memory ------------------------------------------------------------------------

# Keeps a note in its work folder, and is killed as often as it is told to be.
HUNGRY = """
import os, signal
seen = Path({seen!r})
limits = seen.read_text().split() if seen.exists() else []
work = Path(request.work)
assert not work.exists(), "nothing of an earlier plan is there"
work.mkdir(parents=True)
seen.write_text(" ".join([*limits, str(request.plan.scoring.memory_mb)]))
if len(limits) < {kills}:
    os.kill(os.getpid(), signal.SIGKILL)
raise AgentError("enough", ErrorCode.INFEASIBLE)
"""


@pytest.mark.parametrize(("kills", "code"), [(1, "INFEASIBLE"), (2, "OOM_KILLED")])
def test_it_is_planned_again_once_within_less(
    kills: int, code: str, stand_in: StandIn, bundle: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    monkeypatch.setattr(oom, "kills", lambda: len(seen.read_text().split()) if seen.exists() else 0)
    config = stand_in(HUNGRY.format(seen=str(seen), kills=kills))
    words = ("--training-memory-mb", 100, "--bundle", bundle, "--data", tmp_path, "--out", tmp_path / "out", "--config", config)
    ended = cli("specialize", *words, "--json")
    ended.error(code)
    assert "the kernel killed the worker for want of memory: planning again within less\n" in ended.err
    assert [float(limit) for limit in seen.read_text().split()] == [100.0, pytest.approx(70.0)]
