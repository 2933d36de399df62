"""Models that installed packages bring: real packages on the import path, found by their entry points alone."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from reconvene_agent.core import architectures
from reconvene_agent.core.bundle import ModelSpec
from reconvene_agent.core.errors import BundleError, ErrorCode
from reconvene_agent.worker.models import costs, initial, registry
from reconvene_agent.worker.models.vgg import VGG

MODULE = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, spec):
            super().__init__()
            self.hidden = nn.Linear(spec.input[0], 16)
            self.classifier = nn.Linear(16, spec.classes)

        def forward(self, rows):
            return self.classifier(torch.relu(self.hidden(rows)))

    def build(spec):
        return Net(spec)
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return what installs a package of one module with these entry points, as pip leaves it."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    registry._installed.cache_clear()

    def write(body: str = MODULE, **entries: str) -> None:
        (tmp_path / "their_models.py").write_text(textwrap.dedent(body))
        info = tmp_path / "their_models-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-models\nVersion: 1.2\n")
        lines = [f"{name} = {value}" for name, value in (entries or {"my_net": "their_models:build"}).items()]
        (info / "entry_points.txt").write_text("\n".join(["[reconvene_agent.models]", *lines, ""]))

    yield write
    registry._installed.cache_clear()
    for name in set(sys.modules) - before:
        del sys.modules[name]


SPEC = ModelSpec("my_net", (5,), 3)


def refusal(spec: ModelSpec = SPEC) -> str:
    with pytest.raises(BundleError) as caught:
        registry.build(spec)
    assert caught.value.code is ErrorCode.BAD_BUNDLE
    assert "\n" not in caught.value.message
    return caught.value.message


def test_an_installed_model_is_built_like_ours(install: Install) -> None:
    install()
    model = registry.build(SPEC)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert not model.training
    assert costs.count(model, SPEC, {}).params == 5 * 16 + 16 + 16 * 3 + 3
    assert initial.materialize(model, 0)(torch.zeros(2, 5)).shape == (2, 3)


def test_names_are_told_without_importing_anything(install: Install) -> None:
    install(my_net="their_models:build", another="their_models:other")
    assert architectures.names() == [*architectures.ARCHITECTURES, "another", "my_net"]
    assert architectures.exists("my_net")
    assert not architectures.exists("my_ne")
    assert "their_models" not in sys.modules


def test_a_built_in_model_cannot_be_replaced(install: Install) -> None:
    install(vgg11="their_models:build", my_net="their_models:build")
    assert isinstance(registry.build(ModelSpec("vgg11", (1, 8, 8), 2)), VGG)
    assert architectures.names() == [*architectures.ARCHITECTURES, "my_net"]
    assert "their_models" not in sys.modules


def test_an_unknown_name_is_refused_with_all_that_are_known(install: Install) -> None:
    install()
    message = refusal(ModelSpec("their_models:build", (5,), 3))
    assert message.startswith("architecture 'their_models:build' is not known here; there are: vgg11, ")
    assert message.endswith(", mlp, my_net")
    assert "their_models" not in sys.modules


THEIRS = "the installed model 'my_net' (their_models:build of their-models 1.2) "


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import not_there", "cannot be imported: ModuleNotFoundError: No module named 'not_there'"),
        ("built = 1", "cannot be imported: AttributeError: module 'their_models' has no attribute 'build'"),
        ("raise RuntimeError('two\\nlines')", "cannot be imported: RuntimeError: two"),
        ("def build(", "cannot be imported: SyntaxError: '(' was never closed (their_models.py, line 1)"),
        ("build = 5", "is no function that builds a model"),
        ("def build(spec): return spec", "is no model: it returns a ModelSpec, not a torch.nn.Module"),
        ("def build(spec): raise ValueError('no such input')", "cannot be built: ValueError: no such input"),
        ("def build(spec): raise KeyError", "cannot be built: KeyError"),
        ("def build(): pass", "cannot be built: TypeError: build() takes 0 positional arguments but 1 was given"),
        (
            "from torch import nn\ndef build(spec): return nn.Sequential(nn.PReLU())",
            "cannot be used: 0: no initial weights are known for a PReLU",
        ),
        (
            "from torch import nn\ndef build(spec): return nn.Sequential(nn.Linear(2, 2, device='cpu'))",
            "cannot be used: 0.weight was given memory: name no device in it",
        ),
        (
            """
            from torch import nn
            def build(spec):
                model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
                model[1].weight = model[0].weight
                return model
            """,
            "cannot be used: 0.weight and 1.weight are one parameter, and layers must not share any",
        ),
    ],
)
def test_a_model_that_cannot_be_used_names_its_package(body: str, message: str, install: Install) -> None:
    install(body)
    assert refusal() == THEIRS + message


def test_a_package_may_refuse_an_input_in_its_own_words(install: Install) -> None:
    body = "from reconvene_agent.core.errors import BundleError\ndef build(spec): raise BundleError('my_net takes ten features')"
    install(body)
    assert refusal() == "my_net takes ten features"


@pytest.mark.parametrize("shape", [(5,), (2, 3), (3, 4, 5)])
def test_an_installed_model_may_take_any_kind_of_input(shape: tuple[int, ...], install: Install) -> None:
    install("from torch import nn\ndef build(spec): return nn.Flatten(len(spec.input))")
    registry.build(ModelSpec("my_net", shape, 3))
