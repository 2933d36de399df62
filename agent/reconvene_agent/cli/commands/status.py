"""``status``: what the agent on this board is doing, or was doing when it last ran."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import msgspec

from reconvene_agent import __version__
from reconvene_agent.cli.arguments import add_common
from reconvene_agent.cli.output import print_json, size
from reconvene_agent.core import config
from reconvene_agent.core.config import Config
from reconvene_agent.core.decoding import from_json
from reconvene_agent.core.errors import EXIT_DEGRADED, EXIT_NOT_RUNNING, EXIT_OK, NotRunningError
from reconvene_agent.daemon.service.control import ask_status

REFRESH_S = 1.0
_status = msgspec.json.Decoder(dict[str, Any])
CLEAR_SCREEN = "\033[2J\033[H"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common(parser)
    parser.add_argument("--watch", action="store_true", help="show it again every second until Ctrl-C")


def run(arguments: argparse.Namespace) -> int:
    settings = config.load(arguments.config)
    if arguments.watch:
        return _watch(settings, arguments.json)
    document, code = look(settings)
    _print(document, arguments.json)
    return code


def look(settings: Config) -> tuple[dict[str, Any], int]:
    """Return the status and its exit code: from the agent, else what it left on disk, marked as not running."""
    try:
        document = ask_status(settings.socket_path)
    except NotRunningError as error:
        last = _last_known(settings)
        broker = {**last["broker"], "connected": False}
        return {**last, "state": "not running", "broker": broker, "problems": [error.message]}, EXIT_NOT_RUNNING
    return document, EXIT_DEGRADED if document["problems"] else EXIT_OK


def _last_known(settings: Config) -> dict[str, Any]:
    """Return what the agent said of itself when it last ran, with every key that a status has."""
    nothing: dict[str, Any] = {
        "device_id": settings.device_id,
        "version": __version__,
        "uptime_s": None,
        "broker": {"url": settings.broker.url},
        "job": None,
        "paused": None,
        "updated": [],
        "release": None,
        "device": None,
    }
    try:
        return {**nothing, **from_json(settings.status_path.read_bytes(), _status.decode)}
    except (OSError, msgspec.DecodeError):
        return nothing  # it never ran here, or we may not read its state


def _watch(settings: Config, as_json: bool) -> int:
    code = EXIT_OK
    try:
        while True:
            document, code = look(settings)
            if not as_json:
                print(CLEAR_SCREEN if sys.stdout.isatty() else "")
            _print(document, as_json)
            sys.stdout.flush()
            time.sleep(REFRESH_S)
    except KeyboardInterrupt:
        return code


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    for name, value in _lines(document):
        print(f"{name:<10}{value}")


def _job(job: dict[str, Any]) -> str:
    where = f"{job['step']} {job['progress']:.0%}" if job["step"] else job["status"]
    note = f" ({job['note']})" if job["note"] else ""
    elapsed = "" if job["elapsed_s"] is None else f", {job['elapsed_s']:.0f} s"
    return f"{where}{note}{elapsed}"


def _lines(document: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [("state", document["state"]), ("device", document["device_id"])]
    if document["state"] == "not running" and "updated_at" in document:
        lines.append(("last seen", document["updated_at"]))
    broker, job, release, device = (document[name] for name in ("broker", "job", "release", "device"))
    if broker.get("url"):
        connection = f"MQTT {broker['protocol']}" if broker["connected"] else "not connected"
        lines.append(("broker", f"{broker['url']}, {connection}"))
    if job:
        lines.append(("job", f"{job['op']}/{job['id']}: {_job(job)}"))
    if document.get("paused") and not job:
        lines.append(("paused", document["paused"]))
    if release:
        figures = [f"sparsity {release['sparsity']:g}", size(release["bytes"]), f"p95 {release['latency_ms']['p95']:.2f} ms"]
        if release["accuracy"] is not None:
            figures.append(f"accuracy {release['accuracy']:.1%}")
        lines.append(("model", f"{release['version']}: {', '.join(figures)}"))
    if device:
        memory = device["memory"]
        facts = [device["model"], f"{memory['available_mb']:.0f} of {memory['total_mb']:.0f} MiB available"]
        if device["temperature_c"] is not None:
            facts.append(f"{device['temperature_c']:.0f} °C")
        lines.append(("board", ", ".join(facts)))
    if document["updated"]:
        lines.append(("changed", f"{', '.join(document['updated'])} (by commands)"))
    lines += [("problem", problem) for problem in document["problems"]]
    return lines
