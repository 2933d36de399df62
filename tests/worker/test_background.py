from __future__ import annotations

import os
import threading

import pytest
import torch

from reconvene_agent.worker.background import NICENESS, in_background


def niceness(thread: int = 0) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)


def test_only_the_work_steps_back() -> None:
    before = niceness()
    assert in_background(lambda: niceness(threading.get_native_id())) == min(19, before + NICENESS)
    assert niceness() == before


def test_torch_computes_there_as_here() -> None:
    def work() -> torch.Tensor:
        torch.manual_seed(0)
        weights = torch.randn(64, 64, requires_grad=True)
        (weights @ weights).square().sum().backward()
        assert weights.grad is not None
        return weights.grad

    assert torch.equal(in_background(work), work())
    assert in_background(torch.get_num_threads) == torch.get_num_threads()
    assert in_background(torch.is_grad_enabled)


def test_what_goes_wrong_there_is_told_here() -> None:
    def work() -> None:
        raise KeyError("there")

    with pytest.raises(KeyError, match="there"):
        in_background(work)
