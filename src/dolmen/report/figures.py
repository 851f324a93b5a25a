"""Charts for the report: matplotlib figures as inline SVG whose colours are the page's.

Every chart is drawn with the colours of the light page, which are then replaced by CSS variables; so one SVG
fits the light page, the dark one and the printed one, and its text is text. matplotlib is imported when the
first chart is drawn.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dolmen.report.numbers import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# After Okabe & Ito (2008), told apart with any colour vision; text and marks pass 3:1 on both pages.
COLOURS = {"ink": "#1c2024", "muted": "#62696f", "line": "#dfe2e5", "blue": "#0868ac", "orange": "#c8500a"}
INK, MUTED, LINE, BLUE, ORANGE = COLOURS.values()
LABEL_PX = 11.0
"""Font size in CSS pixels of all labels; at phone width a chart shrinks to 0.8 at most."""
MAX_ROC_POINTS = 500

_numbers = itertools.count()


@contextmanager
def drawing(width: float, height: float, *, empty: bool = False, **grid: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure of ``width`` x ``height`` CSS pixels in the report's style, with axes unless ``empty``."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as NewFigure

    style: dict[Any, Any] = {
        "font.size": LABEL_PX,
        "font.family": ["DejaVu Sans"],
        "axes.edgecolor": MUTED,
        "axes.labelcolor": MUTED,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": LABEL_PX + 1,
        "axes.titlelocation": "left",
        "axes.titlecolor": INK,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": LINE,
        "grid.linewidth": 0.8,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "text.color": INK,
        "text.parse_math": False,  # a class may be called "$5$"
        "legend.frameon": False,
        "lines.linewidth": 2,
        "svg.fonttype": "none",
        "svg.hashsalt": f"dolmen-{next(_numbers)}",  # ids of one page's charts must differ
        "savefig.transparent": True,
    }
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")  # the browser has the fonts that we lack
        figure = NewFigure(figsize=(width / 72, height / 72), dpi=72, layout=None if empty else "constrained")
        FigureCanvasAgg(figure)
        yield figure, None if empty else figure.subplots(**grid)


def svg(figure: Figure, label: str, *, scroll: bool = False) -> str:
    """Return the figure as inline SVG.

    Args:
        figure: drawn within ``drawing``.
        label: what is to be seen, for those who can't see it.
        scroll: keep the size on a narrow screen and scroll sideways, for charts with many labels.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font: ((?:bold |\d+ )?)([\d.]+px)[^;\"]*", r"font: \1\2 var(--sans, sans-serif)", text)
    for name, value in COLOURS.items():
        text = text.replace(value, f"var(--{name}, {value})")
    width = round(figure.get_figwidth() * 72)
    sizes = f"min-width:{min(width, 560)}px;" if scroll else ""
    style = f"width:100%;max-width:{width}px;height:auto;{sizes}"
    head = f'<svg role="img" aria-label="{escape(label)}" style="{style}"'
    text = re.sub(
        r'<svg\b[^>]*?(viewBox="[^"]*")[^>]*>',
        rf'{head} \1 xmlns:xlink="http://www.w3.org/1999/xlink">',
        text,
        count=1,
    )
    return f'<div class="scroll">{text}</div>' if scroll else text


# ---- training


