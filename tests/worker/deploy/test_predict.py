from __future__ import annotations

from pathlib import Path

import pytest
from onnx import ModelProto, TensorProto, helper
from PIL import Image

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import AgentError, ErrorCode, UsageError
from reconvene_agent.core.job import Step
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.core.protocol import PredictRequest
from reconvene_agent.core.release import Latency
from reconvene_agent.worker.deploy import release
from reconvene_agent.worker.deploy.predict import predict
from reconvene_agent.worker.deploy.release import Facts
from reconvene_agent.worker.models.costs import Costs, TrainingCosts
from support.models import RUNTIME
from support.runs import Ear

COLORS = ("red", "green", "blue")
SIDE = 4
CAMERA = ModelSpec("vgg11", (3, SIDE, SIDE), 3)


def colorimeter() -> ModelProto:
    """A model whose logits are the mean of each channel: it tells an image's color."""
    entry = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    node = helper.make_node("ReduceMean", ["image", "axes"], ["logits"], keepdims=0)
    graph = helper.make_graph([node], "colorimeter", [entry], [out], [axes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def deploy(
    models: Path,
    labels: tuple[str, ...] = COLORS,
    mean: tuple[float, ...] = (0.0, 0.0, 0.0),
    spec: ModelSpec = CAMERA,
) -> Path:
    facts = Facts(
        bundle="b" * 64,
        spec=spec,
        labels=labels,
        sparsity=0.5,
        method=MethodOptions(),
        widths={},
        costs=Costs(params=1, nonzero=1, macs=1, file_bytes=1, memory=1, training=TrainingCosts(1, 0, 1, 1)),
        accuracy=1.0,
        mean=mean,
        std=(0.1, 0.1, 0.1),
    )
    release.prepare(colorimeter(), facts, models / ".aside.tmp")
    return release.promote(models / ".aside.tmp", models, facts, Latency(1.0, 1.0, 30))[1]


def painted(folder: Path, color: str) -> str:
    path = folder / f"{color}.png"
    Image.new("RGB", (SIDE, SIDE), color).save(path)
    return str(path)


def test_each_image_gets_its_classes_best_first_in_the_order_of_asking(tmp_path: Path) -> None:
    folder = deploy(tmp_path / "models")
    ear = Ear()
    answer = predict(PredictRequest((painted(tmp_path, "blue"), painted(tmp_path, "red")), str(folder), RUNTIME, 2), ear)
    assert answer["model"] == folder.name
    blue, red = answer["predictions"]
    assert (blue["classes"][0]["label"], red["classes"][0]["label"]) == ("blue", "red")
    assert [len(each["classes"]) for each in (blue, red)] == [2, 2]
    assert blue["classes"][0]["probability"] == pytest.approx(1.0, abs=1e-3)
    assert ear.steps == [Step.EVALUATE]


def test_pixels_are_normalised_as_in_training(tmp_path: Path) -> None:
    models = tmp_path / "models"
    deploy(models, mean=(1.0, 0.0, 0.0))
    (entry,) = predict(PredictRequest((painted(tmp_path, "black"),), str(models), RUNTIME, 3), Ear())["predictions"]
    assert entry["classes"][-1]["label"] == "red"
    assert entry["classes"][0]["probability"] == entry["classes"][1]["probability"] == pytest.approx(0.5, abs=1e-3)


def test_classes_without_labels_are_named_by_number(tmp_path: Path) -> None:
    folder = deploy(tmp_path / "models", labels=())
    (entry,) = predict(PredictRequest((painted(tmp_path, "lime"),), str(folder), RUNTIME, 1), Ear())["predictions"]
    assert [each["label"] for each in entry["classes"]] == ["1"]


def test_an_image_that_cannot_be_read_spoils_no_other(tmp_path: Path) -> None:
    folder = deploy(tmp_path / "models")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    asked = (str(tmp_path / "broken.png"), str(tmp_path / "missing.png"), painted(tmp_path, "red"))
    broken, missing, red = predict(PredictRequest(asked, str(folder), RUNTIME, 1), Ear())["predictions"]
    assert broken["image"] == asked[0]
    assert broken["error"]
    assert missing["error"]
    assert red["classes"][0]["label"] == "red"


def test_a_file_that_was_altered_is_not_used(tmp_path: Path) -> None:
    folder = deploy(tmp_path / "models")
    onnx = folder / "model.onnx"
    onnx.write_bytes(onnx.read_bytes().replace(b"colorimeter", b"calorimeter"))
    with pytest.raises(AgentError, match="not the file that was deployed") as caught:
        predict(PredictRequest((painted(tmp_path, "red"),), str(folder), RUNTIME, 1), Ear())
    assert caught.value.code is ErrorCode.VERIFY_FAILED


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (ModelSpec("convnet1d", (6, 128), 3), "takes windows of 6×128, not image files: .* its input is 'window'"),
        (ModelSpec("mlp", (24,), 3), "takes rows of 24, not image files: .* its input is 'features'"),
    ],
)
def test_a_model_that_takes_no_images_is_not_asked_about_any(tmp_path: Path, spec: ModelSpec, said: str) -> None:
    folder = deploy(tmp_path / "models", spec=spec)
    with pytest.raises(UsageError, match=said) as caught:
        predict(PredictRequest((painted(tmp_path, "red"),), str(folder), RUNTIME, 1), Ear())
    assert caught.value.message.startswith(str(folder / "model.onnx"))
