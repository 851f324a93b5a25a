"""The smallest task that does all that tasks do: does a series of numbers rise, fall or stay?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from dolmen.metrics.classification import quick_metrics
from dolmen.metrics.shared import shared
from dolmen.nn.losses import Loss, cross_entropy
from dolmen.nn.optimizers import cosine
from dolmen.nn.recurrent import GRU
from dolmen.nn.torch_network import Graph, Input
from dolmen.runtime.network import MODEL, Network, Streams
from dolmen.tasks.config import TaskConfig
from dolmen.tasks.task import Batch, Objective, Prepared, Task
from dolmen.types import Arrays, CheckReport, Evaluation
from trends.data import SeriesDataset, read_series, write_sample
from trends.predictor import TrendPredictor
from trends.processor import SeriesProcessor


class TrendConfig(TaskConfig):
    """Choices for trends."""

    hidden: int = Field(16, ge=1, description="units of the recurrent layer")


class TrendNet(nn.Module):
    """A GRU whose output at each step says which way the series goes so far."""

    def __init__(self, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.gru = GRU(1, hidden, batch_first=True)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, steps: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 1) steps and (1, B, H) state -> (B, T, K) logits and the state after them."""
        y, after = self.gru(steps, hidden)
        return self.head(y), after.hidden


class Trends(Task[TrendConfig, SeriesProcessor, SeriesDataset, TrendNet]):
    """Series to trends."""

    name = "trends"
    Config = TrendConfig
    Processor = SeriesProcessor
    Predictor = TrendPredictor
    METRICS = shared("accuracy", "loss", "calibrated_loss")
    headline = "accuracy"
    monitor = "loss"

    @classmethod
    def prepare(cls, config: TrendConfig, data: str, **_: Any) -> Prepared[TrendConfig, SeriesProcessor, SeriesDataset]:
        rows = read_series(data)
        order = np.random.default_rng(config.seed).permutation(len(rows))
        parts = dict(zip(("test", "val", "train"), np.split(order, [len(order) // 6, len(order) // 3]), strict=True))
        values = np.concatenate([SeriesProcessor(classes=(), mean=0, std=1).encode(text) for _, text in rows])
        classes = tuple(sorted({label for label, _ in rows}))
        processor = SeriesProcessor(classes=classes, mean=float(values.mean()), std=float(values.std()))
        datasets = {name: SeriesDataset([rows[i] for i in part], processor) for name, part in parts.items()}
        report = CheckReport(task=cls.name, source=data, num_files=len(rows), num_used=len(rows))
        return Prepared(report, config, processor, datasets)

    def open(self, data: str, **_: Any) -> SeriesDataset:
        return SeriesDataset(read_series(data), self.processor)

    def build_model(self) -> TrendNet:
        return TrendNet(self.config.hidden, len(self.processor.classes))

    def objectives(self, model: TrendNet) -> Sequence[Objective]:
        def loss(batch: Batch) -> Loss:
            return cross_entropy(self.outputs(model, batch)["logits"], batch["labels"])

        optimizer = torch.optim.AdamW(model.parameters(), lr=self.config.lr or 0.02)
        return [Objective("loss", loss, (optimizer,), cosine(warmup=0.1))]

    def outputs(self, model: TrendNet, batch: Batch) -> Batch:
        steps = batch["steps"]
        logits, _ = model(steps, steps.new_zeros(1, len(steps), self.config.hidden))
        return {"logits": logits[torch.arange(len(steps)), batch["lengths"] - 1].float()}

    def graphs(self, model: TrendNet) -> dict[str, Graph]:
        inputs = {
            "steps": Input("float32", ("batch", "time", 1)),
            "hidden": Input("float32", (1, "batch", self.config.hidden)),
        }
        return {MODEL: Graph(model, inputs, ("logits", "next_hidden"), {"next_hidden": "hidden"})}

    def network_outputs(self, networks: Mapping[str, Network], batch: Arrays) -> Arrays:
        logits = Streams(networks[MODEL], num_streams=len(batch["steps"])).read(batch["steps"])["logits"]
        return {"logits": logits[np.arange(len(logits)), batch["lengths"] - 1]}

    def evaluate(self, outputs: Arrays, dataset: SeriesDataset, *, intervals: bool = True) -> Evaluation:
        return Evaluation(self.name, len(dataset), quick_metrics(outputs["logits"], dataset.labels))

    @classmethod
    def sample(cls, folder: Path) -> None:
        write_sample(folder)

    def facts(self) -> list[tuple[str, str]]:
        return [("trends", ", ".join(self.processor.classes))]

    def intended_use(self) -> list[str]:
        return [f"It says of a series of numbers which of {', '.join(self.processor.classes)} it does."]

    def explain(self, model: TrendNet, raw: Any, out: Path) -> dict[str, Any]:
        from matplotlib.figure import Figure

        trends = TrendPredictor(self.processor, self.networks(model)).trends(raw)
        figure = Figure(figsize=(6, 3))
        figure.subplots().plot([t.probability for t in trends])
        figure.savefig(out)
        return {"trends": [t.to_json() for t in trends]}
