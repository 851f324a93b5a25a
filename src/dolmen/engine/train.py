"""The training loop. It reads from top to bottom, knows no task, and can be killed at any line.

Everything random in step s comes from a generator seeded by (seed, s), and the order of the examples in epoch e from
one seeded by (seed, e). So a resumed training needs no generator's state, and N processes draw what one draws.
A step that diverges takes the training back to its last good state (``divergence``).
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dolmen.engine import checkpoint, distributed, hardware
from dolmen.engine.divergence import (
    DivergenceError,
    GoodState,
    has_exploded,
    require_finite,
    require_numbers,
)
from dolmen.engine.evaluate import gather_outputs
from dolmen.engine.planner import EVALUATION_SHARE, autocast, make_plan, replan
from dolmen.engine.training_state import State, save_state, state_of
from dolmen.files import append_json
from dolmen.nn.fp32 import quick_products
from dolmen.run_folder import METRICS
from dolmen.tasks.task import AnyTask, Batch, Dataset, Moment, Objective, Task

CHECKPOINT_EVERY_S = 20.0
REPLAN_EVERY_S = 30.0
AVERAGE_OVER = 0.02
"""The weights that are kept are an exponential average over about this share of all steps."""

Record = dict[str, Any]
Listener = Callable[[Record], None]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C: the state was saved, and the training can be resumed."""


def fit(
    task: AnyTask,
    folder: Path,
    *,
    seconds: Callable[[], float] | None,
    resume: bool = False,
    listeners: tuple[Listener, ...] = (),
) -> nn.Module:
    """Train until the budget is spent or validation has stopped improving; return the best network.

    Args:
        task: prepared.
        folder: the run's folder, for ``metrics.jsonl`` and the checkpoint.
        seconds: returns how many seconds of the budget are left for training; None with a budget in epochs.
        resume: go on from the checkpoint in ``folder``.
        listeners: called with every record that goes into ``metrics.jsonl``, and with one for each step
            (``"event": "step"``).

    Raises:
        MachineError: it has diverged once too often, or the disk is full.
        Interrupted: Ctrl-C; the state is saved.
    """
    device = hardware.device()

    def build() -> nn.Module:
        torch.manual_seed(task.config.seed)
        model: nn.Module = task.build_model()
        task.initialise(model)
        return model.to(device).to(memory_format=torch.channels_last)

    with quick_products(), _interrupts() as interrupted, ExitStack() as threads:
        all_threads = torch.get_num_threads()
        threads.enter_context(hardware.computing_threads(task.config.threads or all_threads))
        if resume:
            tensors, saved = checkpoint.read(folder)
            state = state_of(tensors, saved)
        else:
            state = State(make_plan(task, build, seconds=None if seconds is None else seconds()))
        threads.enter_context(hardware.computing_threads(state.plan.num_threads))
        model, task.carried = build(), {}
        objectives = task.objectives(model)
        decay = 1 - 1 / max(1.0, AVERAGE_OVER * state.plan.total_steps)
        ema = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average = AveragedModel(model, multi_avg_fn=ema, use_buffers=True)

        def beginning() -> GoodState:
            fresh = build()
            return GoodState.copy(State(state.plan).counters(), fresh, AveragedModel(fresh), task.objectives(fresh), {})

        if resume:
            task.carried = checkpoint.unpack(tensors, saved["optimizers"], model, average, objectives)
        val = task.datasets["val"]
        journal = _Journal(folder, state, listeners)
        if not resume:
            journal.write({"event": "plan", **state.plan.to_json()})
        per_epoch = task.steps_per_epoch(state.plan.batch_size)
        started, saved_at = time.perf_counter() - state.seconds, time.perf_counter()
        pace = (state.step, time.perf_counter())

        def make_batch(step: int, progress: float, num_epochs: float) -> tuple[int, Batch]:
            epoch, stored = task.training_batch(step, state.plan.batch_size)
            generator = torch.Generator().manual_seed(_mix(task.config.seed, step))
            stored = {k: v.to(device, non_blocking=True) for k, v in stored.items()}
            return epoch, task.augment(stored, Moment(epoch, progress, num_epochs, generator))

        # Where a batch is only looked up, handing it from thread to thread would cost more than it gives.
        spare = state.plan.num_threads < all_threads and type(task).augment is not Task.augment
        ahead = threads.enter_context(_Ahead(make_batch, spare=spare))

        while not state.done:
            epoch, batch = ahead.batch(state.step, state.progress, state.plan.total_steps, per_epoch)
            torch.manual_seed(_mix(task.config.seed, state.step) + distributed.rank())  # dropout and the like

            model.train()
            try:
                losses = {o.name: optimise(o, batch, state, task.config.clip_norm) for o in objectives}
                average.update_parameters(model)
                state.add(losses)
                state.step += 1
                state.progress += 1 / state.plan.total_steps
                state.done = state.progress > 1 - 0.5 / state.plan.total_steps
                state.seconds = time.perf_counter() - started
                journal.notify({"event": "step", "step": state.step, "progress": state.progress, **losses})
                validated = state.step % state.plan.evaluate_every == 0 or state.done
                record = _validate(task, model, average, val, state) if validated else {}
            except DivergenceError as error:
                journal.write(state.go_back(error, objectives, beginning))
                assert state.good is not None
                task.carried = state.good.restore(model, average, objectives)
                ahead.forget()
                pace = (state.step, time.perf_counter())
                continue

            if validated:
                state.done |= state.looks_without_gain >= (task.config.patience or math.inf)
                means = state.mean_losses()
                journal.write({"event": "look", "epoch": epoch, **means, **record, "grad_norms": grad_norms(model)})
                if not state.done and not any(has_exploded(values, state.first_losses) for values in (means, losses)):
                    state.good = GoodState.copy(state.counters(), model, average, objectives, task.carried)
            # Validations may be far apart, and another program may take half of the machine in between.
            overdue = time.perf_counter() - pace[1] > REPLAN_EVERY_S
            if seconds is not None and not state.done and (validated or distributed.any_of(overdue, device)):
                seconds_per_step = (time.perf_counter() - pace[1]) / (state.step - pace[0])
                new = replan(
                    state.plan,
                    progress=state.progress,
                    seconds_left=seconds(),
                    seconds_per_step=seconds_per_step * (1 if validated else 1 + EVALUATION_SHARE),
                )
                state.plan = distributed.same(new)
                pace = (state.step, time.perf_counter())
            stop = distributed.any_of(interrupted(), device)
            if stop or state.done or time.perf_counter() - saved_at > CHECKPOINT_EVERY_S:
                journal.settle()
                if distributed.rank() == 0:
                    save_state(folder, task, state, model, average, objectives)
                saved_at = time.perf_counter()
            if stop and not state.done:
                raise Interrupted(f"stopped at step {state.step} of {state.plan.total_steps}; the state is saved")
    best: nn.Module = average.module
    best.load_state_dict(state.best_weights)
    return best.eval()


