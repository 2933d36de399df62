"""Vision transformers: an image cut into patches, each a token of a pre-norm transformer, and the mean of all tokens classified.

Dosovitskiy et al. 2021 (arXiv 2010.11929) in the sizes of Touvron et al. 2021 (DeiT, arXiv 2012.12877), without class token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import BundleError

FEED_FORWARD = 4
SMALL_IMAGE = 64
SMALL_PATCH = 4
PATCH = 16
# That of the published models; PyTorch's own default is 1e-5.
EPSILON = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention: tokens (N, T, W) to (N, T, W). How many heads there are, only the layers' widths tell."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.project = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (self._heads(layer(tokens)) for layer in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.project(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, tokens: Tensor) -> Tensor:
        """Split the last dimension: (N, T, W) to (N, heads, T, W / heads)."""
        return tokens.reshape(tokens.shape[0], tokens.shape[1], -1, self.head_width).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with GELU between them: tokens (N, T, W) to (N, T, W)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.widen = nn.Linear(width, hidden)
        self.narrow = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.narrow(functional.gelu(self.widen(tokens)))
        return out


class Block(nn.Module):
    """Attention, then a feed-forward network, each behind a layer-norm and around a shortcut: (N, T, W) to (N, T, W)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.feed_forward = FeedForward(width, FEED_FORWARD * width)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed: Tensor = tokens + self.attention(self.norm1(tokens))
        out: Tensor = mixed + self.feed_forward(self.norm2(mixed))
        return out


class ViT(nn.Module):
    """Maps images (N, C, H, W) to logits (N, classes); ``patch`` must divide height and width, ``heads`` the width.

    Raises:
        BundleError: the patches do not fill the image.
    """

    def __init__(self, spec: ModelSpec, width: int, depth: int, heads: int, patch: int) -> None:
        super().__init__()
        channels, rows, columns = spec.input
        if rows % patch or columns % patch:
            raise BundleError(
                f"{spec.architecture} cuts an image into patches of {patch}×{patch}, which {rows}×{columns} is not made of"
            )
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.position = nn.Parameter(torch.empty(1, (rows // patch) * (columns // patch), width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.classifier = nn.Linear(width, spec.classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.position
        logits: Tensor = self.classifier(self.norm(self.blocks(tokens)).mean(dim=1))
        return logits


def vit_tiny(spec: ModelSpec) -> nn.Module:
    return ViT(spec, width=192, depth=12, heads=3, patch=SMALL_PATCH if max(spec.input[1:]) <= SMALL_IMAGE else PATCH)
