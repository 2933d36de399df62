"""ONNX export. The graph is exported once per architecture; after that a model is just its weights put into that graph.

At initialisation and after training the graph is the same for every width, while torch's exporter takes seconds. Where a
graph turns out to depend on the widths after all, that model is exported by itself.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from onnx import ModelProto, numpy_helper, shape_inference
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from reconvene_agent import __version__
from reconvene_agent.core import atomic
from reconvene_agent.worker.models.initial import generator

INPUT = "image"
OUTPUT = "logits"


def folded(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode with every batch-norm folded into the convolution before it."""
    fused: nn.Module = fuse(copy.deepcopy(model).eval())
    return fused


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's own notices (deprecations inside torch, optional packages) off our stderr."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _export(fused: nn.Module, input_shape: tuple[int, int, int]) -> ModelProto:
    # A batch of two, because an example of size one would be taken for a constant.
    example = torch.zeros(2, *input_shape)
    with _quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            fused,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    return _cleaned(program.model_proto)


def _cleaned(proto: ModelProto) -> ModelProto:
    """Drop what the exporter notes about the machine it ran on, and the shapes of one particular width."""
    del proto.graph.value_info[:]
    del proto.graph.metadata_props[:]
    for part in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del proto.functions[:]
    proto.producer_name = "reconvene-agent"
    proto.producer_version = __version__
    return proto


def _scrambled(fused: nn.Module) -> nn.Module:
    """Fill a folded model with numbers that no optimizer can take for a special case, such as a bias of zero."""
    with torch.no_grad():
        for name, parameter in fused.named_parameters():
            parameter.uniform_(0.5, 1.5, generator=generator(0, name))
    return fused


class Exporter:
    """Turns models of one architecture and input size into ONNX, whatever their widths."""

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        self._input_shape = input_shape
        self._template: ModelProto | None = None

    def to_onnx(self, model: nn.Module) -> ModelProto:
        """Return the ONNX model: input ``image`` (batch, C, H, W) float32, output ``logits`` (batch, classes).

        The model must lie in memory; it is not changed.
        """
        fused = folded(model)
        tensors = fused.state_dict()
        if self._template is None:
            self._template = _export(_scrambled(copy.deepcopy(fused)), self._input_shape)
        filled = _fill(self._template, tensors)
        return filled if filled is not None else _export(fused, self._input_shape)


def _fill(template: ModelProto, tensors: Mapping[str, Tensor]) -> ModelProto | None:
    """Return the template with these weights, or None where they do not make a consistent graph."""
    proto = ModelProto()
    proto.CopyFrom(template)
    names = {initializer.name for initializer in proto.graph.initializer}
    if not tensors.keys() <= names:
        return None
    for initializer in proto.graph.initializer:
        if initializer.name in tensors:
            initializer.CopyFrom(numpy_helper.from_array(tensors[initializer.name].detach().numpy(), initializer.name))
    try:
        shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError:
        return None
    return proto


def annotate(proto: ModelProto, notes: Mapping[str, str]) -> ModelProto:
    """Write key-value notes into the model's metadata; ONNX Runtime hands them to applications."""
    onnx.helper.set_model_props(proto, dict(notes))
    return proto


def save(proto: ModelProto, path: Path) -> None:
    """Store the model, wholly or not at all."""
    atomic.write_bytes(path, proto.SerializeToString())
