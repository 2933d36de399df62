"""The parts of the benchmark of accuracy against latency: what its arms are, and that results are never mixed."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from accuracy import engine, labels, search, table
from accuracy.arms import ARMS, RIVALS, Case, Point, as_fast_as
from accuracy.engine import Family
from accuracy.settings import Settings
from accuracy.store import Store
from accuracy.summary import summarize
from accuracy.training import Recipe, train
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.data.dataset import Dataset, Part, Skipped

FAMILY = Family(ModelSpec("vgg11", (3, 8, 8), 4), 0.25, 4)
MATCHES = {name: 1.0 for name, arm in ARMS.items() if arm.rival is not None}
SETTINGS = Settings("vgg11", 0.25, 4, 0.9, 1, 64, 4, "0" * 16, 0.05, "cpu")
RECIPE = Recipe(1, 0.05, 0, "cpu", lambda: None)


@pytest.fixture(scope="module")
def data() -> Dataset:
    draw = np.random.default_rng(0)
    parts = (Part(draw.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8), np.arange(n, dtype=np.int64) % 4) for n in (64, 16))
    return Dataset(*parts, (), Skipped())


def case(data: Dataset, seed: int = 0) -> Case:
    return Case(Point(FAMILY, 0.9, seed, MATCHES), data, RECIPE)


def record(arm: str, seed: int = 0, accuracy: float = 0.5, **more: Any) -> dict[str, Any]:
    match = MATCHES.get(arm)
    numbers = {"params": 9, "nonzero": 9, "macs": 9, "seconds": 1.0, "search_seconds": 0.0, "diverged": False}
    settings = SETTINGS.document()
    return {"arm": arm, "seed": seed, "accuracy": accuracy, "match": match, "shape": arm, "settings": settings, **numbers, **more}


@pytest.mark.parametrize("name", [name for name in ARMS if name != "search"])
def test_every_arm_makes_a_network_whose_macs_are_those_that_the_package_counts(name: str, data: Dataset) -> None:
    plan = ARMS[name].plan(case(data))
    design = engine.with_widths(FAMILY.spec, plan.widths)
    assert engine.macs(FAMILY.spec, plan.widths) == design.costs().macs
    assert sum(parameter.numel() for parameter in plan.module.parameters()) == design.costs().params


def test_the_unstructured_counterpart_keeps_the_largest_weights_of_all_layers(data: Dataset) -> None:
    plan, dense = ARMS["unstructured"].plan(case(data)), ARMS["dense"].plan(case(data))
    weights = {name: dense.module.get_parameter(f"{name}.weight").abs() for name in plan.masks}
    kept = torch.cat([weights[name][mask] for name, mask in plan.masks.items()])
    dropped = torch.cat([weights[name][~mask] for name, mask in plan.masks.items()])
    assert kept.min() >= dropped.max()
    reading = ARMS["mean/sqrt/masked"].on_paper(case(data).point)
    assert reading is not None
    everything = sum(parameter.numel() for parameter in plan.module.parameters())
    assert everything - len(dropped) == reading.costs().nonzero


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("alpha", [0.8, 1.0])
def test_ours_takes_half_the_bytes_of_its_rival_and_no_more_sparsity_than_that(rival: float, alpha: float, data: Dataset) -> None:
    point = case(data).point
    most = engine.uniform(FAMILY, rival).costs().file_bytes / 2
    found = ARMS[as_fast_as(rival)].within(point, alpha)
    assert found is not None
    assert found.costs().file_bytes <= most
    if found.sparsity:
        options = FAMILY.options(alpha, sensitive="dense")
        assert engine.design(FAMILY.spec, 0, round(found.sparsity - 0.01, 2), options).costs().file_bytes > most


def test_filters_kept_by_norm_are_the_dense_ones(data: Dataset) -> None:
    plan, dense = ARMS["filter norm"].plan(case(data)), ARMS["dense"].plan(case(data))
    first = "features.conv1_1.weight"
    small, large = plan.module.get_parameter(first), dense.module.get_parameter(first)
    strongest = large.abs().flatten(1).sum(1).topk(len(small)).indices.sort().values
    assert torch.equal(small, large[strongest])


def test_permuting_leaves_the_densities_what_they_are(data: Dataset) -> None:
    found = [ARMS[name].on_paper(case(data).point) for name in ("mean/sqrt/masked", "permuted")]
    ones, others = ([layer.density for layer in design.layers] for design in found if design is not None)
    assert ones != others
    assert sorted(others) == pytest.approx(sorted(ones), abs=0.02)


def test_a_search_finds_a_network_of_the_macs_that_it_was_given(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "CANDIDATES", 4)
    target = 200_000
    plan = search.searched(FAMILY, target, data, RECIPE)
    assert engine.macs(FAMILY.spec, plan.widths) == pytest.approx(target, rel=search.TOLERANCE)
    assert plan.search_seconds > 0
    dense = engine.uniform(FAMILY, 1.0).widths
    assert all(width % 4 == 0 or width == dense[name] for name, width in plan.widths.items())


def test_training_is_repeatable_and_masks_hold(data: Dataset) -> None:
    found = []
    for _ in range(2):
        plan = ARMS["unstructured"].plan(case(data))
        train(plan.module, plan.masks, data, RECIPE)
        found.append(plan.module.state_dict())
        assert all(not plan.module.get_parameter(f"{name}.weight")[~mask].any() for name, mask in plan.masks.items())
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_a_store_goes_on_where_it_stopped_and_keeps_settings_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.set_matches(SETTINGS, {arm: {"multiplier": alpha, "ratio": 1.0} for arm, alpha in MATCHES.items()})
    store.add_run(record("dense"))
    store.add_run(record(as_fast_as(0.7)))
    with pytest.raises(SystemExit, match="another benchmark"):
        Store(tmp_path)
    store.close()
    store = Store(tmp_path)
    assert [run["arm"] for run in store.runs(SETTINGS)] == ["dense", as_fast_as(0.7)]
    assert store.runs(dataclasses.replace(SETTINGS, epochs=2)) == []
    # As fast as its rival is another network after another match.
    store.set_matches(SETTINGS, {arm: {"multiplier": 0.6, "ratio": 1.0} for arm in MATCHES})
    assert [run["arm"] for run in store.runs(SETTINGS)] == ["dense"]
    store.close()


def test_a_small_difference_or_one_inside_the_spread_is_a_tie() -> None:
    runs = [record("mean/sqrt/masked", seed, 0.50 + 0.01 * seed) for seed in (0, 1, 2)]
    for accuracy, verdict in ((0.512, "a tie"), (0.519, "a tie"), (0.53, "worse"), (0.40, "better")):
        rows = summarize([*runs, record("permuted", accuracy=accuracy)], {})
        assert table.difference(rows["mean/sqrt/masked"], rows["permuted"])[2] == verdict


def test_labels_overlap_neither_each_other_nor_points() -> None:
    draw = random.Random(0)
    points = [(draw.uniform(100, 500), draw.uniform(100, 400)) for _ in range(20)]
    obstacles = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    boxes = labels.place([(60, 10)] * len(points), points, obstacles, (0, 0, 600, 500))
    for index, box in enumerate(boxes):
        assert all(labels.overlap(box, other) == 0 for other in (*boxes[:index], *obstacles))
