from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from safetensors.torch import load_file

from reconvene_agent.core import bundle
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode, UsageError
from reconvene_agent.core.job import Step
from reconvene_agent.core.measuring import Conditions, Measurement
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.core.protocol import BenchRequest, ExportWeightsRequest, PruneRequest, Scoring
from reconvene_agent.core.release import Latency
from reconvene_agent.worker import tasks
from reconvene_agent.worker.channel import StopRequested
from reconvene_agent.worker.planning import search
from reconvene_agent.worker.planning.findings import Finding
from reconvene_agent.worker.reconvene import stored
from reconvene_agent.worker.reconvene.criteria import NEED_DATA
from support.models import RUNTIME, TINY_RESNET, TINY_VGG, designed, exporter, opened, shipped
from support.runs import Ear, archive, plan_request


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MEASURE_SECONDS", 0.01)
    monkeypatch.setattr(search, "VERIFY_SECONDS", 0.01)
    monkeypatch.setattr(tasks, "Exporter", lambda _: exporter(TINY_RESNET))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shipped(tmp_path_factory.mktemp("bundles") / "resnet", TINY_RESNET, seed=3)


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle for the shipped digits."""
    return shipped(tmp_path_factory.mktemp("bundles") / "grey", ModelSpec("resnet20", (1, 8, 8), 10), seed=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("data") / "digits.npz", 60)


def prune_request(folder: Path, out: Path, sparsity: float = 0.9, **options: object) -> PruneRequest:
    return PruneRequest(str(folder), sparsity, MethodOptions(**options), RUNTIME, str(out))


def scored(request: PruneRequest, data: Path | None, memory_mb: float | None = None) -> PruneRequest:
    return msgspec.structs.replace(request, scoring=Scoring(None if data is None else str(data), memory_mb=memory_mb))


def test_prune_stores_the_small_model_and_tells_what_became_of_each_layer(resnet: Path, tmp_path: Path) -> None:
    ear = Ear()
    document = tasks.prune(prune_request(resnet, tmp_path / "out", width="sqrt"), ear)
    design = designed(TINY_RESNET, 0.9, seed=3, width="sqrt")
    assert [layer["name"] for layer in document["layers"]] == [layer.name for layer in design.layers]
    for found, expected in zip(document["layers"], design.layers, strict=True):
        assert found["kept"] / found["weights"] == pytest.approx(found["density"], abs=1e-6)
        for name in ("weights", "kept", "verdict", "width_before", "width_after", "frozen"):
            assert found[name] == getattr(expected, name)
    costs, dense = design.costs(), tasks.dense_costs(opened(TINY_RESNET))
    assert document["params"] == {"dense": dense.params, "stored": costs.params, "nonzero": costs.nonzero}
    assert document["macs"] == {"dense": dense.macs, "pruned": costs.macs}
    seconds = document["seconds"]
    assert seconds["total"] == pytest.approx(sum(value for name, value in seconds.items() if name != "total"), abs=1e-3)
    assert document["peak_rss_mb"] > 0
    assert document["out"] == str(tmp_path / "out")
    assert stored.read(tmp_path / "out")[0].widths == design.widths
    assert ear.steps == [Step.PRUNE]


@pytest.mark.parametrize("criterion", sorted(NEED_DATA))
def test_local_data_are_read_for_the_criteria_that_need_them(criterion: str, grey: Path, data: Path, tmp_path: Path) -> None:
    request = scored(prune_request(grey, tmp_path / "out", criterion=criterion), data)
    document = tasks.prune(request, Ear())
    layers = document["layers"]
    assert sum(layer["kept"] for layer in layers) == round(0.1 * sum(layer["weights"] for layer in layers))
    by_magnitude = tasks.prune(prune_request(grey, tmp_path / "other"), Ear())["layers"]
    assert [layer["kept"] for layer in layers] != [layer["kept"] for layer in by_magnitude]
    again = tasks.prune(scored(prune_request(grey, tmp_path / "again", criterion=criterion), data), Ear())
    assert again["layers"] == layers


def test_data_that_no_criterion_asks_for_are_not_read(grey: Path, tmp_path: Path) -> None:
    request = scored(prune_request(grey, tmp_path / "out", criterion="erk"), tmp_path / "nowhere")
    assert tasks.prune(request, Ear())["layers"]


def test_a_criterion_without_its_data_names_the_option(grey: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the criterion snip .* --data"):
        tasks.prune(prune_request(grey, tmp_path / "out", criterion="snip"), Ear())
    with pytest.raises(AgentError, match="nowhere") as caught:
        tasks.prune(scored(prune_request(grey, tmp_path / "out", criterion="snip"), tmp_path / "nowhere"), Ear())
    assert caught.value.code is ErrorCode.NO_DATA
    assert not (tmp_path / "out").exists()


def test_a_criterion_that_does_not_fit_is_refused_with_the_figures(grey: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"about \d+ MiB, and 2 MiB are allowed") as caught:
        tasks.prune(scored(prune_request(grey, tmp_path / "out", criterion="grasp"), data, 2.0), Ear())
    assert caught.value.code is ErrorCode.NO_MEMORY


def test_scoring_that_takes_long_says_how_far_it_is_and_can_be_stopped(resnet: Path, tmp_path: Path) -> None:
    shares = []

    def hear(step: Step, _fraction: float, note: str) -> None:
        if note.startswith("scoring weights"):
            assert step is Step.PRUNE
            shares.append(int(note.removeprefix("scoring weights, ").removesuffix("%")))
        if len(shares) == 5:
            raise StopRequested("cancel")

    with pytest.raises(StopRequested):
        tasks.prune(prune_request(resnet, tmp_path / "out", criterion="synflow"), Ear(hear))
    assert shares == sorted(set(shares))
    assert not (tmp_path / "out").exists()


def test_a_plan_scores_by_the_data_as_well(grey: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "Exporter", lambda _: exporter(ModelSpec("resnet20", (1, 8, 8), 10)))
    request = plan_request(grey, 0.9)
    snip = msgspec.structs.replace(request, method=MethodOptions(criterion="snip"), scoring=Scoring(str(data)))
    one, other = (tasks.plan(each, Ear())["chosen"]["params"] for each in (request, snip))
    assert one != other


def test_widths_are_rounded_as_the_board_says_unless_the_request_does(resnet: Path, tmp_path: Path) -> None:
    def widths(multiple: int, **options: object) -> set[int]:
        request = prune_request(resnet, tmp_path / "out", width="sqrt", **options)
        request = msgspec.structs.replace(request, runtime=msgspec.structs.replace(RUNTIME, width_multiple=multiple))
        layers = tasks.prune(request, Ear())["layers"]
        return {layer["width_after"] for layer in layers if layer["width_after"] != layer["width_before"]}

    assert any(width % 8 for width in widths(1))
    assert not any(width % 8 for width in widths(8))
    assert any(width % 8 for width in widths(8, width_multiple=1))


def test_a_width_multiplier_is_told_layer_by_layer(resnet: Path, tmp_path: Path) -> None:
    document = tasks.prune(prune_request(resnet, tmp_path / "out", 0.0, width_multiplier=0.5), Ear())
    assert all(layer["width_after"] == layer["width_before"] / 2 for layer in document["layers"])
    assert document["params"]["stored"] < document["params"]["dense"] / 3


@pytest.mark.parametrize(("others", "warned"), [(0.0, False), (0.5, True)])
def test_a_plan_that_rests_on_doubtful_figures_says_so(
    others: float, warned: bool, resnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Finding(Measurement(Latency(4.0, 5.0, 30), Conditions(others=others)), 1, verified=True, memory_mb=4.0)
    monkeypatch.setattr(search.Planner, "_tried", lambda *_: found)
    ear = Ear()
    document = tasks.plan(plan_request(resnet), ear)
    doubt = "other processes took 50% of the processors"
    assert list(document["chosen"]["doubts"]) == ([doubt] if warned else [])
    told = [data["text"] for name, data in ear.events if name == "warning"]
    assert told == ([f"the figures of sparsity 0.9 are in doubt, although measured 2 times: {doubt}"] if warned else [])


def test_plan_is_a_document_that_json_can_carry(resnet: Path) -> None:
    ear = Ear()
    document = json.loads(msgspec.json.encode(tasks.plan(plan_request(resnet, None, model_mb=0.6), ear)))
    assert document["budget"] == {"model_mb": {"value": 0.6, "source": "test"}}
    assert [candidate["sparsity"] for candidate in document["candidates"]] == [0.0, 0.5, 0.9]
    assert document["chosen"]["sparsity"] == 0.5
    assert document["nearest_miss"] is None
    assert document["seconds"] > 0
    assert ear.steps == [Step.PLAN]


def test_a_plan_without_a_choice_is_refused_with_the_plan(resnet: Path) -> None:
    with pytest.raises(AgentError, match="no candidate fits") as caught:
        tasks.plan(plan_request(resnet, None, model_mb=1e-6), Ear())
    document = json.loads(msgspec.json.encode(caught.value.result))
    assert caught.value.code is ErrorCode.INFEASIBLE
    assert document["chosen"] is None
    assert document["seconds"] > 0
    assert document["nearest_miss"]["limit"] == "model_mb"


def test_bench_times_the_dense_model_against_a_pruned_one(resnet: Path, tmp_path: Path) -> None:
    pruned = tasks.prune(prune_request(resnet, tmp_path / "out"), Ear())
    document = tasks.bench(BenchRequest(str(resnet), str(tmp_path / "out"), RUNTIME, 0.05), Ear())
    dense, small = document["dense"], document["pruned"]
    assert (dense["params"], small["params"]) == (pruned["params"]["dense"], pruned["params"]["stored"])
    assert (dense["macs"], small["macs"]) == (pruned["macs"]["dense"], pruned["macs"]["pruned"])
    assert dense["bytes"] == pytest.approx(tasks.dense_costs(opened(TINY_RESNET)).file_bytes, rel=0.02)
    for name in ("bytes", "params", "macs"):
        assert document["ratio"][name] == pytest.approx(dense[name] / small[name], abs=1e-3)
    ratio = dense["latency_ms"]["p50"] / small["latency_ms"]["p50"]
    assert document["ratio"]["latency_p50"] == pytest.approx(ratio, abs=1e-3)
    assert (document["threads"], document["providers"]) == (1, ["CPUExecutionProvider"])


def test_bench_refuses_a_model_of_another_kind_before_it_exports_anything(resnet: Path, tmp_path: Path) -> None:
    other = shipped(tmp_path / "other", ModelSpec("resnet20", (3, 8, 8), 7))
    tasks.prune(prune_request(other, tmp_path / "out"), Ear())
    request = BenchRequest(str(resnet), str(tmp_path / "out"), RUNTIME, 0.05)
    said = "is resnet20 for 3×8×8 and 7 classes; the bundle is resnet20 for 3×8×8 and 5 classes"
    with pytest.raises(UsageError, match=said):
        tasks.bench(request, Ear())


def test_bench_says_where_it_found_no_model(resnet: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no deployed model"):
        tasks.bench(BenchRequest(str(resnet), str(tmp_path), RUNTIME, 0.05), Ear())


def test_the_weights_of_a_seed_are_written_as_the_bundle_would_draw_them(tmp_path: Path) -> None:
    path = tmp_path / bundle.WEIGHTS
    document = tasks.export_weights(ExportWeightsRequest("vgg11", (1, 8, 8), 10, 4, str(path)))
    assert document == {"path": str(path), "bytes": path.stat().st_size}
    dense = opened(TINY_VGG, seed=4).dense().state_dict()
    found = load_file(path)
    assert found.keys() == dense.keys()
    assert all(found[name].equal(dense[name]) for name in dense)


def test_an_unknown_bundle_is_told_by_every_task(tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    for run in (
        lambda: tasks.plan(plan_request(nowhere), Ear()),
        lambda: tasks.prune(prune_request(nowhere, tmp_path / "out"), Ear()),
        lambda: tasks.bench(BenchRequest(str(nowhere), str(tmp_path), RUNTIME, 0.05), Ear()),
    ):
        with pytest.raises(AgentError) as caught:
            run()
        assert caught.value.code is ErrorCode.BAD_BUNDLE
    assert not (tmp_path / "out").exists()


def test_the_documents_numbers_are_json(resnet: Path, tmp_path: Path) -> None:
    document = tasks.prune(prune_request(resnet, tmp_path / "out", 0.0), Ear())
    assert json.loads(json.dumps(document, allow_nan=False)) == document
