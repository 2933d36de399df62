"""All that this benchmark asks of the package's method and models; whatever changes there is followed here alone."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from reconvene_agent.core.bundle import FORMAT, BundleManifest, ModelSpec
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.core.protocol import Runtime
from reconvene_agent.worker.deploy.export import Exporter
from reconvene_agent.worker.deploy.session import Session, open_session
from reconvene_agent.worker.models import costs
from reconvene_agent.worker.models.opened import OpenBundle
from reconvene_agent.worker.models.tracing import trace
from reconvene_agent.worker.models.weights import SeedWeights, WeightSource
from reconvene_agent.worker.reconvene.groups import ChannelGroup
from reconvene_agent.worker.reconvene.masks import Masks
from reconvene_agent.worker.reconvene.method import Design, Reconvene, narrow, structure_of

Widths = dict[str, int]
"""Width by channel group."""

INPUT = (3, 32, 32)
MIN_WIDTH = MethodOptions().min_width
ONE_THREAD = Runtime(1, 1, ("CPUExecutionProvider",), 128)


@dataclass(frozen=True)
class Plan:
    """A model ready to be trained: at initialisation, its masks applied."""

    module: nn.Module
    masks: Masks
    widths: Widths
    search_seconds: float = 0.0


@dataclass(frozen=True)
class Family:
    """An architecture and the dense network in it from which every arm starts.

    Attributes:
        base: width multiplier of that network.
        multiple: what all narrowed widths are rounded up to, in every arm.
    """

    spec: ModelSpec
    base: float = 1.0
    multiple: int = 1

    def options(self, multiplier: float, **options: Any) -> MethodOptions:
        """Return the method's options for a width multiplier on top of the base."""
        return MethodOptions(width_multiplier=self.base * multiplier, width_multiple=self.multiple, **options)


def spec_of(model: str, classes: int) -> ModelSpec:
    return ModelSpec(model, INPUT, classes)


def _bundle(spec: ModelSpec, seed: int, weights: WeightSource | None = None) -> OpenBundle:
    return OpenBundle(BundleManifest(FORMAT, spec, seed), weights or SeedWeights(seed), "0" * 64)


@lru_cache(maxsize=256)
def design(spec: ModelSpec, seed: int, sparsity: float, options: MethodOptions) -> Design:
    """Return what the method makes of the seed's dense model."""
    (found,) = Reconvene(_bundle(spec, seed), options).design([sparsity])
    return found


def build(spec: ModelSpec, seed: int, found: Design) -> Plan:
    """Give a design memory, weights and masks."""
    pruned = Reconvene(_bundle(spec, seed), MethodOptions()).build(found)
    return Plan(pruned.module, pruned.masks, dict(found.widths))


def uniform(family: Family, multiplier: float) -> Design:
    """Return the dense network with every free width multiplied: nothing is pruned, so nothing depends on the seed."""
    return design(family.spec, 0, 0.0, family.options(multiplier, sensitive="dense"))


def with_widths(spec: ModelSpec, widths: Mapping[str, int]) -> Design:
    """Return the network that has the given widths and is dense; groups that are not named keep the architecture's."""
    plain = uniform(Family(spec), 1.0)
    return replace(plain, widths={**plain.widths, **widths}, mask_sizes={})


def free_groups(spec: ModelSpec) -> list[ChannelGroup]:
    """Return the groups whose width may change."""
    widths = uniform(Family(spec), 1.0).widths
    return [group for group in structure_of(spec).groups if group.name in widths and not group.frozen]


def scaled(family: Family, shares: Mapping[str, float]) -> Widths:
    """Return widths for a share of its base width by each free group's name, rounded up as the method rounds."""
    dense = uniform(family, 1.0).widths
    return {**dense, **{name: _rounded(share * dense[name], dense[name], family.multiple) for name, share in shares.items()}}


def _rounded(wanted: float, width: int, multiple: int) -> int:
    return min(width, math.ceil(max(math.ceil(wanted), MIN_WIDTH) / multiple) * multiple)


def with_global_masks(family: Family, seed: int, nonzero: int) -> Plan:
    """Return the unstructured counterpart: dense shapes, and of all prunable layers the globally largest weights.

    With all that is not prunable, so many parameters are not zero.
    """
    plain = uniform(family, 1.0)
    dense = build(family.spec, seed, plain).module
    weights = {layer.name: dense.get_parameter(f"{layer.name}.weight").detach().abs().flatten() for layer in plain.layers}
    everything = torch.cat(list(weights.values()))
    keep = max(1, nonzero - (sum(parameter.numel() for parameter in dense.parameters()) - everything.numel()))
    threshold = torch.topk(everything, keep).values[-1]
    kept = {name: int((values >= threshold).sum()) for name, values in weights.items()}
    return build(family.spec, seed, replace(plain, mask_sizes=kept))


