"""The report's sections on tags: numbers, labels, mistakes to browse; and the picture that explains a sentence."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dolmen.files import write_whole
from dolmen.report import figures
from dolmen.report.figures import BLUE, INK, MUTED
from dolmen.report.numbers import loss_text
from dolmen.report.tables import bar
from dolmen.tasks.token_classification.predictions import Spans
from dolmen.tasks.token_classification.processor import spans_of
from dolmen.types import Evaluation, Section
from dolmen.wording import count

MAX_EXPLAINED_WORDS = 40
"""Words of a sentence that an explanation shows."""
MAX_SHOWN_SENTENCES = 40
"""Sentences that are listed for each type of mistake."""
Mistake = Literal["wrong label", "wrong border", "missed", "too much", "wrong"]
MEANS: dict[Mistake, str] = {
    "wrong label": "the right words with another label",
    "wrong border": "a span that only overlaps the true one",
    "missed": "a span that was not found at all",
    "too much": "a span where none is",
    "wrong": "a word with another label",
}
Tags = Sequence[Sequence[str]]


def sections(
    evaluations: dict[str, Evaluation],
    split: str,
    words: Sequence[Sequence[str]],
    gold: Tags,
    predicted: Tags,
    kind: Literal["spans", "labels"],
) -> list[Section]:
    """The report's sections of this task.

    Args:
        evaluations: by split.
        split: whose mistakes are shown.
        words: of its sentences.
        gold: their true tags (BIOES for spans).
        predicted: their predicted ones.
        kind: "spans" or "labels".
    """
    evaluation = evaluations[split]
    parts = [_per_label(evaluation, split)]
    calibration = evaluation.tables["calibration"]
    if calibration["bins"]:
        chart = figures.reliability(calibration["bins"], calibration["ece"])
        what = "a span" if kind == "spans" else "a tag"
        parts.append(
            Section(
                "Can one believe its confidences?",
                chart,
                f"How often {what} was right, by how sure it was. The confidence of {what} is its exact probability "
                f"under the model, with a temperature of {calibration['temperature']:.2f} fitted on validation. "
                + loss_text(calibration),
            )
        )
    return [*parts, _errors(split, words, gold, predicted, kind)]


def _per_label(evaluation: Evaluation, split: str) -> Section:
    rows = "".join(
        f'<tr><th scope="row">{escape(r["label"])}</th>{bar(r["precision"])}{bar(r["recall"])}{bar(r["f1"])}'
        f'<td class="number">{r["support"]:,}</td></tr>'
        for r in evaluation.tables["per_label"]
    )
    head = "".join(f'<th scope="col" class="number">{n}</th>' for n in ("precision", "recall", "F1", "there are"))
    return Section(
        "Label by label",
        f'<table class="classes"><thead><tr><th scope="col">label</th>{head}</tr></thead><tbody>{rows}</tbody></table>',
        f"On the {split} part, most frequent first.",
    )


def _errors(split: str, words: Sequence[Sequence[str]], gold: Tags, predicted: Tags, kind: str) -> Section:
    """Sentences with mistakes, by type of mistake."""
    groups: dict[Mistake, list[str]] = {k: [] for k in MEANS}
    sums = dict.fromkeys(MEANS, 0)
    for sentence, gold_tags, predicted_tags in zip(words, gold, predicted, strict=True):
        if list(gold_tags) == list(predicted_tags):
            continue
        if kind == "spans":
            counts = mistakes(gold_tags, predicted_tags)
        else:
            counts = {"wrong": sum(a != b for a, b in zip(gold_tags, predicted_tags, strict=True))}
        for name, num in counts.items():
            sums[name] += num
            if num and len(groups[name]) < MAX_SHOWN_SENTENCES:
                groups[name].append(_sentence(sentence, gold_tags, predicted_tags, kind))
    parts = []
    for name, items in groups.items():
        if items:
            listed = "".join(f"<li>{s}</li>" for s in items)
            parts.append(
                f"<details><summary>{count(sums[name], 'time')} {name}: {MEANS[name]}</summary>"
                f'<ul class="findings">{listed}</ul></details>'
            )
    wrong = sum(list(a) != list(b) for a, b in zip(gold, predicted, strict=True))
    lead = (
        f"{wrong:,} of the {count(len(words), 'sentence')} of the {split} part have a mistake. "
        '<b class="right">Blue</b> is what the data say, <b class="wrong">orange</b> what the model said instead; the '
        f"first {MAX_SHOWN_SENTENCES} sentences of each kind."
    )
    body = "".join(parts) or "<p>There is none.</p>"
    return Section("Mistakes to look at", f'<p class="lead">{lead}</p>{body}')


def mistakes(gold: Sequence[str], predicted: Sequence[str]) -> dict[Mistake, int]:
    """How many mistakes of each type the predicted spans of a sentence hold."""
    gold_spans, predicted_spans = spans_of(gold), spans_of(predicted)
    counts: dict[Mistake, int] = {"wrong label": 0, "wrong border": 0, "missed": 0, "too much": 0}
    for span in gold_spans:
        if span in predicted_spans:
            continue
        over = [p for p in predicted_spans if p.start < span.stop and span.start < p.stop]
        if any(p[:2] == span[:2] for p in over):
            counts["wrong label"] += 1
        elif over:
            counts["wrong border"] += 1
        else:
            counts["missed"] += 1
    for span in predicted_spans:
        counts["too much"] += not any(g.start < span.stop and span.start < g.stop for g in gold_spans)
    return counts


def _sentence(words: Sequence[str], gold: Sequence[str], predicted: Sequence[str], kind: str) -> str:
    """A sentence with its true labels and those that were predicted instead, as HTML."""
    if kind == "labels":
        return " ".join(
            escape(w)
            if a == b
            else f'<b>{escape(w)}</b> <span class="right">{escape(a)}</span> <span class="wrong">{escape(b)}</span>'
            for w, a, b in zip(words, gold, predicted, strict=True)
        )
    gold_spans, predicted_spans = spans_of(gold), spans_of(predicted)
    opens: dict[int, list[str]] = {}
    closes: dict[int, list[str]] = {}
    for spans, css, others in ((gold_spans, "right", predicted_spans), (predicted_spans, "wrong", gold_spans)):
        for start, stop, label in spans:
            if css == "wrong" and (start, stop, label) in others:
                continue
            opens.setdefault(start, []).append(f'<b class="{css}">[</b>')
            closes.setdefault(stop, []).insert(0, f'<b class="{css}">]<sub>{escape(label)}</sub></b>')
    parts = []
    for i, word in enumerate(words):
        parts.append("".join(opens.get(i, [])) + escape(word) + "".join(closes.get(i + 1, [])))
    return " ".join(parts)


def explanation(out: Path, answer: Spans, effects: NDArray[np.float64]) -> Path:
    """Write a PNG: each word with its tag and confidence, and which other words its tag rests on.

    Args:
        out: where to.
        answer: the prediction.
        effects: (T, T) how much the probability of the tag of word i (row) falls when word j is hidden.

    Raises:
        MachineError: the file can't be written.
    """
    num = len(effects)
    words = [w if len(w) <= 16 else w[:15] + "…" for w in answer.words[:num]]
    tags = [f"{t}  {p:.0%}" for t, p in zip(answer.tags[:num], answer.confidences[:num], strict=True)]
    side = max(320, 30 * num)
    with figures.drawing(side + 460, side + 220) as (figure, axes):
        figure.set_facecolor("white")
        high = max(0.2, float(np.abs(effects).max()))
        image = axes.imshow(effects, cmap="PuOr_r", vmin=-high, vmax=high, interpolation="nearest")
        axes.set_xticks(range(num), words, rotation=60, ha="right", color=INK)
        axes.set_yticks(range(num), [f"{w}   {t}" for w, t in zip(words, tags, strict=True)], color=INK)
        axes.grid(False)
        axes.set_title("How much less probable a tag (row) becomes when a word (column) is hidden", color=BLUE)
        bar_ = figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02)
        bar_.outline.set_visible(False)
        bar_.set_label("loss of probability", color=MUTED)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=72, transparent=False)
    return write_whole(out, picture.getvalue())
