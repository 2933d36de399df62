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


class Inverted(nn.Module):
    """A widening 1×1 convolution, a depthwise and a narrowing one, around a shortcut where the width stays."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.expand = Plain(inputs, 2 * inputs)
        self.separable = Separable(2 * inputs, outputs)
        self.residual = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.separable(self.expand(x))
        return x + out if self.residual else out


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
    """A convolution in two groups, of which one may stay."""

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
    """Branches side by side, as in Inception."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Conv2d(inputs, outputs // 2, 1), Plain(inputs, outputs // 2)])
        self.pooled = nn.Conv2d(inputs, 4, 1)
        self.join = nn.Conv2d(outputs // 2 * 2 + 4, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(functional.max_pool2d(x, 3, 1, 1))
        return self.join(torch.cat([*[branch(x) for branch in self.branches], pooled], 1))


class Dense(nn.Module):
    """Convolutions that read all that came before them, and a 1×1 one that reads everything, as in DenseNet."""

    def __init__(self, inputs: int, outputs: int, growth: int = 6) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Plain(inputs + index * growth, growth) for index in range(2)])
        self.norm = nn.BatchNorm2d(inputs + 2 * growth)
        self.transition = nn.Conv2d(inputs + 2 * growth, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.transition(functional.relu(self.norm(x)))


class Pooled(nn.Module):
    """A pooling between two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.avg_pool2d(x, 3, 1, 1))


class Shuffled(nn.Module):
    """A convolution in two groups whose channels are then interleaved, as in ShuffleNet."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, groups=2)
        self.point = nn.Conv2d(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        parts = self.conv(x).view(batch, 2, -1, height, width)
        return self.point(parts.transpose(1, 2).reshape(batch, -1, height, width))


class Gated(nn.Module):
    """A convolution of which one half weighs the other."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 2 * outputs, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(outputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.conv(x).chunk(2, 1)
        return value * torch.sigmoid(gate) * self.scale


class Normed(nn.Module):
    """A convolution with group-norm over two groups, and one with group-norm over all channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, 8, 1), nn.GroupNorm(2, 8), nn.GELU(), nn.Conv2d(8, outputs, 1), nn.GroupNorm(1, outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Transformed(nn.Module):
    """A transformer on the places of an image: attention with heads of two channels, and a feed-forward network."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(inputs, outputs, 1)
        self.position = nn.Parameter(torch.zeros(1, 36, outputs))
        self.norms = nn.ModuleList([nn.LayerNorm(outputs), nn.LayerNorm(outputs)])
        self.heads = nn.ModuleList([nn.Linear(outputs, outputs) for _ in range(3)])
        self.project = nn.Linear(outputs, outputs)
        self.feed_forward = nn.Sequential(nn.Linear(outputs, 2 * outputs), nn.GELU(), nn.Linear(2 * outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        x = self.embed(x).flatten(2).transpose(1, 2) + self.position
        rows = self.norms[0](x)
        heads = [layer(rows).reshape(batch, height * width, -1, 2).transpose(1, 2) for layer in self.heads]
        mixed = functional.scaled_dot_product_attention(*heads)
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        x = x + self.feed_forward(self.norms[1](x))
        return x.transpose(1, 2).reshape(batch, -1, height, width)


class Held(nn.Module):
    """Channels in an order of their own, which is not understood and must be left alone."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.roll(self.conv(x), 1, 1)


BLOCKS: tuple[type[nn.Module], ...] = (
    Plain,
    Residual,
    Separable,
    Inverted,
    Squeezed,
    Grouped,
    Twice,
    Concatenated,
    Dense,
    Pooled,
    Shuffled,
    Gated,
    Normed,
    Transformed,
    Held,
)

WIDTHS = (2, 6, 8, 10, 24)


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


def recipes_of(*kinds: type[nn.Module], size: int = 5) -> st.SearchStrategy[Recipe]:
    """Return random recipes of these kinds of blocks."""
    kind = st.sampled_from([BLOCKS.index(kind) for kind in kinds])
    blocks = st.lists(st.tuples(kind, st.sampled_from(WIDTHS)), min_size=1, max_size=size).map(tuple)
    return st.builds(Recipe, blocks, st.booleans())


recipes = recipes_of(*BLOCKS)
