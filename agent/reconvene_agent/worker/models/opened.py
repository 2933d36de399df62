"""A bundle, verified and opened for work: its manifest, its weights, its digest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from reconvene_agent.core import bundle
from reconvene_agent.core.bundle import BundleManifest, ModelSpec
from reconvene_agent.worker.models import registry, weights
from reconvene_agent.worker.models.weights import WeightSource


@dataclass(frozen=True)
class OpenBundle:
    """A bundle that has proved itself. ``digest`` names it."""

    manifest: BundleManifest
    weights: WeightSource
    digest: str

    @property
    def spec(self) -> ModelSpec:
        return self.manifest.model

    def dense(self) -> nn.Module:
        """Return the dense model in memory, with the bundle's initial weights."""
        return self.weights.fill(registry.build(self.spec))


def open_bundle(folder: Path) -> OpenBundle:
    """Verify every file of a bundle and open it.

    Raises:
        BundleError: it is unknown, truncated, tampered with, or its weights do not match its architecture.
    """
    manifest = bundle.verify(folder)
    source = weights.source(folder, manifest, registry.build(manifest.model))
    return OpenBundle(manifest, source, bundle.manifest_digest(folder))
