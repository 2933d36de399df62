"""What the checks know and learn of a board, handed from one to the next."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconvene_agent.cli.doctor.account import Account
from reconvene_agent.core.config import SYSTEM_CONFIG, Config
from reconvene_agent.core.kernel.files import HOST
from reconvene_agent.core.profile import Profile


@dataclass
class Clocks:
    """The clocks when the examination began: seconds since the epoch, and seconds of a clock that never jumps."""

    wall: float = field(default_factory=time.time)
    mono: float = field(default_factory=time.monotonic)


@dataclass
class Case:
    """One examination.

    Attributes:
        file: the configuration file that applies; None when there is none.
        offline: whether the broker shall be left alone.
        root: the folder that stands for ``/`` where kernel files are read.
        config: the configuration, once it is known to be right.
        document: the configuration file's own words.
        service: whose rights count: the running agent's account, else the one that it would run as.
        pid: of the agent that runs, if it told.
        status: what the agent that runs says of itself.
        profile: the profile that fits the board.
        libraries_mb: what the worker's libraries took once they were loaded, MiB.
    """

    file: Path | None
    offline: bool = False
    root: Path = HOST
    clocks: Clocks = field(default_factory=Clocks)
    config: Config | None = None
    document: dict[str, Any] = field(default_factory=dict)
    service: Account = field(default_factory=Account.of_this_process)
    pid: int | None = None
    status: dict[str, Any] | None = None
    profile: Profile | None = None
    libraries_mb: float | None = None

    @property
    def settings(self) -> Path:
        """The configuration file that people are told to edit."""
        return self.file or SYSTEM_CONFIG
