from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from support.grouping import Classified, found, halved_runs


def puzzling(operation: Callable[[Tensor], Tensor]) -> type[nn.Module]:
    class Puzzling(Classified):
        def body(self, x: Tensor) -> Tensor:
            return self.second(operation(x))

    return Puzzling


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: functional.pixel_shuffle(functional.pixel_unshuffle(x, 2), 2),
        lambda x: functional.softmax(x, 1),
        lambda x: x * x.shape[1],
        lambda x: nn.functional.layer_norm(x, x.shape[2:]),
        lambda x: x[:, torch.arange(8)],
        lambda x: torch.roll(x, 1, 1),
        lambda x: x.reshape(-1, 8, 64).unflatten(2, (8, 8)),
        lambda x: torch.cat([x[:, 4:], x[:, :4]], 1),
        lambda x: x.view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8),
    ],
    ids=["shuffle", "softmax", "by the width", "norm", "index", "roll", "fixed size", "halves", "shuffled blocks"],
)
def test_an_operation_that_is_not_understood_holds_what_goes_in_and_the_model_still_runs(
    operation: Callable[[Tensor], Tensor],
) -> None:
    model = puzzling(operation)
    groups = found(model)
    assert groups["first"].frozen
    assert not groups["second"].frozen
    halved_runs(model)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.permute(0, 1, 3, 2),
        lambda x: torch.permute(x, (0, 1, 3, 2)),
        lambda x: x.transpose(2, -1),
        lambda x: x / 2,
        lambda x: x + x.mean(1, keepdim=True),
        lambda x: x * x.mean((2, 3)).unsqueeze(-1).unsqueeze(-1),
        lambda x: x.mean((2, 3), keepdim=True).squeeze(3).unsqueeze(2) + x,
        lambda x: x.flatten(2).reshape(x.shape[0], x.shape[1], 8, 8),
        lambda x: x.view(x.size(0), -1, 64).view(x.size(0), -1, 8, 8),
        lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        lambda x: torch.cat([x.chunk(2, 1)[1], x.chunk(2, 1)[0]], 1),
        lambda x: x[:, :, 1:, 1:],
        lambda x: functional.interpolate(functional.max_pool2d(x, 2), scale_factor=2.0),
        lambda x: x.flatten(2).transpose(1, 2).softmax(1).transpose(1, 2).reshape(x.shape[0], -1, 8, 8),
    ],
    ids=[
        "permute",
        "permute by function",
        "transpose",
        "divide",
        "mean over channels",
        "gate",
        "squeezed",
        "sizes of its own",
        "left open",
        "channels last",
        "chunks",
        "slice of places",
        "resized",
        "softmax over places",
    ],
)
def test_an_operation_that_is_understood_leaves_the_channels_free_and_the_halved_model_runs(
    operation: Callable[[Tensor], Tensor],
) -> None:
    model = puzzling(operation)
    assert not found(model)["first"].frozen
    assert halved_runs(model).get_parameter("first.weight").shape[0] == 4
