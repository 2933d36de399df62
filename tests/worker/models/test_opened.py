from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from reconvene_agent.core import bundle
from reconvene_agent.core.errors import BundleError, ErrorCode
from reconvene_agent.core.options import Criterion, MethodOptions
from reconvene_agent.worker.models.opened import open_bundle
from reconvene_agent.worker.reconvene.criteria import NEED_DATA
from reconvene_agent.worker.reconvene.method import PrunedModel, Reconvene
from support.models import TINY_RESNET, pruned, reshipped, shipped

SPEC = TINY_RESNET


def small(folder: Path, sparsity: float) -> PrunedModel:
    reconvene = Reconvene(open_bundle(folder), MethodOptions())
    (design,) = reconvene.design([sparsity])
    return reconvene.build(design)


@pytest.mark.parametrize("sparsity", [0.0, 0.6, 0.95])
def test_a_seed_and_the_weights_that_it_stands_for_give_nearly_the_same_small_model(tmp_path: Path, sparsity: float) -> None:
    from_seed = small(shipped(tmp_path / "seed", SPEC, seed=5), sparsity)
    from_file = small(shipped(tmp_path / "file", SPEC, seed=5, weights=True), sparsity)
    # A seed is scored in closed form, without its weights; a draw scatters around that.
    for one, other in zip(from_seed.design.layers, from_file.design.layers, strict=True):
        noise = math.sqrt(one.density * (1 - one.density) / one.weights)
        assert one.density == pytest.approx(other.density, abs=0.002 + 4 * noise), one.name
        assert one.width_after == pytest.approx(other.width_after, abs=1)
    dense = from_seed.module.state_dict()
    for name, tensor in from_file.module.state_dict().items():
        if tensor.shape == dense[name].shape and not {name.removesuffix(".weight")} & from_seed.masks.keys():
            assert torch.equal(tensor, dense[name]), name


def test_shipped_weights_decide_over_the_seed(tmp_path: Path) -> None:
    folder = shipped(tmp_path / "b", SPEC, seed=5, weights=True)
    weights = load_file(folder / bundle.WEIGHTS)
    weights["classifier.bias"] = torch.arange(5.0)
    weights["norm.running_mean"] = torch.full((16,), 0.25)
    reshipped(folder, weights)
    model = small(folder, 0.9).module
    assert model.get_parameter("classifier.bias").tolist() == [0, 1, 2, 3, 4]
    assert torch.all(model.get_buffer("norm.running_mean") == 0.25)
    assert not torch.equal(model.get_parameter("conv.weight"), pruned(SPEC, 0.9, seed=6).module.get_parameter("conv.weight"))


def test_shipped_weights_of_half_precision_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = shipped(tmp_path / "b", SPEC, weights=True)
    weights = load_file(folder / bundle.WEIGHTS)
    reshipped(folder, {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()})
    model = small(folder, 0.0).module
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert torch.equal(model.get_parameter("classifier.weight"), weights["classifier.weight"].half().float())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink], ids=["truncated", "altered", "missing"])
def test_a_weights_file_that_is_not_the_one_that_was_shipped_is_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = shipped(tmp_path / "b", SPEC, weights=True)
    damage(folder / bundle.WEIGHTS)
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    assert caught.value.code is ErrorCode.BAD_BUNDLE
    assert str(folder / bundle.WEIGHTS) in caught.value.message


def without(weights: dict[str, Tensor]) -> None:
    del weights["conv.weight"]


def with_another(weights: dict[str, Tensor]) -> None:
    weights["extra"] = torch.zeros(1)


def renamed(weights: dict[str, Tensor]) -> None:
    weights["conv.wait"] = weights.pop("conv.weight")


def reshaped(weights: dict[str, Tensor]) -> None:
    weights["conv.weight"] = weights["conv.weight"].reshape(16, -1)


@pytest.mark.parametrize("change", [without, with_another, renamed, reshaped])
def test_tensors_that_do_not_match_the_architecture_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], None]
) -> None:
    folder = shipped(tmp_path / "b", SPEC, weights=True)
    weights = load_file(folder / bundle.WEIGHTS)
    change(weights)
    reshipped(folder, weights)
    with pytest.raises(BundleError, match="do not match the architecture") as caught:
        open_bundle(folder)
    assert caught.value.code is ErrorCode.BAD_BUNDLE


