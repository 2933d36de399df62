"""Arguments that several commands share, and how they become the values of ``core``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from reconvene_agent.core import options
from reconvene_agent.core.errors import UsageError

_METHOD = {
    "criterion": options.Criterion,
    "average": options.Average,
    "width": options.Width,
    "sensitive": options.Sensitive,
    "trunk": options.Trunk,
}
_METHOD_HELP = {
    "criterion": "what scores a weight",
    "average": "which average separates sensitive from resilient layers",
    "width": "share of filters a resilient layer keeps: its density, or the root of it",
    "sensitive": "keep a sensitive layer's mask, leave the layer dense, or shrink it like a resilient one",
    "trunk": "keep the width that all blocks of a transformer share, or prune it too",
    "width_multiplier": "share of every prunable width that is left before anything is scored",
    "min_width": "fewest channels that a group keeps",
    "width_multiple": "round narrowed widths up to a multiple of this (default: the profile's)",
}
_TRAINING_CHOICES = {
    "schedule": (options.Schedule, "how the learning rate rises and falls"),
    "balance": (options.Balance, "draw all classes as often where they differ much in number"),
    "precision": (options.PrecisionChoice, "of computing; auto takes what is faster here"),
    "augment": (options.Augment, "random changes of training inputs; auto shifts images and jitters windows"),
}
_TRAINING_HELP = {
    "epochs": "passes over the training inputs",
    "batch": "inputs per step",
    "learning_rate": "peak of the schedule",
    "weight_decay": "L2 penalty",
    "label_smoothing": "share of the target that is spread over all classes",
    "patience": "stop after so many epochs without a better accuracy; 0 is never",
    "ema": "decay of an average of the weights that is deployed in their place; 0 is none",
    "validation": "share held out where the data have no held-out part",
    "overlap": "share of its length that a window shares with the next one, where recordings are cut",
    "seed": "decides data order and augmentation",
}
_RELEASE_HELP = {"margin": "by how much the accuracy may be below that of what serves now, 0 to 1"}
_RELEASE_CHOICES = {"quantize": (options.Quantize, "deploy int8 where that is faster here and as accurate")}
_BUDGET_HELP = {
    "latency_ms": "p95 of one inference, in milliseconds",
    "latency_p50_ms": "median of one inference, in milliseconds",
    "memory_mb": "memory of inference, in MiB",
    "training_memory_mb": "memory of training above the libraries, in MiB",
    "model_mb": "size of the ONNX file, in MiB",
    "training_minutes": "time of training, in minutes",
    "reserve_mb": "memory that is never touched, in MiB",
}


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def path(text: str) -> Path:
    """Read a path from the command line; what is passed on as JSON must be text, so other bytes are refused."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!a} is not UTF-8: rename it") from None
    return Path(text)


def number(text: str) -> float:
    """Read a finite number from the command line."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


_WHOLE = ("epochs", "batch", "patience", "seed")
_METHOD_NUMBERS: dict[str, Callable[[str], float]] = {"width_multiplier": number, "min_width": int, "width_multiple": int}


def new_folder(out: Path) -> Path:
    """Return where results go as an absolute path.

    Raises:
        UsageError: a file is in its place.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: name a folder")
    return out.resolve()


def resolved(given: Path | None) -> Path | None:
    """Return a path that was given as an absolute one."""
    return None if given is None else given.resolve()


def add_scoring_data(parser: argparse.ArgumentParser) -> None:
    """Add local data, for commands that need them for some criteria only."""
    parser.add_argument("--data", type=path, metavar="PATH", help="local data, for the criteria snip and grasp")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add how to speak, which every command takes."""
    parser.add_argument("--json", action="store_true", help="print exactly one JSON document; progress goes to stderr")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and what workers write to stderr")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the configuration, for every command that heeds it."""
    parser.add_argument("--config", type=path, metavar="FILE", help="configuration file (default: the system's, if there is one)")


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add what nearly every command takes."""
    add_output(parser)
    add_config(parser)


def add_board(parser: argparse.ArgumentParser) -> None:
    """Add how to compute on this board."""
    parser.add_argument("--profile", metavar="NAME", help="device profile (default: the one that fits)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of inference and training (default: the profile's)")


def add_method(parser: argparse.ArgumentParser) -> None:
    """Add the method's knobs; defaults come from the configuration."""
    group = parser.add_argument_group("method")
    for name, kind in _METHOD.items():
        group.add_argument(flag(name), choices=get_args(kind), help=_METHOD_HELP[name])
    for name, read in _METHOD_NUMBERS.items():
        group.add_argument(flag(name), type=read, metavar="N", help=_METHOD_HELP[name])


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add how to train; defaults come from the configuration."""
    group = parser.add_argument_group("training")
    for name, text in _TRAINING_HELP.items():
        group.add_argument(flag(name), type=int if name in _WHOLE else number, metavar="N", help=text)
    for name, (kind, text) in _TRAINING_CHOICES.items():
        group.add_argument(flag(name), choices=get_args(kind), help=text)


def add_release(parser: argparse.ArgumentParser) -> None:
    """Add what a release must be; defaults come from the configuration."""
    group = parser.add_argument_group("release")
    for name, text in _RELEASE_HELP.items():
        group.add_argument(flag(name), type=number, metavar="N", help=text)
    for name, (kind, text) in _RELEASE_CHOICES.items():
        group.add_argument(flag(name), choices=get_args(kind), help=text)


def add_budget(parser: argparse.ArgumentParser) -> None:
    """Add the limits; those not given come from configuration and profile."""
    group = parser.add_argument_group("budget")
    for name, text in _BUDGET_HELP.items():
        group.add_argument(flag(name), type=number, metavar="N", help=text)


def method(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the method's knobs that were given."""
    return given(arguments, (*_METHOD, *_METHOD_NUMBERS))


def training(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what was said of training."""
    return given(arguments, (*_TRAINING_HELP, *_TRAINING_CHOICES))


def release(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what was said of the release."""
    return given(arguments, (*_RELEASE_HELP, *_RELEASE_CHOICES))


def budget(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the limits that were given."""
    return given(arguments, tuple(_BUDGET_HELP))


def given(arguments: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the arguments called ``names`` that were given at all."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}
