from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.models import initial
from reconvene_agent.worker.models.opened import open_bundle
from reconvene_agent.worker.models.weights import WeightSource
from support.models import shipped

SPEC = ModelSpec("vit_tiny", (3, 8, 8), 5)
NAME, SHAPE = "blocks.3.feed_forward.widen.weight", (768, 192)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def from_seed(folder: Path) -> WeightSource:
    return open_bundle(shipped(folder / "seed", SPEC, seed=4)).weights


@pytest.fixture(scope="module")
def from_file(folder: Path) -> WeightSource:
    return open_bundle(shipped(folder / "file", SPEC, seed=4, weights=True)).weights


def test_a_source_tells_whether_it_ships_more_than_a_seed(from_seed: WeightSource, from_file: WeightSource) -> None:
    assert (from_seed.shipped, from_file.shipped) == (False, True)


def test_a_single_weight_is_that_of_the_whole_model(from_seed: WeightSource, from_file: WeightSource) -> None:
    drawn = initial.kaiming_normal(NAME, SHAPE, 4)
    assert torch.equal(from_seed.weight(NAME, SHAPE), drawn)
    assert torch.equal(from_file.weight(NAME, SHAPE), drawn)


def test_a_parameter_that_no_layer_owns_can_be_asked_for_too(from_seed: WeightSource, from_file: WeightSource) -> None:
    one, other = (source.parameter("position", (1, 4, 192)) for source in (from_seed, from_file))
    assert torch.equal(one, other)
    assert float(one.std()) == pytest.approx(0.02, rel=0.1)


def test_what_has_another_shape_than_the_shipped_one_is_drawn_from_the_seed(
    from_seed: WeightSource, from_file: WeightSource
) -> None:
    for ask, name, shape in (("weight", NAME, (100, 192)), ("parameter", "position", (1, 4, 60))):
        one, other = (getattr(source, ask)(name, shape) for source in (from_seed, from_file))
        assert one.shape == shape
        assert torch.equal(one, other)
