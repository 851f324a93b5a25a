"""Two networks that are trained against each other, of which one is used: pictures of one bright half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from engine.toy import Points
from torch import nn

from dolmen.nn.losses import Loss
from dolmen.nn.optimizers import linear
from dolmen.nn.torch_network import Graph, Input
from dolmen.runtime.network import Network
from dolmen.tasks.task import Batch, Dataset, Objective, Task, TaskConfig
from dolmen.types import Arrays, CheckReport, Evaluation

NOISE, SIDE = 8, 8


class ToyGan(Task[TaskConfig]):
    name = "toy-gan"
    Config = TaskConfig
    headline = ("distance", "min")
    monitor = ("distance", "min")
    used: tuple[str, ...] = ("generator",)

    def prepare(self, data: str = "", **_: Any) -> CheckReport:
        self.asked: list[str] = []
        rng = np.random.default_rng(0)
        for split, n in (("train", 64), ("val", 32)):
            pictures = rng.normal(size=(n, SIDE * SIDE)).astype(np.float32)
            self.datasets[split] = Points(pictures, np.zeros(n, np.int64))
        return CheckReport(task=self.name, source=data, num_files=1, num_used=1)

    def open(self, data: str, **_: Any) -> Dataset:
        raise NotImplementedError

    def build_model(self) -> nn.Module:
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

    def objectives(self, model: nn.Module) -> Sequence[Objective]:
        assert isinstance(model, nn.ModuleDict)

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

    def graphs(self, model: nn.Module) -> dict[str, Graph]:
        assert isinstance(model, nn.ModuleDict)
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

    def outputs(self, model: nn.Module, batch: Batch) -> Batch:
        assert isinstance(model, nn.ModuleDict)
        return {"images": model["generator"](torch.from_numpy(self.noise(len(batch["points"]))["noise"]))}

    def outputs_by(self, networks: Mapping[str, Network], batch: Arrays) -> Arrays:
        return networks["generator"](self.noise(len(batch["points"])))

    def evaluate(self, outputs: Arrays, dataset: Dataset, *, intervals: bool = True) -> Evaluation:
        assert isinstance(dataset, Points)
        distance = float(np.abs(outputs["images"].reshape(len(dataset), -1) - dataset.points).mean())
        return Evaluation(self.name, len(dataset), {"distance": distance})


def gan(graphs: tuple[str, ...] = ("generator",)) -> ToyGan:
    """A prepared task."""
    task = ToyGan(TaskConfig(epochs=1, precision="fp32", threads=1))
    task.used = graphs
    task.prepare()
    return task
