"""What a task is: the one interface between the ten jobs and everything that serves them all."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dolmen.nn.losses import Loss
from dolmen.nn.optimizers import Schedule
from dolmen.nn.torch_network import Graph, TorchNetwork
from dolmen.runtime import predictor
from dolmen.runtime.network import MODEL, Network
from dolmen.tasks.config import TaskConfig
from dolmen.types import Arrays, CheckReport, Evaluation, Finding, Metric, Section, UserError

Batch = dict[str, Tensor]
"""Named tensors with a leading batch axis, e.g. ``{"images": (B, H, W, C) uint8, "labels": (B,) int64}``."""

ConfigT = TypeVar("ConfigT", bound="TaskConfig")
ProcessorT = TypeVar("ProcessorT", bound="Processor")
DatasetT = TypeVar("DatasetT", bound="Dataset")
ModelT = TypeVar("ModelT", bound=nn.Module)


def batch_indices(num_examples: int, batch_size: int, step: int, seed: int) -> tuple[int, NDArray[np.int64]]:
    """Which examples are in a step where the order is random: ``(epoch, indices)``."""
    per_epoch = math.ceil(num_examples / batch_size)
    epoch, number = divmod(step, per_epoch)
    return epoch, np.array_split(_permutation(num_examples, seed, epoch), per_epoch)[number]


@lru_cache(maxsize=1)
def _permutation(num_examples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(num_examples)


Progress = Callable[[str, int, int], None]
"""Called with ``(what, done, total)`` while something long is under way."""


def stage_progress(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    """Turn ``progress`` into what one stage calls with ``(done, total)``; None where nobody asked."""
    return None if progress is None else lambda done, total: progress(stage, done, total)


@dataclass(frozen=True)
class Moment:
    """When a training batch is made. Everything random about it comes from here, so that resuming is exact.

    Attributes:
        epoch: passes over the data so far.
        progress: share of the budget spent, 0..1.
        num_epochs: passes that the whole budget allows; the more there are, the more variety is needed.
        generator: seeded by the run's seed and the step's number; the same on every process.
    """

    epoch: int
    progress: float
    num_epochs: float
    generator: torch.Generator


class Dataset(Protocol):
    """Indexed examples. Indexing a tensor is quicker than worker processes, so there are none."""

    @property
    def digests(self) -> NDArray[np.uint8]:
        """(N, D) uint8, equal for equal examples; by them ``evaluate`` knows what training has seen."""
        ...

    def __len__(self) -> int: ...

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """Return the examples at ``indices``, stored values, on the CPU."""
        ...

    def subset(self, rows: NDArray[np.int64]) -> Self:
        """Return some of the examples, in the given order."""
        ...


@dataclass(frozen=True)
class Objective:
    """A loss, its parameters (those of its optimisers) and how their learning rate moves.

    Attributes:
        name: for the records ("loss", "generator").
        loss: from one (micro-)batch to a sum and a weight.
        optimizers: disjoint parameters; a group may hold ``starts_at``, the progress before which it stays still.
        schedule: multiplier of every learning rate.
    """

    name: str
    loss: Callable[[Batch], Loss]
    optimizers: tuple[torch.optim.Optimizer, ...]
    schedule: Schedule

    def parameters(self) -> list[nn.Parameter]:
        """All parameters of all its optimisers."""
        return [p for o in self.optimizers for g in o.param_groups for p in g["params"]]


class Processor(Protocol):
    """Raw input to arrays, and model outputs to predictions, numpy only; how, is between a task and its predictor."""

    def to_json(self) -> dict[str, Any]:
        """Everything needed to make it again."""
        ...


class Budget(Protocol):
    """How fast this machine is; given to ``prepare`` so that sizes fit the time that there is."""

    @property
    def seconds(self) -> float:
        """For the training itself."""
        ...

    def seconds_of(
        self,
        model: nn.Module,
        inputs: Tensor,
        loss: Callable[[nn.Module, Tensor], Tensor],
        optimizers: Sequence[torch.optim.Optimizer] = (),
    ) -> float:
        """Measure one training step: ``loss`` (the sum over all objectives), its gradients, the optimisers' steps."""
        ...