class _GivenDensities:
    """Weights of zeros and ones, so that magnitude keeps exactly the ``kept`` weights of each layer that are wanted."""

    shipped = True

    def __init__(self, kept: Mapping[str, int], seed: int) -> None:
        self._kept = kept
        self._seed = seed

    def weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
        flat = torch.zeros(torch.Size(shape).numel())
        flat[: self._kept[name.removesuffix(".weight")]] = 1.0
        return flat.reshape(shape)

    def parameter(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return SeedWeights(self._seed).parameter(name, shape)

    def fill(self, model: nn.Module) -> nn.Module:
        return SeedWeights(self._seed).fill(model)


def with_densities(spec: ModelSpec, seed: int, densities: Sequence[float], options: MethodOptions) -> Design:
    """Return what the evaluator and the rectifier make of prescribed densities, in the order of the prunable layers."""
    layers = design(spec, seed, 0.0, options).layers
    kept = {layer.name: round(density * layer.weights) for layer, density in zip(layers, densities, strict=True)}
    sparsity = 1.0 - sum(kept.values()) / sum(layer.weights for layer in layers)
    bundle = _bundle(spec, seed, _GivenDensities(kept, seed))
    (found,) = Reconvene(bundle, options).design([sparsity])
    if {layer.name: layer.kept for layer in found.layers} != kept:
        raise RuntimeError("the method did not take the densities that it was given: adapt benchmarks/accuracy/engine.py")
    return found


def keep_filters(family: Family, seed: int, widths: Mapping[str, int]) -> Plan:
    """Return a narrower network whose channels are the dense one's with the largest L1 norm, weights and all."""
    spec = family.spec
    wide = uniform(family, 1.0)
    dense = build(spec, seed, wide).module
    target = with_widths(spec, widths)
    state = dense.state_dict()
    for group in free_groups(spec):
        norms = torch.zeros(wide.widths[group.name])
        for name in group.producers:
            norms += dense.get_parameter(f"{name}.weight").detach().abs().reshape(len(norms), -1).sum(1)
        kept = torch.topk(norms, target.widths[group.name]).indices.sort().values
        for name, dimension, times in _followers(spec, group.name):
            entries = (kept.view(-1, 1) * times + torch.arange(times)).flatten()
            state[name] = state[name].index_select(dimension, entries)
    module = build(spec, seed, target).module
    module.load_state_dict(state)
    return Plan(module, {}, dict(target.widths))


@lru_cache(maxsize=1024)
def _followers(spec: ModelSpec, name: str) -> tuple[tuple[str, int, int], ...]:
    """Return the tensors, their dimensions and entries per channel that follow a group, seen by narrowing it by one channel."""
    wide = uniform(Family(spec), 1.0).widths
    before = narrow(spec, wide).state_dict()
    after = narrow(spec, {**wide, name: wide[name] - 1}).state_dict()
    return tuple(
        (key, dimension, size - after[key].shape[dimension])
        for key, tensor in before.items()
        for dimension, size in enumerate(tensor.shape)
        if size != after[key].shape[dimension]
    )


def macs(spec: ModelSpec, widths: Mapping[str, int]) -> int:
    """Return the multiply-accumulates of one inference; masked zeros count, since they are computed."""
    return sum(math.prod(times * widths.get(name, 1) for name, times in row) for row in _products(spec))


@lru_cache(maxsize=16)
def _products(spec: ModelSpec) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Return what the MACs of each layer are the product of: widths of groups by name, times a number each.

    A search asks for the MACs of hundreds of networks; made and traced one by one, they would take longer than its trainings.
    """
    wide = uniform(Family(spec), 1.0).widths
    dense = narrow(spec, wide)
    traced = trace(dense, spec.input)
    follows = {
        (tensor, dimension): (group.name, times)
        for group in free_groups(spec)
        for tensor, dimension, times in _followers(spec, group.name)
    }
    rows = []
    for node, shape in traced.shapes.items():
        layer = traced.layer(node)
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            places = math.prod(shape[2:] if isinstance(layer, nn.Conv2d) else shape[1:-1])
            sides = enumerate(layer.weight.shape)
            row = [follows.get((f"{node.target}.weight", dimension), ("", size)) for dimension, size in sides]
            rows.append((("", places), *row))
    counted = sum(math.prod(times * wide.get(name, 1) for name, times in row) for row in rows)
    if counted != costs.macs(traced):
        raise RuntimeError("the package counts MACs differently: adapt benchmarks/accuracy/engine.py")
    return tuple(rows)


def shape_digest(spec: ModelSpec, widths: Widths) -> str:
    """Return a name for an architecture of given widths; whatever shares it shares its latency and its bytes."""
    content = json.dumps([spec.architecture, spec.input, spec.classes, sorted(widths.items())])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


class Deployer:
    """Opens models of one architecture as they are deployed: batch-norm folded, ONNX Runtime, one thread."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._exporter = Exporter(spec.input)

    def open(self, widths: Widths) -> tuple[Session, int]:
        """Return a session for a network of these widths, and the bytes of its file."""
        plan = build(self._spec, 0, with_widths(self._spec, widths))
        content = self._exporter.to_onnx(plan.module).SerializeToString()
        return open_session(content, ONE_THREAD), len(content)
