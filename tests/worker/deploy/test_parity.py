from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.deploy import parity

IMAGES = np.random.default_rng(0).standard_normal((5, 1, 2, 2)).astype(np.float32)


class Session:
    """Stands for ONNX Runtime: answers with what it was given."""

    def __init__(self, logits: NDArray[np.float32]) -> None:
        self.logits = logits

    def get_inputs(self) -> list[object]:
        return [type("Input", (), {"name": "image"})]

    def run(self, _outputs: None, feed: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        assert np.array_equal(feed["image"], IMAGES)
        return [self.logits]


def model_and_logits(scale: float = 1.0) -> tuple[nn.Module, NDArray[np.float32]]:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.inference_mode():
        model[1].weight.mul_(scale)
        return model, model(torch.from_numpy(IMAGES)).numpy()


def test_equal_answers_differ_by_nothing() -> None:
    model, logits = model_and_logits()
    assert parity.check(model, Session(logits), IMAGES) == 0.0


@pytest.mark.parametrize("scale", [1e-3, 1000.0])
def test_a_difference_within_the_tolerance_is_told_and_one_beyond_is_a_mismatch(scale: float) -> None:
    model, logits = model_and_logits(scale)
    allowed = parity.TOLERANCE * max(1.0, float(np.abs(logits).max()))
    logits[-1, -1] += 0.9 * allowed
    assert parity.check(model, Session(logits), IMAGES) == pytest.approx(0.9 * allowed, rel=0.01)
    logits[-1, -1] += 0.2 * allowed
    with pytest.raises(AgentError, match="disagrees with torch: a logit differs by") as caught:
        parity.check(model, Session(logits), IMAGES)
    assert caught.value.code is ErrorCode.EXPORT_MISMATCH


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("side", ["file", "torch", "both"])
def test_an_answer_that_is_no_number_is_a_mismatch(value: float, side: str) -> None:
    model, logits = model_and_logits()
    if side in ("file", "both"):
        logits[2, 1] = value
    if side in ("torch", "both"):
        with torch.no_grad():
            model[1].bias[1] = value
    with pytest.raises(AgentError) as caught:
        parity.check(model, Session(logits), IMAGES)
    assert caught.value.code is ErrorCode.EXPORT_MISMATCH


def test_answers_of_another_shape_are_a_mismatch() -> None:
    model, logits = model_and_logits()
    with pytest.raises(AgentError) as caught:
        parity.check(model, Session(logits[:, :2]), IMAGES)
    assert caught.value.code is ErrorCode.EXPORT_MISMATCH


class Failing(Session):
    def run(self, _outputs: None, _feed: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        raise RuntimeError("Reshape node failed")


def test_a_file_that_cannot_be_run_is_a_mismatch() -> None:
    model, logits = model_and_logits()
    with pytest.raises(AgentError, match="ONNX Runtime cannot run it: Reshape node failed") as caught:
        parity.check(model, Failing(logits), IMAGES)
    assert caught.value.code is ErrorCode.EXPORT_MISMATCH


def test_answers_that_torch_gave_before_are_compared_the_same_way() -> None:
    _, logits = model_and_logits()
    assert parity.compare(logits, Session(logits + np.float32(1e-4)), IMAGES) == pytest.approx(1e-4, rel=0.01)
    with pytest.raises(AgentError, match="a logit differs by"):
        parity.compare(logits, Session(logits + 1), IMAGES)
