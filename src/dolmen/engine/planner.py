"""From a budget in minutes to a plan: precision, batch, number of steps. Measured on this machine, not guessed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dolmen.engine import distributed, hardware
from dolmen.tasks.task import AnyTask, Batch, Dataset, Moment
from dolmen.types import MachineError

PLANNED_SHARE = 0.97
"""Share of the time left that is planned; what remains is for what can't be foreseen."""
EVALUATION_SHARE = 0.03
"""Largest share of the time that goes into validation."""
PEAK = 4.0
"""The memory that a step has to itself, as a multiple of what it keeps for its backward pass.

At its peak it takes 1 to 2.1 times as much (measured on the CPU with the default networks of image and token
classification, object detection, speech recognition and text generation), and half of the memory stays free.
"""


@dataclass(frozen=True)
class Plan:
    """How a training will run. Written into the checkpoint, so that resuming follows it.

    Attributes:
        batch_size: examples in a step over all processes.
        micro_batch_size: examples at once in the memory of one process.
        precision: "fp32" or "bf16" (of the products; weights and sums stay fp32).
        num_threads: that compute on the CPU.
        total_steps: steps in the budget.
        most_steps: steps beyond which nothing would be gained, whatever the budget.
        evaluate_every: steps between validations.
        seconds_per_step: as measured.
        notes: what was decided and why, for the person and the report.
    """

    batch_size: int
    micro_batch_size: int
    precision: str
    num_threads: int
    total_steps: int
    most_steps: int
    evaluate_every: int
    seconds_per_step: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"notes": list(self.notes)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Plan:
        """Undo ``to_json``."""
        return cls(**values | {"notes": tuple(values["notes"])})


@dataclass(frozen=True)
class MachineBudget:
    """The time that a training has, and how long a step of a network takes here (the task chooses sizes by it).

    Attributes:
        seconds: for the training itself.
    """

    seconds: float

    def seconds_of(
        self,
        model: nn.Module,
        inputs: Tensor,
        loss: Callable[[nn.Module, Tensor], Tensor],
        optimizers: Sequence[torch.optim.Optimizer] = (),
    ) -> float:
        """Measure one training step: the median of 3, in the quicker precision."""
        device = hardware.device()
        model, inputs = model.to(device).to(memory_format=torch.channels_last).train(), inputs.to(device)
        best = math.inf
        for precision in ("fp32", "bf16") if hardware.has_bf16() else ("fp32",):
            times = []
            for _ in range(4):
                start = time.perf_counter()
                with autocast(precision, device):
                    loss(model, inputs).backward()  # type: ignore[no-untyped-call]
                    for optimizer in optimizers:
                        for group in optimizer.param_groups:
                            group["lr"] = 0.0  # as long, and nothing can diverge
                        optimizer.step()
                synchronise(device)
                times.append(time.perf_counter() - start)
            best = min(best, float(np.median(times[1:])))
        return best