@dataclass(frozen=True, eq=False)
class Prepared(Generic[ConfigT, ProcessorT, DatasetT]):
    """Data that were read and checked, and all that was decided by them.

    Attributes:
        report: what is in the data, and what is wrong with them.
        config: as given, with what was left open decided.
        processor: fitted to the training data.
        datasets: "train", "val" and, where the data have one, "test".
        start: what training begins with that is no choice and that a finished run no longer needs: the task's own
            type, or None.
    """

    report: CheckReport
    config: ConfigT
    processor: ProcessorT
    datasets: Mapping[str, DatasetT]
    start: Any = None


@dataclass(frozen=True, eq=False)
class Calibrated(Generic[ProcessorT]):
    """What was fitted on validation after the training.

    Attributes:
        processor: with what was fitted.
        metrics: figures of the fit, to stand beside those on validation.
        tables: likewise.
    """

    processor: ProcessorT
    metrics: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)


class Task(ABC, Generic[ConfigT, ProcessorT, DatasetT, ModelT]):
    """One job: its choices, its processor, its data sets and its network, each of one type.

    The engine, the verbs and the report speak to a job through this class only. A task is made from what ``prepare``
    returns (``from_prepared``), or from the files of a run. What it is given does not change any more; ``replace``
    makes another task.

    Attributes:
        config: all choices, decided.
        processor: fitted.
        datasets: "train", "val" and, where there is one, "test"; empty for a run that was loaded.
        start: what training begins with that is no choice, as ``Prepared`` has it.
        carried: what goes from one training step to the next beside weights (a stream's state); kept in checkpoints.
    """

    name: ClassVar[str]
    Config: ClassVar[type[TaskConfig]]
    Processor: ClassVar[type[Any]]
    Predictor: ClassVar[type[predictor.Predictor[Any]]]
    METRICS: ClassVar[Mapping[str, Metric]]
    """Every metric that ``evaluate`` may report, by name: what people call it and what it means."""
    convert_formats: ClassVar[tuple[str, ...]] = ()
    """The formats that ``convert`` writes."""

    def __init__(
        self,
        config: ConfigT,
        processor: ProcessorT,
        datasets: Mapping[str, DatasetT] | None = None,
        start: Any = None,
    ) -> None:
        self.config = config
        self.processor = processor
        self.datasets: Mapping[str, DatasetT] = datasets or {}
        self.start = start
        self.carried: dict[str, Tensor] = {}

    @classmethod
    def from_prepared(cls, prepared: Prepared[ConfigT, ProcessorT, DatasetT]) -> Self:
        """The task that trains on prepared data."""
        return cls(prepared.config, prepared.processor, prepared.datasets, prepared.start)

    def replace(self, *, processor: ProcessorT | None = None, datasets: Mapping[str, DatasetT] | None = None) -> Self:
        """A task like this one with another processor or other data sets."""
        return type(self)(
            self.config,
            self.processor if processor is None else processor,
            self.datasets if datasets is None else datasets,
            self.start,
        )

    @property
    @abstractmethod
    def headline(self) -> str:
        """The metric that a person asks for first; one of ``METRICS``, which says which way is better."""

    @property
    @abstractmethod
    def monitor(self) -> str:
        """The metric by which the best weights are chosen: the one with the least noise."""

    # ---- data

    @classmethod
    @abstractmethod
    def prepare(
        cls,
        config: ConfigT,
        data: str,
        *,
        fetch: bool = False,
        budget: Budget | None = None,
        progress: Progress | None = None,
        open_model: Callable[[Path], Any] | None = None,
    ) -> Prepared[ConfigT, ProcessorT, DatasetT]:
        """Read and check ``data``, decide what the config left open, fit the processor.

        Args:
            config: the choices that were made.
            data: a path, or the name of a public set.
            fetch: download a named public set if it is not here yet.
            budget: how fast this machine is, to choose sizes by; None where nothing will be trained.
            progress: called with how far reading is.
            open_model: opens a run or a bundle that a choice names; None where there is nothing to open them with.

        Raises:
            UserError: the data can't be used.
        """

    @abstractmethod
    def open(
        self, data: str, *, split: str | None = None, fetch: bool = False, progress: Progress | None = None
    ) -> DatasetT:
        """Read ``data`` for evaluation with the processor as it is.

        Args:
            data: a path, or the name of a public set.
            split: "train", "val" or "test"; None takes the test part, else the validation part, else everything.
            fetch: download a named public set if it is not here yet.
            progress: called with how far reading is.

        Raises:
            UserError: the data can't be used, or hold a class that training never saw.
        """

    def reopen(self, data: str, progress: Progress | None = None) -> Mapping[str, DatasetT]:
        """The data sets that ``prepare`` gave, for a run of which only the choices are left."""
        return type(self).prepare(self.config, data, progress=progress).datasets

    # ---- learning

    @abstractmethod
    def build_model(self) -> ModelT:
        """The network for ``config`` and ``processor``, with weights as the seed gives them."""

    def initialise(self, model: ModelT) -> None:
        """Set what the network takes from the training data before the first step (in place)."""
        del model

    @abstractmethod
    def objectives(self, model: ModelT) -> Sequence[Objective]:
        """The losses with their optimisers: one for most tasks, two for a GAN."""

    def augment(self, batch: Batch, moment: Moment) -> Batch:
        """Turn stored values into what the losses take, with the random changes that training wants."""
        del moment
        return batch

    def steps_per_epoch(self, batch_size: int) -> int:
        """Steps in which training sees all of its data once."""
        return math.ceil(len(self.datasets["train"]) / batch_size)

    def training_batch(self, step: int, batch_size: int) -> tuple[int, Batch]:
        """The epoch that a step is in, and its stored values; from the seed and the step alone.

        By default each epoch is one permutation, cut into batches of at most ``batch_size`` whose sizes differ by at
        most one, so that no example is dropped and no batch is tiny.
        """
        train = self.datasets["train"]
        epoch, indices = batch_indices(len(train), batch_size, step, self.config.seed)
        return epoch, train.batch(indices)

    def batch_size(self, num_examples: int) -> int:
        """Examples in a step where the config says nothing."""
        return int(np.clip(2 ** round(np.log2(max(1, num_examples) / 40)), 16, 256))

    def enough_steps(self, num_examples: int, batch_size: int) -> int:
        """Steps beyond which a budget in minutes is not spent, because nothing is gained any more."""
        return max(2000, 200 * num_examples // batch_size)

    def validation_cost_steps(self, batch_size: int) -> float:
        """About how many training steps one validation costs. Counted, not timed, so that two trainings are alike."""
        return len(self.datasets["val"]) / batch_size / 3

    # ---- use

    @abstractmethod
    def outputs(self, model: ModelT, batch: Batch) -> Batch:
        """Apply the network to a batch of stored values: named outputs with a leading batch axis."""

    def quick_outputs(self, model: ModelT, batch: Batch) -> Batch:
        """Named outputs as ``outputs`` gives them, by one pass of the network: for validation while it trains."""
        return self.outputs(model, batch)

    @abstractmethod
    def graphs(self, model: ModelT) -> dict[str, Graph]:
        """The parts of the model that prediction needs, arrays in, arrays out: ``{MODEL: graph}`` where it is one."""

    def graph_inputs(self, name: str, batch: Batch) -> Arrays:
        """What the graph of this name reads to predict a batch of stored values; int8 takes its ranges from it."""
        del name
        return {k: v.numpy() for k, v in batch.items()}

    def networks(self, model: ModelT) -> dict[str, Network]:
        """The graphs, which torch computes."""
        return {name: TorchNetwork(graph) for name, graph in self.graphs(model).items()}

    def predictor(self, model: ModelT) -> predictor.Predictor[Any]:
        """What turns inputs, as a person has them, into predictions."""
        return self.Predictor(self.processor, self.networks(model))

    def network_outputs(self, networks: Mapping[str, Network], batch: Arrays) -> Arrays:
        """Named outputs as ``outputs`` gives them, by networks that need not be torch's: to measure exported ones.

        By default the only network's own outputs; a task overrides it where ``outputs`` makes something else of them.
        """
        return networks[MODEL](batch)

    def tokens_each(self, dataset: DatasetT) -> int:
        """Tokens of an example, where examples follow one another as the windows of a text do; else 0."""
        return 0

    @abstractmethod
    def evaluate(self, outputs: Arrays, dataset: DatasetT, *, intervals: bool = True) -> Evaluation:
        """Compare the outputs for all examples of ``dataset`` (in its order) with its labels.

        Args:
            outputs: what ``outputs`` gave for all batches, each joined along its leading axis.
            dataset: where the labels are.
            intervals: also compute 95 % intervals and tables; without, only the numbers that training watches.
        """

    def calibrate(self, model: ModelT, outputs: Arrays, dataset: DatasetT) -> Calibrated[ProcessorT]:
        """Fit what the processor takes from validation (temperature, thresholds). Default: nothing.

        Args:
            model: trained.
            outputs: the model's, as ``evaluate`` takes them.
            dataset: "val".
        """
        del model, outputs, dataset
        return Calibrated(self.processor)

    def suspects(self, outputs: Arrays, dataset: DatasetT) -> Finding:
        """Which labels of ``dataset`` look wrong to networks that did not train on them.

        Args:
            outputs: of those networks, in the order of ``dataset``.
            dataset: with the labels in question.
        """
        raise UserError(f"check --labels does not work for {self.name}; leave it out")

    # ---- showing

    @classmethod
    def sample(cls, folder: Path) -> None:
        """Write a small data set in this task's format to a new or empty folder.

        Raises:
            UserError: the folder holds something.
        """
        raise NotImplementedError

    @classmethod
    def convert(cls, data: str, form: str, out: Path, progress: Progress | None = None) -> list[str]:
        """Write data of this task in another format.

        Args:
            data: a path.
            form: one of ``convert_formats``.
            out: a new or empty folder.
            progress: called with how far reading is.

        Returns:
            What was mended, left out or lost, a sentence each.

        Raises:
            UserError: the data can't be read, the folder holds something, or this task has no other formats.
        """
        del data, form, out, progress
        raise UserError(f"{cls.name} has no other formats to convert to; leave --convert out")

    def facts(self) -> list[tuple[str, str]]:
        """What report and card say of the model beside its name and size: names with values ("classes", "2: a, b")."""
        return []

    def intended_use(self) -> list[str]:
        """What the card says the model is for, and what it does with anything else: a sentence each."""
        return []

    def weights_licences(self) -> list[tuple[str, str, str]]:
        """Published weights that training starts from: (name, licence, source) of each."""
        return []

    def sections(
        self, model: ModelT, evaluations: dict[str, Evaluation], datasets: Mapping[str, DatasetT]
    ) -> list[Section]:
        """The parts of the report that only this task has.

        Args:
            model: trained.
            evaluations: by split.
            datasets: what they were made on, by split.
        """
        del model, evaluations, datasets
        return []

    def explain(self, model: ModelT, raw: Any, out: Path) -> dict[str, Any]:
        """Write a picture to ``out`` (.png) that shows why the model answers as it does for one input.

        Returns:
            JSON-able facts that go with the picture.
        """
        raise UserError(f"explain does not work for {self.name} yet; dolmen tasks shows what works today")


AnyTask: TypeAlias = Task[Any, Any, Any, Any]
"""A task, for what serves them all."""
