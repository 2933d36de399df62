"""Random small architectures, made of the pieces that channel groups must understand, or know that they do not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.core.bundle import ModelSpec


class Plain(nn.Module):
    """A convolution, with or without bias and batch-norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=outputs % 2 == 0)
        self.norm = nn.BatchNorm2d(outputs) if outputs % 3 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(x)))


class Residual(nn.Module):
    """Two convolutions around a shortcut, with a 1×1 convolution in it where the width changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.one = Plain(inputs, outputs)
        self.two = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.two(self.one(x))) + self.shortcut(x))


class Separable(nn.Module):
    """A depthwise convolution and a 1×1 one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs)
        self.norm = nn.BatchNorm2d(inputs)
        self.point = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.point(functional.hardswish(self.norm(self.depthwise(x))))


class Squeezed(nn.Module):
    """A convolution whose channels are weighted by a gate of 1×1 size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = Plain(inputs, outputs)
        self.gate = nn.Conv2d(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


class Grouped(nn.Module):
    """A convolution in two groups, which holds its widths."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.conv(x))


class Twice(nn.Module):
    """One convolution used twice, each time with a batch-norm of its own behind it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 1)
        self.conv = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for norm in self.norms:
            x = functional.relu(norm(self.conv(x)))
        return x


class Concatenated(nn.Module):
    """Two branches side by side, which is not understood and must be left alone."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Conv2d(inputs, outputs // 2, 1), nn.Conv2d(inputs, outputs // 2, 3, padding=1)])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Pooled(nn.Module):
    """A pooling between two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.avg_pool2d(x, 3, 1, 1))


BLOCKS = (Plain, Residual, Separable, Squeezed, Grouped, Twice, Concatenated, Pooled)


@dataclass(frozen=True)
class Recipe:
    """What a random model is made of: kinds and widths of its blocks, and whether its classifier sees a flattened image."""

    blocks: tuple[tuple[int, int], ...]
    flatten: bool

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec("of-this-test", (2, 6, 6), 3)

    def build(self, spec: ModelSpec) -> nn.Module:
        return _Stack(self, spec)


class _Stack(nn.Module):
    def __init__(self, recipe: Recipe, spec: ModelSpec) -> None:
        super().__init__()
        widths = [spec.input[0], *(width for _, width in recipe.blocks)]
        kinds = [BLOCKS[kind] for kind, _ in recipe.blocks]
        self.blocks = nn.ModuleList([kind(*widths[index : index + 2]) for index, kind in enumerate(kinds)])
        self.flatten = recipe.flatten
        self.classifier = nn.Linear(widths[-1] * (4 if recipe.flatten else 1), spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        if self.flatten:
            return self.classifier(torch.flatten(functional.adaptive_avg_pool2d(x, 2), 1))
        return self.classifier(x.mean((2, 3)))


recipes = st.builds(
    Recipe,
    st.lists(st.tuples(st.integers(0, len(BLOCKS) - 1), st.sampled_from([2, 6, 8, 10, 24])), min_size=1, max_size=5).map(tuple),
    st.booleans(),
)
