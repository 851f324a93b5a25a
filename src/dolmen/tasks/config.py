"""What can be chosen for any task."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field


class TaskConfig(BaseModel):
    """What can be chosen for any task. ``None`` means: decided by the data, the budget and the machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minutes: float | None = Field(
        None, gt=0, description="budget for the whole command; 10 if no other budget is given"
    )
    epochs: int | None = Field(None, gt=0, description="budget in passes over the training data, instead of minutes")
    patience: int | None = Field(
        None, gt=0, description="stop when this many evaluations in a row brought no gain on validation"
    )
    batch_size: int | None = Field(None, gt=0, description="examples in one step, over all processes")
    micro_batch_size: int | None = Field(
        None, gt=0, description="examples at once in memory; gradients add up to the batch"
    )
    lr: float | None = Field(None, gt=0, description="learning rate of the main optimiser")
    weight_decay: float | None = Field(None, ge=0, description="decoupled weight decay")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where it is faster here and gives the same gradient"
    )
    threads: int | None = Field(
        None,
        gt=0,
        description="CPU threads that compute; if not given, as many as are quickest here. Sums depend on it in the "
        "last digit: give it where two trainings have to be equal bit for bit",
    )
    seed: int = Field(0, ge=0, description="of everything random: splits, weights, order, augmentation")
    val_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the training data held out for validation where the data name none",
    )
    test_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the data held out for the test where the data name no splits at all",
    )

    def for_loading(self) -> Self:
        """The choices by which a network is built whose weights are then read from a file."""
        return self
