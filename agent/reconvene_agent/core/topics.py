"""The MQTT topics of one agent, built and taken apart (docs/mqtt.md)."""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

SERVICE = "reconvene-agent"

TwinName = Literal["hardware", "model", "last_result", "config"]
MeasurementName = Literal["system", "training", "inference"]
EventName = Literal[
    "plan_chosen",
    "model_pruned",
    "epoch",
    "model_promoted",
    "release_refused",
    "rolled_back",
    "data_changed",
    "paused",
    "resumed",
    "replanned",
    "throttled",
    "warning",
    "log",
]
"""What each holds is in ``core.contract``."""

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def valid_segment(text: str) -> bool:
    """Whether a root, device id, operation or command id can stand in a topic: one level, no wildcard."""
    return _SEGMENT.fullmatch(text) is not None


class CommandTopic(Struct, frozen=True):
    """The operation and the id in a command's topic."""

    op: str
    id: str


class Topics(Struct, frozen=True):
    """The topics of the agent on ``device`` below ``root``."""

    root: str
    device: str

    @property
    def service(self) -> str:
        return f"{self.root}/device/{self.device}/service/{SERVICE}"

    @property
    def health(self) -> str:
        return f"{self.service}/status/health"

    @property
    def commands(self) -> str:
        """The filter that matches every command's topic, but not the capabilities."""
        return f"{self.service}/cmd/+/+"

    def twin(self, name: TwinName) -> str:
        return f"{self.service}/twin/{name}"

    def measurement(self, name: MeasurementName) -> str:
        return f"{self.service}/m/{name}"

    def event(self, name: EventName) -> str:
        return f"{self.service}/e/{name}"

    def alarm(self, name: str) -> str:
        return f"{self.service}/a/{name}"

    def capability(self, op: str) -> str:
        return f"{self.service}/cmd/{op}"

    def command(self, op: str, command_id: str) -> str:
        return f"{self.service}/cmd/{op}/{command_id}"

    def parse_command(self, topic: str) -> CommandTopic | None:
        """Return the operation and id of one of this agent's commands, or None for any other topic."""
        prefix = f"{self.service}/cmd/"
        if not topic.startswith(prefix):
            return None
        op, slash, command_id = topic[len(prefix) :].partition("/")
        if not slash or not valid_segment(op) or not valid_segment(command_id):
            return None
        return CommandTopic(op, command_id)


def of_any_device(root: str, topic: str) -> tuple[str, str] | None:
    """Return the device whose topic this is, and what comes below its service; None for any other topic."""
    prefix, service = f"{root}/device/", f"/service/{SERVICE}"
    if not topic.startswith(prefix):
        return None
    device, slash, rest = topic[len(prefix) :].partition("/")
    rest = slash + rest
    if not valid_segment(device) or not (rest == service or rest.startswith(service + "/")):
        return None
    return device, rest[len(service) + 1 :]
