"""``run``: the agent itself, in the foreground; what the service starts."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from reconvene_agent.core import config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file (default: the system's, if there is one)")


def run(arguments: argparse.Namespace) -> int:
    """Check the configuration, then become the daemon: a fresh process image that never held the command line's modules."""
    config.load(arguments.config)
    path = arguments.config or config.find()
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    words = [sys.executable, "-m", "reconvene_agent.daemon", *([str(path)] if path else [])]
    os.execve(sys.executable, words, environment)  # noqa: S606 - our own interpreter and module
