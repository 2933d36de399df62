from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reconvene_agent.core.errors import AgentError, UsageError
from reconvene_agent.worker.reconvene import stored
from support.models import TINY_RESNET, images, lived_in, pruned


def test_what_is_stored_is_read_back_with_its_design(tmp_path: Path) -> None:
    model = pruned(TINY_RESNET, 0.9)
    lived_in(model.module)
    stored.write(tmp_path / "deep" / "out", model, "d" * 64)
    design, module = stored.read(tmp_path / "deep" / "out")
    assert (design.bundle, design.model, design.sparsity) == ("d" * 64, TINY_RESNET, 0.9)
    assert (design.widths, design.mask_sizes) == (model.design.widths, model.design.mask_sizes)
    assert [layer["name"] for layer in design.layers] == [layer.name for layer in model.design.layers]
    batch = images(TINY_RESNET, 2)
    assert torch.equal(module.eval()(batch), model.module(batch))


def test_masks_are_stored_beside_the_weights(tmp_path: Path) -> None:
    model = pruned(TINY_RESNET, 0.9)
    stored.write(tmp_path, model, "d" * 64)
    found = load_file(tmp_path / stored.WEIGHTS)
    assert {name.removeprefix("mask.") for name in found if name.startswith("mask.")} == set(model.masks)
    assert all(torch.equal(found[f"mask.{name}"].bool(), mask) for name, mask in model.masks.items())


def test_storing_again_replaces_what_was_there(tmp_path: Path) -> None:
    for sparsity in (0.5, 0.9):
        stored.write(tmp_path, pruned(TINY_RESNET, sparsity), "d" * 64)
    assert stored.read(tmp_path)[0].sparsity == 0.9
    assert sorted(path.name for path in tmp_path.iterdir()) == [stored.DESIGN, stored.WEIGHTS]


def no_design(folder: Path) -> None:
    (folder / stored.DESIGN).unlink()


def no_json(folder: Path) -> None:
    (folder / stored.DESIGN).write_bytes(b'{"format": 1, "bundle": "\xff"}')


def no_weights(folder: Path) -> None:
    (folder / stored.WEIGHTS).unlink()


def truncated(folder: Path) -> None:
    content = (folder / stored.WEIGHTS).read_bytes()
    (folder / stored.WEIGHTS).write_bytes(content[: len(content) // 2])


def other_widths(folder: Path) -> None:
    design = json.loads((folder / stored.DESIGN).read_text())
    design["widths"]["stages.2.0.conv1"] -= 1
    (folder / stored.DESIGN).write_text(json.dumps(design))


def other_architecture(folder: Path) -> None:
    design = json.loads((folder / stored.DESIGN).read_text())
    design["model"]["architecture"] = "resnet1001"
    (folder / stored.DESIGN).write_text(json.dumps(design))


@pytest.mark.parametrize("damage", [no_design, no_json, no_weights, truncated, other_widths, other_architecture])
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    stored.write(tmp_path, pruned(TINY_RESNET, 0.9), "d" * 64)
    damage(tmp_path)
    with pytest.raises(AgentError) as caught:
        stored.read(tmp_path)
    assert isinstance(caught.value, UsageError) == (damage is not other_architecture)
    assert len(caught.value.message.splitlines()) == 1
