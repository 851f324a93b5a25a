"""card.md: what the model is for, what it was made from, how good it is, under which licences it stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from dolmen.files import write_whole
from dolmen.report.numbers import interval_text, loss_text, metric_text, percent, sentence
from dolmen.report.run_files import SPLITS, RunFiles
from dolmen.run_folder import CARD
from dolmen.wording import count

MAX_CLASSES = 50
"""Rows of the table of classes."""


class Licence(BaseModel):
    """One line of the licence ledger.

    Attributes:
        what: "code", "data" or "weights".
        name: whose it is: "Dolmen", the data set's or the weights' name.
        licence: SPDX name where there is one, else in words ("not stated").
        source: where it comes from, an address or a path.
    """

    model_config = ConfigDict(frozen=True)

    what: str
    name: str
    licence: str
    source: str


def write_card(folder: Path, *, licences: Sequence[Licence]) -> Path:
    """Write ``card.md`` into a run's folder, from the files there (Mitchell et al., 2019: model cards).

    Args:
        folder: a run's folder, as for ``write_report``.
        licences: of the code, of the data, and of weights that training started from.

    Returns:
        The path of the card.
    """
    run = RunFiles(folder)
    parts = [
        _head(run),
        _use(run),
        _data(run),
        _training(run),
        _quality(run),
        _calibration(run),
        _ledger(licences),
        _loading(run),
    ]
    return write_whole(folder / CARD, "\n\n".join(p for p in parts if p) + "\n")


def _head(run: RunFiles) -> str:
    head = run.headline()
    lines = [f"# {text(run.name)}"]
    if run.metrics:
        interval = f" (95 % interval {head['interval']})" if head["interval"] else ""
        lines.append(f"**{sentence(head['name'])} {head['value']}**{interval}, on {head['where']}.")
    return "\n\n".join(lines)


def _use(run: RunFiles) -> str:
    lines = ["## Intended use and limits", "", *(text(line) for line in run.description.intended_use)]
    lines += [
        "",
        "- It was measured on data like those it was trained on. On others (another camera, hospital, season, group of "
        "people) it may be worse; measure it there first: `dolmen evaluate RUN DATA`.",
        "- Decisions about people (medical, legal, hiring, policing) need a person who can overrule it. It is not a "
        "medical device and was not tested as one.",
    ]
    return "\n".join(lines)


def _data(run: RunFiles) -> str:
    lines = ["## Data", "", f"Source: `{run.about.get('data', '–')}`"]
    check = run.check
    if check is None:
        return "\n".join(lines)
    skipped = f", {len(check.skipped):,} skipped" if check.skipped else ""
    lines[-1] += f" ({count(check.num_files, 'file')}, {check.num_used:,} used{skipped})"
    if check.counts:
        splits = list(check.counts)
        classes = list(dict.fromkeys(c for counts in check.counts.values() for c in counts))
        rows = [[text(c), *(f"{check.counts[s].get(c, 0):,}" for s in splits)] for c in classes[:MAX_CLASSES]]
        if len(classes) > MAX_CLASSES:
            rows.append([f"{len(classes) - MAX_CLASSES} more classes", *("" for _ in splits)])
        rows.append(["all", *(f"{sum(check.counts[s].values()):,}" for s in splits)])
        lines += ["", *table(["class", *splits], rows)]
    lines += ["", "What `dolmen check` found:", ""]
    lines += [f"- {f.level}: {text(f.message)}" for f in check.findings] or ["- nothing to complain about"]
    return "\n".join(lines)


def _training(run: RunFiles) -> str:
    facts = [(n, v) for n, v in run.facts() if n in ("model", "training", "machine")]
    if not facts and not run.notes:
        return ""
    return "\n".join(
        ["## Training", "", *(f"- {n}: {text(v)}" for n, v in facts), *(f"- {text(n)}" for n in run.notes)]
    )


def _quality(run: RunFiles) -> str:
    if not run.metrics:
        return ""
    rows = []
    for name, value in run.metrics.items():
        metric = run.description.metric(name)
        interval = interval_text(run.intervals.get(name), percentages=metric.percent)
        rows.append([metric.title, metric_text(metric, value), interval, metric.meaning])
    head = f"On the {SPLITS.get(run.split, run.split)}."
    return "\n".join(["## Metrics", "", head, "", *table(["metric", "value", "95 % interval", "meaning"], rows)])


def _calibration(run: RunFiles) -> str:
    evaluation = run.evaluation.get(run.split, {})
    lines = []
    if calibration := evaluation.get("calibration"):
        before = f" ({calibration['ece_before']:.3f} without it)" if "ece_before" in calibration else ""
        fitted = "Probabilities are as the network gives them"
        if "temperature" in calibration:
            temperature = f"{calibration['temperature']:.2f}"
            fitted = f"Probabilities are calibrated with a temperature of {temperature}, fitted on validation"
        ece = f"{calibration['ece']:.3f}{before}"
        lines.append(f"{fitted}; the expected calibration error is {ece}. {loss_text(calibration)}".strip())
    if "positive" in (point := evaluation.get("operating_point", {})):
        lines.append(
            f"It decides for {text(point['positive'])} from a probability of {point['threshold']:.3f} on, a "
            f"threshold chosen on validation for a specificity of {percent(point['specificity_wanted'])}; here that "
            f"gives a sensitivity of {metric_text(run.description.metric('sensitivity'), point['sensitivity'])} and a "
            f"specificity of {metric_text(run.description.metric('specificity'), point['specificity'])}."
        )
    return "\n\n".join(["## Calibration", *lines]) if lines else ""


def _ledger(licences: Sequence[Licence]) -> str:
    rows = [[text(cell) for cell in (a.what, a.name, a.licence, a.source)] for a in licences]
    return "\n".join(["## Licences", "", *table(["what", "name", "licence", "source"], rows)])


def _loading(run: RunFiles) -> str:
    command = f"Made by `{run.about['command']}`.\n\n" if run.about.get("command") else ""
    return (
        f"## How to use it\n\n{command}"
        "```python\nimport dolmen\n\n"
        f"run = dolmen.load({run.name!r})\nprint(run.predict(INPUT))\n```\n\n"
        f"Pictures of how it learnt and where it errs: [report.html](report.html). Written by Dolmen "
        f"{run.about.get('dolmen', '')}."
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def text(value: str) -> str:
    """Escape what Markdown would read as markup, as in a class called ``a|b`` or ``<b>``."""
    for mark in "\\`*_[]<>|#":
        value = value.replace(mark, "\\" + mark)
    return " ".join(value.split())
