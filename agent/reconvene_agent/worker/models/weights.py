"""Where a bundle's initial weights come from: its seed, or the safetensors file that it ships, read tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from reconvene_agent.core.bundle import WEIGHTS, BundleManifest
from reconvene_agent.core.errors import BundleError
from reconvene_agent.worker.models import initial, tensors


class WeightSource(Protocol):
    """Initial weights of a dense model, one tensor at a time; those of another shape than the dense one are drawn anew."""

    @property
    def shipped(self) -> bool:
        """Whether there are weights beyond what the seed tells."""

    def weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return the weight of a layer; ``name`` ends in ``.weight``."""

    def parameter(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return a parameter that no layer of PyTorch's owns, such as a position embedding."""

    def fill(self, model: nn.Module) -> nn.Module:
        """Give a model on the meta device its weights: shipped ones where the shape is the dense one, else drawn anew."""


class SeedWeights:
    """Weights that the seed alone tells; nothing is read."""

    shipped = False

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return initial.kaiming_normal(name, shape, self._seed)

    def parameter(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return initial.embedding(name, shape, self._seed)

    def fill(self, model: nn.Module) -> nn.Module:
        return initial.materialize(model, self._seed)


class FileWeights:
    """Weights from a safetensors file; the seed serves the layers whose shape changed."""

    shipped = True

    def __init__(self, path: Path, seed: int) -> None:
        """Look at what the file holds.

        Raises:
            BundleError: it cannot be read.
        """
        self._path = path
        self._seed = seed
        with self._open() as file:
            self._shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a mapping

    def weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
        found = self._read(name, shape)
        return initial.kaiming_normal(name, shape, self._seed) if found is None else found

    def parameter(self, name: str, shape: tuple[int, ...]) -> Tensor:
        found = self._read(name, shape)
        return initial.embedding(name, shape, self._seed) if found is None else found

    def _read(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        """Return the shipped tensor, mapped from the file, or None where its shape is another."""
        if self._shapes[name] != shape:
            return None
        # A file of its own for each tensor: pages once read stay in memory for as long as a file is open.
        with self._open() as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor.to(torch.float32)

    def fill(self, model: nn.Module) -> nn.Module:
        """Give a model its weights.

        Raises:
            BundleError: a shipped value is no finite number.
        """
        initial.materialize(model, self._seed, self._finite)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                found = self._finite(name, tuple(buffer.shape))
                if found is not None:
                    buffer.copy_(found)
        return model

    def _finite(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        found = self._read(name, shape)
        if found is not None and not torch.isfinite(found).all():
            raise BundleError(f"{self._path}: {name} holds values that are not finite numbers")
        return found

    def check(self, model: nn.Module) -> None:
        """Refuse a file whose tensors are not those of the dense ``model``.

        Raises:
            BundleError: names or shapes differ.
        """
        expected = tensors.shapes(model.state_dict())
        found = self._shapes
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if wrong:
            raise BundleError(f"{self._path}: {len(wrong)} tensors do not match the architecture, {wrong[0]} among them")

    def _open(self) -> safe_open:
        try:
            return safe_open(self._path, framework="pt", device="cpu")
        except (SafetensorError, OSError) as error:
            raise BundleError(f"{self._path} is not a readable safetensors file: {error}") from error


def source(folder: Path, manifest: BundleManifest, dense: nn.Module) -> WeightSource:
    """Return the bundle's weights, checked against the dense model's shapes.

    Raises:
        BundleError: the weights file cannot be read or does not match.
    """
    if not manifest.ships_weights:
        return SeedWeights(manifest.seed)
    weights = FileWeights(folder / WEIGHTS, manifest.seed)
    weights.check(dense)
    return weights


def write(model: nn.Module, path: Path) -> None:
    """Store a model's tensors as safetensors, wholly or not at all."""
    tensors.write(path, model.state_dict())
