"""What a run's folder says, read once, for the report and the card."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dolmen.files import read_journal
from dolmen.report.description import read_description
from dolmen.report.numbers import duration, interval_text, metric_text, sentence
from dolmen.run_folder import CHECK, CONFIG, ENVIRONMENT, EVALUATION, METRICS
from dolmen.types import CheckReport
from dolmen.wording import count

Record = dict[str, Any]
SPLITS = {
    "test": "test split, which was never used in training",
    "val": "validation split, which also chose the weights",
}


class RunFiles:
    """The files of a run's folder. One that is missing is empty here.

    Attributes:
        about: config.json: task, dolmen, data, command, config.
        config: the task's configuration in it.
        description: description.json; that of a run without one says nothing.
        environment: environment.json.
        evaluation: evaluation.json, by split.
        check: check.json, or None.
        plan: the plan's record of metrics.jsonl.
        validations: its records of validation, without those that a diverged training went back behind.
        setbacks: its records of where the training diverged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about = read_json(folder / CONFIG)
        self.config: Record = self.about.get("config", {})
        self.description = read_description(folder)
        self.environment = read_json(folder / ENVIRONMENT)
        self.evaluation = read_json(folder / EVALUATION)
        check = folder / CHECK
        self.check = CheckReport.model_validate_json(check.read_text("utf-8")) if check.exists() else None
        records = read_journal(folder / METRICS)
        self.setbacks: list[Record] = [r for r in records if r.get("event") == "diverged"]
        self.validations: list[Record] = []
        for record in records:
            if record.get("event") == "look":
                self.validations.append(record)
            elif record.get("event") == "diverged":
                self.validations = [r for r in self.validations if r["step"] <= record["back_to"]]
        self.plan: Record = next((r for r in records if r.get("event") == "plan"), {})

    @property
    def notes(self) -> list[str]:
        """What was decided for the training and why, and where it diverged."""
        return [*self.plan.get("notes", []), *(sentence(r["message"]) for r in self.setbacks)]

    @property
    def name(self) -> str:
        """The run's own name: its folder's."""
        return self.folder.resolve().name

    @property
    def split(self) -> str:
        """The split that the headline speaks of: the test split where there is one."""
        return "test" if "test" in self.evaluation else next(iter(self.evaluation), "")

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers of that split."""
        metrics: dict[str, float] = self.evaluation.get(self.split, {}).get("metrics", {})
        return metrics

    @property
    def intervals(self) -> dict[str, list[float]]:
        """Their 95 % intervals."""
        intervals: dict[str, list[float]] = self.evaluation.get(self.split, {}).get("intervals", {})
        return intervals

    @property
    def headline_metric(self) -> str:
        """The headline metric's name: the task's, else the first that has an interval."""
        if (name := self.description.headline) in self.metrics:
            return name
        return next(iter([*self.intervals, *self.metrics]), "")

    def headline(self) -> dict[str, str]:
        """The figure that a person asks for first, as texts."""
        name = self.headline_metric
        metric = self.description.metric(name)
        num = self.evaluation.get(self.split, {}).get("num_examples", 0)
        return {
            "name": metric.title,
            "value": metric_text(metric, self.metrics.get(name)),
            "interval": interval_text(self.intervals.get(name), percentages=metric.percent),
            "where": f"{count(num, 'example')} of the {SPLITS.get(self.split, self.split)}",
        }

    def facts(self) -> list[tuple[str, str]]:
        """What the run is: a few names with values."""
        facts = [("data", str(self.about.get("data", "–")))]
        if self.check and self.check.counts:
            parts = [f"{s} {sum(c.values()):,}" for s, c in self.check.counts.items()]
            facts.append(("examples", ", ".join(parts)))
        facts += self.description.facts
        if self.config.get("model"):
            facts.append(("model", self.model()))
        if self.validations:
            last = self.validations[-1]
            steps = count(last["step"], "step")
            facts.append(("training", f"{duration(last['seconds'])}, {self.epochs()[-1]:.1f} epochs, {steps}"))
        if self.environment:
            facts.append(("machine", self.machine()))
        return facts

    def model(self) -> str:
        """The network's name and size."""
        parts = [str(self.config["model"])]
        if "num_parameters" in self.about:
            parts.append(f"{self.about['num_parameters'] / 1e6:.2f} M parameters")
        return ", ".join(parts)

    def machine(self) -> str:
        """Where it ran."""
        device = str(self.environment.get("device", "cpu"))
        if device != "cpu":
            return device
        threads = self.environment.get("num_threads")
        return str(self.environment.get("cpu", device)) + (f", {count(threads, 'thread')}" if threads else "")

    # ---- training

    def epochs(self) -> list[float]:
        """Passes over the data at each validation, from the steps, since the journal has whole epochs only."""
        if not self.validations:
            return []
        # Epoch e holds the steps e * n + 1 to (e + 1) * n: every validation bounds n from both sides.
        low = max(math.floor((r["step"] - 1) / (r["epoch"] + 1)) + 1 for r in self.validations)
        high = min(((r["step"] - 1) // r["epoch"] for r in self.validations if r["epoch"]), default=low)
        return [r["step"] / max(low, high) for r in self.validations]

    @property
    def watched(self) -> str:
        """The metric to draw: the headline where training measured it, else the first that it measured."""
        names = [n for n in self.validations[0].get("val", {}) if n != "loss"] if self.validations else []
        name = self.headline_metric
        return name if name in names else next(iter(names), "")

    def progress(self) -> str:
        """What the last quarter of the training changed, in one sentence."""
        name = self.watched
        if not name or len(self.validations) < 5:
            return ""
        x = [r["progress"] for r in self.validations]
        late = max(i for i, p in enumerate(x) if p <= max(x[0], 0.75 * x[-1]))
        metric = self.description.metric(name)
        first, before, after = (metric_text(metric, self.validations[i]["val"].get(name)) for i in (0, late, -1))
        return (
            f"{sentence(metric.title)} on validation was {first} at the first look, {before} after "
            "three "
            f"quarters of the training and {after} at its end."
        )


def read_json(path: Path) -> Record:
    """A JSON object from a file, empty where there is none."""
    if not path.exists():
        return {}
    values: Record = json.loads(path.read_text("utf-8"))
    return values
