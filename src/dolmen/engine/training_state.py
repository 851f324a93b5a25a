"""Where a training stands, and how that gets into its checkpoint and out of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dolmen.engine import checkpoint
from dolmen.engine.divergence import MAX_SETBACKS, SETBACK_LR_FACTOR, DivergenceError, GoodState
from dolmen.engine.planner import Plan
from dolmen.tasks.task import AnyTask, Objective
from dolmen.types import MachineError

Record = dict[str, Any]


@dataclass
class State:
    """Where a training stands. All of it is in the checkpoint."""

    plan: Plan
    step: int = 0
    progress: float = 0.0
    seconds: float = 0.0
    best: float = math.nan
    best_step: int = 0
    looks_without_gain: int = 0
    metrics_bytes: int = 0
    loss_sums: dict[str, float] = field(default_factory=dict)
    num_summed: int = 0
    done: bool = False
    first_losses: dict[str, float] = field(default_factory=dict)
    setbacks: int = 0
    back_to: int | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict, repr=False)
    good: GoodState | None = field(default=None, repr=False)

    @property
    def rate(self) -> float:
        """What all learning rates are multiplied by: the smaller, the more often the training has diverged."""
        return SETBACK_LR_FACTOR**self.setbacks

    def counters(self) -> dict[str, Any]:
        """Where the training stands, to come back to. What is the best so far stays the best."""
        names = ("step", "progress", "looks_without_gain", "loss_sums", "num_summed")
        return {name: getattr(self, name) for name in names}

    def add(self, losses: dict[str, float]) -> None:
        """Take a step's losses into the mean that the next validation reports."""
        self.first_losses = self.first_losses or losses
        self.loss_sums = {name: self.loss_sums.get(name, 0.0) + value for name, value in losses.items()}
        self.num_summed += 1

    def mean_losses(self) -> dict[str, float]:
        """The mean training losses since the last call."""
        means = {name: value / self.num_summed for name, value in self.loss_sums.items()}
        self.loss_sums, self.num_summed = {}, 0
        return means

    def better(self, score: float, way: str) -> bool:
        """Whether a validation score beats the best so far."""
        if math.isnan(score):
            return False
        return math.isnan(self.best) or (score >= self.best if way == "max" else score <= self.best)

    def go_back(
        self, error: DivergenceError, objectives: Sequence[Objective], beginning: Callable[[], GoodState]
    ) -> Record:
        """Go back to the last good state, with a smaller learning rate from now on.

        Where the training has gone back to that one already, it was none: then it begins anew.

        Args:
            error: what is not finite, and where.
            objectives: tell the learning rate.
            beginning: the state before the first step.

        Returns:
            The record of it.

        Raises:
            MachineError: it has gone back often enough.
        """
        group = objectives[0].optimizers[0].param_groups[0]
        rate = group.get("initial_lr", group["lr"]) * self.rate
        if self.setbacks == MAX_SETBACKS:
            raise MachineError(
                f"{error} of {self.plan.total_steps}, after {MAX_SETBACKS} returns to an earlier state (learning rate "
                f"{rate:.3g} by now, {self.plan.precision}): train again with a smaller rate, --lr {rate / 4:.2g}, or "
                "with --clip-norm 1, or with --precision fp32"
            )
        if self.good is None or self.good.counters["step"] == self.back_to:
            self.good = beginning()
        for name, value in self.good.counters.items():
            setattr(self, name, value)
        self.back_to, self.done = self.step, False
        self.setbacks += 1
        message = (
            f"training diverged, {error}; it went on from step {self.step} with 1/{1 / self.rate:.0f} of the learning "
            "rate"
        )
        return {"event": "diverged", "step": error.step, "back_to": self.step, "rate": self.rate, "message": message}


def save_state(
    folder: Path,
    task: AnyTask,
    state: State,
    model: nn.Module,
    average: AveragedModel,
    objectives: Sequence[Objective],
) -> None:
    """Write the checkpoint: all that a step changes, the best weights, and the good state to go back to."""
    tensors, optimizers = checkpoint.pack(model, average, objectives, task.carried)
    tensors |= {f"best.{k}": v for k, v in state.best_weights.items()}
    saved = {
        "state": {k: v for k, v in vars(state).items() if k not in ("best_weights", "good")},
        "optimizers": optimizers,
    }
    saved["state"]["plan"] = state.plan.to_json()
    if state.good is not None:
        tensors |= {f"good.{k}": v for k, v in state.good.tensors.items()}
        saved["good"] = {"optimizers": state.good.optimizers, "counters": state.good.counters}
    checkpoint.write(folder, tensors, saved)


def state_of(tensors: dict[str, Tensor], saved: Record) -> State:
    """The state in a checkpoint. Those of earlier versions know no good state to go back to."""
    state = State(**saved["state"] | {"plan": Plan.from_json(saved["state"]["plan"])})
    state.best_weights = checkpoint.part("best.", tensors)
    if "good" in saved:
        state.good = GoodState(checkpoint.part("good.", tensors), **saved["good"])
    return state
