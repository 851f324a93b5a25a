"""report.html: everything about a run in one file that opens without a network, a server or a script."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from dolmen.files import write_whole
from dolmen.report import figures
from dolmen.report.numbers import sentence
from dolmen.report.run_files import RunFiles
from dolmen.report.tables import numbers
from dolmen.run_folder import REPORT
from dolmen.types import Section
from dolmen.wording import count

NOT_LOSSES = {"event", "epoch", "step", "progress", "seconds", "best"}


def write_report(folder: Path, sections: Sequence[Section]) -> Path:
    """Write ``report.html`` into a run's folder, from the files there and the task's own sections.

    The file appears whole or not at all. A file that is missing costs the part that it would have filled.

    Args:
        folder: holds config.json, description.json, metrics.jsonl, environment.json, check.json and
            evaluation.json.
        sections: the task's own, in order.

    Returns:
        The path of the report.

    Raises:
        MachineError: it can't be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    run = RunFiles(folder)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = count
    environment.filters["slug"] = lambda text: re.sub(r"\W+", "-", text.lower()).strip("-")
    environment.filters["show"] = show
    html = environment.get_template("report.html.jinja").render(
        run=run,
        headline=run.headline(),
        curves=curves(run),
        progress=run.progress(),
        sections=[numbers(run), *sections] if run.evaluation else sections,
        gradients=gradients(run),
    )
    return write_whole(folder / REPORT, html)


def show(value: object) -> str:
    """A value of the environment as a person says it."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def curves(run: RunFiles) -> list[str]:
    """Charts of the losses and of the headline metric on validation."""
    if not run.validations:
        return []
    x, seconds = run.epochs(), [float(r["seconds"]) for r in run.validations]
    kept = [i for i, r in enumerate(run.validations) if r.get("best")]
    best = kept[-1] if kept else None
    losses: dict[str, Sequence[float]] = {
        "training" if k == "loss" else f"training {k}": [r.get(k, math.nan) for r in run.validations]
        for k, v in run.validations[0].items()
        if k not in NOT_LOSSES and isinstance(v, int | float)
    }
    if "loss" in run.validations[0].get("val", {}):
        losses["validation"] = [r["val"].get("loss", math.nan) for r in run.validations]
    charts = [figures.curve(x, losses, title="Loss", seconds=seconds, best=best)] if losses else []
    if name := run.watched:
        values = [r["val"].get(name, math.nan) for r in run.validations]
        metric, lines = run.description.metric(name), {"validation": values}
        title = f"{sentence(metric.title)} on validation"
        charts.append(figures.curve(x, lines, title=title, seconds=seconds, best=best, percent=metric.percent))
    return charts


def gradients(run: RunFiles) -> str:
    """The heat map of gradient strength, or nothing."""
    measured = [(x, r["grad_norms"]) for x, r in zip(run.epochs(), run.validations, strict=True) if r.get("grad_norms")]
    return figures.gradient_flow([x for x, _ in measured], [n for _, n in measured]) if len(measured) > 1 else ""
