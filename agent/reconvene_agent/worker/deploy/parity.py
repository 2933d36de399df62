"""Parity: the deployed file must answer as the torch model does, on real inputs."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.deploy.session import Session

TOLERANCE = 1e-3
"""Largest difference of a logit, relative to the largest logit (at least 1); float32 in another order stays far below."""


def check(model: nn.Module, session: Session, inputs: NDArray[np.float32]) -> float:
    """Return the largest absolute difference of any logit over ``inputs`` (N, …), normalised.

    Raises:
        AgentError: EXPORT_MISMATCH when it is beyond the tolerance or not a number, or the file cannot be run.
    """
    with torch.inference_mode():
        return compare(model(torch.from_numpy(inputs)).numpy(), session, inputs)


def compare(expected: NDArray[np.float32], session: Session, inputs: NDArray[np.float32]) -> float:
    """Do as ``check`` does, with logits (N, classes) that torch gave before."""
    try:
        found = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    except Exception as error:
        raise _mismatch(f"ONNX Runtime cannot run it: {error}") from error
    if found.shape != expected.shape:
        raise _mismatch(f"its answer has the shape {found.shape}, not {expected.shape}")
    with np.errstate(invalid="ignore"):
        difference = float(np.abs(expected - found).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    # Infinite answers would allow an infinite difference.
    if not (np.isfinite(difference) and difference <= allowed):
        raise _mismatch(f"a logit differs by {difference:.2g}, at most {allowed:.2g} is allowed")
    return difference


def _mismatch(how: str) -> AgentError:
    return AgentError(f"the exported model disagrees with torch: {how}", ErrorCode.EXPORT_MISMATCH)
