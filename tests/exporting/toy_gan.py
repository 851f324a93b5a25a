"""Two networks that are trained against each other, of which one is used: pictures of one bright half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from engine.toy import Points
from torch import nn

from dolmen.nn.losses import Loss
from dolmen.nn.optimizers import linear
from dolmen.nn.torch_network import Graph, Input
from dolmen.runtime.network import Network
from dolmen.tasks.config import TaskConfig
from dolmen.tasks.task import Batch, Objective, Prepared, Task
from dolmen.types import Arrays, CheckReport, Evaluation, Metric

NOISE, SIDE = 8, 8


class ToyGan(Task[TaskConfig, Any, Points, nn.ModuleDict]):
    name = "toy-gan"
    Config = TaskConfig
    METRICS: ClassVar[dict[str, Metric]] = {"distance": Metric("distance", "mean difference of pixels", better="min")}
    headline = "distance"
    monitor = "distance"
    used: tuple[str, ...] = ("generator",)
    asked: list[str]
    """Of which graphs inputs were asked for."""

    @classmethod
    def prepare(cls, config: TaskConfig, data: str = "", **_: Any) -> Prepared[TaskConfig, Any, Points]:
        rng, datasets = np.random.default_rng(0), {}
        for split, n in (("train", 64), ("val", 32)):
            pictures = rng.normal(size=(n, SIDE * SIDE)).astype(np.float32)
            datasets[split] = Points(pictures, np.zeros(n, np.int64))
        return Prepared(CheckReport(task=cls.name, source=data, num_files=1, num_used=1), config, None, datasets)

    def open(self, data: str, **_: Any) -> Points:
        raise NotImplementedError

    def build_model(self) -> nn.ModuleDict:
        torch.manual_seed(0)
        generator = nn.Sequential(
            nn.Linear(NOISE, 16 * 16), nn.ReLU(), nn.Unflatten(1, (16, 4, 4)), nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1), nn.Tanh(),
        )  # fmt: skip
        discriminator = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 1)
        )
        return nn.ModuleDict({"generator": generator, "discriminator": discriminator})

    def noise(self, number: int) -> Arrays:
        return {"noise": np.random.default_rng(1).normal(size=(number, NOISE)).astype(np.float32)}

    def objectives(self, model: nn.ModuleDict) -> Sequence[Objective]:
        def fakes(batch: Batch) -> torch.Tensor:
            made: torch.Tensor = model["generator"](torch.from_numpy(self.noise(len(batch["points"]))["noise"]))
            return made

        def real(batch: Batch) -> torch.Tensor:
            return batch["points"].reshape(-1, 1, SIDE, SIDE)

        def discriminator(batch: Batch) -> Loss:
            apart = model["discriminator"](fakes(batch).detach()) - model["discriminator"](real(batch))
            return Loss(nn.functional.softplus(apart).sum(), len(apart))

        def generator(batch: Batch) -> Loss:
            apart = -model["discriminator"](fakes(batch))
            return Loss(nn.functional.softplus(apart).sum(), len(apart))

        return [
            Objective(name, loss, (torch.optim.Adam(model[name].parameters(), 1e-3),), linear())
            for name, loss in (("discriminator", discriminator), ("generator", generator))
        ]

    def graphs(self, model: nn.ModuleDict) -> dict[str, Graph]:
        graphs = {
            "generator": Graph(model["generator"], {"noise": Input("float32", ("batch", NOISE))}, ("images",)),
            "discriminator": Graph(
                model["discriminator"], {"images": Input("float32", ("batch", 1, SIDE, SIDE))}, ("logits",)
            ),
        }
        return {name: graphs[name] for name in self.used}

    def graph_inputs(self, name: str, batch: Batch) -> Arrays:
        self.asked.append(name)
        images = batch["points"].reshape(-1, 1, SIDE, SIDE).numpy()
        return self.noise(len(batch["points"])) if name == "generator" else {"images": images}

    def outputs(self, model: nn.ModuleDict, batch: Batch) -> Batch:
        return {"images": model["generator"](torch.from_numpy(self.noise(len(batch["points"]))["noise"]))}

    def network_outputs(self, networks: Mapping[str, Network], batch: Arrays) -> Arrays:
        return networks["generator"](self.noise(len(batch["points"])))

    def evaluate(self, outputs: Arrays, dataset: Points, *, intervals: bool = True) -> Evaluation:
        distance = float(np.abs(outputs["images"].reshape(len(dataset), -1) - dataset.points).mean())
        return Evaluation(self.name, len(dataset), {"distance": distance})


def gan(graphs: tuple[str, ...] = ("generator",)) -> ToyGan:
    """A prepared task."""
    task = ToyGan.from_prepared(ToyGan.prepare(TaskConfig(epochs=1, precision="fp32", threads=1)))
    task.used, task.asked = graphs, []
    return task
