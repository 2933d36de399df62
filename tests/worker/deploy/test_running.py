from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from reconvene_agent.worker.deploy.running import run


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return x.reshape(x.shape[0], 2, -1).sum(1)


def test_a_run_tells_the_answer_and_every_shape_on_the_way() -> None:
    model = Halves().eval()
    inputs = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    found = run(fx.symbolic_trace(model), inputs)
    assert found.inputs is inputs
    assert torch.equal(found.logits, model(inputs))
    assert not found.logits.requires_grad
    assert list(found.shapes.values()) == [(3, 6), (3, 8), (3, 2, 4), (3, 4), (3, 4)]