class _Ahead:
    """Batches, each made while the one before it is learned from, where a processor has nothing else to do.

    A batch depends on its step alone, so it does not matter who makes it, and when.

    Args:
        make: step, progress and number of epochs to the epoch and the batch.
        spare: whether a processor is free.
    """

    def __init__(self, make: Callable[[int, float, float], tuple[int, Batch]], *, spare: bool) -> None:
        self.make = make
        self.next: Future[tuple[int, Batch]] | None = None
        self.pool = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) if spare else None

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def batch(self, step: int, progress: float, total_steps: int, per_epoch: int) -> tuple[int, Batch]:
        """The epoch and the batch of this step; that of the next, which has to be asked for next, is begun."""
        num_epochs = total_steps / per_epoch
        if self.pool is None:
            return self.make(step, progress, num_epochs)
        # The first one, too, is made there: sums depend on how many threads compute, and resuming has to be exact.
        future = self.next or self.pool.submit(self.make, step, progress, num_epochs)
        epoch_and_batch = future.result()
        self.next = self.pool.submit(self.make, step + 1, progress + 1 / total_steps, num_epochs)
        return epoch_and_batch

    def forget(self) -> None:
        """Another step comes next than was expected."""
        if self.next is not None:
            wait([self.next])
        self.next = None


