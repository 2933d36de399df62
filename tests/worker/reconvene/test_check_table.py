"""The table that an implementation of the method is checked against (docs/method.md): VGG-16 for CIFAR-10, seed 0.

It holds for the closed form, by which a seed is scored, and for the weights that the seed stands for, counted one by one.
"""

from __future__ import annotations

import math
from functools import cache

import pytest

from reconvene_agent.core.bundle import BundleManifest
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.worker import tasks
from reconvene_agent.worker.models.opened import OpenBundle
from reconvene_agent.worker.models.weights import SeedWeights
from reconvene_agent.worker.reconvene.method import Design, Reconvene
from support.models import VGG16, opened

# Dense parameters ÷ parameters, all stored ones and those that are not zero; dense MACs ÷ MACs.
ROWS = [
    (0.875, "mean", "density", 16.1, 24.7, 2.45),
    (0.875, "mean", "sqrt", 6.0, 6.9, 1.99),
    (0.90, "mean", "density", 18.0, 30.6, 2.50),
    (0.90, "mean", "sqrt", 7.1, 8.4, 2.06),
    (0.90, "weighted", "density", 4.7, 16.6, 1.48),
    (0.95, "mean", "density", 22.2, 53.5, 2.60),
]
SPARSITIES = (0.5, 0.875, 0.90, 0.95, 0.98)
DENSITIES_AT_90 = [0.904, 0.519, 0.520, 0.363, 0.360, 0.195, 0.196, 0.195, 0.067, 0.067, 0.067, 0.067, 0.067]
SCORED = pytest.mark.parametrize("drawn", [False, True], ids=["closed form", "drawn weights"])


class Drawn(SeedWeights):
    """The weights that a seed stands for, as if they had been shipped."""

    shipped = True


@cache
def designs(drawn: bool, average: str = "mean", width: str = "density") -> dict[float, Design]:
    bundle = OpenBundle(BundleManifest(1, VGG16, 0), Drawn(0) if drawn else SeedWeights(0), "0" * 64)
    reconvene = Reconvene(bundle, MethodOptions(average=average, width=width))  # type: ignore[arg-type]
    return dict(zip(SPARSITIES, reconvene.design(SPARSITIES), strict=True))


def densities(drawn: bool, sparsity: float) -> list[float]:
    return [layer.density for layer in designs(drawn)[sparsity].layers]


@SCORED
@pytest.mark.parametrize(("sparsity", "average", "width", "stored", "nonzero", "macs"), ROWS)
def test_sizes_and_operations(
    drawn: bool, sparsity: float, average: str, width: str, stored: float, nonzero: float, macs: float
) -> None:
    dense = tasks.dense_costs(opened(VGG16))
    small = designs(drawn, average, width)[sparsity].costs()
    assert dense.params == 14_724_042
    assert dense.params / small.params == pytest.approx(stored, rel=0.03)
    assert dense.params / small.nonzero == pytest.approx(nonzero, rel=0.03)
    assert dense.macs / small.macs == pytest.approx(macs, rel=0.01)


@SCORED
def test_layer_densities(drawn: bool) -> None:
    found = densities(drawn, 0.90)
    # The table is of a draw of its own; the 1,728 weights of the first layer alone scatter by 0.0075.
    assert found[1:] == pytest.approx(DENSITIES_AT_90[1:], abs=0.006)
    assert found[0] == pytest.approx(DENSITIES_AT_90[0], abs=0.0225)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_closed_form_and_drawn_weights_agree(sparsity: float) -> None:
    closed, drawn = designs(False)[sparsity], designs(True)[sparsity]
    for one, other in zip(closed.layers, drawn.layers, strict=True):
        # A small layer's draw scatters by more than the promised 0.005.
        noise = math.sqrt(one.density * (1 - one.density) / one.weights)
        assert other.density == pytest.approx(one.density, abs=max(0.005, 3 * noise)), one.name
    assert [each.verdict for each in closed.layers] == [each.verdict for each in drawn.layers]
    assert sum(each.kept for each in closed.layers) == sum(each.kept for each in drawn.layers)


def expected(sparsity: float) -> list[float]:
    """Return each layer's density: erfc(t·√fan-in / 2), with the t that keeps 1 − sparsity of all weights."""
    layers = designs(False)[sparsity].layers
    sizes = [layer.weights for layer in layers]
    fans = [layer.weights / layer.width_before for layer in layers]

    def above(threshold: float) -> list[float]:
        return [math.erfc(threshold * math.sqrt(fan) / 2) for fan in fans]

    low, high = 0.0, 10.0
    for _ in range(100):
        middle = (low + high) / 2
        kept = sum(size * density for size, density in zip(sizes, above(middle), strict=True))
        low, high = (middle, high) if kept > (1 - sparsity) * sum(sizes) else (low, middle)
    return above(low)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_the_closed_form_is_the_formula_to_the_weight(sparsity: float) -> None:
    for layer, density in zip(designs(False)[sparsity].layers, expected(sparsity), strict=True):
        assert abs(layer.kept - density * layer.weights) < 1 + 1e-6 * layer.weights, layer.name
