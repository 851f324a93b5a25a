"""What the report shows of a detector: numbers, curves, what goes wrong and in which pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.predictions import Boxes
from dolmen.processors.images.drawing import Mark, draw_marks, score_text
from dolmen.report import figures, pictures
from dolmen.report.numbers import decimal, percent, sentence
from dolmen.report.tables import bar
from dolmen.types import Evaluation, Section
from dolmen.wording import count, listed

Picture = Callable[[str, int], NDArray[np.uint8]]
Name = Callable[[str, int], str]
Truths = Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]

MIN_OBJECTS = 5
"""Objects from which on a class may be called weak."""
MAX_CURVES, NUM_OPEN_CURVES = 12, 6
"""Classes whose curve is drawn, and how many of them are to be seen at once."""
SIDE_PX = 560
"""Width of a picture in the gallery in pixels; of tall ones the height."""
TEXT_PX = 17
"""Size of its text: legible where the gallery shrinks it to the width of a phone."""
MAX_LINES = 4
"""Mistakes listed below a picture."""
WRONG, MISSED, RIGHT = "#f28e2b", "#56b4e9", "#ffffff"

# What each type of mistake is, and what helps.
MISTAKES = {
    "missed": (
        "an object with no box near it",
        "Are they small, hidden or of rare classes? More examples of those help, and a larger input for small ones.",
    ),
    "background": (
        "a box where nothing is",
        "Look at these first: some are objects that nobody annotated. If not, add pictures without objects.",
    ),
    "localisation": (
        "right class, but the box fits badly",
        "Check that boxes are drawn alike in all pictures, tightly around the object; then train longer.",
    ),
    "classification": (
        "right place, wrong class",
        "The pairs below say which. Are these labelled consistently? If so, more examples of both help.",
    ),
    "duplicate": (
        "a second box on an object that has one",
        "Often a part and the whole, or two annotations of one object; a stricter suppression of overlaps helps.",
    ),
    "both": ("near an object, but neither class nor place is right", "Becomes rarer as wrong classes and bad fits do."),
}


def sections(
    evaluations: dict[str, Evaluation],
    *,
    names: Sequence[str],
    picture: Picture,
    name: Name,
    predicted: Mapping[str, Sequence[Boxes]],
    truth: Mapping[str, Truths],
) -> list[Section]:
    """Return what the report shows for this task; drawn from the test split where there is one.

    Args:
        evaluations: by split, with the tables that ``metrics.precision.evaluation_tables`` returns; and where there are
            proposals, the metrics ``rpn_recall_50`` and ``rpn_recall_70``.
        names: K classes.
        picture: (split, index) to (H, W, 1 or 3) uint8, the picture or a smaller one of its proportions.
        name: (split, index) to a file name.
        predicted: by split, the boxes of each picture, of all scores.
        truth: by split, of each picture boxes (M, 4), classes (M,) and crowd (M,) bool.
    """
    split = "test" if "test" in evaluations else next(iter(evaluations))
    evaluation = evaluations[split]
    if not any(row["num"] for row in evaluation.tables["per_class"]):
        return []
    parts = [_per_class(evaluation, split), _curves(evaluation, split), _errors(evaluation, split, names)]
    parts.append(_worst(evaluation, split, names, picture, name, predicted[split], truth[split]))
    parts.append(_sizes(evaluation, split))
    if "rpn_recall_50" in evaluation.metrics:
        parts.append(_proposals(evaluation, split))
    return parts


# ---- numbers


def _per_class(evaluation: Evaluation, split: str) -> Section:
    rows = evaluation.tables["per_class"]
    weakest = sorted((r for r in rows if r["num"]), key=lambda r: r["ap"])
    # Of classes with an object or two nothing is known; they would always be the weakest.
    weakest = [r for r in weakest if r["num"] >= MIN_OBJECTS] or weakest
    columns = ("AP", "AP@0.5", "precision", "recall")
    head = "".join(f'<th scope="col" class="number">{c}</th>' for c in columns)

    def table(chosen: Sequence[dict[str, Any]]) -> str:
        body = ""
        for r in chosen:
            cells = '<td class="number">–</td>' * 4
            if r["num"]:
                cells = bar(r["ap"], decimal(r["ap"])) + bar(r["ap_50"], decimal(r["ap_50"]))
                cells += bar(r["precision"]) + bar(r["recall"])
            title = f"{escape(r['class'])}<small>{count(r['num'], 'object')}, from {r['threshold']:.2f} on</small>"
            body += f'<tr><th scope="row">{title}</th>{cells}</tr>'
        return (
            f'<table class="classes"><thead><tr><th scope="col">class</th>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table>"
        )

    html = table(rows)
    if len(rows) > 24:
        details = f"<details><summary>All {len(rows)} classes</summary>{html}</details>"
        restriction = f" of those with {MIN_OBJECTS} objects or more" if weakest[0]["num"] >= MIN_OBJECTS else ""
        html = f"<p>The {min(10, len(weakest))} weakest{restriction}:</p>{table(weakest[:10])}{details}"
    worst = weakest[0]
    lead = (
        "Precision and recall are those of the boxes from the class's threshold on (in small print, chosen on "
        f"validation), where an overlap of half counts as found. Weakest: {worst['class']}, with an AP of "
        f"{decimal(worst['ap'])} on {count(worst['num'], 'object')}."
    )
    return Section(f"Class by class ({split})", html, lead)


def _curves(evaluation: Evaluation, split: str) -> Section:
    rows = evaluation.tables["per_class"]
    drawn = [k for k in np.argsort([-r["num"] for r in rows], kind="stable").tolist() if rows[k]["num"]][:MAX_CURVES]
    charts = []
    for k in drawn:
        curve, row = evaluation.tables["curves"][k], rows[k]
        note = f"AP@0.5 {decimal(row['ap_50'])}"
        charts.append(figures.precision_recall(curve, (row["recall"], row["precision"]), row["class"], note))
    html = _gallery(charts[:NUM_OPEN_CURVES])
    if len(charts) > NUM_OPEN_CURVES:
        folded = charts[NUM_OPEN_CURVES:]
        html += f"<details><summary>{len(folded)} more classes</summary>{_gallery(folded)}</details>"
    lead = (
        "As the threshold falls, more is found and more of it is wrong. The dot is where the class's threshold stands: "
        "lower it to miss less, raise it for fewer false finds."
    )
    with_objects = sum(r["num"] > 0 for r in rows)
    if len(drawn) < with_objects:
        lead += f" Drawn are the {len(drawn)} most frequent of {with_objects} classes."
    return Section(f"Precision and recall ({split})", html, lead)


def _gallery(charts: Sequence[str]) -> str:
    return f'<div class="gallery">{"".join(f"<div>{c}</div>" for c in charts)}</div>'


# ---- what goes wrong


def _errors(evaluation: Evaluation, split: str, names: Sequence[str]) -> Section:
    errors = evaluation.tables["errors"]
    counts = {mistake: errors["counts"][mistake] for mistake in MISTAKES}
    total, top = sum(counts.values()), max(1, *counts.values())
    order = sorted((k for k in MISTAKES if counts[k]), key=lambda k: -counts[k])
    body = "".join(
        f'<tr><th scope="row" style="width:64%">{sentence(mistake)}: {meaning}<small>{advice}</small></th>'
        f"{bar(counts[mistake] / top, f'{counts[mistake]:,}')}</tr>"
        for mistake, (meaning, advice) in ((m, MISTAKES[m]) for m in order)
    )
    head = (
        '<thead><tr><th scope="col">mistake, and what helps</th><th scope="col" class="number">times</th></tr></thead>'
    )
    html = f'<table class="classes">{head}<tbody>{body}</tbody></table>' if body else ""
    if errors["confused"]:
        rows = "".join(
            f"<tr><td>{escape(names[c['true']])}</td><td>{escape(names[c['said']])}</td>"
            f'<td class="number">{c["num"]:,}</td></tr>'
            for c in errors["confused"][:8]
        )
        html += (
            '<h3>What is taken for what</h3><table><thead><tr><th scope="col">true</th><th scope="col">said</th>'
            f'<th scope="col" class="number">times</th></tr></thead><tbody>{rows}</tbody></table>'
        )
    num = sum(r["num"] for r in evaluation.tables["per_class"])
    wrong = total - counts["missed"]
    lead = (
        f"At the thresholds it finds {errors['right']:,} of {count(num, 'object')}, and {wrong:,} of the boxes that it "
        "reports are wrong. Each mistake is counted once, under one kind (after TIDE, Bolya et al., 2020). "
    )
    if near := errors["undetected"] - counts["missed"]:
        lead += (
            f"{count(errors['undetected'], 'object')} not found; {near:,} of them had a box of a wrong class or place, "
            "counted there."
        )
    return Section(f"What goes wrong ({split})", html, lead.strip())


def _worst(
    evaluation: Evaluation,
    split: str,
    names: Sequence[str],
    picture: Picture,
    name: Name,
    predicted: Sequence[Boxes],
    truth: Truths,
) -> Section:
    title = f"Most mistaken ({split})"
    worst = evaluation.tables["errors"]["worst"]
    if not worst:
        return Section(title, "", "There is no mistake.")
    thresholds = np.array([r["threshold"] for r in evaluation.tables["per_class"]], np.float32)
    items = []
    for mistakes in worst:
        i = mistakes["picture"]
        boxes, (places, labels, _) = predicted[i], truth[i]
        wrong = sorted(mistakes["wrong"], key=lambda w: -float(boxes.scores[w[0]]))
        pixels = picture(split, i)
        scale = pixels.shape[1] / boxes.size[1]  # what is kept of a picture may be smaller than it was

        def mark(box: Any, colour: str, by: float = scale, **more: Any) -> Mark:
            left, top, right, bottom = (float(v) * by for v in box)
            return Mark((left, top, right, bottom), colour, **more)

        marks, lines = [], []
        for place, mistake, object_place in wrong:
            text = f"{names[boxes.labels[place]]} {score_text(float(boxes.scores[place]))}"
            marks.append(mark(boxes.boxes_xyxy[place], WRONG, text=text))
            lines.append(f'<span class="wrong">✗ {escape(text)}: {_why(mistake, object_place, labels, names)}</span>')
        if missed := mistakes["missed"]:
            marks += [mark(places[m], MISSED, text=names[labels[m]], dashed=True) for m in missed]
            lines.insert(0, f'<span class="right">missed: {_listed([names[labels[m]] for m in missed])}</span>')
        reported = set(np.flatnonzero(boxes.scores >= thresholds[boxes.labels]).tolist()) - {w[0] for w in wrong}
        marks += [mark(boxes.boxes_xyxy[k], RIGHT, thin=True) for k in sorted(reported)]
        if len(lines) > MAX_LINES + 1:
            lines = [*lines[:MAX_LINES], f"<span>and {len(lines) - MAX_LINES} more</span>"]
        file = escape(name(split, i))
        width = min(SIDE_PX, round(SIDE_PX * pixels.shape[1] / pixels.shape[0]))
        drawn = pictures.data_uri(draw_marks(pixels, marks, width=width, letters=TEXT_PX))
        items.append(
            f'<figure><img src="{drawn}" alt="{file}" loading="lazy" width="{width}"><figcaption>{"".join(lines)}'
            f'<span class="file">{file}</span></figcaption></figure>'
        )
    lead = (
        f"The {count(len(items), 'picture')} with the most and surest mistakes. Orange: reported, but wrong. Dashed "
        "blue: there, but missed. White: right. What is orange and yet there was forgotten by whoever annotated."
    )
    return Section(title, f'<div class="gallery wide">{"".join(items)}</div>', lead)


def _why(mistake: str, object_place: int, labels: NDArray[Any], names: Sequence[str]) -> str:
    """The reason why a box is wrong, for its caption."""
    true = escape(names[labels[object_place]]) if object_place >= 0 else ""
    return {
        "classification": f"is {true}",
        "localisation": "fits badly",
        "both": f"near {true}",
        "duplicate": "has a surer box",
        "background": "nothing there",
    }[mistake]


def _listed(labels: Sequence[str], max_labels: int = 5) -> str:
    """``3 cat, 1 dog``, the most frequent first."""
    counts = sorted({t: list(labels).count(t) for t in labels}.items(), key=lambda c: (-c[1], c[0]))
    return listed([f"{n:,} {escape(t)}" for t, n in counts], max_labels, "other classes")


# ---- where it is weak


def _sizes(evaluation: Evaluation, split: str) -> Section:
    rows = evaluation.tables["sizes"]
    limits = {"small": "under 32 × 32 pixels", "medium": "up to 96 × 96 pixels", "large": "over 96 × 96 pixels"}
    body = "".join(
        f'<tr><th scope="row">{r["size"]}<small>{limits[r["size"]]}</small></th><td class="number">{r["num"]:,}</td>'
        f"{bar(r['map'], decimal(r['map']))}{bar(r['recall'])}</tr>"
        for r in rows
    )
    head = "".join(f'<th scope="col" class="number">{c}</th>' for c in ("objects", "mAP", "found"))
    html = (
        f'<table class="classes"><thead><tr><th scope="col">size</th>{head}</tr></thead><tbody>{body}</tbody></table>'
    )
    lead = "By the area of the object in the picture as it came; found: the share at the thresholds."
    small, larger = [r for r in rows if r["size"] == "small"], [r for r in rows if r["size"] != "small"]
    if small and larger and small[0]["recall"] < 0.7 * max(r["recall"] for r in larger):
        lead += (
            " Small objects are found much less often than others: a larger input, or tiles, would show more of them."
        )
    return Section(f"Small and large objects ({split})", html, lead)


def _proposals(evaluation: Evaluation, split: str) -> Section:
    covered, covered_well = (evaluation.metrics[f"rpn_recall_{t}"] for t in (50, 70))
    recall = evaluation.metrics.get("recall", 0.0)
    html = (
        '<table class="classes"><tbody>'
        f'<tr><th scope="row">covered by half<small>overlap of 0.5</small></th>{bar(covered)}</tr>'
        f'<tr><th scope="row">covered well<small>overlap of 0.7</small></th>{bar(covered_well)}</tr>'
        f'<tr><th scope="row">found in the end<small>at the thresholds</small></th>{bar(recall)}</tr>'
        "</tbody></table>"
    )
    lead = (
        "The first stage proposes where to look; the second can't find what was not proposed. Of the objects, "
        f"{percent(covered)} are covered by half by a proposal."
    )
    if covered < 0.9:
        lead += " That is little: objects of unusual size or shape may have no anchor like them."
    elif recall < covered - 0.1:
        lead += " Most of what is not found was proposed, so it is the second stage that lets it go."
    return Section(f"Does it look in the right places? ({split})", html, lead)
