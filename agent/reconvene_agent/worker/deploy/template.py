"""One exported graph for all widths of an architecture: which of its numbers are the model's, and new ones put in their place.

torch's exporter stores some weights under names of its own, and transposed; it also writes down widths, as in the targets of
reshapes. Weights are recognised by their values, and reshapes by their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import onnx
from google.protobuf.message import DecodeError
from msgspec import Struct
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper, shape_inference
from torch import Tensor, fx, nn

from reconvene_agent.worker.deploy.running import Run, Shape
from reconvene_agent.worker.models.layers import CONVOLUTIONS

# Constants of these are axes and bounds, whatever the widths.
FREE_OF_WIDTHS = frozenset({"ReduceMean", "ReduceMax", "ReduceSum", "Clip"})
_NOTES = "template"
RESHAPING = frozenset({"reshape", "view", "flatten", "unflatten"})


class _Source(Struct, frozen=True):
    """The model's tensor that an initializer is, as it is or transposed."""

    name: str
    transposed: bool

    def array(self, tensors: Mapping[str, NDArray[np.generic]]) -> NDArray[np.generic]:
        found = tensors[self.name]
        return np.ascontiguousarray(found.T) if self.transposed else found


class _Notes(Struct, frozen=True):
    """What is known of a graph.

    Attributes:
        shapes: of the tensors that it was exported with.
        sources: which initializers are tensors of the model.
        targets: initializers that are targets of reshapes, in order; None where they could not be told.
        complete: whether every tensor was found; the exporter may have worked a constant out from several.
    """

    shapes: dict[str, Shape]
    sources: dict[str, _Source]
    targets: list[str] | None
    complete: bool


class Template:
    """A graph that is to be filled with tensors of any widths; it holds none of its own."""

    def __init__(self, proto: ModelProto, notes: _Notes) -> None:
        self._proto = proto
        self._notes = notes

    @classmethod
    def of(cls, proto: ModelProto, model: fx.GraphModule, run: Run) -> Template:
        """Return what can be told of a graph; ``model``, no two of whose tensors are alike, is what it was exported from, ``run``
        a run of it."""
        tensors = _arrays(model)
        sources = _sources(proto, tensors)
        notes = _Notes(
            shapes={name: tensor.shape for name, tensor in tensors.items()},
            sources=sources,
            targets=_name_targets(proto, _reshaped(run)),
            complete={source.name for source in sources.values()} == tensors.keys(),
        )
        for initializer in proto.graph.initializer:
            if initializer.name in sources:
                initializer.ClearField("raw_data")
        return cls(proto, notes)

    def dump(self) -> bytes:
        """Return the template as one file."""
        proto = ModelProto()
        proto.CopyFrom(self._proto)
        onnx.helper.set_model_props(proto, {_NOTES: msgspec.json.encode(self._notes).decode()})
        content: bytes = proto.SerializeToString()
        return content

    @classmethod
    def load(cls, content: bytes) -> Template:
        """Return the template that ``dump`` made a file of.

        Raises:
            ValueError: it is none.
        """
        proto = ModelProto()
        try:
            proto.ParseFromString(content)
            properties: dict[str, Any] = {entry.key: entry.value for entry in proto.metadata_props}
            notes = msgspec.json.decode(properties[_NOTES], type=_Notes)
        except (DecodeError, KeyError, msgspec.DecodeError) as error:
            raise ValueError(f"no template: {error}") from error
        del proto.metadata_props[:]
        return cls(proto, notes)

    @property
    def depends_on_widths(self) -> bool:
        """Whether the graph holds numbers that may stem from the widths it was exported with, such as a scale."""
        known = {*self._notes.sources, *(self._notes.targets or ())}
        own = {initializer.name for initializer in self._proto.graph.initializer} - known
        return bool(self._notes.targets) or any(
            node.op_type == "Constant" or (node.op_type not in FREE_OF_WIDTHS and not own.isdisjoint(node.input))
            for node in self._proto.graph.node
        )

    def fill(self, model: fx.GraphModule, run: Run | None) -> ModelProto | None:
        """Return the graph with a model's weights, or None where they do not make a consistent one.

        ``run`` is a run of the model; it is needed where the graph depends on widths.
        """
        notes, tensors = self._notes, _arrays(model)
        if not notes.complete or tensors.keys() != notes.shapes.keys():
            return None
        if notes.targets is None and {name: tensor.shape for name, tensor in tensors.items()} != notes.shapes:
            return None
        reshaped = _reshaped(run) if notes.targets and run is not None else []
        if len(reshaped) != len(notes.targets or ()):
            return None
        shapes = dict(zip(notes.targets or (), reshaped, strict=True))
        proto = ModelProto()
        proto.CopyFrom(self._proto)
        for initializer in proto.graph.initializer:
            source = notes.sources.get(initializer.name)
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
            source = self._notes.sources.get(node.input[1]) if node.op_type == "Conv" else None
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
