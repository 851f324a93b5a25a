"""What a run's folder says, read once, for the report and the card."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dolmen.files import read_journal
from dolmen.report.numbers import duration, interval_text, metric_name, metric_text, sentence
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
        processor: processor.json.
        environment: environment.json.
        evaluation: evaluation.json, by split.
        check: check.json, or None.
        plan: the plan's record of metrics.jsonl.
        looks: its records of the looks at validation.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about = read_json(folder / "config.json")
        self.config: Record = self.about.get("config", {})
        self.processor = read_json(folder / "processor.json")
        self.environment = read_json(folder / "environment.json")
        self.evaluation = read_json(folder / "evaluation.json")
        check = folder / "check.json"
        self.check = CheckReport.model_validate_json(check.read_text("utf-8")) if check.exists() else None
        records = read_journal(folder / "metrics.jsonl")
        self.looks: list[Record] = [r for r in records if r.get("event") == "look"]
        self.plan: Record = next((r for r in records if r.get("event") == "plan"), {})

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
        found: dict[str, float] = self.evaluation.get(self.split, {}).get("metrics", {})
        return found

    @property
    def intervals(self) -> dict[str, list[float]]:
        """Their 95 % intervals."""
        found: dict[str, list[float]] = self.evaluation.get(self.split, {}).get("intervals", {})
        return found

    def metric(self, wanted: str | None) -> str:
        """The headline metric's name: the wanted one, else the first that has an interval."""
        if wanted is not None and wanted in self.metrics:
            return wanted
        return next(iter([*self.intervals, *self.metrics]), "")

    def headline(self, wanted: str | None) -> dict[str, str]:
        """The figure that a person asks for first, as texts."""
        name = self.metric(wanted)
        num = self.evaluation.get(self.split, {}).get("num_examples", 0)
        return {
            "name": metric_name(name),
            "value": metric_text(name, self.metrics.get(name)),
            "interval": interval_text(name, self.intervals.get(name)),
            "where": f"{count(num, 'example')} of the {SPLITS.get(self.split, self.split)}",
        }

    def facts(self) -> list[tuple[str, str]]:
        """What the run is: a few names with values."""
        found = [("data", str(self.about.get("data", "–")))]
        if self.check and self.check.counts:
            parts = [f"{s} {sum(c.values()):,}" for s, c in self.check.counts.items()]
            found.append(("examples", ", ".join(parts)))
        if "classes" in self.processor:
            found.append(("classes", self.class_names()))
        if self.config.get("model"):
            found.append(("model", self.model()))
        if self.looks:
            last = self.looks[-1]
            steps = count(last["step"], "step")
            found.append(("training", f"{duration(last['seconds'])}, {self.epochs()[-1]:.1f} epochs, {steps}"))
        if self.environment:
            found.append(("machine", self.machine()))
        return found

    def class_names(self) -> str:
        """Their number, and their names where these are few."""
        names = [str(c) for c in self.processor["classes"]]
        return f"{len(names)}: {', '.join(names)}" if len(", ".join(names)) <= 60 else f"{len(names)}"

    def model(self) -> str:
        """The network's name, size and input."""
        parts = [str(self.config["model"])]
        if "num_parameters" in self.about:
            parts.append(f"{self.about['num_parameters'] / 1e6:.2f} M parameters")
        if {"height", "width", "channels"} <= self.processor.keys():
            colour = "grey" if self.processor["channels"] == 1 else "colour"
            parts.append(f"{self.processor['width']} × {self.processor['height']} pixels in {colour}")
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
        """Passes over the data at each look, from the steps, since the journal has whole epochs only."""
        if not self.looks:
            return []
        # Epoch e holds the steps e * n + 1 to (e + 1) * n: every look bounds n from both sides.
        least = max(math.floor((r["step"] - 1) / (r["epoch"] + 1)) + 1 for r in self.looks)
        most = min(((r["step"] - 1) // r["epoch"] for r in self.looks if r["epoch"]), default=least)
        return [r["step"] / max(least, most) for r in self.looks]

    def watched(self, wanted: str | None) -> str:
        """The metric to draw: the headline where training looked at it, else the first that it looked at."""
        names = [n for n in self.looks[0].get("val", {}) if n != "loss"] if self.looks else []
        name = self.metric(wanted)
        return name if name in names else next(iter(names), "")

    def progress(self, wanted: str | None) -> str:
        """What the last quarter of training still brought, in one sentence."""
        name = self.watched(wanted)
        if not name or len(self.looks) < 5:
            return ""
        x = [r["progress"] for r in self.looks]
        late = max(i for i, p in enumerate(x) if p <= max(x[0], 0.75 * x[-1]))
        first, before, after = (metric_text(name, self.looks[i]["val"].get(name)) for i in (0, late, -1))
        return (
            f"{sentence(metric_name(name))} on validation was {first} at the first look, {before} after "
            "three "
            f"quarters of the training and {after} at its end."
        )


def read_json(path: Path) -> Record:
    """A JSON object from a file, empty where there is none."""
    if not path.exists():
        return {}
    found: Record = json.loads(path.read_text("utf-8"))
    return found
