"""Prediction with a deployed model: what an application does, and the proof that the file carries all it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from reconvene_agent.core import atomic
from reconvene_agent.core import release as releases
from reconvene_agent.core.errors import AgentError, ErrorCode, UsageError
from reconvene_agent.core.job import Step
from reconvene_agent.core.protocol import PredictRequest
from reconvene_agent.worker.channel import Channel
from reconvene_agent.worker.data import images
from reconvene_agent.worker.data.images import BrokenImageError
from reconvene_agent.worker.deploy.session import open_session


def predict(request: PredictRequest, channel: Channel) -> dict[str, Any]:
    """Classify image files; an image that cannot be read gets an ``error`` in place of its classes.

    Raises:
        AgentError: there is no model, its file is damaged, or not one image could be read (BAD_DATA).
    """
    folder = releases.folder_of(Path(request.model))
    release = releases.read(folder)
    onnx = folder / releases.ONNX
    if not onnx.is_file() or atomic.sha256(onnx) != release.onnx_sha256:
        raise UsageError(f"{onnx} is not the file that was deployed: specialize again, or point --model at another release")
    session = open_session(onnx, request.runtime)
    carried = session.get_modelmeta().custom_metadata_map
    shape = tuple(int(side) for side in carried["input_size"].split("x"))
    labels = msgspec.json.decode(carried["labels"], type=tuple[str, ...])
    mean, std = (msgspec.json.decode(carried[name], type=tuple[float, ...]) for name in ("mean", "std"))
    predictions: list[dict[str, Any]] = []
    for index, name in enumerate(request.images):
        channel.progress(Step.EVALUATE, index / len(request.images), name)
        try:
            pixels = images.read(Path(name), (shape[0], shape[1], shape[2]))
        except BrokenImageError as error:
            predictions.append({"image": name, "error": str(error)})
            continue
        feed = {session.get_inputs()[0].name: images.normalize(pixels[np.newaxis], mean, std)}
        logits = session.run(None, feed)[0][0]
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = np.argsort(-shares)[: request.top]
        classes = [{"label": labels[i] if labels else str(i), "probability": round(float(shares[i]), 5)} for i in best]
        predictions.append({"image": name, "classes": classes})
    broken = [entry for entry in predictions if "error" in entry]
    if len(broken) == len(predictions):
        raise AgentError(f"no image could be read: {broken[0]['image']}: {broken[0]['error']}", ErrorCode.BAD_DATA)
    return {"model": release.version, "predictions": predictions}
