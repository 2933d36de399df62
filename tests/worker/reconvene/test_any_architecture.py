"""The method on architectures that it has never seen: whatever the groups make of a graph, the small model must run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from reconvene_agent.core.options import MethodOptions
from reconvene_agent.worker.deploy.export import Exporter, folded
from reconvene_agent.worker.deploy.session import open_session
from reconvene_agent.worker.reconvene.method import Reconvene, structure_of
from support.architectures import BLOCKS, Recipe, recipes
from support.grouping import actual
from support.models import RUNTIME, architecture, images, lived_in, opened, pruned

SPARSITIES = st.sampled_from([0.0, 0.5, 0.8, 0.95, 0.99])
OPTIONS = st.builds(
    MethodOptions,
    criterion=st.sampled_from(["magnitude", "uniform", "erk"]),
    average=st.sampled_from(["mean", "weighted"]),
    width=st.sampled_from(["density", "sqrt"]),
    sensitive=st.sampled_from(["masked", "dense", "shrink"]),
    width_multiplier=st.sampled_from([1.0, 0.7, 0.4]),
    trunk=st.sampled_from(["keep", "prune"]),
    min_width=st.integers(1, 5),
    width_multiple=st.sampled_from([1, 8]),
)
EVERYTHING = Recipe(tuple((kind, 8) for kind in range(len(BLOCKS))), flatten=True)


@settings(max_examples=80)
@example(EVERYTHING, 0.95, MethodOptions(min_width=1))
@example(EVERYTHING, 0.9, MethodOptions(sensitive="shrink", trunk="prune", width_multiplier=0.7, width_multiple=8))
@given(recipes, SPARSITIES, OPTIONS)
def test_the_small_model_trains_with_the_designed_widths(recipe: Recipe, sparsity: float, options: MethodOptions) -> None:
    with architecture(recipe.build):
        reconvene = Reconvene(opened(recipe.spec), options)
        (design,) = reconvene.design([sparsity])
        model = reconvene.build(design).module.train()
        answer = model(images(recipe.spec, 2))
        assert answer.shape == (2, 3)
        answer.square().sum().backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
        assert design.costs().params == sum(parameter.numel() for parameter in model.parameters())
        structure = structure_of(recipe.spec)
        widths = structure.numbered(design.widths)
        for side in structure.sides:
            assert actual(model, side) == side.size(widths), side
        for group, width in zip(structure.groups, widths, strict=True):
            assert width == group.width or not (group.frozen or (group.trunk and options.trunk == "keep"))
            assert width == group.width or width * group.entries >= options.min_width


@settings(max_examples=40)
@example(EVERYTHING, 0.8)
@given(recipes, SPARSITIES)
def test_folding_batch_norms_changes_no_answer(recipe: Recipe, sparsity: float) -> None:
    with architecture(recipe.build):
        model = lived_in(pruned(recipe.spec, sparsity).module)
        batch = images(recipe.spec, 3)
        with torch.inference_mode():
            assert torch.allclose(folded(model)(batch), model(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@settings(max_examples=2)
@example(EVERYTHING, 0.8, 0.99)
@given(recipes, SPARSITIES, SPARSITIES)
def test_the_exported_file_answers_as_torch_does_also_when_the_graph_is_reused(recipe: Recipe, one: float, other: float) -> None:
    with architecture(recipe.build):
        exporter = Exporter(recipe.spec.input)
        for sparsity in (one, other):
            model = lived_in(pruned(recipe.spec, sparsity, min_width=1).module)
            session = open_session(exporter.to_onnx(model).SerializeToString(), RUNTIME)
            for count in (1, 3):
                batch = images(recipe.spec, count)
                with torch.inference_mode():
                    expected = model(batch).numpy()
                found = session.run(None, {"image": batch.numpy()})[0]
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_every_piece_can_stand_alone() -> None:
    for kind, block in enumerate(BLOCKS):
        recipe = Recipe(((0, 8), (kind, 6), (0, 8)), flatten=False)
        with architecture(recipe.build):
            module = pruned(recipe.spec, 0.9, min_width=1).module
            assert isinstance(module.get_submodule("blocks.1"), block)
            assert module(images(recipe.spec, 1)).shape == (1, 3)
            assert sum(isinstance(layer, nn.Conv2d) for layer in module.modules()) >= 3
