"""``models``: the releases on this board, and which of them serves. Works whether the agent runs or not."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import msgspec

from reconvene_agent.cli.arguments import add_common, path
from reconvene_agent.cli.output import answer, size
from reconvene_agent.cli.tables import print_table
from reconvene_agent.core import config, release
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.shelf import KEPT_BEHIND_CURRENT, Shelf, Switch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="the releases that are kept, oldest first")
    show = actions.add_parser("show", help="all that is known of one release")
    show.add_argument("version", nargs="?", metavar="VERSION", help="a release, or the beginning of its name (default: current)")
    promote = actions.add_parser("promote", help="let a release serve, also one that was refused")
    promote.add_argument("version", metavar="VERSION", help="a release, or the beginning of its name")
    rollback = actions.add_parser("rollback", help="let the model serve that served before")
    steps = f"how many steps, {KEPT_BEHIND_CURRENT} at most (default: 1)"
    rollback.add_argument("--steps", type=int, default=1, choices=range(1, KEPT_BEHIND_CURRENT + 1), metavar="N", help=steps)
    for action in (listed, show, promote, rollback):
        action.add_argument("--models", type=path, metavar="DIR", help="a models folder (default: the agent's)")
        add_common(action)


def run(arguments: argparse.Namespace) -> int:
    models = arguments.models or config.load(arguments.config).models_dir
    if not models.is_dir():
        raise UsageError(f"{models} is no folder of releases: name one with --models, or specialize first")
    shelf = Shelf(models.resolve())
    actions: dict[str, Callable[[], tuple[dict[str, Any], Callable[[dict[str, Any]], None]]]] = {
        "list": lambda: (_listed(shelf), _print_list),
        "show": lambda: (_shown(shelf, arguments.version), _print_release),
        "promote": lambda: (_switched(shelf.promote(arguments.version)), _print_switch),
        "rollback": lambda: (_switched(shelf.rollback(arguments.steps)), _print_switch),
    }
    document, show = actions[arguments.action]()
    return answer(document, arguments.json, show)


def _listed(shelf: Shelf) -> dict[str, Any]:
    fall = shelf.fall
    return {
        "models": str(shelf.models),
        "current": shelf.serving,
        "fall": None if fall is None else msgspec.to_builtins(fall),
        "releases": [_entry(shelf, version) for version in release.versions(shelf.models)],
    }


def _entry(shelf: Shelf, version: str) -> dict[str, Any]:
    """Return a release with its place and what is wrong with it; one whose manifest cannot be read has nothing else."""
    folder, served = shelf.models / version, shelf.served
    entry: dict[str, Any] = {"version": version, "place": "newer", "steps_back": None, "flaw": release.flaw(folder)}
    try:
        manifest: dict[str, Any] | None = msgspec.to_builtins(release.read(folder))
    except UsageError:
        manifest = None
    if version in served:
        entry["steps_back"] = len(served) - 1 - served.index(version) + (shelf.serving is None)
        entry["place"] = "before" if entry["steps_back"] else "current"
    elif manifest is not None and manifest["refused"]:
        entry["place"] = "refused"
    if manifest is not None:
        names = ("created", "sparsity", "precision", "onnx_bytes", "accuracy", "latency_ms", "refused")
        entry |= {name: manifest[name] for name in names}
    return entry


def _shown(shelf: Shelf, name: str | None) -> dict[str, Any]:
    version = shelf.serving if name is None else shelf.find(name)
    if version is None:
        raise UsageError(f"nothing serves in {shelf.models}: name a release, 'reconvene-agent models list' shows them")
    entry = _entry(shelf, version)
    manifest = msgspec.to_builtins(release.read(shelf.models / version))
    place = {name: entry[name] for name in ("place", "steps_back", "flaw")}
    return {**manifest, **place, "onnx": str(shelf.models / version / release.ONNX)}


def _switched(switch: Switch) -> dict[str, Any]:
    return {"before": switch.before, "after": switch.after}


_HEADINGS = ("", "release", "accuracy", "p95 ms", "size", "sparsity", "precision", "created", "place")


def _print_list(document: dict[str, Any]) -> None:
    if not document["releases"]:
        print(f"no releases in {document['models']}")
        return
    print_table(_HEADINGS, [_row(entry) for entry in document["releases"]], left=("", "release", "precision", "created", "place"))
    for entry in document["releases"]:
        for line in (entry["flaw"], *entry.get("refused", ())):
            if line:
                print(f"{entry['version']}: {line}")
    if document["fall"]:
        fall = document["fall"]
        print(f"{fall['broken']} was found broken, {fall['after']} took its place: {fall['flaw']}")


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    mark = "→" if entry["place"] == "current" else ""
    place = f"{entry['steps_back']} back" if entry["place"] == "before" else entry["place"]
    said = ", ".join(word for word in (place, "broken" if entry["flaw"] else "") if word)
    if "created" not in entry:
        return (mark, entry["version"], "", "", "", "", "", "", said)
    return (
        mark,
        entry["version"],
        "·" if entry["accuracy"] is None else f"{entry['accuracy']:.1%}",
        f"{entry['latency_ms']['p95']:.2f}",
        size(entry["onnx_bytes"]),
        f"{entry['sparsity']:g}",
        entry["precision"],
        entry["created"][:19].replace("T", " "),
        said,
    )


def _print_release(document: dict[str, Any]) -> None:
    latency, model = document["latency_ms"], document["model"]
    place = f"{document['steps_back']} back" if document["place"] == "before" else document["place"]
    lines = [
        ("release", f"{document['version']} ({place})"),
        ("file", f"{document['onnx']} ({size(document['onnx_bytes'])}, {document['precision']})"),
        ("sha256", document["onnx_sha256"]),
        ("model", f"{model['architecture']}, input {'×'.join(map(str, model['input']))}, {model['classes']} classes"),
        ("pruned", f"sparsity {document['sparsity']:g}, {document['params']:,} parameters, {document['macs']:,} MACs"),
        ("latency", f"p50 {latency['p50']:.2f} ms, p95 {latency['p95']:.2f} ms"),
        ("accuracy", "not trained" if document["accuracy"] is None else f"{document['accuracy']:.1%}"),
        ("created", f"{document['created']} by {document['agent_version']}"),
        *(("refused", line) for line in document["refused"]),
        *([("broken", document["flaw"])] if document["flaw"] else []),
    ]
    for name, value in lines:
        print(f"{name:<10}{value}")


def _print_switch(document: dict[str, Any]) -> None:
    before, after = document["before"], document["after"]
    print(f"{after} serves already" if before == after else f"{after} serves now, in place of {before or 'none'}")
