"""Resilient Layer Rectifier (RLR): a resilient layer becomes a dense layer with fewer filters.

Eccles et al. 2024 (arXiv 2404.16877). Two readings of how many filters stay: ⌈d·n⌉, and ⌈√d·n⌉, which keeps about the
parameter count that the criterion gave the layer, since its inputs shrink as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from reconvene_agent.core.options import MethodOptions
from reconvene_agent.worker.reconvene.groups import ChannelGroup
from reconvene_agent.worker.reconvene.preprocessor import LayerDensity
from reconvene_agent.worker.reconvene.sensitivity import Verdict, group_density


def kept_width(width: int, density: float, options: MethodOptions) -> int:
    """Return how many of ``width`` channels stay at this density; at least the minimum width, never more than there were."""
    share = density if options.width == "density" else math.sqrt(density)
    # The tolerance keeps an exact product such as 0.1·50 from being rounded up by its binary representation.
    kept = math.ceil(share * width - 1e-9)
    return min(width, max(kept, options.min_width))


def rectify(
    layers: Sequence[LayerDensity],
    groups: Sequence[ChannelGroup],
    verdicts: Mapping[str, Verdict],
    options: MethodOptions,
) -> tuple[int, ...]:
    """Return the new width of every group: narrower where its producers are resilient and nothing holds it."""
    by_name = {layer.name: layer for layer in layers}
    widths = []
    for group in groups:
        density = group_density(group, by_name)
        resilient = any(verdicts.get(name) == "resilient" for name in group.producers)
        free = density is not None and resilient and not group.frozen
        widths.append(kept_width(group.width, density, options) if free and density is not None else group.width)
    return tuple(widths)
