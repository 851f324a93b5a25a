"""report.html: everything about a run in one file that opens without a network, a server or a script."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dolmen.report import figures
from dolmen.report.numbers import count, duration, interval_text, metric_name, metric_text
from dolmen.types import CheckReport, Section

Record = dict[str, Any]
ABOUT_THE_MOMENT = {"event", "epoch", "step", "progress", "seconds", "best"}
SPLITS = {
    "test": "test split, never seen in training",
    "val": "validation split, which also chose the weights",
}


def write_report(folder: Path, sections: Sequence[Section], *, headline: str | None = None) -> Path:
    """Write ``report.html`` into a run's folder, from the files there and the task's own sections.

    The file appears whole or not at all. A file that is missing costs the part that it would have filled.

    Args:
        folder: holds config.json, processor.json, metrics.jsonl, environment.json, check.json and evaluation.json.
        sections: the task's own, in order.
        headline: the metric to begin with; None takes the first that has an interval.

    Returns:
        The path of the report.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    run = RunFiles(folder)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["count"] = count
    environment.globals["slug"] = lambda text: re.sub(r"\W+", "-", text.lower()).strip("-")
    html = environment.get_template("report.html.jinja").render(
        run=run,
        headline=run.headline(headline),
        facts=run.facts(),
        curves=run.curves(headline),
        progress=run.progress_text(headline),
        sections=sections,
        gradients=run.gradients(),
    )
    path = folder / "report.html"
    temporary = folder / f".report-{os.getpid()}.html"
    try:
        temporary.write_text(html, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


class RunFiles:
    """What a run's folder says, read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about = read_json(folder / "config.json")
        self.config: Record = self.about.get("config", {})
        self.processor = read_json(folder / "processor.json")
        self.environment = read_json(folder / "environment.json")
        self.evaluation = read_json(folder / "evaluation.json")
        check = folder / "check.json"
        self.check = CheckReport.model_validate_json(check.read_text("utf-8")) if check.exists() else None
        journal = folder / "metrics.jsonl"
        lines = journal.read_text("utf-8").splitlines() if journal.exists() else []
        records = [json.loads(line) for line in lines if line.strip()]
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

    def metric(self, wanted: str | None) -> str:
        """The headline metric's name."""
        evaluation = self.evaluation.get(self.split, {})
        metrics = evaluation.get("metrics", {})
        return wanted if wanted in metrics else next(iter([*evaluation.get("intervals", {}), *metrics]), "")

    def headline(self, wanted: str | None) -> Record:
        """The figure that a person asks for first, as texts."""
        name, evaluation = self.metric(wanted), self.evaluation.get(self.split, {})
        return {
            "name": metric_name(name),
            "value": metric_text(name, evaluation.get("metrics", {}).get(name)),
            "interval": interval_text(name, evaluation.get("intervals", {}).get(name)),
            "split": SPLITS.get(self.split, self.split),
            "num": evaluation.get("num_examples", 0),
        }

    def facts(self) -> list[tuple[str, str]]:
        """What the run is: a few names with values."""
        found: list[tuple[str, str]] = [("data", str(self.about.get("data", "–")))]
        if self.check:
            parts = [f"{s} {sum(c.values()):,}" for s, c in self.check.counts.items()]
            found.append(("examples", ", ".join(parts) or f"{self.check.num_used:,}"))
        if "classes" in self.processor:
            found.append(("classes", f"{len(self.processor['classes'])}"))
        if self.config.get("model"):
            size = (
                f", {self.about['num_parameters'] / 1e6:.2f} M parameters"
                if "num_parameters" in self.about
                else ""
            )
            found.append(("model", f"{self.config['model']}{size}"))
        if {"height", "width", "channels"} <= self.processor.keys():
            p = self.processor
            colour = "grey" if p["channels"] == 1 else "colour"
            found.append(("input", f"{p['height']} × {p['width']}, {colour}"))
        if self.looks:
            last = self.looks[-1]
            steps = count(last["step"], "step")
            found.append(
                ("training", f"{duration(last['seconds'])}, {self.epochs()[-1]:.1f} epochs, {steps}")
            )
        where = self.environment.get("device", "cpu")
        where = self.environment.get("cpu", where) if where == "cpu" else where
        if self.environment:
            threads = self.environment.get("num_threads")
            found.append(("machine", f"{where}" + (f", {count(threads, 'thread')}" if threads else "")))
        return found

    # ---- training

    def epochs(self) -> list[float]:
        """Passes over the data at each look, from the steps: the journal has whole epochs only."""
        if not self.looks:
            return []
        low = max((r["step"] - 1) / (r["epoch"] + 1) for r in self.looks)
        high = min(((r["step"] - 1) / r["epoch"] for r in self.looks if r["epoch"]), default=math.inf)
        per_epoch = (
            math.floor(low) + 1
        )  # the smallest whole number above ``low`` is below ``high`` for true journals
        if math.isfinite(high):
            per_epoch = max(per_epoch, math.floor(high))
        return [r["step"] / per_epoch for r in self.looks]

    def curves(self, wanted: str | None) -> list[str]:
        """Charts of the losses and of the headline metric on validation."""
        if not self.looks:
            return []
        x, seconds = self.epochs(), [r["seconds"] for r in self.looks]
        kept = [i for i, r in enumerate(self.looks) if r.get("best")]
        best = kept[-1] if kept else None
        losses = {
            f"training {k}" if k != "loss" else "training": [r.get(k, math.nan) for r in self.looks]
            for k, v in self.looks[0].items()
            if k not in ABOUT_THE_MOMENT and isinstance(v, int | float)
        }
        if "loss" in self.looks[0].get("val", {}):
            losses["validation"] = [r["val"].get("loss", math.nan) for r in self.looks]
        charts = []
        if losses:
            charts.append(figures.curve(x, losses, title="Loss", seconds=seconds, best=best))
        name = self.watched(wanted)
        if name:
            values = [r["val"].get(name, math.nan) for r in self.looks]
            percent = metric_text(name, 0.5).endswith("%")
            title = f"{metric_name(name).capitalize() if name in metric_name(name) else metric_name(name)} on validation"
            charts.append(
                figures.curve(
                    x, {"validation": values}, title=title, seconds=seconds, best=best, percent=percent
                )
            )
        return charts

    def watched(self, wanted: str | None) -> str:
        """The metric that is drawn: the headline where training looked at it, else the first that it looked at."""
        watched = [n for n in self.looks[0].get("val", {}) if n != "loss"] if self.looks else []
        name = self.metric(wanted)
        return name if name in watched else next(iter(watched), "")

    def progress_text(self, wanted: str | None) -> str:
        """What the last quarter of training still brought, in one sentence."""
        name = self.watched(wanted)
        if not name or len(self.looks) < 5:
            return ""
        x = [r["progress"] for r in self.looks]
        values = [r["val"].get(name, math.nan) for r in self.looks]
        start = max(i for i, p in enumerate(x) if p <= max(x[0], 0.75 * x[-1]))
        before, after = metric_text(name, values[start]), metric_text(name, values[-1])
        first = metric_text(name, values[0])
        return (
            f"{metric_name(name)[0].upper()}{metric_name(name)[1:]} on validation went from {first} at the first look to "
            f"{before} after three quarters of the budget and {after} at its end."
        )

    def gradients(self) -> str:
        """The heat map of gradient strength, or nothing."""
        norms = [r["grad_norms"] for r in self.looks if r.get("grad_norms")]
        if len(norms) < 2:
            return ""
        return figures.gradient_flow(self.epochs()[-len(norms) :], norms)


def read_json(path: Path) -> Record:
    """A JSON object from a file, empty where there is none."""
    if not path.exists():
        return {}
    found: Record = json.loads(path.read_text("utf-8"))
    return found
