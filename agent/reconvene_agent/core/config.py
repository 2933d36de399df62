"""The agent's configuration: one TOML file, validated whole, every mistake reported at once."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from reconvene_agent.core import overlay, updatable
from reconvene_agent.core.budget import BudgetLimits
from reconvene_agent.core.consistency import mistakes
from reconvene_agent.core.decoding import from_toml
from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.options import (
    DEFAULT_SPARSITIES,
    DEFAULT_WIDTH_MULTIPLIERS,
    Candidates,
    LogLevel,
    MethodOptions,
    Multipliers,
    ReleaseOptions,
    TrainingOptions,
)
from reconvene_agent.core.overlay import Overlay

CONFIG_VARIABLE = "RECONVENE_AGENT_CONFIG"
SYSTEM_CONFIG = Path("/etc/reconvene-agent/config.toml")

LEAST_SPOOL_BYTES = 65536

Seconds = Annotated[float, Meta(gt=0)]


class AgentSection(Struct, frozen=True, forbid_unknown_fields=True):
    """Who this agent is and where its state lies.

    Attributes:
        device_id: the name in every topic; made of the host's name and machine id when empty.
        state_dir: journal, releases and jobs; systemd's StateDirectory, or below the user's home, when empty.
        runtime_dir: the local socket; systemd's RuntimeDirectory, or ``state_dir``, when empty.
        bundles_dir, data_dir: where names in commands are looked up; inside ``state_dir`` when empty.
        profile: a profile's name, or ``auto``.
        trust_clock: believe the clock although no time service vouches for it, as on a board kept right by other means.
        log_level: what goes to stderr.
        log_format: how: ``text`` for people, with the ids at the end of a line, ``logfmt`` or ``json`` for programs.
    """

    device_id: str = ""
    state_dir: str = ""
    runtime_dir: str = ""
    bundles_dir: str = ""
    data_dir: str = ""
    profile: str = "auto"
    trust_clock: bool = False
    log_level: LogLevel = "info"
    log_format: Literal["text", "logfmt", "json"] = "text"


class BrokerSection(Struct, frozen=True, forbid_unknown_fields=True):
    """The MQTT broker. ``url`` is mqtt://host[:1883] or mqtts://host[:8883]; empty means that there is none.

    Attributes:
        protocol: ``auto`` tries MQTT 5 and falls back to 3.1.1.
        ca_file: certificate authority of the broker; the system's own when empty.
        cert_file, key_file: the client's certificate, for mutual TLS.
        password_file: a file whose first line is the password.
        root: first level of every topic.
    """

    url: str = ""
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    username: str = ""
    password_file: str = ""
    root: str = "te"
    keepalive_s: Annotated[int, Meta(ge=5, le=3600)] = 60


class WorkerSection(Struct, frozen=True, forbid_unknown_fields=True):
    """The worker process.

    Attributes:
        python: the interpreter that has torch; the agent's own when empty.
        start_timeout_s: from start to handshake; importing torch on a slow card takes its time.
        stall_timeout_s: longest silence before a worker counts as hung.
        stop_timeout_s: from being asked to stop until it is killed.
        attempts: how often a job may be started before it is given up.
        windows: times of the day, local, within which jobs may train, such as 01:00-05:00; none: at any time.
    """

    python: str = ""
    start_timeout_s: Seconds = 120.0
    stall_timeout_s: Seconds = 600.0
    stop_timeout_s: Seconds = 10.0
    attempts: Annotated[int, Meta(ge=1, le=20)] = 3
    windows: tuple[str, ...] = ()


class TelemetrySection(Struct, frozen=True, forbid_unknown_fields=True):
    """Measurements: how often, and what may wait on disk for the broker.

    Attributes:
        spool_bytes: records and events together, at most.
        spool_days: how long one may wait; time in which the board is off does not count.
        spool_events_share: of ``spool_bytes``, kept for events: as long as they take no more, no measurement drives one out.
        spool_min_free_bytes: with less free on the disk the spool grows no more.
    """

    interval_s: Annotated[float, Meta(ge=1.0, le=86400.0)] = 60.0
    spool_bytes: Annotated[int, Meta(ge=LEAST_SPOOL_BYTES)] = 8 * 1024 * 1024
    spool_days: Annotated[float, Meta(gt=0.0)] = 30.0
    spool_events_share: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.25
    spool_min_free_bytes: Annotated[int, Meta(ge=0)] = 32 * 1024 * 1024


class SpecializeSection(Struct, frozen=True, forbid_unknown_fields=True):
    """What ``specialize`` and ``plan`` use when a command leaves it out.

    Attributes:
        new_data_share: start a run by ourselves when the data have grown by this share since the current model was trained; 0
            never.
        cache_mb: what the decoded inputs of a run may take on the disk.
    """

    bundle: str = ""
    data: str = ""
    new_data_share: Annotated[float, Meta(ge=0.0, le=100.0)] = 0.0
    cache_mb: Annotated[float, Meta(gt=0.0)] = 4096.0
    sparsities: Candidates = DEFAULT_SPARSITIES
    width_multipliers: Multipliers = DEFAULT_WIDTH_MULTIPLIERS


class DriftSection(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the deployed model still fits.

    Attributes:
        sustained_s: how long it must be over its budget until that is an alarm.
        check_interval_s: between two timings of the model, when nothing else is going on; 0: it is never timed.
        timeout_s: when the worker that times it is given up.
        auto: start a run by ourselves then, once for each model.
    """

    sustained_s: Seconds = 600.0
    check_interval_s: Annotated[float, Meta(ge=0)] = 0.0
    timeout_s: Seconds = 120.0
    auto: bool = False


