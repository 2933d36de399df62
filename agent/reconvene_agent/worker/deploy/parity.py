"""Parity: the deployed file must answer as the torch model does, on real images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.deploy.session import Session

TOLERANCE = 1e-3
"""Largest difference of a logit, relative to the largest logit (at least 1); float32 in another order stays far below."""


def check(model: nn.Module, session: Session, images: NDArray[np.float32]) -> float:
    """Return the largest absolute difference of any logit over ``images`` (N, C, H, W), normalised.

    Raises:
        AgentError: EXPORT_MISMATCH when it is beyond the tolerance or not a number.
    """
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    found = session.run(None, {session.get_inputs()[0].name: images})[0]
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
