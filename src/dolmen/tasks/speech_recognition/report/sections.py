"""The report's sections of speech recognition: numbers, mistakes, utterances to listen to, weak groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from dolmen.report import figures
from dolmen.report.numbers import interval_text, percent, sentence
from dolmen.report.tables import bar
from dolmen.tasks.speech_recognition.report.pictures import (
    Utterance,
    alarms,
    fair_cut,
    posteriorgram,
    rate_bars,
    wav_uri,
)
from dolmen.types import Evaluation, Section
from dolmen.wording import count

__all__ = ["Utterance", "sections"]

Pairs = Sequence[Sequence[str]]

MAX_PLAYERS, MAX_PLAYER_BYTES = 10, 2_000_000
"""Players, and what all of them may take as base64."""
MAX_BARS = 20
"""Groups in a chart."""
MAX_SHOWN_WORDS = 120
"""Words of an utterance that are shown."""
NOTHING = "–"
RATES = {"words": ("WER", "word"), "characters": ("CER", "character")}
CSS_CLASSES = {True: "hit", False: "sub"}


def sections(
    evaluations: dict[str, Evaluation], *, utterance_of: Callable[[str, int], Utterance], units: Sequence[str]
) -> list[Section]:
    """Return the sections for this task, of the test split where there is one.

    Args:
        evaluations: by split, as ``metrics.evaluate`` returns them. A table ``alarms``, of
            ``metrics.alarms.alarm_curve`` with "num_said", "hours" and "point" (of ``threshold_for``, or None), adds a
            section.
        utterance_of: (split, index) to an utterance with its sound; called for a few only.
        units: V texts of the network's units.
    """
    split = "test" if "test" in evaluations else next(iter(evaluations))
    evaluation = evaluations[split]
    if not evaluation.num_examples:
        return []
    # A threshold is chosen on validation, whatever else is shown.
    name = next((s for s in (split, *evaluations) if "alarms" in evaluations[s].tables), None)
    alarms_of = None if name is None else evaluations[name].tables["alarms"]
    threshold = ((alarms_of or {}).get("point") or {}).get("threshold", 0.0)
    parts = [
        _errors(evaluation, split, threshold),
        _confusions(evaluation, split),
        _worst(evaluation, split, utterance_of, units),
    ]
    titles = {"speakers": "By speaker", "durations": "By duration"}
    for table, title in titles.items():
        if evaluation.tables.get(table, {}).get("num_groups", 0) > 1:
            parts.append(_groups(evaluation, split, table, title))
    if evaluation.tables.get("calibration", {}).get("bins"):
        parts.append(_confidences(evaluation, split))
    if name is not None and alarms_of is not None:
        parts.append(_alarms(alarms_of, name))
    return parts


# ---- numbers


def _errors(evaluation: Evaluation, split: str, threshold: float) -> Section:
    rows, sums = "", evaluation.tables["errors"]
    for unit, (name, thing) in RATES.items():
        counts = sums[unit]
        num_said = counts["hits"] + counts["substitutions"] + counts["deletions"]
        metric = name.lower()
        interval = interval_text(evaluation.intervals.get(metric), percentages=True)
        small = f"<small>{interval}</small>" if interval else ""
        rows += (
            f'<tr><th scope="row">{name}<small>of {count(num_said, thing)}</small></th>'
            f'<td class="number">{percent(evaluation.metrics[metric])}{small}</td>'
        )
        for part in ("substitutions", "deletions", "insertions"):
            share = percent(counts[part] / max(1, num_said))
            rows += f'<td class="number">{counts[part]:,}<small>{share}</small></td>'
        rows += f'<td class="number">{counts["hits"]:,}</td></tr>'
    names = ("rate", "taken for another", "left out", "put in", "right")
    head = "".join(f'<th scope="col" class="number">{n}</th>' for n in names)
    html = f'<table class="classes"><thead><tr><th scope="col"></th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    exact = round(evaluation.metrics["exact"] * evaluation.num_examples)
    interval = interval_text(evaluation.intervals.get("exact"), percentages=True)
    lead = (
        f"{exact:,} of {count(evaluation.num_examples, 'utterance')} are right to the word "
        f"({percent(evaluation.metrics['exact'])}, 95 % interval {interval}). Mistakes are those of the alignment with "
        f"the fewest; what is put in makes rates over 100 % possible. {_advice(evaluation, threshold)}"
    )
    return Section(f"Errors ({split})", html, lead.rstrip())


def _advice(evaluation: Evaluation, threshold: float) -> str:
    """Advice where deletions or insertions outweigh the other mistakes; else empty."""
    counts = evaluation.tables["errors"][evaluation.tables["unit"]]
    deletions, insertions, substitutions = (counts[k] for k in ("deletions", "insertions", "substitutions"))
    if deletions > 2 * (insertions + substitutions) and deletions >= 5:
        if threshold:
            return (
                f"Most are left out, and words less sure than {threshold:.3g} always are: that is the threshold that "
                "keeps false alarms as rare as was asked for."
            )
        return "Most are left out: is speech cut off at the ends of the recordings, or quieter than in training?"
    if insertions > 2 * (deletions + substitutions) and insertions >= 5:
        return "Most are put in: noise is taken for speech; noise without speech among the training data helps."
    return ""


def _confusions(evaluation: Evaluation, split: str) -> Section:
    table, (_, thing) = evaluation.tables["confusions"], RATES[evaluation.tables["unit"]]
    title = f"{sentence(thing)}s that were mistaken ({split})"
    if not table["pairs"]:
        return Section(title, "", "There is none.")
    html = ""
    if "matrix" in table:
        matrix = np.asarray(table["matrix"], np.int64)
        names = table["names"]
        chart = figures.confusion(matrix, [*names, "put in"], [*names, "left out"], ("said", "heard"))
        html = f"<div>{chart}</div>"
    rows = ""
    for r in table["pairs"]:
        share = bar(r["num"] / r["of"], f"of {r['of']:,}")
        rows += f"<tr><td>{escape(r['said']) or NOTHING}</td><td>{escape(r['heard']) or NOTHING}</td>"
        rows += f'<td class="number">{r["num"]:,}</td>{share}</tr>'
    head = '<th scope="col">said</th><th scope="col">heard</th>'
    head += "".join(f'<th scope="col" class="number">{n}</th>' for n in ("times", "how often it was said"))
    pairs = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    few = len(table["pairs"]) <= 12
    html += pairs if few else f"<details{'' if html else ' open'}><summary>The pairs</summary>{pairs}</details>"
    first = table["pairs"][0]
    lead = f"{_mistake(first)}, {count(first['num'], 'time')} of {first['of']:,}: the most frequent mistake"
    lead += f" of {table['num_pairs']:,} that differ." if table["num_pairs"] > 1 else "; there is no other."
    if table["num_pairs"] > len(table["pairs"]):
        lead += f" The first {len(table['pairs'])} are in the table."
    return Section(title, html, lead)


def _mistake(pair: Mapping[str, Any]) -> str:
    reference, hypothesis = pair["said"], pair["heard"]
    if not reference:
        return f"“{hypothesis}” where nothing was said"
    return f"“{reference}” taken for “{hypothesis}”" if hypothesis else f"“{reference}” left out"


# ---- utterances to listen to


def _worst(
    evaluation: Evaluation, split: str, utterance_of: Callable[[str, int], Utterance], units: Sequence[str]
) -> Section:
    rows = evaluation.tables["worst"][:MAX_PLAYERS]
    title = f"The worst utterances ({split})"
    if not rows:
        return Section(title, "", "There is no mistake.")
    utterances = [utterance_of(split, row["utterance"]) for row in rows]
    # Base64 takes 4 characters for 3 bytes, and a sample takes 2 bytes.
    sizes = [len(u.samples) for u in utterances if u.samples is not None]
    max_samples = fair_cut(sizes, MAX_PLAYER_BYTES * 3 // 4 // 2)
    unit = evaluation.tables["unit"]
    items = [_player(u, row, unit, units, max_samples) for u, row in zip(utterances, rows, strict=True)]
    lead = (
        f"The {count(len(items), 'utterance')} with the most mistakes; of those with as many, the surest first. Is "
        "what was “said” to be heard? Underlined in orange: heard, but wrong (dotted: put in). Struck through in "
        "blue: left out. Below, the log-mel frames, and how probable each unit was from step to step."
    )
    return Section(title, "".join(items), lead)


def _player(utterance: Utterance, row: Mapping[str, Any], unit: str, units: Sequence[str], max_samples: int) -> str:
    thing = RATES[unit][1]
    caption_parts = [f"{count(row['errors'], f'wrong {thing}')}", f"{utterance.duration_s:.1f} s"]
    caption_parts.append(f"confidence {percent(utterance.confidence)}")
    if utterance.speaker:
        caption_parts.append(escape(utterance.speaker))
    parts = [aligned(row["pairs"], letters=unit == "characters")]
    if utterance.samples is not None and len(utterance.samples):
        cut = utterance.samples[:max_samples]
        parts.append(f'<audio controls preload="metadata" src="{wav_uri(cut, utterance.rate)}"></audio>')
        if len(cut) < len(utterance.samples):
            caption_parts.append(f"the player has the first {len(cut) / utterance.rate:.1f} s")
    if any(values is not None and len(values) for values in (utterance.logp, utterance.features)):
        wrong = (
            [reference != hypothesis for reference, hypothesis in row["pairs"] if hypothesis] if unit == "words" else []
        )
        parts.append(posteriorgram(utterance, units, wrong))
    caption = f'<figcaption>{", ".join(caption_parts)}<span class="file">{escape(utterance.name)}</span></figcaption>'
    return f'<figure class="heard">{"".join(parts)}{caption}</figure>'


def aligned(pairs: Pairs, *, letters: bool = False) -> str:
    """The reference above the transcript, word by word (or letter by letter), with the mistakes marked."""
    cells = []
    for reference, hypothesis in pairs[:MAX_SHOWN_WORDS]:
        css = "ins" if not reference else "del" if not hypothesis else CSS_CLASSES[reference == hypothesis]
        cells.append(
            f'<span class="{css}"><i>{escape(reference) or NOTHING}</i><i>{escape(hypothesis) or NOTHING}</i></span>'
        )
    if len(pairs) > MAX_SHOWN_WORDS:
        cells.append(f'<span class="more"><i>… and {len(pairs) - MAX_SHOWN_WORDS} more</i><i></i></span>')
    css = "aligned letters" if letters else "aligned"
    return f'<div class="{css}"><span class="rows"><i>said</i><i>heard</i></span>{"".join(cells)}</div>'


# ---- where it is weak


def _groups(evaluation: Evaluation, split: str, table: str, title: str) -> Section:
    groups, (rate, _) = evaluation.tables[table], RATES[evaluation.tables["unit"]]
    rows, overall = groups["rows"], evaluation.metrics[rate.lower()]
    html = rate_bars(rows[:MAX_BARS], rate, overall)
    lead = f"The line through a point is the 95 % interval, the dashed one the {rate} of all, {percent(overall)}."
    if groups["num_groups"] > len(rows[:MAX_BARS]):
        lead += f" Drawn are the {len(rows[:MAX_BARS])} worst of {groups['num_groups']:,}."
    worse = [r for r in rows if r["interval"] and r["interval"][0] > overall]
    if worse:
        names = ", ".join(str(r["group"]) for r in worse[:3]) + (", …" if len(worse) > 3 else "")
        lead += f" Worse than chance would make them: {names}; more training data like these help most."
    else:
        lead += " No group is worse than all of them by more than chance makes it."
    return Section(f"{title} ({split})", html, lead)


def _confidences(evaluation: Evaluation, split: str) -> Section:
    table = evaluation.tables["calibration"]
    chart = figures.reliability(table["bins"], table["ece"])
    num_words = sum(b["num"] for b in table["bins"])
    gap = sum(b["num"] * (b["confidence"] - b["accuracy"]) for b in table["bins"]) / max(1, num_words)
    if abs(gap) < 0.02:
        verdict = "On the whole it is neither too sure of itself nor too timid"
    else:
        verdict = f"On the whole it is {'too sure of itself' if gap > 0 else 'too timid'} by {percent(abs(gap))}"
    text = (
        f"<p>{verdict}: of {count(num_words, 'word')} that were heard, it was sure of "
        f"{percent(sum(b['num'] * b['confidence'] for b in table['bins']) / max(1, num_words))} in the mean, and "
        f"{percent(sum(b['num'] * b['accuracy'] for b in table['bins']) / max(1, num_words))} were right.</p>"
        "<p>Pale bars show how far chance alone may move a point.</p>"
    )
    lead = "How often a word that was heard was right, by how sure the model was of it."
    html = f'<div class="row">{chart}<div>{text}</div></div>'
    return Section(f"Can one believe its confidences? ({split})", html, lead)


def _alarms(table: Mapping[str, Any], split: str) -> Section:
    point = table.get("point")
    html = alarms(table, point)
    lead = (
        f"As the threshold rises, fewer words are heard that nobody said, and more that were said are missed. "
        f"{count(table['num_said'], 'word')} were said; false alarms are those in {table['hours']:.2g} hours of other "
        "sound."
    )
    if point is not None:
        lead += (
            f" With a threshold of {point['threshold']:.2f} it misses {percent(point['misses'])} and raises "
            f"{point['alarms_per_hour']:.3g} false alarms an hour."
        )
    if table["hours"] < 1:
        lead += " That is little: of rare alarms one knows only after hours of everyday sound."
    return Section(f"False alarms and misses ({split})", html, lead)
