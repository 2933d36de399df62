"""``bundle``: create or verify a bundle, the form in which a dense model is shipped."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import msgspec

from reconvene_agent.cli.arguments import add_common, add_output, path
from reconvene_agent.cli.foreground import run_worker
from reconvene_agent.cli.output import print_json
from reconvene_agent.core import architectures, atomic, bundle, config
from reconvene_agent.core.bundle import BundleManifest, ModelSpec
from reconvene_agent.core.config import WorkerSection
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.protocol import ExportWeightsRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="make a bundle from an architecture and a seed")
    create.add_argument("out", type=path, metavar="OUT", help="the folder to make")
    known = ", ".join(architectures.ARCHITECTURES)
    model = f"the dense model: {known}, or one of an installed package"
    create.add_argument("--model", required=True, metavar="NAME", help=model)
    size = "3x32x32 for images (channels, height, width), 6x128 for windows of a signal (channels, length), 24 for features"
    create.add_argument("--input", required=True, metavar="SIZE", help=size)
    create.add_argument("--classes", required=True, type=int, metavar="N", help="number of classes")
    create.add_argument("--seed", required=True, type=int, metavar="N", help="decides the initial weights")
    create.add_argument("--weights", action="store_true", help="ship the initial weights too, not just their seed")
    create.add_argument("--labels", type=path, metavar="FILE", help="a text file with the name of one class on each line")
    add_common(create)
    verify = actions.add_parser("verify", help="check a bundle and every file in it")
    verify.add_argument("bundle", type=path, metavar="BUNDLE")
    add_output(verify)


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "create":
        manifest, folder = _create(arguments), arguments.out
    else:
        manifest, folder = bundle.verify(arguments.bundle), arguments.bundle
    if arguments.json:
        document = {"path": str(folder), "digest": bundle.manifest_digest(folder), **msgspec.to_builtins(manifest)}
        print_json(document)
        return 0
    model = manifest.model
    shipped = "initial weights" if manifest.ships_weights else f"seed {manifest.seed}"
    print(f"{folder}: {model.architecture}, input {'×'.join(map(str, model.input))}, {model.classes} classes, {shipped}")
    return 0


def _create(arguments: argparse.Namespace) -> BundleManifest:
    """Make the bundle beside its place and move it there whole.

    Raises:
        UsageError: the arguments make no bundle, the configuration is wrong, or something is in its place.
        BundleError: the model does not take such an input, or the labels are no good.
    """
    limits = config.load(arguments.config).worker
    out: Path = arguments.out
    if out.exists():
        raise UsageError(f"{out} is already there: name another folder, or remove it first")
    labels = _labels(arguments.labels) if arguments.labels else ()
    manifest = _manifest(arguments, labels)
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with atomic.full_disk_is_no_disk(f"writing {out}"):
            aside.mkdir(parents=True)
            if arguments.weights:
                _write_weights(aside / bundle.WEIGHTS, manifest, limits, arguments.debug)
                manifest = msgspec.structs.replace(manifest, files={bundle.WEIGHTS: atomic.sha256(aside / bundle.WEIGHTS)})
            bundle.write_manifest(aside, manifest)
            atomic.sync_tree(aside)
            aside.rename(out)
            atomic.sync_folder(out.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return manifest


def _labels(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the labels in {file} cannot be read: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())


def _manifest(arguments: argparse.Namespace, labels: tuple[str, ...]) -> BundleManifest:
    if not architectures.exists(arguments.model):
        known = ", ".join(architectures.names())
        raise UsageError(f"--model {arguments.model!r} is neither built in nor installed here; there are: {known}")
    sides = arguments.input.lower().replace("×", "x").split("x")
    if len(sides) > 3 or not all(side.isdecimal() and len(side) <= 5 for side in sides):
        forms = "3x32x32 (channels, height, width), 6x128 (channels, length) or 24 (features)"
        raise UsageError(f"--input must look like {forms}, not {arguments.input!r}")
    document = {
        "format": bundle.FORMAT,
        "model": {"architecture": arguments.model, "input": [int(side) for side in sides], "classes": arguments.classes},
        "seed": arguments.seed,
        "labels": labels,
    }
    try:
        manifest = msgspec.convert(document, BundleManifest)
    except msgspec.ValidationError as error:
        raise UsageError(f"these arguments make no bundle: {error}") from error
    if labels and len(labels) != arguments.classes:
        raise UsageError(f"{arguments.labels} names {len(labels)} classes, but --classes is {arguments.classes}")
    bundle.check(manifest)
    return manifest


def _write_weights(file: Path, manifest: BundleManifest, limits: WorkerSection, debug: bool) -> None:
    model: ModelSpec = manifest.model
    request = ExportWeightsRequest(model.architecture, model.input, model.classes, manifest.seed, str(file.resolve()))
    run_worker(request, limits, threads=1, debug=debug)
