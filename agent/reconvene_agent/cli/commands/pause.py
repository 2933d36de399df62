"""``pause``: let the agent on this board pause its work until ``resume``; also over a restart."""

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
    return answer(ask(config.load(arguments.config).socket_path, "pause"), arguments.json, _show)


def _show(document: dict[str, Any]) -> None:
    print(f"paused {document['paused']}: 'reconvene-agent resume' lets it go on")
