"""Post-training quantisation: int8 weights and activations, calibrated on local inputs, in ONNX Runtime's QDQ form."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.channel import StopRequested
from reconvene_agent.worker.deploy import export

CALIBRATED_ON = 128
"""Training inputs from which the ranges of activations are read."""
AT_ONCE = 8


class _Reader:
    """Hands out the calibration inputs, a few at a time."""

    def __init__(self, name: str, inputs: NDArray[np.float32], check: Callable[[], None]) -> None:
        self._feeds: Iterator[dict[str, NDArray[np.float32]]] = (
            {name: inputs[start : start + AT_ONCE]} for start in range(0, len(inputs), AT_ONCE)
        )
        self._check = check

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        self._check()
        return next(self._feeds, None)


def quantize(float32: Path, out: Path, inputs: NDArray[np.float32], notes: Mapping[str, str], check: Callable[[], None]) -> None:
    """Write the int8 form of a deployed file, calibrated on normalised ``inputs`` (N, …), with ``notes`` in it.

    Weights are quantised by output channel. ``check`` is called now and then, and may raise to stop.

    Raises:
        AgentError: EXPORT_MISMATCH when ONNX Runtime cannot quantise it; NO_DISK when the disk is full.
        StopRequested: ``check`` raised it.
    """
    # Imported here, since hardly anybody needs it.
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    CalibrationDataReader.register(_Reader)
    name = onnx.load(float32, load_external_data=False).graph.input[0].name
    prepared = out.with_suffix(".prepared")
    settings: dict[str, Any] = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    try:
        with _quiet():
            quant_pre_process(str(float32), str(prepared), skip_symbolic_shape=True)
            reader = _Reader(name, inputs, check)
            quantize_static(str(prepared), str(out), reader, quant_format=QuantFormat.QDQ, per_channel=True, **settings)
        proto = export.annotate(onnx.load(out), notes)
        # Shapes of one batch size, and what the quantiser notes about itself.
        del proto.graph.value_info[:]
        export.save(proto, out)
    except (AgentError, OSError, StopRequested):
        raise
    except Exception as error:
        raise AgentError(f"ONNX Runtime cannot quantise it: {error}", ErrorCode.EXPORT_MISMATCH) from error
    finally:
        prepared.unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice, which it gives to the root logger, off our stderr."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
