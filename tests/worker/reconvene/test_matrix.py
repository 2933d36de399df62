"""Every built-in model with every knob of the method: it prunes, runs, trains a step, exports, and nothing collapses.

``-m matrix`` runs all combinations, which takes the better part of an hour; without it each value of each knob meets each
model at least once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from reconvene_agent.core.architectures import ARCHITECTURES, Kind
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.options import Average, Criterion, MethodOptions, Sensitive, Width
from reconvene_agent.worker.deploy import parity
from reconvene_agent.worker.deploy.session import open_session
from reconvene_agent.worker.reconvene import masks
from reconvene_agent.worker.reconvene.criteria import CRITERIA, NEED_DATA
from reconvene_agent.worker.reconvene.criteria.subject import Kept, Subject
from reconvene_agent.worker.reconvene.method import Design, PrunedModel, Reconvene, structure_of
from support.models import RUNTIME, exporter, images, opened

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
AVERAGES, WIDTHS, SENSITIVE = get_args(Average), get_args(Width), get_args(Sensitive)
CLASSES = 5
SMALL: dict[Kind, tuple[int, ...]] = {"image": (3, 8, 8), "window": (6, 32), "features": (24,)}
LARGE: dict[Kind, tuple[int, ...]] = {"image": (3, 16, 16), "window": (6, 128), "features": (24,)}
# SynFlow goes through these thirty times, each time with millions of weights or hundreds of operations.
SLOW_TO_FLOW = ("vgg11", "vgg16", "vgg19", "resnet18", "resnet50", "resnet56", "mobilenet_v2", "vit_tiny")

Knobs = tuple[float, Criterion, Average, Width, Sensitive]


def spec_of(name: str, sizes: dict[Kind, tuple[int, ...]]) -> ModelSpec:
    return ModelSpec(name, sizes[ARCHITECTURES[name].input], CLASSES)


def sample_of(spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """Return a few inputs, two of most classes."""
    return images(spec, 8), torch.arange(8) % CLASSES


def arrays_of(spec: ModelSpec) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    inputs, classes = sample_of(spec)
    return inputs.numpy(), classes.numpy()


def reconvene(spec: ModelSpec, options: MethodOptions) -> Reconvene:
    return Reconvene(opened(spec), options, sample=(lambda _: arrays_of(spec)) if options.criterion in NEED_DATA else None)


def examine(spec: ModelSpec, knobs: Knobs) -> None:
    """Make the small model of these knobs and look at all that it must be able to do."""
    sparsity, criterion, average, width, sensitive = knobs
    options = MethodOptions(criterion=criterion, average=average, width=width, sensitive=sensitive)
    method = reconvene(spec, options)
    (design,) = method.design([sparsity])
    look_at_widths(design, options)
    pruned = method.build(design)
    look_at_answers(pruned)
    train_a_step(pruned)
    look_at_answers(pruned)
    session = open_session(exporter(spec).to_onnx(pruned.module).SerializeToString(), RUNTIME)
    parity.check(pruned.module, session, images(spec, 3, seed=1).numpy())


def look_at_widths(design: Design, options: MethodOptions) -> None:
    assert sum(layer.kept for layer in design.layers) == round(
        (1 - design.sparsity) * sum(each.weights for each in design.layers)
    )
    for group in structure_of(design.spec).groups:
        if group.producers:
            least = min(group.width, options.min_width if group.entries == 1 else 1)
            assert least <= design.widths[group.name] <= group.width, group.name
            assert not group.frozen or design.widths[group.name] == group.width, group.name
    assert bool(design.mask_sizes) <= (options.sensitive == "masked")
    if options.sensitive == "shrink":
        assert any(layer.width_after < layer.width_before for layer in design.layers)


def look_at_answers(pruned: PrunedModel) -> None:
    with torch.inference_mode():
        logits = pruned.module.eval()(images(pruned.design.spec, 8))
    assert logits.shape == (8, CLASSES)
    assert torch.isfinite(logits).all()
    for name, size in pruned.design.mask_sizes.items():
        assert int(torch.count_nonzero(pruned.module.get_parameter(f"{name}.weight"))) <= size


def train_a_step(pruned: PrunedModel) -> None:
    inputs, classes = sample_of(pruned.design.spec)
    model = pruned.module.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    logits = model(inputs)
    # A model that has collapsed answers every input alike, and learns nothing.
    assert float(logits.detach().std(0).max()) > 1e-3 * float(logits.detach().abs().max())
    functional.cross_entropy(logits, classes).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
    optimizer.step()
    masks.apply(model, pruned.masks)


def thinned(name: str) -> list[Knobs]:
    """Return so few combinations that each value of each knob is among them."""
    criteria = [each for each in CRITERIA if each != "synflow" or name not in SLOW_TO_FLOW]
    columns = (SPARSITIES[::-1], criteria, AVERAGES, WIDTHS[::-1], SENSITIVE)
    return [tuple(column[row % len(column)] for column in columns) for row in range(len(criteria))]  # type: ignore[misc]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_value_of_each_knob(name: str) -> None:
    knobs = thinned(name)
    expected = (SPARSITIES, set(CRITERIA) - ({"synflow"} if name in SLOW_TO_FLOW else set()), AVERAGES, WIDTHS, SENSITIVE)
    assert [set(column) for column in zip(*knobs, strict=True)] == [set(values) for values in expected]
    for each in knobs:
        examine(spec_of(name, SMALL), each)


@pytest.fixture
def scored_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let all combinations of a model and a criterion share its scores, which take nearly all the time."""
    criterion, real = request.param, CRITERIA[request.param]
    known: dict[float, Kept] = {}

    def once(subject: Subject, sparsities: Sequence[float]) -> list[Kept]:
        if not known:
            known.update(zip(SPARSITIES, real(subject, SPARSITIES), strict=True))
        return [known[sparsity] for sparsity in sparsities]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CRITERIA, criterion, once)
        yield


@pytest.mark.matrix
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("scored_once", "criterion"), [(each, each) for each in CRITERIA], indirect=["scored_once"])
@pytest.mark.usefixtures("scored_once")
def test_all_combinations(name: str, criterion: Criterion) -> None:
    spec = spec_of(name, LARGE)
    for sparsity, average, width, sensitive in itertools.product(SPARSITIES, AVERAGES, WIDTHS, SENSITIVE):
        examine(spec, (sparsity, criterion, average, width, sensitive))