class SecuritySection(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may command. ``trusted_keys`` is a folder of public keys, NAME.pem; when it is set, commands must be signed."""

    trusted_keys: str = ""


class HomeAssistantSection(Struct, frozen=True, forbid_unknown_fields=True):
    """Home Assistant. ``discovery`` announces the agent to it as a device, below its discovery ``prefix``."""

    discovery: bool = False
    prefix: str = "homeassistant"


class PrometheusSection(Struct, frozen=True, forbid_unknown_fields=True):
    """Prometheus. ``textfile`` is where node_exporter picks the figures up: NAME.prom; none when empty."""

    textfile: str = ""


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    agent: AgentSection = AgentSection()
    broker: BrokerSection = BrokerSection()
    security: SecuritySection = SecuritySection()
    worker: WorkerSection = WorkerSection()
    telemetry: TelemetrySection = TelemetrySection()
    specialize: SpecializeSection = SpecializeSection()
    drift: DriftSection = DriftSection()
    homeassistant: HomeAssistantSection = HomeAssistantSection()
    prometheus: PrometheusSection = PrometheusSection()
    budget: BudgetLimits = BudgetLimits()
    method: MethodOptions = MethodOptions()
    training: TrainingOptions = TrainingOptions()
    release: ReleaseOptions = ReleaseOptions()

    @property
    def device_id(self) -> str:
        return self.agent.device_id or default_device_id()

    @property
    def state_dir(self) -> Path:
        return Path(self.agent.state_dir) if self.agent.state_dir else default_state_dir()

    @property
    def socket_path(self) -> Path:
        if self.agent.runtime_dir:
            folder = Path(self.agent.runtime_dir)
        elif not self.agent.state_dir and (systemd := os.environ.get("RUNTIME_DIRECTORY")):
            folder = Path(systemd.split(":")[0])
        else:
            folder = self.state_dir
        return folder / "control.sock"

    @property
    def status_path(self) -> Path:
        """The last known status, for when the agent does not run."""
        return self.state_dir / "status.json"

    @property
    def pause_path(self) -> Path:
        """What says that work is paused on command; there as long as it is."""
        return self.state_dir / "paused.json"

    @property
    def discovered_path(self) -> Path:
        """What Home Assistant's topics on the broker hold of this agent; there as long as they may hold something."""
        return self.state_dir / "homeassistant.json"

    @property
    def bundles_dir(self) -> Path:
        return Path(self.agent.bundles_dir) if self.agent.bundles_dir else self.state_dir / "bundles"

    @property
    def data_dir(self) -> Path:
        return Path(self.agent.data_dir) if self.agent.data_dir else self.state_dir / "data"

    @property
    def models_dir(self) -> Path:
        return self.state_dir / "models"

    def public(self) -> dict[str, Any]:
        """Return the settings as a document without secrets; files are named, never read."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        document["broker"]["password_file"] = bool(self.broker.password_file)
        return document


def default_device_id() -> str:
    """Return the host's name and six digits of a hash of the machine id, so that equally named boards differ."""
    try:
        machine = Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        machine = b""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip("-._") or "board"
    return f"{name[:64]}-{hashlib.sha256(b'reconvene-agent:' + machine).hexdigest()[:6]}"


def default_state_dir() -> Path:
    """Return systemd's state folder, root's usual one, or the user's."""
    if systemd := os.environ.get("STATE_DIRECTORY"):
        return Path(systemd.split(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/reconvene-agent")
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local/state") / "reconvene-agent"


def decode(document: dict[str, Any]) -> Config:
    """Validate a configuration document, section by section so that every mistake is found.

    Raises:
        UsageError: one line per mistake.
    """
    problems: list[str] = []
    sections: dict[str, Any] = {}
    known = {field.name: field for field in msgspec.structs.fields(Config)}
    for name, content in document.items():
        if name not in known:
            problems.append(f"{name}: there is no such section{_similar(name, known)}")
            continue
        fields = {f.name: f for f in msgspec.structs.fields(known[name].type)}
        if not isinstance(content, dict):
            problems.append(f"{name}: must be a section: [{name}]")
            continue
        good = {}
        for key, value in content.items():
            if key not in fields:
                problems.append(f"{name}.{key}: there is no such setting{_similar(key, fields)}")
                continue
            try:
                msgspec.convert(value, fields[key].type)
                good[key] = value
            except (msgspec.ValidationError, ValueError) as error:
                problems.append(f"{name}.{key}: {error}")
        sections[name] = good
    config = msgspec.convert(sections, Config)
    problems += mistakes(config)
    if problems:
        raise UsageError("\n".join(problems))
    return config


def _similar(name: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, 1)
    return f"; is it {near[0]}?" if near else ""


def find() -> Path | None:
    """Return the configuration file that applies when none is named: the environment's, else the system's if it is there."""
    if named := os.environ.get(CONFIG_VARIABLE):
        return Path(named)
    return SYSTEM_CONFIG if SYSTEM_CONFIG.is_file() else None


class Adopted(Struct, frozen=True):
    """The configuration that holds: the owner's file ``source`` with ``overlay`` over it, unless ``problem`` says why without."""

    config: Config
    source: Path | None = None
    overlay: Overlay = Overlay()
    problem: str = ""


def load(path: Path | None = None) -> Config:
    """Return the configuration that holds; as ``adopt``."""
    return adopt(path).config


def adopt(path: Path | None = None) -> Adopted:
    """Read the configuration file given, else the one that applies, else the defaults; over it what commands have changed.

    Raises:
        UsageError: the file cannot be read, is not TOML, or has mistakes; each is named with the file.
    """
    path = path or find()
    document = {} if path is None else read_owners(path)
    try:
        owners = decode(document)
    except UsageError as error:
        raise UsageError("\n".join(f"{path}: {line}" for line in error.message.splitlines())) from error
    found = overlay.read(owners.state_dir)
    try:
        return Adopted(decode(updatable.merged(document, found.settings)), path, found)
    except UsageError as error:
        mistakes = "; ".join(error.message.splitlines())
        return Adopted(
            owners, path, found, f"what commands have changed does not fit the configuration and is left out: {mistakes}"
        )


def read_owners(path: Path) -> dict[str, Any]:
    """Return the owner's configuration file as a document, not validated.

    Raises:
        UsageError: it cannot be read, or is not TOML.
    """
    try:
        return from_toml(path.read_bytes(), dict)
    except (OSError, msgspec.DecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path}: cannot be read: {reason}") from error
