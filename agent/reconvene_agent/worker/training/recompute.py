"""Training that keeps few activations: the model runs segment by segment, and the backward pass runs each once more.

Chen et al. 2016 (arXiv 1604.06174). The gradients are the same to the last bit. PyTorch's own checkpoint function does as much,
but brings 75 MB of libraries along, which is more than it saves a small model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, fx, nn

from reconvene_agent.core.errors import AgentError, ErrorCode
from reconvene_agent.worker.models.layers import BATCH_NORMS

Loss = Callable[[Tensor], Tensor]


def segmented(model: nn.Module, cuts: Sequence[str]) -> list[nn.Module]:
    """Return the model in segments, which share its layers; one after the other they do as it does.

    Raises:
        AgentError: NO_MEMORY where the model in training is not the one that the cuts were found in.
    """
    traced = fx.symbolic_trace(model)
    segments: list[nn.Module] = []
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()

    def copied(node: fx.Node) -> fx.Node:
        # Parameters are looked up in whatever segment needs them.
        if node not in copies and node.op == "get_attr":
            copies[node] = graph.node_copy(node)
        return copies[node]

    for node in traced.graph.nodes:
        if node.op == "get_attr":
            continue
        copies[node] = graph.node_copy(node, copied)
        if node.name in cuts:
            graph.output(copies[node])
            segments.append(fx.GraphModule(traced, graph))
            graph = fx.Graph()
            copies = {node: graph.placeholder(node.name)}
    if len(segments) != len(cuts):
        raise AgentError("the model cannot be trained in segments: it computes other things in training", ErrorCode.NO_MEMORY)
    return [*segments, fx.GraphModule(traced, graph)]


def backward(segments: Sequence[nn.Module], inputs: Tensor, loss: Loss) -> Tensor:
    """Add the gradients of ``loss``, a function of the model's answer, to its parameters and return the loss.

    Of all activations, only the tensors between the segments are kept.
    """
    *early, last = segments
    kept, states = [inputs], []
    with torch.no_grad():
        for segment in early:
            states.append(torch.get_rng_state())
            kept.append(segment(kept[-1]))
    bound = kept.pop().detach().requires_grad_(bool(early))
    found = loss(last(bound))
    found.backward()  # type: ignore[no-untyped-call]
    for segment, state in zip(reversed(early), reversed(states), strict=True):
        gradient = cast("Tensor", bound.grad)
        bound = kept.pop().detach().requires_grad_(bool(kept))
        with torch.random.fork_rng(devices=[]), _holding_statistics(segment):
            torch.set_rng_state(state)
            again = segment(bound)
        # This has the gradient for its own; to be given one, PyTorch would load a computer-algebra system.
        (again * gradient).sum().backward()
    return found.detach()


@contextmanager
def _holding_statistics(segment: nn.Module) -> Iterator[None]:
    """Keep the second run from counting as another batch of its norms' running statistics."""
    norms = [layer for layer in segment.modules() if isinstance(layer, BATCH_NORMS) and layer.track_running_stats]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, _, counted in before:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if counted is None else counted.clone()
    try:
        yield
    finally:
        for norm, momentum, counted in before:
            norm.momentum, norm.num_batches_tracked = momentum, counted
