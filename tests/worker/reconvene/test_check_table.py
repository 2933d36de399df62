"""The table that an implementation of the method is checked against (docs/method.md): VGG-16 for CIFAR-10, seed 0."""

from __future__ import annotations

import math
from functools import cache

import pytest

from reconvene_agent.worker import tasks
from reconvene_agent.worker.reconvene.method import Design
from support.models import VGG16, designed, opened

# Dense parameters ÷ parameters, all stored ones and those that are not zero; dense MACs ÷ MACs.
ROWS = [
    (0.875, "mean", "density", 16.1, 24.7, 2.45),
    (0.875, "mean", "sqrt", 6.0, 6.9, 1.99),
    (0.90, "mean", "density", 18.0, 30.6, 2.50),
    (0.90, "mean", "sqrt", 7.1, 8.4, 2.06),
    (0.90, "weighted", "density", 4.7, 16.6, 1.48),
    (0.95, "mean", "density", 22.2, 53.5, 2.60),
]
DENSITIES_AT_90 = [0.904, 0.519, 0.520, 0.363, 0.360, 0.195, 0.196, 0.195, 0.067, 0.067, 0.067, 0.067, 0.067]

design = cache(designed)


@pytest.mark.parametrize(("sparsity", "average", "width", "stored", "nonzero", "macs"), ROWS)
def test_sizes_and_operations(sparsity: float, average: str, width: str, stored: float, nonzero: float, macs: float) -> None:
    dense = tasks.dense_costs(opened(VGG16))
    small = design(VGG16, sparsity, average=average, width=width).costs()
    assert dense.params == 14_724_042
    assert dense.params / small.params == pytest.approx(stored, rel=0.03)
    assert dense.params / small.nonzero == pytest.approx(nonzero, rel=0.03)
    assert dense.macs / small.macs == pytest.approx(macs, rel=0.01)


def test_layer_densities() -> None:
    found = [layer.density for layer in design(VGG16, 0.90, average="mean", width="density").layers]
    assert found == pytest.approx(DENSITIES_AT_90, abs=0.01)


def closed_form(small: Design, sparsity: float) -> list[float]:
    """Return each layer's expected density: erfc(t·√fan-in / 2), with the t that keeps 1 − sparsity of all weights."""
    widths = [layer.width_before for layer in small.layers]
    sizes = [layer.weights for layer in small.layers]
    fans = [size / width for size, width in zip(sizes, widths, strict=True)]

    def densities(threshold: float) -> list[float]:
        return [math.erfc(threshold * math.sqrt(fan) / 2) for fan in fans]

    low, high = 0.0, 10.0
    for _ in range(100):
        middle = (low + high) / 2
        kept = sum(size * density for size, density in zip(sizes, densities(middle), strict=True))
        low, high = (middle, high) if kept > (1 - sparsity) * sum(sizes) else (low, middle)
    return densities(low)


@pytest.mark.parametrize("sparsity", [0.5, 0.90, 0.95])
def test_layer_densities_follow_the_closed_form_where_the_draw_is_large_enough(sparsity: float) -> None:
    small = design(VGG16, sparsity, average="mean", width="density")
    for layer, expected in zip(small.layers, closed_form(small, sparsity), strict=True):
        noise = math.sqrt(expected * (1 - expected) / layer.weights)
        assert layer.density == pytest.approx(expected, abs=max(0.005, 4 * noise)), layer.name
