from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.worker.deploy.folding import folded

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def shaken(model: nn.Module) -> nn.Module:
    """Give batch-norms numbers as training would, so that folding them cannot hide behind the identity."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, NORMS):
                for tensor in (layer.running_mean, layer.running_var, layer.weight, layer.bias):
                    if tensor is not None:
                        tensor.uniform_(0.5, 2.0, generator=random)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(layer, NORMS) for layer in model.modules())


def alike(model: nn.Module, shape: tuple[int, ...], input_shape: tuple[int, ...] | None) -> nn.Module:
    """Return the folded model, which answers as the given one does."""
    found = folded(model, input_shape)
    inputs = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(found(inputs), model(inputs), rtol=1e-4, atol=1e-4)
    return found


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        (lambda: (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (3, 5, 5)),
        (lambda: (nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4, affine=False)), (4, 5, 5)),
        (lambda: (nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (3, 9)),
        (lambda: (nn.Conv1d(4, 8, 3, groups=2, bias=False), nn.BatchNorm1d(8)), (4, 9)),
        (lambda: (nn.Linear(6, 4), nn.BatchNorm1d(4)), (6,)),
        (lambda: (nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3), nn.BatchNorm1d(3)), (6,)),
    ],
)
def test_a_norm_right_behind_its_layer_is_folded_away(
    layers: Callable[[], tuple[nn.Module, ...]], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model = shaken(nn.Sequential(*layers()))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert norms(alike(model, shape, shape)) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("tokens", [4, 7])
def test_a_norm_of_a_sequence_behind_a_linear_layer_stays(tokens: int) -> None:
    # With as many tokens as values of each, only a run tells which of them the batch-norm means.
    model = shaken(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(tokens)))
    assert norms(alike(model, (tokens, 6), (tokens, 6))) == 1


def test_without_an_input_norms_behind_linear_layers_stay_and_others_go() -> None:
    model = shaken(nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5)))
    assert norms(alike(model, (2, 5), None)) == 1
    assert norms(alike(model, (2, 5), (2, 5))) == 0


class Several(nn.Module):
    """A layer whose answer serves twice, one that is used twice, one whose weight is used beside it, and a norm used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three, self.four, self.five = (nn.Conv1d(4, 4, 1) for _ in range(5))
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.BatchNorm1d(4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        x = self.norm1(y) + y
        x = self.norm2(self.two(x)) + self.two(x)
        x = self.norm3(self.three(x)) * self.three.weight.sum()
        return self.norm4(self.four(x)) + self.norm4(self.five(x))


def test_a_norm_stays_where_its_layer_serves_others_too() -> None:
    model = shaken(Several())
    assert norms(alike(model, (4, 6), (4, 6))) == 4


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(4, track_running_stats=False), nn.BatchNorm1d(4, affine=False), nn.BatchNorm1d(1)], ids=str
)
def test_a_norm_that_cannot_be_folded_into_a_linear_layer_stays(norm: nn.Module) -> None:
    model = shaken(nn.Sequential(nn.Linear(6, norm.num_features), norm))
    assert norms(alike(model, (6,), (6,))) == (0 if norm.affine and norm.track_running_stats else 1)


class Raw(nn.Module):
    """Operations that are no layers, and parameters of no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.register_buffer("position", torch.randn(1, 5, 8))
        self.norm = nn.LayerNorm(8)
        self.query, self.value = nn.Linear(8, 8), nn.Linear(8, 8)
        self.inner = nn.ParameterList([nn.Parameter(torch.randn(8, 3))])

    def forward(self, x: Tensor) -> Tensor:
        b, n, w = x.shape
        x = torch.cat([self.token.expand(b, -1, -1), x], 1) + self.position
        q, v = (layer(self.norm(x)).reshape(b, n + 1, -1, w // 2).transpose(1, 2) for layer in (self.query, self.value))
        x = functional.scaled_dot_product_attention(q, q, v).transpose(1, 2).flatten(2)
        return functional.gelu(x).mean(1) @ self.inner[0]


def test_attention_raw_parameters_and_buffers_pass_through_unharmed() -> None:
    torch.manual_seed(0)
    model = Raw().eval()
    assert alike(model, (4, 8), (4, 8)).state_dict().keys() == model.state_dict().keys()
