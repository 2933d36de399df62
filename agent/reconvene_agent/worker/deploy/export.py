"""ONNX export. The graph is exported once per architecture; after that a model is just its weights put into that graph.

At initialisation and after training the graph is the same for every width, while torch's exporter takes seconds. Where a
graph turns out to depend on the widths after all, that model is exported by itself.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from onnx import ModelProto, numpy_helper, shape_inference
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from reconvene_agent import __version__
from reconvene_agent.core import atomic
from reconvene_agent.worker.models.initial import generator

INPUT = "image"
OUTPUT = "logits"


def folded(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode with each batch-norm folded into the convolution before it, where that serves it alone."""
    traced = fx.symbolic_trace(copy.deepcopy(model).eval())
    uses = Counter(_used_module(node) for node in traced.graph.nodes)
    for node in list(traced.graph.nodes):
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        convolution, norm = (traced.get_submodule(str(each.target)) for each in (source, node))
        if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d) or not norm.track_running_stats:
            continue
        if len(source.users) == 1 and uses[str(source.target)] == 1:
            traced.set_submodule(str(source.target), fuse_conv_bn_eval(convolution, norm))
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _used_module(node: fx.Node) -> str:
    """Return the submodule that a node calls or takes a tensor of; empty for neither."""
    target = str(node.target)
    return {"call_module": target, "get_attr": target.rpartition(".")[0]}.get(node.op, "")


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
        # A batch-norm's counter is of no use outside training and in no graph.
        tensors = {name: tensor for name, tensor in fused.state_dict().items() if tensor.is_floating_point()}
        if self._template is None:
            self._template = _export(_scrambled(copy.deepcopy(fused)), self._input_shape)
        groups = {f"{name}.weight": layer.groups for name, layer in fused.named_modules() if isinstance(layer, nn.Conv2d)}
        filled = _fill(self._template, tensors, groups)
        return filled if filled is not None else _export(fused, self._input_shape)


def _fill(template: ModelProto, tensors: Mapping[str, Tensor], groups: Mapping[str, int]) -> ModelProto | None:
    """Return the template with these weights, or None where they do not make a consistent graph.

    ``groups`` are those of the convolutions, by the names of their weights: a depthwise one has as many as channels, and
    ONNX's shape inference does not notice when it has not.
    """
    proto = ModelProto()
    proto.CopyFrom(template)
    names = {initializer.name for initializer in proto.graph.initializer}
    if not tensors.keys() <= names:
        return None
    for initializer in proto.graph.initializer:
        if initializer.name in tensors:
            initializer.CopyFrom(numpy_helper.from_array(tensors[initializer.name].detach().numpy(), initializer.name))
    for node in proto.graph.node:
        if node.op_type == "Conv" and node.input[1] in groups:
            kept = [attribute for attribute in node.attribute if attribute.name != "group"]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("group", groups[node.input[1]])])
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
