"""The bundle on disk: its manifest, and the proof that every file is the one that was shipped.

A bundle is a folder: ``bundle.toml`` names the architecture and lists each file with its SHA-256; the weights are a
safetensors file, or nothing at all when the seed alone tells them. Reading tensors belongs to the worker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from reconvene_agent.core import atomic
from reconvene_agent.core.architectures import ARCHITECTURES, RANKS, SIDES
from reconvene_agent.core.decoding import from_toml, located
from reconvene_agent.core.errors import BundleError
from reconvene_agent.core.options import Seed

MANIFEST = "bundle.toml"
WEIGHTS = "weights.safetensors"
FORMAT = 1

# A signal may be long; channels, and the height and width of an image, are held to less.
Side = Annotated[int, Meta(ge=1, le=65536)]
MAX_IMAGE_SIDE = 4096
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class ModelSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A dense model's shape. ``input`` is (features,), (channels, length) or (channels, height, width)."""

    architecture: str
    input: Annotated[tuple[Side, ...], Meta(min_length=1, max_length=3)]
    classes: Annotated[int, Meta(ge=2, le=100_000)]


class BundleManifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What ``bundle.toml`` says.

    Attributes:
        seed: decides the initial weights, and every re-initialisation on the board.
        labels: names of the classes in the order of the model's outputs; empty when unsaid.
        files: SHA-256 of every other file of the bundle, by name.
    """

    format: int
    model: ModelSpec
    seed: Seed
    labels: tuple[str, ...] = ()
    files: dict[str, Digest] = {}

    @property
    def ships_weights(self) -> bool:
        return WEIGHTS in self.files


def check_input(model: ModelSpec) -> None:
    """Refuse an input that a built-in model does not take. What other models take, only those who can build them know.

    Raises:
        BundleError: it has another number of sides, or one that is too long.
    """
    size = "×".join(map(str, model.input))
    known = ARCHITECTURES.get(model.architecture)
    if known is not None and len(model.input) != RANKS[known.input]:
        raise BundleError(f"{model.architecture} takes {SIDES[known.input]}, not an input of {size}")
    # Of features and of a window the last side may be long.
    shorter = model.input if len(model.input) == 3 else model.input[:-1]
    if any(side > MAX_IMAGE_SIDE for side in shorter):
        raise BundleError(f"an input of {size} is too large: channels, height and width may be {MAX_IMAGE_SIDE} at most")


def check(manifest: BundleManifest) -> None:
    """Refuse a manifest that contradicts itself. Whether its architecture can be built here, the worker's registry knows.

    Raises:
        BundleError: unknown format, an input that the architecture does not take, labels that do not fit the classes, a file
            name that leaves the folder.
    """
    if manifest.format != FORMAT:
        raise BundleError(f"bundle format {manifest.format} is not known here: this agent reads format {FORMAT}")
    check_input(manifest.model)
    labels = manifest.labels
    if labels and len(labels) != manifest.model.classes:
        raise BundleError(f"the bundle has {manifest.model.classes} classes but {len(labels)} labels")
    if len(set(labels)) != len(labels) or not all(label.strip() for label in labels):
        raise BundleError("the bundle's labels must all be different and none may be empty")
    unknown = sorted(set(manifest.files) - {WEIGHTS})
    if unknown:
        raise BundleError(f"the bundle lists files that this agent does not know: {', '.join(unknown)}")


def manifest_digest(folder: Path) -> str:
    """Return the SHA-256 of the manifest: it names the bundle, since it lists every other file's."""
    return atomic.sha256(folder / MANIFEST)


def read(folder: Path) -> BundleManifest:
    """Read and check the manifest of the bundle in ``folder``, without reading the files that it lists.

    Raises:
        BundleError: there is no bundle, or its manifest is not valid.
    """
    path = folder / MANIFEST
    try:
        manifest = from_toml(path.read_bytes(), BundleManifest)
    except FileNotFoundError as error:
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}") from error
    except (msgspec.DecodeError, OSError) as error:
        raise BundleError(f"{path} cannot be read: {located(error)}") from error
    check(manifest)
    return manifest


def verify(folder: Path) -> BundleManifest:
    """Read the manifest and check the SHA-256 of each file that it lists.

    Raises:
        BundleError: as ``read`` does, or a file is missing, truncated or altered.
    """
    manifest = read(folder)
    for name, digest in manifest.files.items():
        try:
            found = atomic.sha256(folder / name)
        except OSError as error:
            raise BundleError(f"the bundle's file {folder / name} cannot be read: {error.strerror}") from error
        if found != digest:
            raise BundleError(f"{folder / name} is not the file that was shipped: SHA-256 {found[:12]}…, not {digest[:12]}…")
    return manifest


def write_manifest(folder: Path, manifest: BundleManifest) -> None:
    """Check the manifest and write it; a bundle exists from this moment on."""
    check(manifest)
    atomic.write_bytes(folder / MANIFEST, msgspec.toml.encode(manifest))
