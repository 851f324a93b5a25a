"""A training that diverges goes back to its last good state and on from there with a smaller step.

A training has diverged where its loss, the norm of its gradient, its weights or its answers on validation are no finite
numbers. That is noticed before they get into a backward pass or into weights, by all processes in the same step.

The last good state is a copy of everything that a step changes, in main memory, taken at each validation where
all of it is finite and the training losses have not exploded. With SGD it takes three times the memory of the weights,
with Adam four times. Where there is none yet, or going back to it has not helped, training begins anew: the seed gives
the same weights again. When training validates depends on the step's number alone, and the copy is in the checkpoint:
a training that was killed goes back to the same state as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dolmen.engine import checkpoint, distributed
from dolmen.tasks.task import Objective
from dolmen.types import Arrays

MAX_SETBACKS = 2
"""Times that a training goes back; then it ends with an error."""
SETBACK_LR_FACTOR = 0.25
"""What the learning rate is multiplied by each time."""
EXPLODED_LOSS_FACTOR = 10.0
"""A training loss of so many times that of the first step: finite, but no state to go back to."""


class DivergenceError(ArithmeticError):
    """A number of a training is no finite one.

    Args:
        what: the quantity ("loss").
        value: inf or nan.
        step: counted from 1.
    """

    def __init__(self, what: str, value: float, step: int) -> None:
        super().__init__(f"the {what} became {value} at step {step}")
        self.what, self.value, self.step = what, value, step


@dataclass(frozen=True)
class GoodState:
    """A copy of what a step changes.

    Attributes:
        tensors: as ``checkpoint.pack`` names them, on the CPU.
        optimizers: the optimisers' states, without the tensors.
        counters: where the training stood: fields of its state.
    """

    tensors: dict[str, Tensor]
    optimizers: dict[str, Any]
    counters: dict[str, Any]

    @classmethod
    def copy(
        cls,
        counters: dict[str, Any],
        model: nn.Module,
        average: AveragedModel,
        objectives: Sequence[Objective],
        carried: dict[str, Tensor],
    ) -> GoodState:
        """A copy of the present state."""
        tensors, optimizers = checkpoint.pack(model, average, objectives, carried)
        return cls({k: v.detach().to("cpu", copy=True) for k, v in tensors.items()}, optimizers, counters)

    def restore(self, model: nn.Module, average: AveragedModel, objectives: Sequence[Objective]) -> dict[str, Tensor]:
        """Set networks and optimisers, and return what is carried."""
        return checkpoint.unpack(self.tensors, self.optimizers, model, average, objectives)


def has_exploded(losses: dict[str, float], first: dict[str, float]) -> bool:
    """Whether training losses are far above those of the first step."""
    return any(not value <= EXPLODED_LOSS_FACTOR * max(1.0, abs(first[name])) for name, value in losses.items())


def require_finite(what: str, tensors: Iterable[Tensor], step: int) -> None:
    """Refuse weights and averages with a value that is not finite, on whichever process.

    Raises:
        DivergenceError: there is one.
    """
    sums = [tensor.detach().double().sum() for tensor in tensors if tensor.is_floating_point()]
    if not math.isfinite(total := distributed.sum_of(torch.stack(sums).sum())):
        raise DivergenceError(what, total, step)


def require_numbers(outputs: Arrays, step: int) -> None:
    """Refuse a network's answers that hold inf, or nothing but nan: there is nothing to measure.

    Some nan may be among them, where a text's last window has no token; minus infinity is the logarithm of nothing.

    Raises:
        DivergenceError: an output is of that sort.
    """
    for values in outputs.values():
        if not np.issubdtype(values.dtype, np.floating) or not values.size:
            continue
        if np.isposinf(values).any():
            raise DivergenceError("network's output on validation", math.inf, step)
        if np.isnan(values).all():
            raise DivergenceError("network's output on validation", math.nan, step)
