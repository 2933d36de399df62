from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from reconvene_agent.core import release as releases
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode, UsageError
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.core.release import Latency
from reconvene_agent.worker.deploy import deployed, release
from reconvene_agent.worker.deploy.release import Facts
from reconvene_agent.worker.deploy.session import open_session
from support.disks import fill, tiny_disk
from support.models import RUNTIME, TINY_RESNET, designed

LATENCY = Latency(0.5, 0.75, 100)


@cache
def facts(sparsity: float = 0.9) -> Facts:
    design = designed(TINY_RESNET, sparsity)
    return Facts(
        bundle="b" * 64,
        spec=TINY_RESNET,
        labels=("a", "b", "c", "ç", '"e"'),
        sparsity=sparsity,
        method=MethodOptions(width="sqrt"),
        widths=design.widths,
        costs=design.costs(),
        accuracy=0.875,
        mean=(0.1, 0.2, 0.3),
        std=(1.0, 0.001, 0.25),
    )


def model(number: int = 0, size: int = 1) -> ModelProto:
    """Return a model that differs from every other number's."""
    entry, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, 2, 2]) for name in ("image", "logits"))
    weight = helper.make_tensor("w", TensorProto.FLOAT, [size], [float(number)] * size)
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["logits"])], "g", [entry], [out], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def deploy(models: Path, number: int = 0) -> Path:
    aside = models / ".aside.tmp"
    release.prepare(model(number), facts(), aside)
    return release.promote(aside, models, facts(), LATENCY)[1]


def test_the_file_carries_all_that_an_application_needs(tmp_path: Path) -> None:
    path = release.prepare(model(), facts(), tmp_path / "aside")
    carried = open_session(path, RUNTIME).get_modelmeta().custom_metadata_map
    assert json.loads(carried["labels"]) == ["a", "b", "c", "ç", '"e"']
    assert (carried["input_size"], carried["pixel_range"]) == ("3x8x8", "0..1 before mean and std")
    assert (json.loads(carried["mean"]), json.loads(carried["std"])) == ([0.1, 0.2, 0.3], [1.0, 0.001, 0.25])
    assert (carried["architecture"], carried["sparsity"], carried["bundle"]) == ("resnet20", "0.9", "b" * 64)


@pytest.mark.parametrize(
    ("architecture", "shape", "size"), [("convnet1d", (6, 128), "6x128"), ("mlp", (24,), "24"), ("mlp", (1,), "1")]
)
def test_a_model_of_signals_says_nothing_of_pixels(architecture: str, shape: tuple[int, ...], size: str) -> None:
    mean = tuple(1e-6 * number for number in range(shape[0]))
    found = release.notes(replace(facts(), spec=ModelSpec(architecture, shape, 5), mean=mean, std=mean))
    assert found["input_size"] == size
    assert tuple(json.loads(found["mean"])) == tuple(json.loads(found["std"])) == mean
    assert "pixel_range" not in found


def test_a_release_of_many_features_is_read_back_as_it_was(tmp_path: Path) -> None:
    many = tuple(float(f"{number / 7:.9g}") for number in range(4096))
    told = replace(facts(), spec=ModelSpec("mlp", (4096,), 5), mean=many, std=many)
    onnx_file = release.prepare(model(), told, tmp_path / ".aside.tmp")
    assert json.loads(open_session(onnx_file, RUNTIME).get_modelmeta().custom_metadata_map["mean"]) == list(many)
    found, _ = release.promote(tmp_path / ".aside.tmp", tmp_path, told, LATENCY)
    assert (found.mean, found.std, found.model) == (many, many, told.spec)


def test_preparing_begins_with_an_empty_folder(tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    (aside / "old").mkdir(parents=True)
    release.prepare(model(), facts(), aside)
    assert [path.name for path in aside.iterdir()] == [releases.ONNX]


def test_a_promoted_release_is_whole_current_and_says_what_it_is(tmp_path: Path) -> None:
    models = tmp_path / "models"
    folder = deploy(models)
    found = releases.current(models)
    assert found is not None
    assert folder == models / found.version
    assert (models / releases.CURRENT).resolve() == folder
    assert not list(models.glob(".*"))
    content = (folder / releases.ONNX).read_bytes()
    assert found.onnx_sha256 == hashlib.sha256(content).hexdigest()
    assert found.onnx_bytes == len(content)
    expected = facts()
    assert (found.params, found.nonzero, found.macs) == (
        expected.costs.params,
        expected.costs.nonzero,
        expected.costs.macs,
    )
    for name in ("bundle", "labels", "sparsity", "method", "widths", "accuracy", "mean", "std"):
        assert getattr(found, name) == getattr(expected, name), name
    assert (found.model, found.latency_ms) == (TINY_RESNET, LATENCY)
    assert found.created.endswith("Z")


def test_the_current_release_and_two_steps_back_are_kept(tmp_path: Path) -> None:
    for number in range(5):
        deploy(tmp_path, number)
    assert [version[:5] for version in releases.versions(tmp_path)] == ["r0003", "r0004", "r0005"]
    current = releases.current(tmp_path)
    assert current is not None
    assert current.version.startswith("r0005")


def test_deploying_the_same_file_again_makes_no_second_release(tmp_path: Path) -> None:
    one, other, again = deploy(tmp_path, 1), deploy(tmp_path, 2), deploy(tmp_path, 1)
    assert one == again != other
    assert (tmp_path / releases.CURRENT).resolve() == one
    assert len(releases.versions(tmp_path)) == 2


def test_a_full_disk_leaves_the_current_release_as_it_was(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "512k") as models:
        serving = deploy(models)
        fill(models, leave=64 * 1024)
        aside = models / ".aside.tmp"
        with pytest.raises(AgentError) as caught:
            release.prepare(model(1, size=100_000), facts(), aside)
        assert caught.value.code is ErrorCode.NO_DISK
        assert (models / releases.CURRENT).resolve() == serving
        assert deployed.find(models)[0].version == serving.name
        (models / "ballast").unlink()
        assert deploy(models, 1) != serving


def test_a_release_is_found_by_its_folder_or_the_one_of_all_models(tmp_path: Path) -> None:
    folder = deploy(tmp_path)
    for given in (tmp_path, folder, tmp_path / releases.CURRENT):
        found, onnx_file = deployed.find(given)
        assert found.version == folder.name
        assert onnx_file == folder / releases.ONNX
        onnx.load(onnx_file)


def alter(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("damage", [Path.unlink, alter], ids=["missing", "altered"])
def test_a_deployed_file_that_is_not_the_one_released_is_refused(tmp_path: Path, damage: object) -> None:
    damage(deploy(tmp_path) / releases.ONNX)
    with pytest.raises(AgentError, match=r"models rollback --models .* goes back to the one before") as caught:
        deployed.find(tmp_path)
    assert caught.value.code is ErrorCode.VERIFY_FAILED


def test_a_refused_release_is_kept_and_does_not_serve(tmp_path: Path) -> None:
    serving = deploy(tmp_path, 1)
    for number in (2, 3):
        release.prepare(model(number), facts(), tmp_path / ".aside.tmp")
        made, folder = release.promote(tmp_path / ".aside.tmp", tmp_path, facts(), LATENCY, ["it is worse"])
        assert made.refused == ("it is worse",)
    assert (tmp_path / releases.CURRENT).resolve() == serving
    assert releases.versions(tmp_path) == [serving.name, folder.name], "the newest of them is kept"
    assert deployed.find(folder)[0] == made


def test_where_nothing_is_deployed_nothing_is_found(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no deployed model"):
        deployed.find(tmp_path)
