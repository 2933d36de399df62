"""Models for tests: small specs, bundles opened from memory, architectures of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reconvene_agent.core import atomic, bundle
from reconvene_agent.core.bundle import BundleManifest, ModelSpec
from reconvene_agent.core.options import MethodOptions
from reconvene_agent.core.protocol import Runtime
from reconvene_agent.worker.deploy.export import Exporter
from reconvene_agent.worker.models import initial, registry
from reconvene_agent.worker.models import weights as weight_files
from reconvene_agent.worker.models.opened import OpenBundle
from reconvene_agent.worker.models.weights import SeedWeights
from reconvene_agent.worker.reconvene import method
from reconvene_agent.worker.reconvene.method import Design, PrunedModel, Reconvene

TINY_VGG = ModelSpec("vgg11", (1, 8, 8), 10)
TINY_RESNET = ModelSpec("resnet20", (3, 8, 8), 5)
VGG16 = ModelSpec("vgg16", (3, 32, 32), 10)
RUNTIME = Runtime(1, 1, ("CPUExecutionProvider",), 128)


def opened(spec: ModelSpec, seed: int = 0) -> OpenBundle:
    """Return the bundle of an architecture and a seed, as if it had been read."""
    return OpenBundle(BundleManifest(1, spec, seed), SeedWeights(seed), "0" * 64)


def shipped(folder: Path, spec: ModelSpec, seed: int = 0, weights: bool = False, labels: tuple[str, ...] = ()) -> Path:
    """Write a bundle and return its folder."""
    folder.mkdir(parents=True)
    files = {}
    if weights:
        weight_files.write(initial.materialize(registry.build(spec), seed), folder / bundle.WEIGHTS)
        files = {bundle.WEIGHTS: atomic.sha256(folder / bundle.WEIGHTS)}
    bundle.write_manifest(folder, BundleManifest(bundle.FORMAT, spec, seed, labels, files))
    return folder


def reshipped(folder: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Replace a bundle's weights, and their digest in the manifest, as one who ships the wrong ones would."""
    save_file(dict(tensors), folder / bundle.WEIGHTS)
    manifest = bundle.read(folder)
    files = {bundle.WEIGHTS: atomic.sha256(folder / bundle.WEIGHTS)}
    bundle.write_manifest(folder, BundleManifest(manifest.format, manifest.model, manifest.seed, manifest.labels, files))
    return folder


def designed(spec: ModelSpec, sparsity: float, seed: int = 0, **options: object) -> Design:
    """Return the small model on paper."""
    (design,) = Reconvene(opened(spec, seed), MethodOptions(**options)).design([sparsity])
    return design


def pruned(spec: ModelSpec, sparsity: float, seed: int = 0, **options: object) -> PrunedModel:
    """Return the small model in memory."""
    reconvene = Reconvene(opened(spec, seed), MethodOptions(**options))
    (design,) = reconvene.design([sparsity])
    return reconvene.build(design)


@contextmanager
def architecture(builder: Callable[[ModelSpec], nn.Module], name: str = "of-this-test") -> Iterator[str]:
    """Let the registry know one more architecture."""
    registry.BUILDERS[name] = builder
    method.structure_of.cache_clear()
    try:
        yield name
    finally:
        del registry.BUILDERS[name]


@cache
def exporter(spec: ModelSpec) -> Exporter:
    """Return an exporter that all tests share: torch takes seconds for the first model of each kind."""
    return Exporter(spec.input)


def lived_in(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch-norms numbers as training would, so that folding them cannot hide behind the identity."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, low, high in (
                    (module.running_mean, -0.5, 0.5),
                    (module.running_var, 0.5, 2.0),
                    (module.weight, 0.5, 1.5),
                    (module.bias, -0.5, 0.5),
                ):
                    assert tensor is not None
                    tensor.uniform_(low, high, generator=random)
    return model.eval()


def images(spec: ModelSpec, count: int, seed: int = 0) -> Tensor:
    """Return normalised images of noise."""
    return torch.randn(count, *spec.input, generator=torch.Generator().manual_seed(seed))
