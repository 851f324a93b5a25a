"""A check report as text for a terminal: plain characters, aligned columns, at most 80 wide."""

from __future__ import annotations

import textwrap

from dolmen.types import CheckReport, Finding

WIDTH_CHARS = 80
MAX_CLASSES = 20
MAX_ITEMS = 3
MAX_NAME_CHARS = 32


def report_text(report: CheckReport) -> str:
    """Return the report for a person: how many, what the set is like, what was found (most serious first)."""
    parts = [_title(report), _class_table(report), _facts(report), *map(_finding, report.findings)]
    return "\n\n".join(part for part in (*parts, _skipped_files(report), _verdict(report)) if part) + "\n"


def _title(report: CheckReport) -> str:
    files = f"{report.num_files:,} file{'' if report.num_files == 1 else 's'}"
    return f"{report.source}\n{files}: {report.num_used:,} used, {len(report.skipped):,} skipped"


def _class_table(report: CheckReport) -> str:
    """Return a table of the classes by the splits, the totals last; or of one count, if there are no classes."""
    splits = list(report.counts)
    if not splits:
        return ""
    classes = list(next(iter(report.counts.values())))
    rows = [(c, [report.counts[s][c] for s in splits]) for c in classes]
    visible, hidden = (rows, []) if len(rows) <= MAX_CLASSES else (rows[: MAX_CLASSES - 1], rows[MAX_CLASSES - 1 :])
    if hidden:
        visible = [
            *visible,
            (f"... {len(hidden):,} more", [sum(r[1][i] for r in hidden) for i in range(len(splits))]),
        ]
    total = ("all", [sum(r[1][i] for r in rows) for i in range(len(splits))])
    headings = [*splits, "all"] if len(splits) > 1 else splits
    lines = [("class" if len(rows) > 1 else "", headings)]
    for name, numbers in (*visible, total) if len(rows) > 1 else visible:
        sums = [*numbers, sum(numbers)] if len(splits) > 1 else numbers
        lines.append((_cut(name), [f"{n:,}" for n in sums]))
    first = max(len(name) for name, _ in lines)
    widths = [max(len(cells[i]) for _, cells in lines) for i in range(len(headings))]
    text = [
        "  ".join((name.ljust(first), *(c.rjust(w) for c, w in zip(cells, widths, strict=True))))
        for name, cells in lines
    ]
    rule = "-" * len(text[0])
    return "\n".join((text[0], rule, *text[1:-1], rule, text[-1]) if len(rows) > 1 else text)


def _facts(report: CheckReport) -> str:
    width = max((len(name) for name in report.summary), default=0)
    lines = (_wrapped(text, f"{name.ljust(width)}  ", " " * (width + 2)) for name, text in report.summary.items())
    return "\n".join(lines)


def _finding(finding: Finding) -> str:
    """Return the sentence, and below it the first items where the sentence does not name them all."""
    indent = " " * 9
    lines = [_wrapped(finding.message, finding.level.upper().ljust(9), indent)]
    unnamed = [item for item in finding.items if item not in finding.message]
    if finding.level != "info" and unnamed:
        lines += [indent + _cut(item, WIDTH_CHARS - len(indent)) for item in unnamed[:MAX_ITEMS]]
        num_hidden = finding.count - (len(finding.items) - len(unnamed)) - MAX_ITEMS
        if num_hidden > 0:
            lines.append(f"{indent}... and {num_hidden:,} more")
    return "\n".join(lines)


def _skipped_files(report: CheckReport) -> str:
    """Return how many files were skipped for each reason."""
    reasons: dict[str, list[str]] = {}
    for skipped in report.skipped:
        reasons.setdefault(skipped.reason, []).append(skipped.name)
    width = max((len(f"{len(names):,}") for names in reasons.values()), default=0)
    lines = [
        _cut(
            f"  {f'{len(names):,}'.rjust(width)}  {reason}: {names[0]}{', ...' if len(names) > 1 else ''}",
            WIDTH_CHARS,
        )
        for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1]))
    ]
    return "\n".join(("skipped", *lines)) if lines else ""


def _verdict(report: CheckReport) -> str:
    if report.errors:
        return "Training is not possible with these data."
    if report.leaks:
        return "Training refuses these data, because they leak, unless told --allow-leaks."
    warnings = sum(f.level == "warning" for f in report.findings)
    if warnings:
        return f"Ready to train, with {warnings} warning{'' if warnings == 1 else 's'}."
    return "Ready to train."


def _wrapped(text: str, indent: str, next_indent: str) -> str:
    lines = textwrap.wrap(
        text,
        WIDTH_CHARS,
        initial_indent=indent,
        subsequent_indent=next_indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def _cut(name: str, width: int = MAX_NAME_CHARS) -> str:
    """Shorten a name in its middle, where it says least."""
    if len(name) <= width:
        return name
    half = (width - 3) // 2
    return f"{name[: width - 3 - half]}...{name[-half:]}"
