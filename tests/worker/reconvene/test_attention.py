from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from support.grouping import followers, found, halved_runs, structure_of


class Attending(nn.Module):
    """Tokens of an image, one block of attention and one feed-forward, in the forms that users write."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.patches = nn.Conv2d(3, 12, 2, stride=2)
        self.position = nn.Parameter(torch.empty(1, 16, 12))
        self.norm = nn.LayerNorm(12)
        self.qkv = nn.Linear(12, 36)
        self.query, self.key, self.value = (nn.Linear(12, 12) for _ in range(3))
        self.project = nn.Linear(12, 12)
        self.widen = nn.Linear(12, 24)
        self.narrow = nn.Linear(24, 12)
        self.classifier = nn.Linear(12, 5)

    def attend(self, x: Tensor) -> Tensor:
        if self.fused:
            qkv = self.qkv(x).reshape(x.shape[0], x.shape[1], 3, -1, 3).permute(2, 0, 3, 1, 4)
            out = torch.matmul(torch.softmax(torch.matmul(qkv[0], qkv[1].transpose(-2, -1)) / 2.0, -1), qkv[2])
        else:
            heads = [layer(x).view(x.size(0), x.size(1), -1, 3).transpose(1, 2) for layer in (self.query, self.key, self.value)]
            out = functional.scaled_dot_product_attention(*heads)
        return self.project(out.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        x = x + self.attend(self.norm(x))
        x = x + self.narrow(functional.gelu(self.widen(x)))
        return self.classifier(x.mean(1))


@pytest.mark.parametrize("fused", [False, True], ids=["separate", "fused"])
def test_heads_are_one_group_the_feed_forward_another_and_the_embedding_is_the_trunk(fused: bool) -> None:
    def build() -> nn.Module:
        return Attending(fused)

    groups = found(build)
    heads = groups["qkv" if fused else "query"]
    assert (heads.width, heads.entries, heads.frozen) == (4, 3, "")
    assert heads.producers == (("qkv",) if fused else ("query", "key", "value"))
    assert ("project", "in", 3) in followers(structure_of(build), heads.name)
    assert (groups["widen"].width, groups["widen"].frozen) == (24, "")
    trunk = groups["patches"]
    assert trunk.trunk
    assert not trunk.frozen
    assert set(trunk.producers) == {"patches", "project", "narrow"}
    assert [name for name, group in groups.items() if group.trunk] == list(trunk.producers)
    small = halved_runs(build)
    assert small.get_parameter("position").shape == (1, 16, 6)
    assert small.get_parameter("project.weight").shape == (6, 6)
    assert small.get_parameter("narrow.weight").shape == (6, 12)


def test_a_number_of_heads_that_is_written_down_holds_them() -> None:
    class Fixed(Attending):
        def attend(self, x: Tensor) -> Tensor:
            heads = [layer(x).view(-1, 16, 4, 3).transpose(1, 2) for layer in (self.query, self.key, self.value)]
            return self.project(functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))

    assert found(lambda: Fixed(False))["query"].frozen == "is given as a fixed size in a reshape: write -1 there"
    halved_runs(lambda: Fixed(False))
