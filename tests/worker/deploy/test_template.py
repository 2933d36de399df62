from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.deploy import export, parity
from reconvene_agent.worker.deploy.export import Exporter
from reconvene_agent.worker.deploy.folding import folded
from reconvene_agent.worker.deploy.running import run
from reconvene_agent.worker.deploy.session import open_session
from reconvene_agent.worker.deploy.template import Template
from reconvene_agent.worker.models import initial, registry
from support.models import RUNTIME


def perceptron(width: int) -> nn.Module:
    hidden = (nn.Linear(12, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 7), nn.BatchNorm1d(7))
    return nn.Sequential(*hidden, nn.ReLU(), nn.Linear(7, 3))


class Signal(nn.Module):
    """Convolutions over time, one of them depthwise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, width, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm1d(width)
        self.depthwise = nn.Conv1d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm2 = nn.BatchNorm1d(width)
        self.classifier = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool1d(functional.relu(self.norm(self.conv(x))), 2)
        return self.classifier(functional.relu6(self.norm2(self.depthwise(x))).mean(2))


class Concatenated(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.two = nn.Conv2d(width, 2 * width + 1, 1)
        self.depthwise = nn.Conv2d(3 * width + 1, 3 * width + 1, 3, padding=1, groups=3 * width + 1)
        self.norm2 = nn.BatchNorm2d(3 * width + 1)
        self.classifier = nn.Linear(3 * width + 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.one(x)))
        x = torch.cat([x, self.two(x)], dim=1)
        return self.classifier(functional.hardswish(self.norm2(self.depthwise(x))).mean((2, 3)))


class Transformer(nn.Module):
    """Two blocks of attention whose heads, of 16 each, are told by the layers' widths; raw parameters; a token of its own."""

    def __init__(self, heads: int, other_heads: int = 2, hidden: int = 40) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 24))
        self.position = nn.Parameter(torch.randn(1, 5, 24))
        self.norms = nn.ModuleList(nn.LayerNorm(24) for _ in range(2))
        self.projections = nn.ModuleList(nn.ModuleList(nn.Linear(24, 16 * each) for _ in "qkv") for each in (heads, other_heads))
        self.outs = nn.ModuleList(nn.Linear(16 * each, 24) for each in (heads, other_heads))
        self.feed = nn.Sequential(nn.LayerNorm(24), nn.Linear(24, hidden), nn.GELU(), nn.Linear(hidden, 24))
        self.classifier = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        for norm, projections, out in zip(self.norms, self.projections, self.outs, strict=True):
            y = norm(x)
            b, n = y.shape[0], y.shape[1]
            q, k, v = (layer(y).reshape(b, n, -1, 16).transpose(1, 2) for layer in projections)
            y = functional.scaled_dot_product_attention(q, k, v)
            x = x + out(y.transpose(1, 2).reshape(b, n, -1))
        return self.classifier((x + self.feed(x))[:, 0])


class Shuffled(nn.Module):
    """Its graph names half of the width, in reshapes that undo each other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 2 * width, 3, padding=1)
        self.two = nn.Conv2d(2 * width, 8, 1)
        self.classifier = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x = x.reshape(x.shape[0], 2, -1, x.shape[2], x.shape[3]).transpose(1, 2).flatten(1, 2)
        return self.classifier(functional.relu(self.two(x)).mean((2, 3)))


class ChannelShuffled(Shuffled):
    """It does the same by an operation that only the exporter takes apart."""

    def forward(self, x: Tensor) -> Tensor:
        x = functional.channel_shuffle(self.one(x), 2)
        return self.classifier(functional.relu(self.two(x)).mean((2, 3)))


class Scaled(nn.Module):
    """Its graph holds the root of its width, as a number that nothing else in it depends on."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(6, width)
        self.scale = width**-0.5
        self.classifier = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.hidden(x) * self.scale)


