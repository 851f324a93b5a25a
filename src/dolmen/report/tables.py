"""Tables that the report of every task has."""

from __future__ import annotations

from html import escape

from dolmen.report.numbers import WHAT, interval_text, metric_name, metric_text, percent
from dolmen.types import Evaluation, Section
from dolmen.wording import count


def numbers(evaluations: dict[str, Evaluation]) -> Section:
    """All metrics, a column for each split."""
    splits = sorted(evaluations, key=lambda s: s != "test")
    names = list(dict.fromkeys(n for s in splits for n in evaluations[s].metrics))
    head = "".join(f'<th scope="col" class="number">{escape(s)}</th>' for s in splits)
    rows = []
    for metric in names:
        cells = ""
        for s in splits:
            value = metric_text(metric, evaluations[s].metrics.get(metric))
            interval = interval_text(metric, evaluations[s].intervals.get(metric))
            cells += f'<td class="number">{value}' + (f"<small>{interval}</small>" if interval else "") + "</td>"
        what = f"<small>{escape(WHAT[metric])}</small>" if metric in WHAT else ""
        rows.append(f'<tr><th scope="row">{escape(metric_name(metric))}{what}</th>{cells}</tr>')
    sizes = ", ".join(f"{s}: {count(evaluations[s].num_examples, 'example')}" for s in splits)
    return Section(
        "All numbers",
        f'<table class="metrics"><thead><tr><th scope="col">metric</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>",
        f"Small print gives the 95 % interval, from drawing the examples anew a thousand times. {sizes}.",
    )


def bar(value: float, text: str | None = None) -> str:
    """A cell of a table with a share, and a bar behind it; ``text`` instead of the share in percent."""
    shown = percent(value) if text is None else escape(text)
    return f'<td class="number bar" style="--share:{100 * value:.1f}%"><span>{shown}</span></td>'