def optimise(objective: Objective, batch: Batch, state: State, clip_norm: float | None) -> float:
    """One step of one objective: gradients of all micro-batches and processes, then its optimisers.

    Args:
        objective: what to minimise.
        batch: of all processes; each takes its share.
        state: with the plan and the progress.
        clip_norm: largest norm of the gradient.

    Returns:
        The mean loss over the global batch.

    Raises:
        DivergenceError: a loss or the gradient is not finite; no weight was changed.
    """
    plan, parameters, device = state.plan, objective.parameters(), objective.parameters()[0].device
    for p in parameters:
        p.grad = None
    total, weight = torch.zeros((), device=device), 0.0
    largest = math.ceil(len(next(iter(batch.values()))) / distributed.world())
    num_parts = math.ceil(largest / plan.micro_batch_size)  # equally many on all processes: they agree on each loss
    own_batch = distributed.share(batch)
    for number in range(num_parts):
        part = {k: v.tensor_split(num_parts)[number] for k, v in own_batch.items()}
        loss = None
        if len(next(iter(part.values()))):
            with autocast(plan.precision, device):
                loss = objective.loss(part)
        value = distributed.sum_of(torch.zeros_like(total) if loss is None else loss.total)
        if not math.isfinite(value):  # before a backward pass, whose operators may index by such values
            raise DivergenceError(objective.name, value, state.step + 1)
        if loss is not None:
            loss.total.backward()  # type: ignore[no-untyped-call]
            total, weight = total + loss.total.detach(), weight + loss.weight
    mean = distributed.divide_gradients(parameters, total, weight).item()
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if not math.isfinite(mean):
        raise DivergenceError(objective.name, mean, state.step + 1)
    if not math.isfinite(norm):
        raise DivergenceError(f"gradient of the {objective.name}", float(norm), state.step + 1)
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    factor = objective.schedule(state.progress) * state.rate
    for optimizer in objective.optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            still = state.progress < group.get("starts_at", 0.0)
            group["lr"] = 0.0 if still else group["initial_lr"] * factor
        with autocast(plan.precision, device):  # an optimiser may multiply matrices too
            optimizer.step()
    return mean


def _mix(seed: int, step: int) -> int:
    """One number from two, such that neighbours give unrelated streams."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(2))


def _validate(task: AnyTask, model: nn.Module, average: AveragedModel, val: Dataset, state: State) -> Record:
    """Evaluate the averaged weights on validation; remember them where they are the best so far.

    Raises:
        DivergenceError: weights or answers are not finite.
    """
    require_finite("weights", [*model.state_dict().values(), *average.state_dict().values()], state.step)
    model = average.module.eval()
    outputs = gather_outputs(task, model, val, precision=state.plan.precision, quick=True)
    require_numbers(outputs, state.step)
    evaluation = task.evaluate(outputs, val, intervals=False)
    name, way = task.monitor, task.METRICS[task.monitor].better
    score = evaluation.metrics[name]
    if state.better(score, way):
        state.best, state.best_step, state.looks_without_gain = score, state.step, 0
        state.best_weights = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
    else:
        state.looks_without_gain += 1
    if not state.best_weights:  # a score that is never a number must not leave us without weights
        state.best_weights = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
    return {
        "step": state.step,
        "progress": round(state.progress, 6),
        "seconds": round(state.seconds, 3),
        "val": evaluation.metrics,
        "best": state.best_step == state.step,
    }


def grad_norms(model: nn.Module) -> dict[str, float]:
    """How strong the gradient is in each layer: its root mean square over the weights that have one, by layer."""
    sums: dict[str, tuple[float, int]] = {}
    for name, p in model.named_parameters():
        if p.grad is not None:
            square, count = sums.get(layer := name.rpartition(".")[0], (0.0, 0))
            sums[layer] = (square + float(p.grad.float().square().sum()), count + p.numel())
    return {layer: float(f"{math.sqrt(square / count):.4g}") for layer, (square, count) in sums.items()}


class _Journal:
    """``metrics.jsonl``: one JSON object a line, cut back on resuming to what the checkpoint knows."""

    def __init__(self, folder: Path, state: State, listeners: tuple[Listener, ...]) -> None:
        self.path, self.state, self.listeners = folder / METRICS, state, listeners
        if distributed.rank() == 0:
            with self.path.open("ab") as file:
                file.truncate(state.metrics_bytes)

    def notify(self, record: Record) -> None:
        """Call the listeners with a record that is not written."""
        for listener in self.listeners:
            listener(record)

    def write(self, record: Record) -> None:
        """Append a record, and call the listeners with it."""
        if distributed.rank() == 0:
            append_json(self.path, record, otherwise="make room, then go on with --resume")
        self.notify(record)

    def settle(self) -> None:
        """Remember the length that belongs to the checkpoint about to be written."""
        if distributed.rank() == 0:
            self.state.metrics_bytes = self.path.stat().st_size


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag that is read after the step; the second one stops at once."""
    caught = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal caught
        if caught:
            raise KeyboardInterrupt
        caught = True

    try:
        before = signal.signal(signal.SIGINT, on_signal)
    except ValueError:  # not in the main thread: nobody can press Ctrl-C here
        yield lambda: False
        return
    try:
        yield lambda: caught
    finally:
        signal.signal(signal.SIGINT, before)
