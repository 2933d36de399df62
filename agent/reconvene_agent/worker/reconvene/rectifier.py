"""Resilient Layer Rectifier (RLR): a resilient layer becomes a dense layer with fewer filters.

Eccles et al. 2024 (arXiv 2404.16877). Two readings of how many filters stay: ⌈d·n⌉, and ⌈√d·n⌉, which keeps about the
parameter count that the criterion gave the layer, since its inputs shrink as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from reconvene_agent.core.options import MethodOptions, Width
from reconvene_agent.worker.reconvene.groups import ChannelGroup
from reconvene_agent.worker.reconvene.preprocessor import LayerDensity
from reconvene_agent.worker.reconvene.sensitivity import Verdict, group_density
from reconvene_agent.worker.reconvene.widths import rounded


def share(density: float, width: Width) -> float:
    """Return the share of its filters that a layer of this density keeps."""
    return density if width == "density" else math.sqrt(density)


def rectify(
    layers: Sequence[LayerDensity],
    groups: Sequence[ChannelGroup],
    verdicts: Mapping[str, Verdict],
    options: MethodOptions,
    multiple: int,
) -> tuple[int, ...]:
    """Return the new width of every group: narrower where its producers are resilient and nothing holds it.

    With ``sensitive = "shrink"`` sensitive groups become narrower as well. Widths are rounded up to ``multiple``.
    """
    by_name = {layer.name: layer for layer in layers}
    widths = []
    for group in groups:
        density = group_density(group, by_name)
        resilient = options.sensitive == "shrink" or any(verdicts.get(name) == "resilient" for name in group.producers)
        if density is None or group.frozen or not resilient:
            widths.append(group.width)
        else:
            widths.append(rounded(share(density, options.width) * group.width, group, options.min_width, multiple))
    return tuple(widths)
