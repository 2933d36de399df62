"""``run``: the agent itself, in the foreground; what the service starts."""

from __future__ import annotations

import argparse
import os
import sys

from reconvene_agent.cli.arguments import add_config
from reconvene_agent.core import config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check the configuration, then become the daemon: a fresh process image that never held the command line's modules."""
    config.load(arguments.config)
    settings = arguments.config or config.find()
    # One memory arena is enough for a process that mostly waits, and keeps it smaller.
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "MALLOC_ARENA_MAX": "1"}
    words = [sys.executable, "-m", "reconvene_agent.daemon", *([str(settings)] if settings else [])]
    os.execve(sys.executable, words, environment)  # noqa: S606 - our own interpreter and module
