from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from reconvene_agent.worker.reconvene import masks


def layer(*values: float) -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(1, len(values), 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(values).view(-1, 1, 1, 1))
    return model


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=40), st.data())
def test_a_mask_keeps_exactly_as_many_as_asked_and_none_is_smaller_than_one_dropped(
    values: list[float], data: st.DataObject
) -> None:
    kept = data.draw(st.integers(0, len(values)))
    model = layer(*values)
    mask = masks.draw(model, {"0": kept})["0"]
    assert mask.shape == model[0].weight.shape
    assert int(mask.sum()) == kept
    magnitudes = model[0].weight.detach().abs()
    if 0 < kept < len(values):
        assert magnitudes[mask].min() >= magnitudes[~mask].max()


def test_applying_masks_zeroes_what_they_prune_and_nothing_else() -> None:
    model = layer(1.0, -3.0, 2.0, 0.5)
    masks.apply(model, masks.draw(model, {"0": 2}))
    assert model[0].weight.flatten().tolist() == [0.0, -3.0, 2.0, 0.0]


def test_layers_without_a_mask_are_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1))
    before = model[1].weight.clone()
    masks.apply(model, masks.draw(model, {"0": 1}))
    assert torch.equal(model[1].weight, before)


@pytest.mark.parametrize("nesterov", [False, True])
def test_pruned_weights_stay_exactly_zero_under_momentum_and_decay(nesterov: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 3))
    drawn = masks.draw(model, {"0": 40})
    masks.apply(model, drawn)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=nesterov)
    for _ in range(30):
        loss = model(torch.randn(4, 2, 8, 8)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        masks.apply(model, drawn)
    weight = model[0].weight
    assert torch.count_nonzero(weight[~drawn["0"]]) == 0
    assert torch.count_nonzero(weight) == 40
