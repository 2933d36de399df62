"""A model that learns: one step of SGD with momentum at a time, its masks held, in pieces that fit into memory.

Everything random follows from the seed and the step's number, so a step is the same whoever comes to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.optim.sgd import sgd

from reconvene_agent.core.options import TrainingOptions
from reconvene_agent.worker import memory
from reconvene_agent.worker.data.dataset import Dataset, Part
from reconvene_agent.worker.data.inputs import kind_of
from reconvene_agent.worker.models.initial import generator
from reconvene_agent.worker.reconvene import masks
from reconvene_agent.worker.reconvene.method import PrunedModel
from reconvene_agent.worker.training.augment import change_for
from reconvene_agent.worker.training.judging import accuracy
from reconvene_agent.worker.training.recompute import backward, segmented
from reconvene_agent.worker.training.settings import Settings

MOMENTUM = 0.9

_MODEL, _MOMENTUM, _AVERAGE, _BEST = "model.", "momentum.", "average.", "best."

Check = Callable[[], None]
"""Called where work can be broken off; what it raises breaks it off."""


class Learner:
    """One model in training.

    The masks are those of the sensitive layers; ``cuts`` are where the model is cut if activations are computed anew.
    """

    def __init__(
        self, pruned: PrunedModel, data: Dataset, options: TrainingOptions, settings: Settings, cuts: Sequence[str]
    ) -> None:
        """Prepare to train.

        Raises:
            UsageError: the augmentation asked for is not for such inputs.
            AgentError: NO_MEMORY where the model cannot be trained in segments, as it would have to be.
        """
        self._data = data
        self._options = options
        self._settings = settings
        self._device = torch.device(settings.device)
        kind = kind_of(data.train.inputs.shape[1:])
        self._change = change_for(kind, options.augment)
        self._format = torch.channels_last if settings.channels_last and kind == "image" else torch.contiguous_format
        self.model = pruned.module.to(self._device)
        for parameter in self.model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=self._format)
        self.model.train()
        self._segments = segmented(self.model, cuts) if settings.recompute else [self.model]
        self._masks = {name: mask.to(self._device) for name, mask in pruned.masks.items()}
        self._momenta: dict[str, Tensor | None] = {name: None for name, _ in self.model.named_parameters()}
        self._average: dict[str, Tensor] = {}
        self._best: dict[str, Tensor] = {}
        masks.apply(self.model, self._masks)
        if options.ema:
            self._average = {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}

    def step(self, number: int, chosen: Tensor, rate: float, check: Check) -> float:
        """Do the step of this number with the training inputs ``chosen`` and return their mean loss.

        ``check`` is called between pieces; when it raises, the step is as if it had never begun.
        """
        with self._allocation():
            return self._step(number, chosen, rate, check)

    def _allocation(self) -> AbstractContextManager[object]:
        """Begin with nothing lying about, where memory is short, and keep it so where it is very short."""
        if self._settings.tidy:
            memory.trim()
        return memory.sparing() if self._settings.spare else nullcontext()

    def _step(self, number: int, chosen: Tensor, rate: float, check: Check) -> float:
        pieces = torch.tensor_split(chosen, pieces_of(len(chosen), self._settings.micro_batch))
        statistics = [(buffer, buffer.clone()) for buffer in self.model.buffers()] if len(pieces) > 1 else []
        self.model.zero_grad(set_to_none=True)
        self.model.train()
        changes = generator(self._options.seed, f"augment:{number}")
        total = 0.0
        # Dropout draws from torch's own generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(self._options.seed, number))
            try:
                for index, piece in enumerate(pieces):
                    if index:
                        check()
                    total += self._learn(piece, len(chosen), changes)
            except BaseException:
                for buffer, before in statistics:
                    buffer.copy_(before)
                raise
        if math.isfinite(total):
            self._descend(rate)
            masks.apply(self.model, self._masks)
            self._update_average(number)
        return total

    def _learn(self, piece: Tensor, count: int, changes: torch.Generator) -> float:
        """Add the gradients of some of a batch's ``count`` inputs; return their share of its mean loss."""
        numbers = piece.numpy()
        raw = torch.from_numpy(self._data.train.take(numbers))
        if self._change is not None:
            raw = self._change(raw, changes)
        classes = torch.from_numpy(self._data.train.classes[numbers]).to(self._device)

        def loss(logits: Tensor) -> Tensor:
            smoothing = self._options.label_smoothing
            return functional.cross_entropy(logits.float(), classes, reduction="sum", label_smoothing=smoothing) / count

        with self._precision():
            return float(backward(self._segments, self._normalized(raw), loss))

    def _descend(self, rate: float) -> None:
        """Do a step of SGD with Nesterov's momentum (Sutskever et al. 2013).

        As a function, since to make one of PyTorch's optimizers loads 70 MB of libraries.
        """
        moving = [
            (name, parameter, parameter.grad) for name, parameter in self.model.named_parameters() if parameter.grad is not None
        ]
        momenta = [self._momenta[name] for name, _, _ in moving]
        with torch.no_grad():
            sgd(
                [parameter for _, parameter, _ in moving],
                [gradient for _, _, gradient in moving if gradient is not None],
                momenta,
                foreach=False,
                weight_decay=self._options.weight_decay,
                momentum=MOMENTUM,
                lr=rate,
                dampening=0.0,
                nesterov=True,
                maximize=False,
            )
        self._momenta.update({name: momentum for (name, _, _), momentum in zip(moving, momenta, strict=True)})

    def _normalized(self, raw: Tensor) -> Tensor:
        inputs = torch.from_numpy(self._data.normalized(raw.numpy())).to(self._device)
        return inputs.contiguous(memory_format=self._format) if inputs.ndim == 4 else inputs

    def _precision(self) -> AbstractContextManager[object]:
        if self._settings.precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)

    def _update_average(self, number: int) -> None:
        """Move the average towards the weights, faster in the first steps; masked zeros stay zeros in it."""
        decay = min(self._options.ema, (1 + number) / (10 + number))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in self._average:
                    self._average[name].lerp_(parameter, 1.0 - decay)

    @property
    def judged_at_once(self) -> int:
        """Inputs that are judged at a time: for others than in training, PyTorch would prepare everything once more."""
        return self._settings.micro_batch

    def accuracy(self, part: Part, report: Callable[[float], None]) -> float:
        """Return the share of a part's inputs (0 to 1) that the model, or the average of its weights, classifies rightly.

        ``report`` hears the share of inputs done, often.
        """

        def answer(some: Part) -> Tensor:
            with self._precision():
                inputs = self._normalized(torch.from_numpy(some.inputs))
                logits: Tensor = functional_call(self.model, self._average, (inputs,))
            return logits

        self.model.eval()
        with self._allocation():
            return accuracy(answer, part, self.judged_at_once, report)

    def note_best(self) -> None:
        """Keep the model as it is now, or the average of its weights, as the best so far."""
        self._best = {name: tensor.detach().clone() for name, tensor in {**self.model.state_dict(), **self._average}.items()}

    def become_best(self) -> nn.Module:
        """Return the model as it was at its best, in evaluation mode on the CPU."""
        if self._best:
            self.model.load_state_dict(self._best)
        return self.model.cpu().eval()

    def reset(self, pruned: PrunedModel) -> None:
        """Become a model at initialisation again: the weights of ``pruned``, without momentum."""
        self.model.load_state_dict(pruned.module.state_dict())
        masks.apply(self.model, self._masks)
        self._momenta = dict.fromkeys(self._momenta)
        self._best = {}
        self._average = (
            {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()} if self._average else {}
        )

    def state(self) -> dict[str, Tensor]:
        """Return all tensors that going on depends on."""
        tensors = {_MODEL + name: tensor for name, tensor in self.model.state_dict().items()}
        tensors.update({_MOMENTUM + name: momentum for name, momentum in self._momenta.items() if momentum is not None})
        tensors.update({_AVERAGE + name: tensor for name, tensor in self._average.items()})
        tensors.update({_BEST + name: tensor for name, tensor in self._best.items()})
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> bool:
        """Take over what ``state`` returned once; return False, with nothing changed, where it is another model's."""
        parts = {kind: _under(kind, tensors) for kind in (_MODEL, _MOMENTUM, _AVERAGE, _BEST)}
        parameters, own = dict(self.model.named_parameters()), _shapes(self.model.state_dict())
        weights = _shapes(parameters)
        fits = (
            _shapes(parts[_MODEL]) == own
            and _shapes(parts[_MOMENTUM]) in ({}, weights)
            and _shapes(parts[_AVERAGE]) == (weights if self._average else {})
            and _shapes(parts[_BEST]) in ({}, own)
        )
        if not fits:
            return False
        self.model.load_state_dict(parts[_MODEL])
        for name, momentum in parts[_MOMENTUM].items():
            self._momenta[name] = torch.empty_like(parameters[name]).copy_(momentum)
        for name, average in parts[_AVERAGE].items():
            self._average[name].copy_(average)
        self._best = {name: tensor.to(self._device, copy=True) for name, tensor in parts[_BEST].items()}
        return True


def pieces_of(count: int, micro_batch: int) -> int:
    """Return in how many pieces so many inputs are taken: of about equal size, and none of one input, which has no variance."""
    return max(1, min(math.ceil(count / micro_batch), count // 2))


def _seed(seed: int, number: int) -> int:
    return generator(seed, f"step:{number}").initial_seed()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
