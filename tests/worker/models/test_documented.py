"""What docs/models.md says of the built-in models, and the package that it shows, hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from reconvene_agent.core.architectures import ARCHITECTURES
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.worker.models import costs, initial, registry
from support.models import architecture

TEXT = (Path(__file__).parents[3] / "docs/models.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| `([\dx]+)` \| ([\d,]+) \| ([\d.]+) M \|", re.MULTILINE)
ROWS = ROW.findall(TEXT)


def test_every_built_in_model_is_in_the_table() -> None:
    assert [name for name, *_ in ROWS] == list(ARCHITECTURES)


@pytest.mark.parametrize(("name", "size", "params", "macs"), ROWS)
def test_the_table_tells_the_sizes(name: str, size: str, params: str, macs: str) -> None:
    spec = ModelSpec(name, tuple(map(int, size.split("x"))), 10)
    found = costs.count(registry.build(spec), spec, {})
    assert f"{found.params:,}" == params
    assert float(macs) == pytest.approx(found.macs / 1e6, abs=0.5 if found.macs > 1e6 else 0.05)


def test_the_package_that_is_shown_works() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    module: dict[str, Any] = {"__name__": "my_models"}
    exec(compile(code, "my_models.py", "exec"), module)  # what the page tells its readers to write
    with architecture(module["build"]) as name:
        spec = ModelSpec(name, (3, 32, 32), 10)
        model = registry.build(spec)
        assert costs.count(model, spec, {}).macs > 0
    initial.check(model)
    assert initial.materialize(model, 0)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
