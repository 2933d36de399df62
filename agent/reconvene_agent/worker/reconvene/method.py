"""Reconvene, top to bottom: pre-process, evaluate sensitivity, rectify, post-process.

``Reconvene`` looks at a bundle once and then designs a small model for any sparsity; building one allocates only that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from torch import nn

from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.worker import memory
from reconvene_agent.worker.models import costs, registry
from reconvene_agent.worker.models.costs import Costs
from reconvene_agent.worker.models.opened import OpenBundle
from reconvene_agent.worker.models.segments import find_segments
from reconvene_agent.worker.models.tracing import trace
from reconvene_agent.worker.reconvene import masks, postprocessor, preprocessor, rectifier, sensitivity
from reconvene_agent.worker.reconvene.criteria.subject import Report, Sample, Subject, unheard
from reconvene_agent.worker.reconvene.groups import Structure, find_groups
from reconvene_agent.worker.reconvene.masks import Masks
from reconvene_agent.worker.reconvene.sensitivity import Verdict

TRUNK = "every block shares it (trunk = keep)"


@dataclass(frozen=True)
class LayerReport:
    """What became of one prunable layer; ``frozen`` says why its width could not change, if so.

    ``weights`` and ``kept`` are counted after the width multiplier, ``width_before`` is that of the dense model.
    """

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
        widths: channels, heads or blocks that every channel group keeps, by the group's name.
        mask_sizes: non-zero weights of each layer that keeps an unstructured mask.
    """

    spec: ModelSpec
    sparsity: float
    layers: tuple[LayerReport, ...]
    widths: dict[str, int]
    mask_sizes: dict[str, int]

    def costs(self) -> Costs:
        """Return what the small model costs on paper."""
        return costs.count(narrow(self.spec, self.widths), self.spec, self.mask_sizes)

    def cuts(self) -> tuple[str, ...]:
        """Return the nodes after which the small model can be cut, where training has to save memory."""
        return find_segments(trace(narrow(self.spec, self.widths), self.spec.input)).cuts


@dataclass(frozen=True)
class PrunedModel:
    """A small model in memory, with the masks of its sensitive layers (already applied)."""

    design: Design
    module: nn.Module
    masks: Masks


@lru_cache(maxsize=4)
def structure_of(spec: ModelSpec) -> Structure:
    """Return the channel groups of a dense model; kept, since every candidate of a plan asks for the same ones."""
    with memory.sparing():
        return find_groups(trace(registry.build(spec), spec.input))


def narrow(spec: ModelSpec, widths: Mapping[str, int]) -> nn.Module:
    """Return a model of the given widths, by group name, on the meta device.

    Raises:
        BundleError: the widths are not those of this architecture.
    """
    structure = structure_of(spec)
    return postprocessor.resize(registry.build(spec), structure, structure.numbered(widths))


class Reconvene:
    """The method for one bundle and one set of options.

    ``multiple`` is what narrowed widths are rounded up to where the options leave it open. ``sample`` draws local data
    for the criteria that need them, ``memory_mb`` is what scoring may take, and ``report`` hears how far it is.
    """

    def __init__(
        self,
        bundle: OpenBundle,
        options: MethodOptions,
        multiple: int = 1,
        sample: Sample | None = None,
        memory_mb: float | None = None,
        report: Report = unheard,
    ) -> None:
        self.spec = bundle.spec
        self._weights = bundle.weights
        self._options = options
        self._multiple = options.width_multiple or multiple
        full = _with_trunk_held(structure_of(self.spec)) if options.trunk == "keep" else structure_of(self.spec)
        self._structure = full.narrowed(preprocessor.multiplied(full, options, self._multiple))
        # What is scored: the dense model, or the uniformly narrower one that the width multiplier makes of it.
        self._dense = self._narrowed(self._structure.widths)
        self._full = self._dense if self._structure.widths == full.widths else registry.build(self.spec)
        # Scoring may take minutes, and a run prunes to a sparsity that its plan has scored.
        self._scored: dict[float, tuple[preprocessor.LayerDensity, ...]] = {}
        self._subject = Subject(
            shapes=preprocessor.prunable(self._dense, self._structure),
            weights=self._weights,
            seed=bundle.manifest.seed,
            model=lambda: self._narrowed(self._structure.widths),
            input=self.spec.input,
            sample=sample,
            memory_mb=memory_mb,
            report=report,
        )

    def design(self, sparsities: Sequence[float]) -> list[Design]:
        """Return the small model for each sparsity; the dense weights are read once for all.

        Raises:
            BundleError: nothing to prune, or weights that cannot be scored.
            UsageError: the criterion needs local data, and there are none.
            AgentError: NO_MEMORY when the criterion does not fit.
        """
        new = [sparsity for sparsity in dict.fromkeys(sparsities) if sparsity not in self._scored]
        if new:
            with memory.sparing():
                cuts = preprocessor.densities(self._subject, self._options.criterion, new)
            self._scored.update(zip(new, cuts, strict=True))
        return [self._design(sparsity, self._scored[sparsity]) for sparsity in sparsities]

    def _design(self, sparsity: float, layers: tuple[preprocessor.LayerDensity, ...]) -> Design:
        groups = self._structure.groups
        verdicts = sensitivity.evaluate(layers, groups, self._options.average)
        widths = rectifier.rectify(layers, groups, verdicts, self._options, self._multiple)
        small = self._narrowed(widths)
        held = self._structure.held()
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
                width_before=_outputs(self._full, layer.name),
                width_after=_outputs(small, layer.name),
                frozen=held.get(layer.name, ""),
            )
            for layer in layers
        )
        return Design(self.spec, sparsity, reports, self._structure.named(widths), masked)

    def build(self, design: Design) -> PrunedModel:
        """Give a design memory and weights: the bundle's where a layer kept its shape, Kaiming's where it did not."""
        memory.trim()
        with memory.sparing(1 << 16):
            module = self._weights.fill(narrow(self.spec, design.widths))
            drawn = masks.draw(module, design.mask_sizes)
            masks.apply(module, drawn)
        return PrunedModel(design, module, drawn)

    def _narrowed(self, widths: Sequence[int]) -> nn.Module:
        return postprocessor.resize(registry.build(self.spec), structure_of(self.spec), widths)


def _outputs(model: nn.Module, name: str) -> int:
    return model.get_parameter(f"{name}.weight").shape[0]


def _with_trunk_held(structure: Structure) -> Structure:
    """Return the structure with the width that all blocks of a transformer share held."""
    groups = tuple(replace(group, frozen=TRUNK) if group.trunk and not group.frozen else group for group in structure.groups)
    return Structure(groups, structure.sides)