def curve(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    title: str,
    seconds: Sequence[float] = (),
    best: int | None = None,
    percent: bool = False,
) -> str:
    """One measure over epochs, with the time on top.

    Args:
        x: epochs, increasing.
        lines: name to values, one for each x; at most three.
        title: what is drawn.
        seconds: the time at each x.
        best: which x gave the weights that were kept.
        percent: the values are shares.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with drawing(440, 290) as (figure, axes):
        for (name, values), colour in zip(lines.items(), (BLUE, ORANGE, MUTED), strict=False):
            axes.plot(x, values, color=colour, label=name, marker="o" if len(x) < 3 else None)
        if best is not None:
            last = list(lines.values())[-1] if len(lines) > 1 else next(iter(lines.values()))
            axes.plot([x[best]], [last[best]], "o", color=INK, markersize=6, label="kept", zorder=5)
        axes.set_title(title)
        axes.set_xlabel("epochs")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=max(x) > 3))
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        if len(lines) > 1 or best is not None:
            axes.legend(fontsize=LABEL_PX, labelcolor=INK, handlelength=1.4)
        if len(seconds) > 1 and x[-1] > x[0]:
            _time_on_top(axes, x, seconds)
        ends = ", ".join(f"{n} {v[0]:.3g} to {v[-1]:.3g}" for n, v in lines.items())
        return svg(figure, f"{title} over {x[-1]:.1f} epochs: {ends}")


def _time_on_top(axes: Axes, x: Sequence[float], seconds: Sequence[float]) -> None:
    axes.set_xlim(axes.get_xlim())
    top = axes.secondary_xaxis("top")
    marks = np.linspace(x[0], x[-1], 4)[1:]  # even in epochs: time may run unevenly, and labels would collide
    top.set_xticks(marks, [duration(s) for s in np.interp(marks, x, seconds)])
    top.spines["top"].set_visible(False)
    top.tick_params(labelsize=LABEL_PX - 1, length=3)


def gradient_flow(x: Sequence[float], norms: Sequence[dict[str, float]]) -> str:
    """How strong the gradient was in each layer (rows, first layer on top) over training (columns).

    Args:
        x: epochs.
        norms: for each x the root mean square of each layer's gradient, by the layer's name in network order.
    """
    from matplotlib.colors import LogNorm

    names = list(dict.fromkeys(name for record in norms for name in record))
    values = np.array([[record.get(name, np.nan) for record in norms] for name in names])  # (L, T)
    values[~(values > 0)] = np.nan
    height = float(np.clip(15 * len(names) + 80, 170, 560))
    low, high = (np.nanmin(values), np.nanmax(values)) if np.isfinite(values).any() else (0.1, 1.0)
    with drawing(900, height) as (figure, axes):
        image = axes.imshow(
            values, aspect="auto", cmap="cividis", interpolation="nearest",
            norm=LogNorm(low, max(high, low * 1.01)), extent=(0, len(x), len(names), 0),
        )  # fmt: skip
        tick_step = int(np.ceil(15 * len(names) / (height - 80)))
        axes.set_yticks(np.arange(0, len(names), tick_step) + 0.5, names[::tick_step], fontsize=LABEL_PX - 1)
        marks = np.unique(np.linspace(0, len(x) - 1, min(8, len(x))).round().astype(int))
        axes.set_xticks(marks + 0.5, [f"{x[i]:.1f}" for i in marks])
        axes.set_xlabel("epochs")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=30, format=lambda v, _: f"{v:g}")
        bar.ax.minorticks_off()
        bar.outline.set_visible(False)
        bar.set_label("root mean square of the gradient")
        return svg(
            figure,
            f"Gradient strength of {len(names)} layers over training, {low:.1e} to {high:.1e}",
            scroll=True,
        )


# ---- classification


def confusion(
    matrix: NDArray[np.int64],
    classes: Sequence[str],
    columns: Sequence[str] | None = None,
    axis_names: tuple[str, str] = ("true", "decided"),
) -> str:
    """Truth in rows, decisions in columns; shade: share of the row. Numbers up to 21 classes, names up to 40.

    Args:
        matrix: (K, K) counts.
        classes: K names.
        columns: names of the columns where they are others.
        axis_names: of rows and columns.
    """
    k = len(classes)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    cell = next(c for max_classes, c in ((3, 100), (6, 76), (10, 48), (21, 34), (10**9, 640 / k)) if k <= max_classes)
    size = 130 + cell * k
    names, across = ([c if len(c) <= 18 else c[:17] + "…" for c in group] for group in (classes, columns or classes))
    with drawing(size + 60, size) as (figure, axes):
        hue = [int(BLUE[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        # Shade by opacity, so that the page's own colour shows through.
        pixels = np.dstack([np.broadcast_to(c, (k, k)) for c in hue] + [share**0.7])
        axes.imshow(pixels, interpolation="nearest", extent=(0, k, k, 0))
        if k <= 21:
            for i, j in np.argwhere(matrix):
                colour = "white" if share[i, j] ** 0.7 > 0.55 else INK
                axes.text(j + 0.5, i + 0.5, f"{matrix[i, j]}", ha="center", va="center", color=colour,
                          fontsize=LABEL_PX + 1 if k <= 10 else LABEL_PX - 1)  # fmt: skip
        tick_step = 1 if k <= 40 else 10
        marks, numbers = np.arange(0, k, tick_step) + 0.5, list(range(0, k, tick_step))
        upright = max(map(len, across)) * 7 > cell
        label_px = LABEL_PX if k <= 25 else LABEL_PX - 2
        rotation = 90 if upright and k <= 40 else 0
        axes.set_xticks(marks, across if k <= 40 else numbers, rotation=rotation, fontsize=label_px)
        axes.set_yticks(marks, names if k <= 40 else numbers, fontsize=label_px)
        axes.set_xlabel(axis_names[1] if k <= 40 else f"{axis_names[1]} (number of the class)")
        axes.set_ylabel(axis_names[0])
        axes.grid(False)
        axes.set_xticks(np.arange(k + 1), minor=True)
        axes.set_yticks(np.arange(k + 1), minor=True)
        if k <= 40:
            axes.grid(which="minor", color=LINE)
        axes.tick_params(which="minor", length=0)
        axes.spines[:].set_visible(True)
        right = int(np.trace(matrix))
        return svg(figure, f"Confusion matrix: {right} of {int(matrix.sum())} right", scroll=k > 6)


def reliability(bins: Sequence[dict[str, Any]], ece: float, before: float | None = None) -> str:
    """How often the model was right at each probability that it gave, and how many examples had it (below).

    Args:
        bins: {"confidence", "accuracy", "num"} of each bin that holds examples.
        ece: expected calibration error.
        before: the same before the temperature was fitted.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    bins = [b for b in bins if b["num"]]
    x = np.array([b["confidence"] for b in bins])
    y = np.array([b["accuracy"] for b in bins])
    n = np.array([b["num"] for b in bins])
    left = max(0.0, np.floor(min([*x, 0.9]) * 10) / 10 - 0.05)
    grid: dict[str, Any] = {"nrows": 2, "sharex": True, "gridspec_kw": {"height_ratios": [3, 1]}}
    with drawing(440, 400, **grid) as (figure, (top, low)):
        top.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        spread = 1.96 * np.sqrt(np.maximum(y * (1 - y), 0.25 / (n + 4)) / n)
        top.vlines(x, np.clip(y - spread, 0, 1), np.clip(y + spread, 0, 1), color=BLUE, alpha=0.35, linewidth=5)
        top.plot(x, y, "o-", color=BLUE, markersize=6)
        top.set(xlim=(left, 1.02), ylim=(min([left, *(y - 0.05)]), 1.03), ylabel="share that was right")
        title = f"ECE {ece:.3f}" + (f" (before temperature: {before:.3f})" if before is not None else "")
        top.set_title(title)
        low.bar(x, n, width=0.045, color=BLUE)
        low.set(ylabel="examples", xlabel="probability that the model gave")
        low.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        for axis in (top.xaxis, low.xaxis, top.yaxis):  # in whole per cent, and none over 100
            axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        return svg(figure, f"Reliability diagram: expected calibration error {ece:.3f}")


