"""``resume``: let the agent on this board go on after ``pause``."""

from __future__ import annotations

import argparse
from typing import Any

from reconvene_agent.cli.arguments import add_common
from reconvene_agent.cli.output import answer
from reconvene_agent.core import config
from reconvene_agent.daemon.service.control import ask


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common(parser)


def run(arguments: argparse.Namespace) -> int:
    return answer(ask(config.load(arguments.config).socket_path, "resume"), arguments.json, _show)


def _show(document: dict[str, Any]) -> None:
    waits_for = document["paused"]
    print(f"no longer paused on command; training still waits: {waits_for}" if waits_for else "no longer paused")
