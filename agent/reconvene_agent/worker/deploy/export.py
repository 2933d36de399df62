"""ONNX export. The graph is exported once per architecture; after that a model is just its weights put into that graph.

At initialisation and after training the graph is the same for every width, while torch's exporter takes seconds. Where a
graph turns out to depend on the widths in a way that cannot be filled in, that model is exported by itself.
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
from onnx import ModelProto
from torch import Tensor, fx, nn

from reconvene_agent import __version__
from reconvene_agent.core import atomic
from reconvene_agent.core.errors import AgentError
from reconvene_agent.core.protocol import Runtime
from reconvene_agent.worker.data.inputs import kind_of
from reconvene_agent.worker.deploy import parity
from reconvene_agent.worker.deploy.folding import folded
from reconvene_agent.worker.deploy.running import Run, run
from reconvene_agent.worker.deploy.session import open_session
from reconvene_agent.worker.deploy.template import Template
from reconvene_agent.worker.models.initial import generator

OUTPUT = "logits"


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


def _export(fused: nn.Module, input_shape: tuple[int, ...]) -> ModelProto:
    # A batch of two, because an example of size one would be taken for a constant.
    example = torch.zeros(2, *input_shape)
    with _quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            fused,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[kind_of(input_shape)],
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


def _scrambled(fused: fx.GraphModule) -> fx.GraphModule:
    """Fill a folded model with numbers that no optimizer can take for a special case, such as a bias of zero, each its own."""
    with torch.no_grad():
        for name, tensor in (*fused.named_parameters(), *fused.named_buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5, generator=generator(0, name))
    return fused


class Exporter:
    """Turns models of one architecture and input size into ONNX, whatever their widths.

    A graph that an earlier process left in the file ``kept`` is used as it is: torch's exporter takes seconds, and leaves some
    180 MB of libraries behind it.
    """

    def __init__(self, input_shape: tuple[int, ...], kept: Path | None = None) -> None:
        self._input_shape = input_shape
        self._kept = kept
        self._template = None if kept is None else _read(kept)
        self.burdened = False
        """Whether torch's exporter was loaded."""

    def to_onnx(self, model: nn.Module) -> ModelProto:
        """Return the ONNX model: input ``image`` (batch, C, H, W), ``window`` (batch, C, L) or ``features`` (batch, F) float32,
        output ``logits`` (batch, classes).

        The model must lie in memory; it is not changed.
        """
        fused = folded(model, self._input_shape)
        if self._template is None:
            self._template = self._export_template(copy.deepcopy(fused))
        filled = self._filled(self._template, fused)
        return filled if filled is not None else self._export(fused)

    def _export_template(self, fused: fx.GraphModule) -> Template:
        scrambled = _scrambled(fused)
        return Template.of(self._export(scrambled), scrambled, run(scrambled, self._noise()))

    def keep(self) -> None:
        """Leave the graph, if there is one yet, for a process that comes later.

        Raises:
            AgentError: NO_DISK when the disk is full.
        """
        if self._kept is not None and self._template is not None:
            atomic.write_bytes(self._kept, self._template.dump())

    def _export(self, fused: nn.Module) -> ModelProto:
        self.burdened = True
        return _export(fused, self._input_shape)

    def _filled(self, template: Template, fused: fx.GraphModule) -> ModelProto | None:
        if not template.depends_on_widths:
            return template.fill(fused, None)
        # Of numbers inside a graph nothing but its answers tells whether they are right for other widths too.
        trial = run(fused, self._noise())
        proto = template.fill(fused, trial)
        return proto if proto is not None and _answers(proto, trial) else None

    def _noise(self) -> Tensor:
        # An odd number of them, since a reshape to wrong widths might still divide two evenly.
        return torch.randn(3, *self._input_shape, generator=generator(0, "trial"))


def _read(path: Path) -> Template | None:
    """Return the template in a file, or None where there is none that can be read: then torch exports one."""
    try:
        return Template.load(path.read_bytes())
    except (OSError, ValueError):
        return None


def _answers(proto: ModelProto, trial: Run) -> bool:
    """Whether the graph answers as the model did."""
    threads = torch.get_num_threads()
    try:
        session = open_session(proto.SerializeToString(), Runtime(threads, threads, ("CPUExecutionProvider",), len(trial.inputs)))
        parity.compare(trial.logits.numpy(), session, trial.inputs.numpy())
    except AgentError:
        return False
    return True


def annotate(proto: ModelProto, notes: Mapping[str, str]) -> ModelProto:
    """Write key-value notes into the model's metadata; ONNX Runtime hands them to applications."""
    onnx.helper.set_model_props(proto, dict(notes))
    return proto


def save(proto: ModelProto, path: Path) -> None:
    """Store the model, wholly or not at all."""
    atomic.write_bytes(path, proto.SerializeToString())
