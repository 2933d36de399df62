from __future__ import annotations

import getpass
import logging
import os
import socket
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.deploy import export
from reconvene_agent.worker.deploy.export import Exporter
from reconvene_agent.worker.deploy.session import open_session
from support import models
from support.models import RUNTIME, TINY_RESNET, TINY_VGG, architecture, images, lived_in, opened, pruned

SPARSITIES = (0.9, 0.0, 0.99)


def answers(proto: ModelProto, batch: Tensor) -> NDArray[np.float32]:
    session = open_session(proto.SerializeToString(), RUNTIME)
    found: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0]
    return found


def small(spec: ModelSpec, sparsity: float) -> nn.Module:
    return lived_in(pruned(spec, sparsity, min_width=1).module)


@pytest.fixture
def exporter() -> Exporter:
    return models.exporter(TINY_RESNET)


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("count", [1, 3])
def test_the_file_answers_as_torch_does_for_any_width_and_batch(exporter: Exporter, sparsity: float, count: int) -> None:
    model = small(TINY_RESNET, sparsity)
    batch = images(TINY_RESNET, count)
    with torch.inference_mode():
        expected = model(batch).numpy()
    np.testing.assert_allclose(answers(exporter.to_onnx(model), batch), expected, rtol=1e-4, atol=1e-4)


def test_a_reused_graph_answers_as_the_models_own_export(exporter: Exporter, count_of_exports: list[int]) -> None:
    exporter.to_onnx(small(TINY_RESNET, 0.9))
    del count_of_exports[:]
    model = small(TINY_RESNET, 0.99)
    reused = exporter.to_onnx(model)
    assert len(count_of_exports) == 0
    own = Exporter(TINY_RESNET.input).to_onnx(model)
    batch = images(TINY_RESNET, 3)
    assert np.array_equal(answers(reused, batch), answers(own, batch))
    assert [node.op_type for node in reused.graph.node] == [node.op_type for node in own.graph.node]


def test_the_same_model_gives_the_same_bytes(exporter: Exporter) -> None:
    one, other = (exporter.to_onnx(small(TINY_RESNET, 0.9)).SerializeToString() for _ in range(2))
    assert one == other


def test_exporting_changes_neither_the_model_nor_torch(exporter: Exporter) -> None:
    model = small(TINY_RESNET, 0.9).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    numbers = torch.get_rng_state()
    level = logging.getLogger("torch.onnx").level
    exporter.to_onnx(model)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), numbers)
    assert logging.getLogger("torch.onnx").level == level


def test_an_export_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Exporter(TINY_RESNET.input).to_onnx(small(TINY_RESNET, 0.9))
    assert [str(each.message) for each in caught] == []
    assert capfd.readouterr() == ("", "")


def test_input_and_output_are_named_and_only_the_batch_is_free(exporter: Exporter) -> None:
    graph = exporter.to_onnx(small(TINY_RESNET, 0.9)).graph
    (entry,), (out,) = graph.input, graph.output
    assert (entry.name, out.name) == ("image", "logits")
    sides = [[side.dim_value or side.dim_param for side in value.type.tensor_type.shape.dim] for value in (entry, out)]
    assert sides == [["batch", 3, 8, 8], ["batch", 5]]


def test_the_file_tells_nothing_of_the_machine_that_made_it(exporter: Exporter) -> None:
    proto = exporter.to_onnx(small(TINY_RESNET, 0.9))
    content = proto.SerializeToString()
    traces = (str(Path.cwd()), str(Path(torch.__file__).parent), str(Path.home()), socket.gethostname(), getpass.getuser())
    for trace in (*traces, "site-packages", "stack_trace", ".py", "line ", os.sep + "tmp"):
        if len(trace) > 3:  # a user called "pi" says nothing
            assert trace.encode() not in content, trace
    assert proto.producer_name == "reconvene-agent"
    assert not proto.functions
    assert not proto.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)


def test_batch_norms_are_folded_away(exporter: Exporter) -> None:
    model = small(TINY_RESNET, 0.9)
    assert "BatchNormalization" not in {node.op_type for node in exporter.to_onnx(model).graph.node}


def test_masked_weights_are_exact_zeros_in_the_file(exporter: Exporter) -> None:
    model = pruned(TINY_RESNET, 0.8)
    assert model.masks
    tensors = {each.name: numpy_helper.to_array(each) for each in exporter.to_onnx(lived_in(model.module)).graph.initializer}
    for name, mask in model.masks.items():
        weight = tensors[f"{name}.weight"]
        assert np.count_nonzero(weight) == int(mask.sum())
        assert not weight[~mask.numpy()].any()


def test_notes_are_read_back_by_whoever_opens_the_file(exporter: Exporter) -> None:
    notes = {"labels": '["Katze","dröhnend","a\\"b"]', "mean": "[0.5]", "empty": ""}
    proto = export.annotate(exporter.to_onnx(small(TINY_RESNET, 0.9)), notes)
    assert open_session(proto.SerializeToString(), RUNTIME).get_modelmeta().custom_metadata_map == notes
    again = export.annotate(proto, {"mean": "[0.25]"})
    assert {each.key: each.value for each in again.metadata_props} == {"mean": "[0.25]"}


def test_a_saved_file_is_a_valid_model(exporter: Exporter, tmp_path: Path) -> None:
    export.save(exporter.to_onnx(small(TINY_RESNET, 0.9)), tmp_path / "m.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "m.onnx"), full_check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


class Flattened(nn.Module):
    """Its graph names the number of values of a flattened image, which depends on the width."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.conv = nn.Conv2d(spec.input[0], 64, 3, padding=1)
        self.second = nn.Conv2d(64, 64, 3, padding=1)
        self.classifier = nn.Linear(64 * 4, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(functional.relu(self.second(functional.relu(self.conv(x)))), 2)
        return self.classifier(torch.flatten(x, 1))


class Separable(nn.Module):
    """Its graph names the number of groups of a depthwise convolution, which is the width."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.conv = nn.Conv2d(spec.input[0], 64, 3, padding=1)
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.point = nn.Conv2d(64, 64, 1)
        self.classifier = nn.Linear(64, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.point(self.depthwise(functional.relu(self.conv(x)))).mean((2, 3)))


@pytest.mark.parametrize(("builder", "exports"), [(Flattened, 1), (Separable, 1)])
def test_a_graph_that_depends_on_its_widths_is_filled_in_or_exported_anew(
    builder: type[nn.Module], exports: int, count_of_exports: list[int]
) -> None:
    with architecture(builder) as name:
        spec = ModelSpec(name, (3, 4, 4), 3)
        exporter = Exporter(spec.input)
        widths = set()
        for sparsity in (0.9, 0.0, 0.995):
            model = small(spec, sparsity)
            widths.add(tuple(len(parameter) for parameter in model.parameters()))
            batch = images(spec, 3)
            with torch.inference_mode():
                expected = model(batch).numpy()
            np.testing.assert_allclose(answers(exporter.to_onnx(model), batch), expected, rtol=1e-4, atol=1e-4)
    assert len(widths) == 3
    assert len(count_of_exports) == exports


def test_the_plainest_network_is_exported_once_for_all_widths(count_of_exports: list[int]) -> None:
    exporter = models.exporter(TINY_VGG)
    for model in (small(TINY_VGG, 0.98), opened(TINY_VGG).dense()):
        batch = images(TINY_VGG, 2)
        with torch.inference_mode():
            expected = model(batch).numpy()
        np.testing.assert_allclose(answers(exporter.to_onnx(model), batch), expected, rtol=1e-4, atol=1e-3)
    assert len(count_of_exports) <= 1  # another test may have been first