def evaluation_seconds(task: AnyTask, dataset: Dataset) -> float:
    """Estimate how long fp32 outputs for a whole data set take, from one batch of it."""
    model = task.build_model().to(hardware.device()).eval()
    size = min(len(dataset), 64)
    batch = {k: v.to(hardware.device()) for k, v in dataset.batch(np.arange(size)).items()}
    with torch.inference_mode():
        task.outputs(model, batch)
        start = time.perf_counter()
        task.outputs(model, batch)
        synchronise(hardware.device())
    return (time.perf_counter() - start) / size * len(dataset)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """The context in which forward passes run."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def synchronise(device: torch.device) -> None:
    """Wait for the accelerator, so that the clock tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_plan(task: AnyTask, build: Callable[[], nn.Module], *, seconds: float | None) -> Plan:
    """Measure steps and decide.

    Args:
        task: prepared.
        build: makes a fresh network on the device (it is thrown away).
        seconds: what is left of the budget for training, or None with a budget in epochs.
    """
    config, train = task.config, task.datasets["train"]
    batch_size = min(config.batch_size or task.batch_size(len(train)), len(train))
    per_epoch = task.steps_per_epoch(batch_size)
    notes = []
    probe = _Probe(task, build, batch_size)
    micro = min(math.ceil(batch_size / distributed.world()), config.micro_batch_size or probe.fitting_micro_batch())
    if micro < batch_size / distributed.world():
        notes.append(f"each batch of {batch_size} is computed in parts of {micro}; gradients add up")
    num_threads, quicker = probe.threads(micro)
    with hardware.computing_threads(num_threads):  # of threads that wait for each other, no other time tells anything
        precision, step_s, reason = probe.precision(config.precision, micro)
    notes.append(reason)
    if quicker > 1:
        notes.append(f"one thread: {quicker:.1f}x as fast here as {torch.get_num_threads()} together")
    if config.epochs is not None:
        total = max_steps = config.epochs * per_epoch
    else:
        assert seconds is not None
        affordable = max(1, int(seconds * PLANNED_SHARE / (step_s * (1 + EVALUATION_SHARE))))
        max_steps = task.enough_steps(len(train), batch_size)
        total = min(affordable, max_steps)
        notes.append(
            f"{total} steps of {batch_size}, {total / per_epoch:.1f} epochs, at {step_s * 1e3:.0f} ms a step: "
            + ("as many as the budget allows" if affordable <= max_steps else "enough; more would not help")
        )
    every = max(total // 60, math.ceil(task.validation_cost_steps(batch_size) / EVALUATION_SHARE), 1)
    every = min(every if every > per_epoch else per_epoch * max(1, round(every / per_epoch)), total)
    plan = Plan(batch_size, micro, precision, num_threads, total, max_steps, every, step_s, tuple(notes))
    return distributed.same(plan)


class _Probe:
    """Steps on throw-away copies of the network."""

    def __init__(self, task: AnyTask, build: Callable[[], nn.Module], batch_size: int) -> None:
        self.task, self.build, self.batch_size = task, build, batch_size
        self.device = hardware.device()
        stored = {k: v.to(self.device) for k, v in task.training_batch(0, batch_size)[1].items()}
        self.batch = task.augment(stored, Moment(0, 0.5, 50.0, torch.Generator().manual_seed(0)))

    def step(self, model: nn.Module, size: int, precision: str, *, update: bool = False) -> list[tuple[float, Tensor]]:
        """One pass of all objectives on ``size`` examples, as training goes through them, maybe with their updates.

        Returns:
            The mean loss of each objective, and the gradient of its own parameters.
        """
        part: Batch = {k: v[:size] for k, v in self.batch.items()}
        results = []
        for objective in self.task.objectives(model):
            torch.manual_seed(0)
            with autocast(precision, self.device):
                loss = objective.loss(part)
            if not math.isfinite(value := float(loss.total.detach())):
                raise MachineError(
                    f"the {objective.name} is {value} before the first step ({precision}): see with dolmen check "
                    "whether the data are sound, or train with --precision fp32"
                )
            loss.total.backward()  # type: ignore[no-untyped-call]
            with autocast(precision, self.device):
                for optimizer in objective.optimizers if update else ():
                    for group in optimizer.param_groups:
                        group["lr"] = 0.0  # as long, and nothing can diverge: there is no warm-up here
                    optimizer.step()
            grads = [p.grad.reshape(-1).float() for p in objective.parameters() if p.grad is not None]
            results.append((value / loss.weight, torch.cat(grads)))
            for p in model.parameters():  # a generator's loss leaves gradients at the discriminator as well
                p.grad = None
        synchronise(self.device)
        return results

    def fitting_micro_batch(self) -> int:
        """The largest part of the batch whose step fits into the memory that is free.

        Counted, not read off the process: how far its memory grows depends on what it has computed (and loaded) before,
        and another size of the parts gives other sums. Trainings with one seed would not repeat.
        """
        small = min(8, self.batch_size)
        model, part = self.build().train(), {k: v[:small] for k, v in self.batch.items()}
        known = (*model.parameters(), *model.buffers(), *part.values())
        largest = 0
        for objective in self.task.objectives(model):
            torch.manual_seed(0)
            largest = max(largest, kept_bytes(partial(objective.loss, part), known))
        if largest == 0:
            return self.batch_size
        return int(np.clip(_free_memory(self.device) / (PEAK * largest / small), 1, self.batch_size))

    def seconds(self, precision: str, size: int) -> float:
        """Median time of a step on ``size`` examples."""
        model, times = self.build().train(), []
        for _ in range(5):
            start = time.perf_counter()
            self.step(model, size, precision, update=True)
            times.append(time.perf_counter() - start)
        return float(np.median(times[1:]))

    def threads(self, micro: int) -> tuple[int, float]:
        """How many threads to compute with, and how much quicker a step is on them than on all.

        Small networks are quickest on one; and on a machine that is busy with other work, threads that wait for each
        other can be a hundred times slower than one that waits for nobody.
        """
        num_threads = torch.get_num_threads()
        if self.task.config.threads or self.device.type != "cpu" or num_threads == 1:
            return num_threads, 1.0
        together = self.seconds("fp32", micro)
        with hardware.computing_threads(1):
            alone = self.seconds("fp32", micro)
        return (1, together / alone) if alone < 0.9 * together else (num_threads, 1.0)

    def precision(self, chosen: str, micro: int) -> tuple[str, float, str]:
        """Choose bf16 where it is faster here and gives the same loss and gradient: it, seconds a step, the reason."""
        parts = math.ceil(self.batch_size / distributed.world() / micro)

        def seconds(precision: str) -> float:
            return self.seconds(precision, micro) * parts

        if chosen != "auto":
            return chosen, seconds(chosen), f"{chosen}, as asked"
        exact_s = seconds("fp32")
        if not hardware.has_bf16():
            return "fp32", exact_s, "fp32: this machine does not multiply bf16 itself"
        quick_s = seconds("bf16")
        if quick_s > 0.95 * exact_s:
            return "fp32", exact_s, f"fp32: bf16 is not faster here ({exact_s / quick_s:.2f}x)"
        agreement = 1.0
        exact, rounded = (self.step(self.build().train(), micro, precision) for precision in ("fp32", "bf16"))
        for (loss, gradient), (loss16, gradient16) in zip(exact, rounded, strict=True):
            cosine = float(torch.nn.functional.cosine_similarity(gradient, gradient16, dim=0))
            # What a detector proposes is a choice, and its loss jumps with it: the same gradient is enough.
            if not cosine >= (0.99 if abs(loss16 - loss) > 0.05 * abs(loss) else 0.9):
                return "fp32", exact_s, f"fp32: bf16 changes the gradient here (cosine {cosine:.2f})"
            agreement = min(agreement, cosine)
        return (
            "bf16",
            quick_s,
            f"bf16 products: {exact_s / quick_s:.1f}x as fast as fp32 here, same gradient (cosine {agreement:.3f})",
        )


def kept_bytes(compute: Callable[[], object], known: Iterable[Tensor]) -> int:
    """Bytes that a computation keeps for its backward pass.

    Args:
        compute: what is differentiated.
        known: tensors that do not count: weights, inputs.
    """
    kept = {}  # as long as they are in here, no address comes twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compute()
    there = {tensor.untyped_storage().data_ptr() for tensor in known}
    return sum(storage.nbytes() for address, storage in kept.items() if address not in there)


def _free_memory(device: torch.device) -> float:
    """Bytes that can be had; without end where the system does not tell (Windows): then nothing is split up."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if (available := hardware.available_memory()) is not None:
        return available
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError):
        return math.inf


def replan(plan: Plan, *, progress: float, seconds_left: float, seconds_per_step: float) -> Plan:
    """Fit the remaining steps to the time that is left, where it is off by more than 3 %.

    Args:
        plan: as it was.
        progress: share of the schedule that is done, 0..1.
        seconds_left: of the budget, for training.
        seconds_per_step: as measured lately, evaluation included.
    """
    steps_left = (1 - progress) * plan.total_steps
    affordable = min(max(1.0, seconds_left * PLANNED_SHARE / seconds_per_step), (1 - progress) * plan.most_steps)
    if progress >= 1 or abs(affordable / steps_left - 1) < 0.03:
        return plan
    return replace(plan, total_steps=max(1, round(affordable / (1 - progress))))
