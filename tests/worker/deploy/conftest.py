from __future__ import annotations

from collections.abc import Iterator

import pytest
from onnx import ModelProto
from torch import nn

from reconvene_agent.worker.deploy import export


@pytest.fixture
def count_of_exports(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count how often torch's exporter is called."""
    calls: list[int] = []
    real = export._export

    def counted(fused: nn.Module, input_shape: tuple[int, ...]) -> ModelProto:
        calls.append(1)
        return real(fused, input_shape)

    monkeypatch.setattr(export, "_export", counted)
    return calls
