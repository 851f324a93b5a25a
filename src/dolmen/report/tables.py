"""Tables that the report of every task has."""

from __future__ import annotations

from html import escape

from dolmen.report.numbers import interval_text, metric_text, percent
from dolmen.report.run_files import RunFiles
from dolmen.types import Section
from dolmen.wording import count


def numbers(run: RunFiles) -> Section:
    """All metrics of a run, a column for each split."""
    evaluations = run.evaluation
    splits = sorted(evaluations, key=lambda s: s != "test")
    names = list(dict.fromkeys(n for s in splits for n in evaluations[s]["metrics"]))
    head = "".join(f'<th scope="col" class="number">{escape(s)}</th>' for s in splits)
    rows = []
    for name in names:
        metric, cells = run.description.metric(name), ""
        for s in splits:
            value = metric_text(metric, evaluations[s]["metrics"].get(name))
            interval = interval_text(evaluations[s]["intervals"].get(name), percentages=metric.percent)
            cells += f'<td class="number">{value}' + (f"<small>{interval}</small>" if interval else "") + "</td>"
        meaning = f"<small>{escape(metric.meaning)}</small>" if metric.meaning else ""
        rows.append(f'<tr><th scope="row">{escape(metric.title)}{meaning}</th>{cells}</tr>')
    sizes = ", ".join(f"{s}: {count(evaluations[s]['num_examples'], 'example')}" for s in splits)
    return Section(
        "All numbers",
        f'<table class="metrics"><thead><tr><th scope="col">metric</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>",
        f"Small print gives the 95 % interval, from drawing the examples anew a thousand times. {sizes}.",
    )


def bar(value: float, text: str | None = None) -> str:
    """A cell of a table with a share, and a bar behind it; ``text`` instead of the share in percent."""
    content = percent(value) if text is None else escape(text)
    return f'<td class="number bar" style="--share:{100 * value:.1f}%"><span>{content}</span></td>'