def roc(scores: NDArray[np.float64], positive: NDArray[np.bool_], point: dict[str, Any] | None, auroc: float) -> str:
    """Sensitivity against false alarms for all thresholds, with the operating point.

    Args:
        scores: (N,) probability of the positive class.
        positive: (N,) truth.
        point: {"sensitivity", "specificity", "threshold"} or None.
        auroc: area under the curve.
    """
    from matplotlib.ticker import PercentFormatter

    x, y = roc_points(scores, positive)
    with drawing(440, 400) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.fill_between(x, y, color=BLUE, alpha=0.1, linewidth=0)
        axes.plot(x, y, color=BLUE)
        if point is not None:
            corner = 1 - point["specificity"], point["sensitivity"]
            axes.plot(*corner, "o", color=ORANGE, markersize=10)
            axes.annotate(
                f"threshold {point['threshold']:.2f}", corner, (12, -16), textcoords="offset points", color=ORANGE
            )
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set(
            xlabel="false alarms (1 − specificity)",
            ylabel="sensitivity",
            title=f"AUROC {auroc:.3f}",
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        return svg(figure, f"ROC curve: area {auroc:.3f}")


def roc_points(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> tuple[NDArray[np.float64], ...]:
    """Corners of the ROC curve: false and true positive rates, from (0, 0) to (1, 1); at most ``MAX_ROC_POINTS``."""
    order = np.argsort(-scores, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(scores[order])), len(scores) - 1]  # of runs of equal scores
    hits, alarms = np.cumsum(positive[order])[last], np.cumsum(~positive[order])[last]
    x = np.r_[0, alarms / max(1, alarms[-1])]
    y = np.r_[0, hits / max(1, hits[-1])]
    keep = np.unique(np.linspace(0, len(x) - 1, MAX_ROC_POINTS).round().astype(int))
    return x[keep], y[keep]


# ---- detection


def precision_recall(curve: dict[str, list[float]], point: tuple[float, float], title: str, note: str) -> str:
    """Precision over recall as the threshold falls, with the operating point; small, to stand beside others.

    Args:
        curve: {"recall", "precision"} of the same length.
        point: recall and precision at the threshold.
        title: the class.
        note: what is to be known of it, above on the right.
    """
    from matplotlib.ticker import PercentFormatter

    # The surest boxes have a precision, too; without any box there is nothing to draw but the point.
    x, y = [0.0, *curve["recall"]] if curve["recall"] else [], [*curve["precision"][:1], *curve["precision"]]
    with drawing(280, 216) as (figure, axes):
        axes.fill_between(x, y, color=BLUE, alpha=0.1, linewidth=0)
        axes.plot(x, y, color=BLUE, linewidth=1.6, solid_joinstyle="round")
        axes.plot(*point, "o", color=ORANGE, markersize=8)
        axes.set(xlim=(-0.02, 1.03), ylim=(-0.02, 1.05), xlabel="recall", ylabel="precision")
        axes.set_title(title if len(title) <= 20 else title[:19] + "…")
        axes.set_title(note, loc="right", color=MUTED, fontsize=LABEL_PX)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
            axis.set_ticks([0, 0.5, 1])
        label = f"Precision over recall of {title}: at the threshold {point[1]:.2f} at {point[0]:.2f}"
        return svg(figure, label)
