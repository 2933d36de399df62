"""The settings that a command may change. What is not listed is withheld, whatever comes to the configuration later.

None of them names a file, a program, an identity or a key: whoever speaks for the fleet can have the board train otherwise and
report elsewhere, but not read what is its owner's or run what he has not installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from reconvene_agent.core.budget import BudgetLimits
from reconvene_agent.core.options import MethodOptions, ReleaseOptions, TrainingOptions

Settings = dict[str, dict[str, Any]]
"""Settings by section."""

UPDATABLE: dict[str, tuple[str, ...]] = {
    "agent": ("log_level", "log_format"),
    "broker": ("url", "protocol", "keepalive_s"),
    "worker": ("attempts", "windows"),
    "telemetry": ("interval_s", "spool_bytes"),
    "specialize": ("bundle", "data", "new_data_share", "cache_mb", "sparsities", "width_multipliers"),
    "drift": ("sustained_s", "check_interval_s", "timeout_s", "auto"),
    "budget": BudgetLimits.__struct_fields__,
    "method": MethodOptions.__struct_fields__,
    "training": TrainingOptions.__struct_fields__,
    "release": ReleaseOptions.__struct_fields__,
}

GUIDES_JOBS = frozenset({"specialize", "budget", "method", "training", "release"})
"""The sections that a job goes by from beginning to end."""

NAMES = tuple(f"{section}.{name}" for section, names in UPDATABLE.items() for name in names)

_FOLDERS = ("specialize.bundle", "specialize.data")


def mistake(changes: dict[str, Any]) -> str:
    """Return what is wrong with changes by dotted name, as far as the list can tell; empty when nothing is."""
    if not changes:
        return "it names no setting"
    unlisted = [name for name in changes if name not in NAMES]
    if unlisted:
        return f"{', '.join(unlisted)} cannot be changed by a command; the capability lists what can"
    climbing = [name for name in _FOLDERS if not _is_inside(changes.get(name))]
    if climbing:
        return f"{', '.join(climbing)} must be a name inside the agent's own folder"
    return ""


def _is_inside(name: Any) -> bool:
    """Whether a name stays in its folder; the configuration's own need not, so this is looked at here."""
    if not isinstance(name, str):
        return True  # its type is for the configuration to judge
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def applied(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Return settings with changes by dotted name; None takes one back."""
    found = {section: dict(values) for section, values in settings.items()}
    for dotted, value in changes.items():
        section, _, name = dotted.partition(".")
        if value is None:
            found.get(section, {}).pop(name, None)
        else:
            found.setdefault(section, {})[name] = value
    return {section: values for section, values in found.items() if values}


def merged(document: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return a configuration document with settings over it. A section that is none is left for validation to find."""
    over = {
        name: {**document.get(name, {}), **values}
        for name, values in settings.items()
        if isinstance(document.get(name, {}), dict)
    }
    return {**document, **over}


def listed(settings: Any) -> Settings:
    """Return what of settings read from disk may be changed by a command: all, unless somebody else wrote them."""
    if not isinstance(settings, dict):
        return {}
    sections = {
        section: {name: value for name, value in settings[section].items() if name in names}
        for section, names in UPDATABLE.items()
        if isinstance(settings.get(section), dict)
    }
    return {section: values for section, values in sections.items() if values}


def names(settings: Settings) -> list[str]:
    """Return the dotted names of settings, sorted."""
    return sorted(f"{section}.{name}" for section, values in settings.items() for name in values)


def differences(before: Any, after: Any, fields: Iterable[str]) -> list[str]:
    """Return the dotted names of what differs between two configurations, section by section."""
    found = []
    for section in fields:
        old, new = getattr(before, section), getattr(after, section)
        found += [f"{section}.{name}" for name in old.__struct_fields__ if getattr(old, name) != getattr(new, name)]
    return sorted(found)
