"""What the report shows of a classifier of pictures: numbers, mistakes, where the network looked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.report import figures, pictures
from dolmen.report.numbers import interval_text, loss_text, percent
from dolmen.report.tables import bar
from dolmen.types import Evaluation, Section
from dolmen.wording import count

Picture = Callable[[str, int], NDArray[np.uint8]]
Name = Callable[[str, int], str]
Cam = Callable[[str, list[int], list[int]], NDArray[Any]]

GALLERY_SIZE = 12
"""Pictures in each gallery."""
PICTURE_SIDE = 176
"""Their longer side in pixels; two galleries with heat maps take about 0.5 MB."""
MIN_DOUBTFUL_CORRELATION = 0.5
"""Rank correlation with a random network's maps from which on heat maps are called doubtful."""
DECIDED_AT_HALF = "Here the more probable class is decided; what the threshold changes is shown further down."


def sections(
    evaluations: dict[str, Evaluation],
    *,
    classes: Sequence[str],
    picture: Picture,
    name: Name,
    cam: Cam | None,
    temperature: float,
    sanity: float | None,
    filters: NDArray[Any] | None,
) -> list[Section]:
    """Return what the report shows for this task; drawn from the test split where there is one.

    Args:
        evaluations: by split, with arrays ``labels (N,)``, ``probabilities (N, K)`` and ``indices (N,)``.
        classes: K names.
        picture: (split, index) to (H, W, C) uint8.
        name: (split, index) to a file name.
        cam: (split, indices, classes) to (B, H, W) heat maps in 0..1; None where the network has none.
        temperature: by which the logits were divided.
        sanity: what ``randomisation_check`` gave.
        filters: (O, C, k, k) of the first convolution.
    """
    split = "test" if "test" in evaluations else next(iter(evaluations))
    evaluation = evaluations[split]
    parts = [_per_class(evaluation, split), _confusion(evaluation, split, classes)]
    if "operating_point" in evaluation.tables:
        parts.append(_operating_point(evaluation, split, classes))
    if "calibration" in evaluation.tables:
        parts.append(_calibration(evaluation, split, temperature))
    gallery = _Gallery(evaluation, split, classes, picture, name, cam)
    parts += gallery.sections(sanity)
    if filters is not None:
        parts.append(_filters(filters))
    return parts


def _per_class(evaluation: Evaluation, split: str) -> Section:
    rows = evaluation.tables["per_class"]
    weakest = sorted((r for r in rows if r["num"]), key=lambda r: r["f1"])
    head = (
        '<thead><tr><th scope="col">class</th><th scope="col" class="number">examples</th>'
        '<th scope="col" class="number">precision</th><th scope="col" class="number">recall</th>'
        '<th scope="col" class="number">F1</th></tr></thead>'
    )

    def table(chosen: Sequence[dict[str, Any]]) -> str:
        body = "".join(
            f'<tr><th scope="row">{escape(r["class"])}</th><td class="number">{r["num"]:,}</td>'
            f"{bar(r['precision'])}{bar(r['recall'])}{bar(r['f1'])}</tr>"
            for r in chosen
        )
        return f'<table class="classes">{head}<tbody>{body}</tbody></table>'

    html = table(rows)
    if len(rows) > 24:
        all_classes = f"<details><summary>All {len(rows)} classes</summary>{html}</details>"
        html = f"<p>The ten weakest:</p>{table(weakest[:10])}{all_classes}"
    lead = (
        "Precision: of those given this class, how many have it. Recall: of those that have it, how many were given it."
    )
    if weakest:
        worst = weakest[0]
        score, examples = percent(worst["f1"]), count(worst["num"], "example")
        lead += f" Weakest: {worst['class']}, with an F1 of {score} on {examples}."
    if "operating_point" in evaluation.tables and not evaluation.tables["operating_point"].get("decides"):
        lead += f" {DECIDED_AT_HALF}"
    return Section(f"Class by class ({split})", html, lead)


