"""Prediction with a deployed model: what an application does, and the proof that the file carries all it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from reconvene_agent.core.errors import UsageError
from reconvene_agent.core.job import Step
from reconvene_agent.core.protocol import PredictRequest
from reconvene_agent.worker.channel import Channel
from reconvene_agent.worker.data import images
from reconvene_agent.worker.data.images import BrokenImageError
from reconvene_agent.worker.data.inputs import items, kind_of
from reconvene_agent.worker.data.scaling import normalize
from reconvene_agent.worker.deploy import deployed
from reconvene_agent.worker.deploy.session import open_session


def predict(request: PredictRequest, channel: Channel) -> dict[str, Any]:
    """Classify image files; an image that cannot be read gets an ``error`` in place of its classes.

    Raises:
        AgentError: there is no model, it does not take images, or its file is damaged.
    """
    release, onnx = deployed.find(Path(request.model))
    kind = kind_of(release.model.input)
    if kind != "image":
        size = "×".join(map(str, release.model.input))
        raise UsageError(
            f"{onnx} takes {items(kind)} of {size}, not image files: run it with ONNX Runtime, where its input is {kind!r}"
        )
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
        feed = {session.get_inputs()[0].name: normalize(pixels[np.newaxis], mean, std)}
        logits = session.run(None, feed)[0][0]
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = np.argsort(-shares)[: request.top]
        classes = [{"label": labels[i] if labels else str(i), "probability": round(float(shares[i]), 5)} for i in best]
        predictions.append({"image": name, "classes": classes})
    return {"model": release.version, "predictions": predictions}
