from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from reconvene_agent.worker.data.dataset import Part
from reconvene_agent.worker.training.judging import accuracy


def test_accuracy_is_the_share_of_inputs_classified_rightly_a_few_at_a_time() -> None:
    classes = np.arange(600, dtype=np.int64) % 10
    answers = classes.copy()
    answers[:90] = (answers[:90] + 1) % 10
    part = Part(np.arange(600, dtype=np.float32).reshape(600, 1), classes)
    seen: list[int] = []
    heard: list[float] = []

    def answer(some: Part) -> Tensor:
        assert not torch.is_grad_enabled()
        seen.append(len(some))
        return torch.nn.functional.one_hot(torch.from_numpy(answers[some.inputs[:, 0].astype(int)]), 10)

    assert accuracy(answer, part, 256, heard.append) == pytest.approx(1 - 90 / 600)
    assert seen == [256, 256, 88]
    assert heard == [0.0, 256 / 600, 512 / 600]
