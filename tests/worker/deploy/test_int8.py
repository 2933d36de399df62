from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.deploy import export, int8
from reconvene_agent.worker.deploy.session import open_session
from support.models import RUNTIME, TINY_RESNET, exporter, images, lived_in, pruned


@pytest.fixture(scope="module")
def float32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float32") / "model.onnx"
    export.save(exporter(TINY_RESNET).to_onnx(lived_in(pruned(TINY_RESNET, 0.8).module)), path)
    return path


def test_the_int8_form_answers_nearly_the_same_for_any_number_of_inputs(float32: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8.onnx"
    inputs = images(TINY_RESNET, 64).numpy()
    int8.quantize(float32, out, inputs, {"labels": "[]"}, lambda: None)
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]
    assert out.stat().st_size < float32.stat().st_size
    plain, light = open_session(float32, RUNTIME), open_session(out, RUNTIME)
    assert light.get_modelmeta().custom_metadata_map["labels"] == "[]"
    for count in (1, 3, 64):
        expected, found = (each.run(None, {"image": inputs[:count]})[0] for each in (plain, light))
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean() < 0.1 * np.abs(expected).mean()


def test_the_quantiser_keeps_its_advice_to_itself(
    float32: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        int8.quantize(float32, tmp_path / "out.onnx", images(TINY_RESNET, 8).numpy(), {}, lambda: None)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_inputs_of_another_size_are_told(float32: Path, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="ONNX Runtime cannot quantise it: ") as caught:
        int8.quantize(float32, tmp_path / "out.onnx", np.zeros((4, 3, 5, 5), dtype=np.float32)[:, :1], {}, lambda: None)
    assert caught.value.code is ErrorCode.EXPORT_MISMATCH