def test_a_weights_file_of_another_kind_is_refused_even_if_its_digest_is_right(tmp_path: Path) -> None:
    folder = shipped(tmp_path / "b", SPEC, weights=True)
    reshipped(folder, {})
    (folder / bundle.WEIGHTS).write_bytes(b"not safetensors")
    manifest = (folder / bundle.MANIFEST).read_text()
    known = bundle.read(folder).files[bundle.WEIGHTS]
    digest = bundle.atomic.sha256(folder / bundle.WEIGHTS)
    (folder / bundle.MANIFEST).write_text(manifest.replace(known, digest))
    with pytest.raises(BundleError, match="not a readable safetensors file"):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["conv.weight", "stages.1.0.conv1.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_before_anything_is_made_of_them(tmp_path: Path, name: str, value: float) -> None:
    folder = shipped(tmp_path / "b", SPEC, weights=True)
    weights = load_file(folder / bundle.WEIGHTS)
    weights[name].view(-1)[3] = value
    reshipped(folder, weights)
    with pytest.raises(BundleError, match=name.removesuffix(".weight")) as caught:
        small(folder, 0.5)
    assert caught.value.code is ErrorCode.BAD_BUNDLE


@pytest.mark.parametrize("criterion", ["synflow", *sorted(NEED_DATA)])
def test_criteria_that_use_all_weights_refuse_what_is_no_number_as_well(tmp_path: Path, criterion: Criterion) -> None:
    folder = shipped(tmp_path / "b", SPEC, weights=True)
    weights = load_file(folder / bundle.WEIGHTS)
    weights["stages.1.0.conv1.weight"].view(-1)[3] = float("nan")
    reshipped(folder, weights)
    sample = (np.zeros((4, *SPEC.input), dtype=np.float32), np.arange(4))
    reconvene = Reconvene(open_bundle(folder), MethodOptions(criterion=criterion), sample=lambda _: sample)
    with pytest.raises(BundleError, match=r"stages\.1\.0\.conv1.* holds values that are not finite") as caught:
        reconvene.design([0.5])
    assert caught.value.code is ErrorCode.BAD_BUNDLE


@pytest.mark.parametrize("name", ["classifier.weight", "classifier.bias", "norm.running_var"])
def test_what_is_no_number_outside_the_convolutions_is_refused_too(tmp_path: Path, name: str) -> None:
    folder = shipped(tmp_path / "b", SPEC, weights=True)
    weights = load_file(folder / bundle.WEIGHTS)
    weights[name].view(-1)[0] = float("nan")
    reshipped(folder, weights)
    with pytest.raises(BundleError, match=f"{name} holds values that are not finite"):
        small(folder, 0.0)


def test_a_number_beyond_single_precision_is_refused(tmp_path: Path) -> None:
    folder = shipped(tmp_path / "b", SPEC, weights=True)
    weights = load_file(folder / bundle.WEIGHTS)
    weights["conv.weight"] = weights["conv.weight"].double()
    weights["conv.weight"].view(-1)[0] = 1e300
    reshipped(folder, weights)
    with pytest.raises(BundleError, match="not finite"):
        small(folder, 0.5)


def test_the_digest_names_the_bundle(tmp_path: Path) -> None:
    one = open_bundle(shipped(tmp_path / "one", SPEC, seed=1))
    same = open_bundle(shipped(tmp_path / "same", SPEC, seed=1))
    other = open_bundle(shipped(tmp_path / "other", SPEC, seed=2))
    assert one.digest == same.digest != other.digest
    assert one.spec == SPEC


def test_the_dense_model_has_the_bundles_weights(tmp_path: Path) -> None:
    folder = shipped(tmp_path / "b", SPEC, seed=4, weights=True)
    dense = open_bundle(folder).dense().state_dict()
    stored = load_file(folder / bundle.WEIGHTS)
    assert dense.keys() == stored.keys()
    assert all(torch.equal(dense[name], stored[name]) for name in stored)
