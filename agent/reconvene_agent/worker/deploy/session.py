"""ONNX Runtime sessions as the board's profile wants them, and how long an inference takes in one."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.core.measuring import Measurement
from reconvene_agent.core.protocol import Runtime
from reconvene_agent.core.release import Latency
from reconvene_agent.worker.deploy.surroundings import between, look

# The official Linux builds since 1.29 report what models they load to their maker, unless they are told not to before
# they are loaded. A board's models and data are nobody else's business.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

Session: TypeAlias = onnxruntime.InferenceSession

WARM_UP = 5
MIN_RUNS = 30
MAX_RUNS = 2000


def open_session(model: Path | bytes, runtime: Runtime) -> Session:
    """Open a model with the profile's threads, and the first of its providers that this ONNX Runtime has.

    Raises:
        AgentError: the model cannot be loaded.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = runtime.inference_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # By default threads go on spinning after an inference, at the expense of whatever runs next: an application on the
    # board, or the other model of a comparison.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    present = onnxruntime.get_available_providers()
    providers = [name for name in runtime.providers if name in present] or ["CPUExecutionProvider"]
    try:
        return Session(str(model) if isinstance(model, Path) else model, options, providers=providers)
    except Exception as error:
        raise AgentError(f"ONNX Runtime cannot load the model: {error}", ErrorCode.EXPORT_MISMATCH) from error


class Stopwatch:
    """Times single inferences of one session at batch 1 on a fixed random image."""

    def __init__(self, session: Session) -> None:
        self._session = session
        entry = session.get_inputs()[0]
        shape = (1, *entry.shape[1:])
        image = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        self._feed: dict[str, NDArray[np.float32]] = {entry.name: image}
        self.milliseconds: list[float] = []

    def warm_up(self) -> None:
        for _ in range(WARM_UP):
            self._session.run(None, self._feed)

    def run(self, count: int) -> None:
        """Time ``count`` inferences."""
        for _ in range(count):
            start = time.perf_counter_ns()
            self._session.run(None, self._feed)
            self.milliseconds.append((time.perf_counter_ns() - start) / 1e6)

    @property
    def latency(self) -> Latency:
        return percentiles(self.milliseconds)


def percentiles(milliseconds: Sequence[float]) -> Latency:
    """Return the median, the 95th percentile and the spread of single inferences."""
    p25, p50, p75, p95 = (float(each) for each in np.percentile(np.asarray(milliseconds), (25, 50, 75, 95)))
    return Latency(round(p50, 4), round(p95, 4), len(milliseconds), round((p75 - p25) / p50, 4) if p50 else 0.0)


def measure_once(session: Session, seconds: float) -> Measurement:
    """Time one session for about ``seconds``, and tell what else went on meanwhile."""
    before = look()
    (latency,) = measure([session], seconds)
    return Measurement(latency, between(before, look()))


def measure(sessions: Sequence[Session], seconds: float) -> list[Latency]:
    """Time several sessions in turn for about ``seconds`` in all, so that whatever disturbs the board disturbs all alike."""
    watches = [Stopwatch(session) for session in sessions]
    for watch in watches:
        watch.warm_up()
    deadline = time.perf_counter() + seconds
    while len(watches[0].milliseconds) < MAX_RUNS:
        for watch in watches:
            watch.run(5)
        if time.perf_counter() > deadline and len(watches[0].milliseconds) >= MIN_RUNS:
            break
    return [watch.latency for watch in watches]
