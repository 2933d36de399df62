"""Profiles: what is known beforehand about a kind of board, and which profile fits the board at hand."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from reconvene_agent.core.budget import BudgetLimits
from reconvene_agent.core.decoding import from_toml, located
from reconvene_agent.core.device import Device
from reconvene_agent.core.errors import UsageError

PROFILES_VARIABLE = "RECONVENE_AGENT_PROFILES"
SYSTEM_PROFILES = Path("/etc/reconvene-agent/device_profiles")


class Match(Struct, frozen=True, forbid_unknown_fields=True):
    """When a profile fits: any ``compatible`` entry, else any ``model`` fragment, else the architecture alone.

    Attributes:
        compatible: entries of the device tree's ``compatible`` list.
        model: fragments of the device tree's ``model`` string.
        architecture: what ``uname -m`` must say.
    """

    architecture: str
    compatible: tuple[str, ...] = ()
    model: tuple[str, ...] = ()


class Compute(Struct, frozen=True, forbid_unknown_fields=True):
    """Threads for inference and for training (0: as many as the board has cores), and ONNX Runtime's providers in order.

    Training runs on ``training_device`` where the worker's torch has it. Widths that are a multiple of ``width_multiple`` run
    faster on this hardware; 1 where that is not known.
    """

    inference_threads: Annotated[int, Meta(ge=0, le=256)]
    training_threads: Annotated[int, Meta(ge=0, le=256)]
    providers: Annotated[tuple[str, ...], Meta(min_length=1)]
    training_device: Literal["cpu", "cuda"] = "cpu"
    width_multiple: Annotated[int, Meta(ge=1, le=256)] = 1


class Thermal(Struct, frozen=True, forbid_unknown_fields=True):
    """Degrees Celsius: training is too hot above ``hot_c`` and may go on below ``cool_c``."""

    hot_c: float
    cool_c: float

    def __post_init__(self) -> None:
        if self.cool_c >= self.hot_c:
            raise ValueError(f"cool_c {self.cool_c} must be below hot_c {self.hot_c}")


class Profile(Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of board. ``batch_cap`` is how many training inputs are in memory at most at a time."""

    name: str
    title: str
    match: Match
    compute: Compute
    thermal: Thermal
    batch_cap: Annotated[int, Meta(ge=2, le=4096)]
    budget: BudgetLimits = BudgetLimits()


def search_path() -> list[Path]:
    """Return the folders searched for profiles, first match by name: override, system, packaged, checkout."""
    package = Path(__file__).resolve().parents[1]
    folders = [SYSTEM_PROFILES, package / "device_profiles", package.parents[1] / "device_profiles"]
    if override := os.environ.get(PROFILES_VARIABLE):
        folders.insert(0, Path(override))
    return folders


def read(path: Path) -> Profile:
    """Read one profile.

    Raises:
        UsageError: the file is not a valid profile, or is not named after the profile's name.
    """
    try:
        profile = from_toml(path.read_bytes(), Profile)
    except (msgspec.DecodeError, OSError) as error:
        raise UsageError(f"{path}: not a valid profile: {located(error)}") from error
    if profile.name != path.stem:
        raise UsageError(f"{path}: the profile calls itself {profile.name!r}; name the file {profile.name}.toml")
    return profile


def load_all(folders: Iterable[Path] | None = None) -> dict[str, Profile]:
    """Return every profile on the search path by name; the first folder that has a name wins."""
    profiles: dict[str, Profile] = {}
    for folder in search_path() if folders is None else folders:
        for path in sorted(folder.glob("*.toml")):
            if path.stem not in profiles:
                profiles[path.stem] = read(path)
    return profiles


def fit(profile: Profile, device: Device) -> tuple[int, int]:
    """Return how well a profile fits a device; higher is better and (0, 0) is not at all.

    A compatible entry beats a fragment of the model's name, which beats the architecture alone. Among compatible
    entries an earlier, more specific one wins; among fragments the longer.
    """
    if profile.match.architecture != device.architecture:
        return (0, 0)
    ranks = [len(device.compatible) - device.compatible.index(c) for c in profile.match.compatible if c in device.compatible]
    if ranks:
        return (3, max(ranks))
    fragments = [len(fragment) for fragment in profile.match.model if fragment in device.model]
    if fragments:
        return (2, max(fragments))
    generic = not profile.match.compatible and not profile.match.model
    return (1, 0) if generic else (0, 0)


def choose(profiles: dict[str, Profile], device: Device, name: str = "auto") -> Profile:
    """Return the profile named, or for ``auto`` the one that fits the device best.

    Raises:
        UsageError: no profile has that name, or none fits the device.
    """
    if name != "auto":
        if name not in profiles:
            raise UsageError(f"no profile is named {name!r}; there are: {', '.join(sorted(profiles))}")
        return profiles[name]
    best = max(profiles.values(), key=lambda profile: fit(profile, device), default=None)
    if best is None or fit(best, device) == (0, 0):
        raise UsageError(
            f"no profile fits this {device.architecture} board ({device.model}): name one with 'profile' in the configuration"
        )
    return best
