"""One exported graph for all widths of an architecture: which of its numbers are the model's, and new ones put in their place.

torch's exporter stores some weights under names of its own, and transposed; it also writes down widths, as in the targets of
reshapes. Weights are recognised by their values, and reshapes by their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper, shape_inference
from torch import Tensor, fx, nn

from reconvene_agent.worker.deploy.running import Run, Shape
from reconvene_agent.worker.models.layers import CONVOLUTIONS

# Constants of these are axes and bounds, whatever the widths.
FREE_OF_WIDTHS = frozenset({"ReduceMean", "ReduceMax", "ReduceSum", "Clip"})
RESHAPING = frozenset({"reshape", "view", "flatten", "unflatten"})


@dataclass(frozen=True)
class _Source:
    """The model's tensor that an initializer is, as it is or transposed."""

    name: str
    transposed: bool

    def array(self, tensors: Mapping[str, NDArray[np.generic]]) -> NDArray[np.generic]:
        found = tensors[self.name]
        return np.ascontiguousarray(found.T) if self.transposed else found


class Template:
    """A graph that was exported with tensors of which no two are alike, to be filled with those of other widths."""

    def __init__(self, proto: ModelProto, model: fx.GraphModule, run: Run) -> None:
        """``model`` is what ``proto`` was exported from, and ``run`` a run of it."""
        self._proto = proto
        tensors = _arrays(model)
        self._shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self._sources = _sources(proto, tensors)
        self._targets = _name_targets(proto, _reshaped(run))
        # Where the exporter worked a constant out from several tensors, they may be found nowhere themselves.
        self._complete = {source.name for source in self._sources.values()} == self._shapes.keys()

    @property
    def depends_on_widths(self) -> bool:
        """Whether the graph holds numbers that may stem from the widths it was exported with, such as a scale."""
        known = {*self._sources, *(self._targets or ())}
        own = {initializer.name for initializer in self._proto.graph.initializer} - known
        return bool(self._targets) or any(
            node.op_type == "Constant" or (node.op_type not in FREE_OF_WIDTHS and not own.isdisjoint(node.input))
            for node in self._proto.graph.node
        )

    def fill(self, model: fx.GraphModule, run: Run | None) -> ModelProto | None:
        """Return the graph with a model's weights, or None where they do not make a consistent one.

        ``run`` is a run of the model; it is needed where the graph depends on widths.
        """
        tensors = _arrays(model)
        if not self._complete or tensors.keys() != self._shapes.keys():
            return None
        if self._targets is None and {name: tensor.shape for name, tensor in tensors.items()} != self._shapes:
            return None
        reshaped = _reshaped(run) if self._targets and run is not None else []
        if len(reshaped) != len(self._targets or ()):
            return None
        shapes = dict(zip(self._targets or (), reshaped, strict=True))
        proto = ModelProto()
        proto.CopyFrom(self._proto)
        for initializer in proto.graph.initializer:
            source = self._sources.get(initializer.name)
            if source is not None:
                initializer.CopyFrom(numpy_helper.from_array(source.array(tensors), initializer.name))
            elif initializer.name in shapes:
                initializer.CopyFrom(_target(initializer.name, shapes[initializer.name]))
        self._set_groups(proto, model)
        try:
            shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
        except shape_inference.InferenceError:
            return None
        return proto

    def _set_groups(self, proto: ModelProto, model: nn.Module) -> None:
        """A depthwise convolution has as many groups as channels, and ONNX's shape inference does not notice when it has not."""
        groups = {f"{name}.weight": layer.groups for name, layer in model.named_modules() if isinstance(layer, CONVOLUTIONS)}
        for node in proto.graph.node:
            source = self._sources.get(node.input[1]) if node.op_type == "Conv" else None
            if source is not None and source.name in groups:
                kept = [attribute for attribute in node.attribute if attribute.name != "group"]
                del node.attribute[:]
                node.attribute.extend([*kept, onnx.helper.make_attribute("group", groups[source.name])])


def _arrays(model: nn.Module) -> dict[str, NDArray[np.generic]]:
    """Return all tensors of a model but counters, such as a batch-norm's, which are of no use outside training."""
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor.detach().numpy() for name, tensor in tensors.items() if tensor.is_floating_point()}


def _sources(proto: ModelProto, tensors: Mapping[str, NDArray[np.generic]]) -> dict[str, _Source]:
    """Return, by the name of each initializer that is a tensor of the model, bit for bit, which one it is."""
    found: dict[str, _Source] = {}
    for initializer in proto.graph.initializer:
        if initializer.data_type != TensorProto.FLOAT:
            continue
        array = numpy_helper.to_array(initializer)
        # Nearly all keep their names; only others are looked for.
        named = {initializer.name: tensors[initializer.name]} if initializer.name in tensors else {}
        matches = _equal(array, named) or _equal(array, tensors)
        if len(matches) == 1:
            found[initializer.name] = matches[0]
    return found


def _equal(array: NDArray[np.generic], tensors: Mapping[str, NDArray[np.generic]]) -> list[_Source]:
    same = [_Source(name, transposed=False) for name, tensor in tensors.items() if np.array_equal(array, tensor)]
    if same or array.ndim != 2:
        return same
    return [_Source(name, transposed=True) for name, tensor in tensors.items() if np.array_equal(array.T, tensor)]


def _reshaped(run: Run) -> list[Shape]:
    """Return the shapes that reshapes made, in the order in which they ran."""
    return [shape for node, shape in run.shapes.items() if _operation(node) in RESHAPING]


def _operation(node: fx.Node) -> str:
    if node.op == "call_module":
        return type(node.graph.owning_module.get_submodule(str(node.target))).__name__.lower()  # type: ignore[union-attr]
    return str(getattr(node.target, "__name__", node.target))


def _name_targets(proto: ModelProto, shapes: list[Shape]) -> list[str] | None:
    """Give each reshape in the graph a target of its own, and return their names in order; None where they are not these.

    The exporter resolves every width in a target, leaves the batch open, and shares equal targets.
    """
    constants = {each.name: each for each in proto.graph.initializer if each.data_type == TensorProto.INT64}
    nodes = [node for node in proto.graph.node if node.op_type == "Reshape" and node.input[1] in constants]
    found = [numpy_helper.to_array(constants[node.input[1]]).tolist() for node in nodes]
    if not found:
        return []
    if found != [[-1, *shape[1:]] for shape in shapes]:
        return None
    names = [f"{node.output[0]}.target" for node in nodes]
    for node, name, shape in zip(nodes, names, shapes, strict=True):
        node.input[1] = name
        proto.graph.initializer.append(_target(name, shape))
    _drop_unused(proto, set(constants))
    return names


def _target(name: str, shape: Shape) -> TensorProto:
    return numpy_helper.from_array(np.array([-1, *shape[1:]], dtype=np.int64), name)


def _drop_unused(proto: ModelProto, names: set[str]) -> None:
    used = {name for node in proto.graph.node for name in node.input}
    for initializer in [each for each in proto.graph.initializer if each.name in names - used]:
        proto.graph.initializer.remove(initializer)
