"""What a worker can be asked to do: one function for each kind of request.

Imports happen inside, so that a prediction does not wait for torch.
"""

from __future__ import annotations

from typing import Any

from reconvene_agent.core.protocol import (
    BenchRequest,
    ExportWeightsRequest,
    PlanRequest,
    PredictRequest,
    PruneRequest,
    Request,
    SpecializeRequest,
    TimeRequest,
)
from reconvene_agent.worker.channel import Channel


def run(request: Request, channel: Channel) -> dict[str, Any]:
    """Do what is asked and return the result document.

    Raises:
        AgentError: a failure that is understood.
        StopRequested: the work was stopped.
    """
    if isinstance(request, PredictRequest):
        from reconvene_agent.worker.deploy.predict import predict

        return predict(request, channel)
    if isinstance(request, TimeRequest):
        from reconvene_agent.worker.deploy.timing import time_deployed

        return time_deployed(request, channel)
    if isinstance(request, SpecializeRequest):
        from reconvene_agent.worker.pipeline import specialize

        return specialize(request, channel)
    from reconvene_agent.worker import tasks

    if isinstance(request, PlanRequest):
        return tasks.plan(request, channel)
    if isinstance(request, PruneRequest):
        return tasks.prune(request, channel)
    if isinstance(request, BenchRequest):
        return tasks.bench(request, channel)
    if isinstance(request, ExportWeightsRequest):
        return tasks.export_weights(request)
    raise TypeError(f"no operation takes a {type(request).__name__}")
