"""How long the deployed model takes now: one session and nothing else is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from reconvene_agent.core.job import Step
from reconvene_agent.core.protocol import TimeRequest
from reconvene_agent.worker.channel import Channel
from reconvene_agent.worker.deploy import deployed
from reconvene_agent.worker.deploy.session import measure, open_session


def time_deployed(request: TimeRequest, channel: Channel) -> dict[str, Any]:
    """Return the version of the release that serves and its latency.

    Raises:
        AgentError: there is no release, or its file is damaged.
    """
    channel.progress(Step.EVALUATE, 0.0, "timing the deployed model")
    release, onnx = deployed.find(Path(request.model))
    (latency,) = measure([open_session(onnx, request.runtime)], request.seconds)
    return {"version": release.version, "latency_ms": msgspec.to_builtins(latency)}
