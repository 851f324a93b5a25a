"""A task so small that the engine can be watched: two classes of points, a linear or a batch-normed network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dolmen.metrics.classification import quick_metrics
from dolmen.metrics.shared import shared
from dolmen.nn.convolutional.blocks import BatchNorm2d
from dolmen.nn.losses import Loss, cross_entropy
from dolmen.nn.optimizers import linear
from dolmen.nn.torch_network import Graph, Input
from dolmen.tasks.config import TaskConfig
from dolmen.tasks.task import Batch, Moment, Objective, Prepared, Task
from dolmen.types import Arrays, CheckReport, Evaluation


class Points:
    def __init__(self, points: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        self.points, self.labels = points, labels

    def __len__(self) -> int:
        return len(self.points)

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        return {
            "points": torch.from_numpy(self.points[indices]),
            "labels": torch.from_numpy(self.labels[indices]),
        }

    def subset(self, rows: NDArray[np.int64]) -> Points:
        return Points(self.points[rows], self.labels[rows])


class Toy(Task[TaskConfig, Any, Points, nn.Module]):
    """Points to the left or to the right."""

    name = "toy"
    Config = TaskConfig
    METRICS = shared("loss", "calibrated_loss", "accuracy")
    headline = "accuracy"
    monitor = "loss"
    norm = False
    noise = 0.3
    spoil: ClassVar[Callable[[int, nn.Module, Loss], Loss] | None] = None
    """Changes a loss, by how often one was computed before (from 1) and the network."""

    @classmethod
    def prepare(cls, config: TaskConfig, data: str = "", **_: Any) -> Prepared[TaskConfig, Any, Points]:
        rng, datasets = np.random.default_rng(int(data or 0)), {}
        for split, n in (("train", 203), ("val", 50)):
            labels = rng.integers(0, 2, n)
            points = (rng.normal(size=(n, 4)) + 2 * labels[:, None]).astype(np.float32)
            datasets[split] = Points(points, labels)
        report = CheckReport(task="toy", source=data, num_files=1, num_used=1)
        return Prepared(report, config, None, datasets)

    def open(self, data: str, **_: Any) -> Points:
        raise NotImplementedError

    def build_model(self) -> nn.Module:
        layers: list[nn.Module] = [nn.Unflatten(1, (4, 1, 1)), nn.Conv2d(4, 8, 1)]
        if self.norm:
            layers.append(BatchNorm2d(8))
        return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))

    def objectives(self, model: nn.Module) -> Sequence[Objective]:
        calls = 0

        def loss(batch: Batch) -> Loss:
            nonlocal calls
            calls += 1
            result = cross_entropy(model(batch["points"]), batch["labels"])
            return result if self.spoil is None else type(self).spoil(calls, model, result)

        rate = self.config.lr or 0.1
        return [Objective("loss", loss, (torch.optim.SGD(model.parameters(), rate, momentum=0.9),), linear())]

    def augment(self, batch: Batch, moment: Moment) -> Batch:
        noise = torch.randn(batch["points"].shape, generator=moment.generator) * self.noise
        return batch | {"points": batch["points"] + noise}

    def batch_size(self, num_examples: int) -> int:
        return 32

    def graphs(self, model: nn.Module) -> dict[str, Graph]:
        return {"model": Graph(model, {"points": Input("float32", ("batch", 4))}, ("logits",))}

    def outputs(self, model: nn.Module, batch: Batch) -> Batch:
        return {"logits": model(batch["points"])}

    def evaluate(self, outputs: Arrays, dataset: Points, *, intervals: bool = True) -> Evaluation:
        return Evaluation("toy", len(dataset), quick_metrics(outputs["logits"], dataset.labels))


def toy(**choices: Any) -> Toy:
    """A prepared toy task."""
    config = TaskConfig(**({"epochs": 4, "precision": "fp32", "threads": 1} | choices))
    return Toy.from_prepared(Toy.prepare(config))