def _confusion(evaluation: Evaluation, split: str, classes: Sequence[str]) -> Section:
    matrix = np.asarray(evaluation.tables["confusion"], np.int64)
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:8]
    pairs = [(i, j, int(wrong[i, j])) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    rows = "".join(
        f"<tr><td>{escape(classes[i])}</td><td>{escape(classes[j])}</td>"
        f'<td class="number">{n}</td>{bar(n / matrix[i].sum())}</tr>'
        for i, j, n in pairs
        if n
    )
    table = (
        '<table><thead><tr><th scope="col">true</th><th scope="col">decided</th>'
        '<th scope="col" class="number">examples</th><th scope="col" class="number">share of the true '
        "class</th>"
        f"</tr></thead><tbody>{rows}</tbody></table>"
        if rows and len(classes) > 2
        else ""
    )
    lead = (
        f"Each row is a true class, each column what was decided; {int(np.trace(matrix)):,} of "
        f"{int(matrix.sum()):,} are on the diagonal."
    )
    if "operating_point" in evaluation.tables and not evaluation.tables["operating_point"].get("decides"):
        lead += f" {DECIDED_AT_HALF}"
    html = f"<div>{figures.confusion(matrix, classes)}</div>{table}"
    return Section(f"What is taken for what ({split})", html, lead)


def _operating_point(evaluation: Evaluation, split: str, classes: Sequence[str]) -> Section:
    point = evaluation.tables["operating_point"]
    positive = classes.index(point["positive"])
    labels, scores = evaluation.arrays["labels"], evaluation.arrays["probabilities"][:, positive]
    chart = figures.roc(scores, labels == positive, point, evaluation.metrics.get("auroc", float("nan")))
    lines = []
    for metric in ("sensitivity", "specificity"):
        interval = interval_text(evaluation.intervals.get(metric), percentages=True)
        lines.append(
            f"<li><strong>{metric} {percent(point[metric])}</strong>"
            + (f" (95 % interval {interval})" if interval else "")
            + "</li>"
        )
    truth, decided = labels == positive, scores >= point["threshold"]
    counts = (
        f"<p>Of {count(int(truth.sum()), 'example')} of {escape(point['positive'])} it finds "
        f"{int((truth & decided).sum()):,} and misses {int((truth & ~decided).sum()):,}; of "
        f"{count(int((~truth).sum()), 'other')} it raises "
        f"{count(int((~truth & decided).sum()), 'false alarm')}.</p>"
    )
    chosen = "validation" if point["chosen_on"] == "val" else point["chosen_on"]
    text = (
        f"<p>An example counts as <em>{escape(point['positive'])}</em> from a probability of "
        f"{point['threshold']:.3f} on. That threshold was chosen on {escape(chosen)} alone, as the one that "
        "leaves "
        f"{percent(point['specificity_wanted'])} of the negatives alone there; nothing was chosen on "
        f"{escape(split)}."
        f"</p><ul>{''.join(lines)}</ul>{counts}"
    )
    lead = f"Moving the threshold trades found examples of {point['positive']} against false alarms."
    html = f'<div class="row">{chart}<div>{text}</div></div>'
    return Section(f"ROC curve and operating point ({split})", html, lead)


def _calibration(evaluation: Evaluation, split: str, temperature: float) -> Section:
    table = evaluation.tables["calibration"]
    chart = figures.reliability(table["bins"], table["ece"], table.get("ece_before"))
    if abs(temperature - 1) < 0.02:
        before = "it was well calibrated as it stood"
    else:
        before = "it was too sure of itself before" if temperature > 1 else "it was too timid before"
    text = (
        f"<p>The logits are divided by a temperature of <strong>{temperature:.2f}</strong>, fitted on "
        f"validation: {before}. Decisions do not change by it, only how probable they are said to be.</p>"
        f"<p>ECE, the mean gap between the probability given and the share that was right, is "
        f"<strong>{table['ece']:.3f}</strong>"
        + (f"; without the temperature it would be {table['ece_before']:.3f}" if "ece_before" in table else "")
        + f". {loss_text(table)}</p><p>Pale bars show how far chance alone may move a point.</p>"
    )
    lead = (
        "Where the points lie on the dashed line, 80 % means right in 80 of 100 cases. "
        "Below the line the model is too sure of itself."
    )
    html = f'<div class="row">{chart}<div>{text}</div></div>'
    return Section(f"Can the probabilities be believed? ({split})", html, lead)


def _filters(filters: NDArray[Any]) -> Section:
    image = pictures.filter_tiles(filters)
    num_tiles = min(len(filters), 64)
    html = (
        f'<img class="exact" src="{pictures.data_uri(image, lossless=True)}" width="{image.shape[1]}" '
        f'alt="The first {num_tiles} filters of the first convolution">'
    )
    lead = (
        f"{num_tiles} of {len(filters)} filters of {filters.shape[2]} × {filters.shape[3]} pixels; mid grey is "
        "zero. "
        "They should show edges, spots and colours; pure noise means that too little was learnt."
    )
    return Section("What the first layer looks for", html, lead)


@dataclass(frozen=True, eq=False)
class _Gallery:
    """Single pictures with what was decided, how surely, and where the network looked."""

    evaluation: Evaluation
    split: str
    classes: Sequence[str]
    picture: Picture
    name: Name
    cam: Cam | None

    def sections(self, sanity: float | None) -> list[Section]:
        labels = self.evaluation.arrays["labels"]
        decided, margin = self.decided()
        wrong = np.flatnonzero(decided != labels)
        worst = wrong[np.argsort(-margin[wrong], kind="stable")][:GALLERY_SIZE]
        doubtful = np.argsort(margin, kind="stable")
        doubtful = doubtful[~np.isin(doubtful, worst)][:GALLERY_SIZE]
        trust = "" if self.cam is None else " " + heat_map_text(sanity)
        parts = []
        if len(worst):
            lead = (
                f"{len(wrong):,} of {count(len(labels), 'example')} were decided wrongly; here those of "
                "which the "
                f"model was surest. Some may be labelled wrongly: look at them first.{trust}"
            )
            parts.append(Section(f"Most wrong ({self.split})", self.figures(worst, decided), lead))
        else:
            lead = f"All {count(len(labels), 'example')} were decided rightly."
            parts.append(Section(f"Most wrong ({self.split})", "", lead))
        if len(doubtful):
            lead = f"{self.boundary()}: what a person should look at, or what to collect more of."
            lead += "" if len(worst) else trust
            parts.append(Section(f"Most uncertain ({self.split})", self.figures(doubtful, decided), lead))
        return parts

    def decided(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(N,) the class decided, by the operating point where there is one, and (N,) how far it was from another.

        That is the lead over the second class, or the distance from the threshold as a share of the longest
        there is.
        """
        probabilities = self.evaluation.arrays["probabilities"]
        point = self.evaluation.tables.get("operating_point")
        if point is None or not point.get("decides"):
            top_two = np.sort(probabilities, axis=1)[:, -2:]
            return np.asarray(probabilities.argmax(1)), np.asarray(top_two[:, 1] - top_two[:, 0])
        positive, threshold = list(self.classes).index(point["positive"]), point["threshold"]
        p = probabilities[:, positive]
        above = (p - threshold) / max(1 - threshold, 1e-12)
        margin = np.where(p >= threshold, above, (threshold - p) / max(threshold, 1e-12))
        return np.where(p >= threshold, positive, 1 - positive), margin

    def boundary(self) -> str:
        """Where the decision changes, in one sentence."""
        point = self.evaluation.tables.get("operating_point")
        if point is None or not point.get("decides"):
            return "The two most probable classes are closest here"
        return f"Closest to the threshold, {point['positive']} from {percent(point['threshold'])} on"

    def figures(self, rows: NDArray[np.int64], decided: NDArray[np.int64]) -> str:
        labels, probabilities = self.evaluation.arrays["labels"], self.evaluation.arrays["probabilities"]
        indices = [int(i) for i in self.evaluation.arrays["indices"][rows]]
        cams = None if self.cam is None else self.cam(self.split, indices, [int(decided[r]) for r in rows])
        items = []
        for i, (row, index) in enumerate(zip(rows, indices, strict=True)):
            name, pixels = escape(self.name(self.split, index)), self.picture(self.split, index)
            class_name = escape(self.classes[decided[row]])
            plain = pictures.data_uri(pictures.fit(pictures.rgb(pixels), PICTURE_SIDE))
            images = f'<img src="{plain}" alt="{name}" loading="lazy">'
            if cams is not None:
                heat = pictures.data_uri(pictures.overlay(pixels, cams[i], PICTURE_SIDE))
                images += f'<img src="{heat}" alt="What spoke for {class_name}" loading="lazy">'
            items.append(
                f'<figure><div class="pair">{images}</div><figcaption>'
                f"{self.verdict(probabilities[row], int(labels[row]), int(decided[row]))}"
                f'<span class="file">{name}</span></figcaption></figure>'
            )
        return f'<div class="gallery">{"".join(items)}</div>'

    def verdict(self, probabilities: NDArray[Any], label: int, decided: int) -> str:
        """What was decided, and what is true; where it is right, what else it might have been."""
        right = label == decided
        others = np.delete(np.arange(len(probabilities)), decided)
        other = others[probabilities[others].argmax()] if right else label

        def with_share(c: int) -> str:
            return f"{escape(self.classes[c])} <b>{percent(probabilities[c])}</b>"

        return (
            f'<span class="{"right" if right else "wrong"}">{"✓" if right else "✗"} '
            f"{with_share(decided)}</span>"
            f"<span>{'or' if right else 'true:'} {with_share(int(other))}</span>"
        )


def heat_map_text(sanity: float | None) -> str:
    """One or two sentences about what the heat maps are and whether they depend on what was learnt."""
    text = "Beside each picture: the places that spoke for the decided class (Grad-CAM)."
    if sanity is None:
        return text
    if sanity < MIN_DOUBTFUL_CORRELATION:
        return (
            f"{text} The maps depend on what was learnt: with re-drawn weights they are others (rank "
            "correlation "
            f"{sanity:.2f}; 0 is best, chance alone gives 0.1 to 0.3)."
        )
    return (
        f"{text} Be careful with these maps: a network with re-drawn weights gives similar ones (rank "
        "correlation "
        f"{sanity:.2f}; 0 is best), so they show the picture more than what was learnt."
    )