class Tied(nn.Module):
    """Its exporter stores one weight twice: as it is for single rows, and transposed for sequences."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(6, width)
        self.classifier = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.stack([x, x.flip(1), x * x], dim=1)
        return self.classifier(functional.relu(self.hidden(rows)).mean(1) + self.hidden(x))


class Summed(nn.Module):
    """Its exporter works out the sum of two tensors beforehand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = (nn.Parameter(torch.randn(1, width)) for _ in range(2))
        self.hidden = nn.Linear(6, width)
        self.classifier = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(functional.relu(self.hidden(x) + (self.one + self.two)) * self.one + self.two)


@pytest.mark.parametrize(
    ("build", "shape", "widths", "exports"),
    [
        (perceptron, (12,), [(30,), (1,), (64,)], 1),
        (Signal, (2, 16), [(30,), (1,), (64,)], 1),
        (Concatenated, (3, 8, 8), [(6,), (1,), (9,)], 1),
        (Transformer, (3, 8, 8), [(2, 2, 40), (1, 3, 7), (4, 1, 80), (3, 3, 1)], 1),
        (Shuffled, (3, 4, 4), [(6,), (2,), (3,)], 1),
        (ChannelShuffled, (3, 4, 4), [(6,), (2,), (6,)], 2),
        (Tied, (6,), [(10,), (4,), (17,)], 1),
        (Scaled, (6,), [(10,), (4,), (10,), (17,)], 3),
        (Summed, (6,), [(10,), (4,), (10,)], 4),
    ],
)
def test_networks_of_every_kind_answer_alike_whatever_their_widths(
    build: Callable[..., nn.Module],
    shape: tuple[int, ...],
    widths: list[tuple[int, ...]],
    exports: int,
    count_of_exports: list[int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    exporter = Exporter(shape)
    for number, width in enumerate(widths):
        model = restless(build, width, number)
        proto = exporter.to_onnx(model)
        onnx.checker.check_model(proto, full_check=True)
        assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
        session = open_session(proto.SerializeToString(), RUNTIME)
        for count in (1, 5):
            batch = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
            parity.check(model, session, batch.numpy())
            with torch.inference_mode():
                (found,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
                np.testing.assert_allclose(found, model(batch).numpy(), rtol=1e-4, atol=1e-4)
    assert len(count_of_exports) == exports
    assert capfd.readouterr() == ("", "")


def restless(build: Callable[..., nn.Module], width: tuple[int, ...], seed: int) -> nn.Module:
    """Return a model all of whose numbers are random."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return shaken(build(*width))


def shaken(model: nn.Module) -> nn.Module:
    """Give batch-norms numbers as training would, so that folding them cannot hide behind the identity."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                for tensor in (layer.running_mean, layer.running_var, layer.weight, layer.bias):
                    tensor.uniform_(0.5, 1.5, generator=random)
    return model.eval()


@pytest.mark.parametrize(
    ("build", "shape", "name"), [(perceptron, (12,), "features"), (Signal, (2, 16), "window"), (Concatenated, (3, 4, 4), "image")]
)
def test_the_input_is_named_by_its_kind_and_only_its_batch_is_free(
    build: Callable[..., nn.Module], shape: tuple[int, ...], name: str
) -> None:
    (entry,) = Exporter(shape).to_onnx(restless(build, (5,), 0)).graph.input
    assert entry.name == name
    assert [side.dim_value or side.dim_param for side in entry.type.tensor_type.shape.dim] == ["batch", *shape]


@pytest.mark.parametrize(
    ("build", "shape", "widths"), [(perceptron, (12,), (5, 9)), (Transformer, (3, 8, 8), (1, 3)), (Shuffled, (3, 4, 4), (5, 8))]
)
def test_a_graph_that_was_kept_serves_other_widths_without_another_export(
    build: Callable[..., nn.Module],
    shape: tuple[int, ...],
    widths: tuple[int, int],
    count_of_exports: list[int],
    tmp_path: Path,
) -> None:
    kept = tmp_path / "graph"
    one, other = (restless(build, (width,), width) for width in widths)
    first = Exporter(shape, kept)
    first.keep()
    assert not kept.exists(), "there is none yet"
    first.to_onnx(one)
    first.keep()
    assert kept.stat().st_size < 40_000, "the graph's own weights are not kept"
    later = Exporter(shape, kept)
    session = open_session(later.to_onnx(other).SerializeToString(), RUNTIME)
    parity.check(other, session, torch.randn(3, *shape).numpy())
    assert (len(count_of_exports), later.burdened) == (1, False)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x08\x07"], ids=["empty", "rubbish", "a graph without notes"])
def test_a_kept_graph_that_cannot_be_read_is_made_anew(content: bytes, tmp_path: Path, count_of_exports: list[int]) -> None:
    kept = tmp_path / "graph"
    kept.write_bytes(content)
    model = restless(perceptron, (5,), 0)
    for _ in range(2):
        exporter = Exporter((12,), kept)
        session = open_session(exporter.to_onnx(model).SerializeToString(), RUNTIME)
        parity.check(model, session, torch.randn(3, 12).numpy())
        exporter.keep()
        assert len(count_of_exports) == 1


def template(model: nn.Module, shape: tuple[int, ...]) -> Template:
    scrambled = export._scrambled(folded(copy.deepcopy(model), shape))
    return Template.of(export._export(scrambled, shape), scrambled, run(scrambled, torch.zeros(3, *shape)))


@pytest.mark.parametrize(
    ("build", "shape", "expected"),
    [
        (perceptron, (12,), False),
        (Signal, (2, 16), False),  # it clips at 6, whatever its width
        (Shuffled, (3, 4, 4), True),
        (Scaled, (6,), True),
    ],
)
def test_only_graphs_with_numbers_of_their_own_are_tried_out(
    build: Callable[..., nn.Module], shape: tuple[int, ...], expected: bool
) -> None:
    assert template(restless(build, (5,), 0), shape).depends_on_widths is expected


def test_weights_under_other_names_and_transposed_are_found_wherever_they_are() -> None:
    graph, model = template(restless(Tied, (5,), 0), (6,)), restless(Tied, (9,), 1)
    fused = folded(model, (6,))
    proto = graph.fill(fused, run(fused, torch.zeros(3, 6)))
    assert proto is not None
    stored = [numpy_helper.to_array(each) for each in proto.graph.initializer]
    weight = model.hidden.weight.detach().numpy()
    assert sum(np.array_equal(each, weight) for each in stored) == 1
    assert sum(np.array_equal(each, weight.T) for each in stored) == 1


def test_a_model_of_other_tensors_or_fewer_reshapes_is_not_filled_in() -> None:
    graph = template(restless(Shuffled, (5,), 0), (3, 4, 4))
    for other in (restless(ChannelShuffled, (5,), 0), restless(Concatenated, (5,), 0)):
        fused = folded(other, (3, 4, 4))
        assert graph.fill(fused, run(fused, torch.zeros(3, 3, 4, 4))) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        ("mlp", (24,)),
        ("convnet1d", (6, 32)),
        ("vit_tiny", (3, 8, 8)),
        ("mobilenet_v2", (3, 32, 32)),
        ("resnet18", (3, 16, 16)),
        ("resnet50", (3, 16, 16)),
    ],
)
def test_each_built_in_model_is_exported_once_and_answers_alike(
    architecture: str, shape: tuple[int, ...], count_of_exports: list[int]
) -> None:
    exporter = Exporter(shape)
    for seed in (0, 1):
        model = shaken(initial.materialize(registry.build(ModelSpec(architecture, shape, 5)), seed))
        session = open_session(exporter.to_onnx(model).SerializeToString(), RUNTIME)
        for count in (1, 5):
            batch = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
            parity.check(model, session, batch.numpy())
    assert len(count_of_exports) == 1
