"""The board at hand, for commands that work without the daemon."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from reconvene_agent.core import config, profile
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.requests import Board
from reconvene_agent.daemon.probe.device import probe_device


def find_board(arguments: argparse.Namespace, storage: Path) -> Board:
    """Probe this board and choose its profile; ``storage`` lies on the file system that matters to the command.

    Raises:
        UsageError: the configuration or a profile is wrong, or --threads is.
    """
    settings = config.load(arguments.config)
    device = probe_device(storage)
    chosen = profile.choose(profile.load_all(), device, arguments.profile or settings.agent.profile)
    threads = getattr(arguments, "threads", None)
    if threads is not None:
        if not 1 <= threads <= device.cores:
            raise UsageError(f"--threads must lie between 1 and {device.cores}, the cores of this board")
        compute = msgspec.structs.replace(chosen.compute, inference_threads=threads, training_threads=threads)
        chosen = msgspec.structs.replace(chosen, compute=compute)
    return Board(settings, chosen, device)
