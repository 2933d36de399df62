"""Reconvene, top to bottom: pre-process, evaluate sensitivity, rectify, post-process.

``Reconvene`` looks at a bundle once and then designs a small model for any sparsity; building one allocates only that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from torch import nn

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.worker.models import costs, registry
from reconvene_agent.worker.models.costs import Costs
from reconvene_agent.worker.models.opened import OpenBundle
from reconvene_agent.worker.models.tracing import trace
from reconvene_agent.worker.reconvene import masks, postprocessor, preprocessor, rectifier, sensitivity
from reconvene_agent.worker.reconvene.groups import ChannelGroup, find_groups
from reconvene_agent.worker.reconvene.masks import Masks
from reconvene_agent.worker.reconvene.sensitivity import Verdict


@dataclass(frozen=True)
class LayerReport:
    """What became of one prunable layer; ``frozen`` says why its width could not change, if so."""

    name: str
    weights: int
    kept: int
    density: float
    verdict: Verdict
    width_before: int
    width_after: int
    frozen: str


@dataclass(frozen=True)
class Design:
    """A small model on paper.

    Attributes:
        widths: output channels of every producing layer.
        mask_sizes: non-zero weights of each layer that keeps an unstructured mask.
    """

    spec: ModelSpec
    sparsity: float
    layers: tuple[LayerReport, ...]
    widths: dict[str, int]
    mask_sizes: dict[str, int]

    def costs(self, batch: int = 1) -> Costs:
        """Return what the small model costs on paper; ``batch`` is that of training."""
        return costs.count(narrow(self.spec, self.widths), self.spec, batch, self.mask_sizes)


@dataclass(frozen=True)
class PrunedModel:
    """A small model in memory, with the masks of its sensitive layers (already applied)."""

    design: Design
    module: nn.Module
    masks: Masks


@lru_cache(maxsize=4)
def groups_of(spec: ModelSpec) -> tuple[ChannelGroup, ...]:
    """Return the channel groups of a dense model; kept, since every candidate of a plan asks for the same ones."""
    return find_groups(trace(registry.build(spec), spec.input))


def narrow(spec: ModelSpec, widths: dict[str, int]) -> nn.Module:
    """Return a model of the given layer widths on the meta device."""
    groups = groups_of(spec)
    return postprocessor.resize(registry.build(spec), groups, postprocessor.group_widths(groups, widths))


class Reconvene:
    """The method for one bundle and one set of options."""

    def __init__(self, bundle: OpenBundle, options: MethodOptions) -> None:
        self.spec = bundle.spec
        self._weights = bundle.weights
        self._options = options
        self._dense = registry.build(self.spec)
        self._groups = groups_of(self.spec)

    def design(self, sparsities: Sequence[float]) -> list[Design]:
        """Return the small model for each sparsity; the dense weights are read once for all.

        Raises:
            BundleError: nothing to prune, or weights that cannot be scored.
        """
        cuts = preprocessor.densities(self._dense, self._weights, self._options.criterion, sparsities)
        return [self._design(sparsity, layers) for sparsity, layers in zip(sparsities, cuts, strict=True)]

    def _design(self, sparsity: float, layers: tuple[preprocessor.LayerDensity, ...]) -> Design:
        verdicts = sensitivity.evaluate(layers, self._groups, self._options.average)
        group_widths = rectifier.rectify(layers, self._groups, verdicts, self._options)
        widths = postprocessor.layer_widths(self._groups, group_widths)
        small = narrow(self.spec, widths)
        held = _held(self._groups)
        masked = {}
        if self._options.sensitive == "masked":
            # A resilient layer whose width is held cannot be rectified; it keeps its mask like a sensitive one.
            keeps_mask = [layer for layer in layers if verdicts[layer.name] == "sensitive" or layer.name in held]
            masked = postprocessor.mask_sizes({layer.name: layer.kept for layer in keeps_mask}, small)
        reports = tuple(
            LayerReport(
                name=layer.name,
                weights=layer.weights,
                kept=layer.kept,
                density=layer.density,
                verdict=verdicts[layer.name],
                width_before=_outputs(self._dense, layer.name),
                width_after=_outputs(small, layer.name),
                frozen=held.get(layer.name, ""),
            )
            for layer in layers
        )
        return Design(self.spec, sparsity, reports, widths, masked)

    def build(self, design: Design) -> PrunedModel:
        """Give a design memory and weights: the bundle's where a layer kept its shape, Kaiming's where it did not."""
        module = self._weights.fill(narrow(self.spec, design.widths))
        drawn = masks.draw(module, design.mask_sizes)
        masks.apply(module, drawn)
        return PrunedModel(design, module, drawn)


def _outputs(model: nn.Module, name: str) -> int:
    return model.get_parameter(f"{name}.weight").shape[0]


def _held(groups: Sequence[ChannelGroup]) -> dict[str, str]:
    return {name: group.frozen for group in groups if group.frozen for name in group.producers}
