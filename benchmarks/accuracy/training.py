"""One training loop for all arms: SGD with Nesterov momentum under OneCycle, masks held, every draw from seed and step.

The same recipe as the agent's own loop, but on any device, for part of an epoch too, and judged once, at the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from reconvene_agent.worker.data.dataset import Dataset
from reconvene_agent.worker.models.initial import generator
from reconvene_agent.worker.reconvene import masks
from reconvene_agent.worker.reconvene.masks import Masks
from reconvene_agent.worker.training.augment import shift_flip
from reconvene_agent.worker.training.schedule import one_cycle

BATCH = 64
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
EVALUATION_BATCH = 500


class Stopped(Exception):  # noqa: N818 - not an error
    """Raised inside a run when all is to end."""


@dataclass(frozen=True)
class Recipe:
    """How long, how fast, with which draws and where to train; ``check`` is called before each step and may raise ``Stopped``."""

    epochs: float
    learning_rate: float
    seed: int
    device: str
    check: Callable[[], None]


@dataclass(frozen=True)
class Trained:
    """What came out: the share of held-out images classified rightly, and the seconds that training took."""

    accuracy: float
    seconds: float
    diverged: bool


def train(module: nn.Module, held: Masks, data: Dataset, recipe: Recipe) -> Trained:
    """Train a model from its initialisation to the end of its schedule, then judge it on the held-out images.

    Raises:
        Stopped: the recipe's check said so.
    """
    started = time.perf_counter()
    device = torch.device(recipe.device)
    # The faster layout on either device; every arm gets it.
    module = module.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    held = {name: mask.to(device) for name, mask in held.items()}
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (data.mean, data.std))
    optimizer = torch.optim.SGD(module.parameters(), recipe.learning_rate, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True)
    masks.apply(module, held)
    # A last batch of one image has no variance to normalise by, so it is left out.
    per_epoch = len(data.train) // BATCH + (1 if len(data.train) % BATCH > 1 else 0)
    total = max(1, round(recipe.epochs * per_epoch))
    order = torch.empty(0)
    loss = torch.zeros(())
    for step in range(total):
        recipe.check()
        epoch, index = divmod(step, per_epoch)
        if index == 0:
            order = torch.randperm(len(data.train), generator=generator(recipe.seed, f"order:{epoch}"))
        chosen = order[index * BATCH : (index + 1) * BATCH].numpy()
        images = torch.from_numpy(data.train.inputs[chosen])
        images = shift_flip(images, generator(recipe.seed, f"augment:{step}")).to(device)
        classes = torch.from_numpy(data.train.classes[chosen]).to(device)
        optimizer.param_groups[0]["lr"] = one_cycle(step, total, recipe.learning_rate)
        images = ((images / 255.0 - mean) / std).contiguous(memory_format=torch.channels_last)
        loss = functional.cross_entropy(module(images), classes)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        masks.apply(module, held)
    seconds = time.perf_counter() - started
    return Trained(accuracy(module, data, device), seconds, diverged=not math.isfinite(float(loss.detach())))


def accuracy(module: nn.Module, data: Dataset, device: torch.device) -> float:
    """Return the share of the held-out images that the model classifies rightly."""
    part = data.validation
    module.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(part), EVALUATION_BATCH):
            some = slice(start, start + EVALUATION_BATCH)
            images = torch.from_numpy(data.normalized(part.inputs[some])).to(device, memory_format=torch.channels_last)
            right += int((module(images).argmax(1).cpu() == torch.from_numpy(part.classes[some])).sum())
    return right / len(part)
