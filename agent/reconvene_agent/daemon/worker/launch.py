"""From an accepted command to a worker's request: names become paths inside the agent's own folders, room is checked."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import msgspec

from reconvene_agent.core import bundle
from reconvene_agent.core.config import Config
from reconvene_agent.core.errors import AgentError, BundleError, ErrorCode, UsageError
from reconvene_agent.core.job import Command
from reconvene_agent.core.messages import PlanArgs, SpecializeArgs, decode_args, envelope_of
from reconvene_agent.core.profile import Profile
from reconvene_agent.core.protocol import Request
from reconvene_agent.core.requests import Board
from reconvene_agent.daemon.probe.device import probe_device

MIN_FREE_MB = 16.0


def inside(folder: Path, name: str, trusted: str) -> Path:
    """Return the path of ``name`` in ``folder``. A name that leaves it is refused, unless the configuration itself says it.

    Raises:
        UsageError: the name is absolute, climbs out of the folder or is none that a file can have.
    """
    path = PurePosixPath(name)
    if name != trusted and (path.is_absolute() or ".." in path.parts or "\0" in name):
        raise UsageError(f"{name!r} must be a name inside {folder}")
    return folder / path


def work_folder(config: Config, key: str) -> Path:
    """Return the folder of all that a job keeps."""
    return config.state_dir / "jobs" / key


def request_for(command: Command, config: Config, profile: Profile) -> tuple[Request, int]:
    """Return what the worker is to be told and its threads; probes the board, since the budget depends on what is available.

    Raises:
        AgentError: there is no such bundle or data, the arguments do not fit, or the disk is too full to begin.
    """
    device = probe_device(config.state_dir)
    if device.storage.free_mb < MIN_FREE_MB:
        raise AgentError(
            f"only {device.storage.free_mb:.0f} MiB are free in {config.state_dir}, at least {MIN_FREE_MB:.0f} are needed",
            ErrorCode.NO_DISK,
        )
    board = Board(config, profile, device, command.ceilings_mb or {})
    args = decode_args(command.op, envelope_of(command).args, board.defaults)
    assert isinstance(args, PlanArgs)
    if args.bundle is msgspec.UNSET:
        raise UsageError("name a bundle in the command, or one for all in the configuration ([specialize] bundle)")
    folder = inside(config.bundles_dir, args.bundle, config.specialize.bundle)
    if not os.access(folder, os.R_OK):
        raise BundleError(f"there is no readable bundle {args.bundle!r} in {config.bundles_dir}")
    bundle.read(folder)
    data = None if args.data is msgspec.UNSET else inside(config.data_dir, args.data, config.specialize.data)
    if not isinstance(args, SpecializeArgs):
        plan = board.plan_request(folder, args, "command", data=data)
        return plan, plan.runtime.training_threads
    if data is None:
        raise UsageError("name the data in the command, or those for all in the configuration ([specialize] data)")
    if not os.access(data, os.R_OK):
        raise AgentError(f"there are no readable data {args.data!r} in {config.data_dir}", ErrorCode.NO_DATA)
    work = work_folder(config, command.key)
    if command.ceilings_mb is not None:  # nothing of what was planned and settled before must be gone on with
        work /= f"{command.key}-replanned"
    request = board.specialize_request(folder, data, work, config.models_dir, args, "command")
    return request, request.plan.runtime.training_threads
