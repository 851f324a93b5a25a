"""Sound in the report: players, posteriorgrams, error rates with their intervals, false alarms."""

from __future__ import annotations

import base64
import io
import unicodedata
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dolmen.report.figures import BLUE, INK, LABEL_PX, MUTED, ORANGE, drawing, svg
from dolmen.report.numbers import percent
from dolmen.tasks.speech_recognition.predictions import Word
from dolmen.tasks.speech_recognition.processors.grammar import BLANK, SPACE
from dolmen.wording import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_PX = 900
MAX_DRAWN_S = 20.0
"""Only the beginning of a longer recording is drawn."""
MAX_ROWS, MIN_PROBABILITY = 16, 0.1
"""Units that are drawn, and the probability that makes one worth a row."""
LETTER_EM = 0.64
"""Width of a letter in sizes of its font; a little more than the mean, so that labels keep apart."""


@dataclass(frozen=True, eq=False)
class Utterance:
    """An utterance of the report, with what there is to draw and play.

    Attributes:
        name: of the recording.
        confidence: 0..1, of the transcript.
        duration_s: how long the recording is.
        words: of the transcript, with their times; may be empty where these are not known.
        speaker: who said it; empty where that is not known.
        samples: (N,) -1..1 at ``rate``, for the player; None for none.
        rate: samples a second.
        features: (F', F) log-mel frames; None for none.
        hop_s: from frame to frame.
        logp: (T, V) log-probabilities of the units, the first of them blank; None for none.
        step_s: from step to step.
    """

    name: str
    confidence: float
    duration_s: float
    words: tuple[Word, ...] = ()
    speaker: str = ""
    samples: NDArray[np.float32] | None = None
    rate: int = 16000
    features: NDArray[np.float32] | None = None
    hop_s: float = 0.01
    logp: NDArray[np.float32] | None = None
    step_s: float = 0.04


# ---- players


def wav_uri(samples: NDArray[np.floating[Any]], rate: int) -> str:
    """(N,) samples of -1..1 as a data URI: WAV, one channel of 16 bits."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode()


def fair_cut(sizes: Sequence[int], budget: int) -> int:
    """The size to which the largest are cut so that all together fit into the budget; the others stay whole."""
    remaining = budget
    for num_done, size in enumerate(sorted(sizes)):
        share = remaining // (len(sizes) - num_done)
        if size > share:
            return share
        remaining -= size
    return max(sizes, default=0)


# ---- what the network gave


def unit_text(unit: str) -> str:
    """A unit as it is drawn: a space that is one by itself can be seen, one that begins a word need not be."""
    return "␣" if unit == SPACE else unit.removeprefix(SPACE)


def likely_units(logp: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """The likeliest units but blank, in the order in which they come."""
    p = np.exp(logp)
    p[:, BLANK] = 0
    likely = np.flatnonzero(p.max(0) >= MIN_PROBABILITY)
    chosen = likely[np.argsort(-p[:, likely].max(0), kind="stable")[:MAX_ROWS]]
    return chosen[np.argsort(p[:, chosen].argmax(0), kind="stable")]


def spikes(logp: NDArray[np.floating[Any]]) -> list[tuple[int, int]]:
    """(step, unit) where a unit that is likelier than blank is at its height."""
    best, height = logp.argmax(1), logp.max(1)
    edges = np.flatnonzero(np.diff(best)) + 1
    runs = np.split(np.arange(len(best)), edges)
    return [(int(run[height[run].argmax()]), int(best[run[0]])) for run in runs if len(run) and best[run[0]] != BLANK]


def ems(text: str) -> float:
    """About how wide a text is, in sizes of its font."""
    return sum(1.0 if unicodedata.east_asian_width(c) in "WF" else LETTER_EM for c in text)


def label_lines(spans: Sequence[tuple[float, float]], num_lines: int) -> list[int | None]:
    """The line of each label, so that none covers another; None where there is no room left.

    Args:
        spans: begin and end of each, begins rising.
        num_lines: number of lines.
    """
    ends = [-np.inf] * num_lines
    lines: list[int | None] = []
    for begin, end in spans:
        line = next((i for i, taken in enumerate(ends) if begin >= taken), None)
        if line is not None:
            ends[line] = end
        lines.append(line)
    return lines


def posteriorgram(utterance: Utterance, units: Sequence[str], wrong: Sequence[bool] = ()) -> str:
    """Log-mel frames with the words that were heard, and below them each unit's probability from step to step.

    Args:
        utterance: with features or logp, or both.
        units: V texts of the units.
        wrong: whether each of its words is a mistake.
    """
    logp, features = (None if v is None or not len(v) else v for v in (utterance.logp, utterance.features))
    assert logp is not None or features is not None
    # The last word may be named in the silence behind the recording only.
    whole_s = max(utterance.duration_s, 0 if logp is None else len(logp) * utterance.step_s)
    end_s = min(MAX_DRAWN_S, whole_s)
    if logp is not None:
        logp = logp[: max(1, round(end_s / utterance.step_s))]
    rows = np.zeros(0, np.int64) if logp is None else likely_units(logp)
    heights = [110.0] * (features is not None) + [20.0 * max(1, len(rows))] * (logp is not None)
    grid: dict[str, Any] = {
        "nrows": len(heights), "sharex": True, "squeeze": False, "gridspec_kw": {"height_ratios": heights}
    }  # fmt: skip
    with drawing(WIDTH_PX, sum(heights) + 92, **grid) as (figure, axes):
        panels = list(axes[:, 0])
        top = panels[0]
        if features is not None:
            draw_mels(top, features[: round(end_s / utterance.hop_s)], utterance.hop_s)
            top.set_ylabel("log-mel")
        if logp is not None:
            for step, _ in spikes(logp) if features is not None else []:
                top.axvline((step + 0.5) * utterance.step_s, color="white", alpha=0.55, linewidth=0.8)
            _draw_units(panels[-1], logp, rows, utterance.step_s, units)
        _draw_words(top, [w for w in utterance.words if w.start_s < end_s], wrong, end_s)
        top.set_xlim(0, end_s)
        panels[-1].set_xlabel("seconds" if end_s == whole_s else f"seconds; the first {end_s:g} of them")
        names = ", ".join(unit_text(units[unit]) for unit in rows)
        return svg(figure, f"{count(len(rows), 'unit')} over {end_s:.1f} seconds: {names}", scroll=True)


def draw_mels(axes: Axes, features: NDArray[np.floating[Any]], hop_s: float) -> None:
    """(F', F) frames over seconds."""
    # The quietest frames, e.g. digital silence, would take all shades for themselves.
    low, high = np.quantile(features, (0.05, 0.998)) if features.size else (0.0, 1.0)
    axes.imshow(
        features.T, aspect="auto", origin="lower", cmap="viridis", vmin=low, vmax=max(high, low + 1e-3),
        interpolation="nearest", extent=(0, len(features) * hop_s, 0, 1),
    )  # fmt: skip
    axes.set_yticks([])
    axes.grid(False)


def _draw_units(
    axes: Axes, logp: NDArray[np.floating[Any]], rows: NDArray[np.int64], step_s: float, units: Sequence[str]
) -> None:
    share = np.exp(logp[:, rows]).T if len(rows) else np.zeros((1, len(logp)))
    hue = [int(BLUE[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    pixels = np.dstack([np.broadcast_to(c, share.shape) for c in hue] + [share**0.7])
    extent = (0, len(logp) * step_s, len(share), 0)
    axes.imshow(pixels, aspect="auto", interpolation="nearest", extent=extent)
    labels = [unit_text(units[unit])[:14] for unit in rows] or ["only blank"]
    axes.set_yticks(np.arange(len(labels)) + 0.5, labels)
    axes.grid(False)
    for edge in range(1, len(labels)):
        axes.axhline(edge, color=MUTED, linewidth=0.3, alpha=0.5)


def _draw_words(axes: Axes, words: Sequence[Word], wrong: Sequence[bool], end: float) -> None:
    """Words on two lines above the axes; those for which there is no room are left out."""
    seconds_per_em = end / (WIDTH_PX - 110) * LABEL_PX
    middles = [min(end, (w.start_s + w.end_s) / 2) for w in words]
    halves = [(ems(w.text) + 1) * seconds_per_em / 2 for w in words]
    spans = [(m - half, m + half) for m, half in zip(middles, halves, strict=True)]
    for i, (word, middle, level) in enumerate(zip(words, middles, label_lines(spans, 2), strict=True)):
        if level is not None:
            mistaken = i < len(wrong) and wrong[i]
            axes.annotate(
                word.text, (middle, 1), (0, 4 + 15 * level), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", va="bottom", color=ORANGE if mistaken else INK,
                weight="bold" if mistaken else "normal",
            )  # fmt: skip


# ---- error rates


def rate_bars(rows: Sequence[Mapping[str, Any]], title: str, overall: float) -> str:
    """The error rate of each group with its interval.

    Args:
        rows: {"group", "num", "error_rate", "interval"}.
        title: the rate's name.
        overall: the rate of all, a dashed line.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    names = [g if len(g) <= 24 else g[:23] + "…" for g in (str(r["group"]) for r in rows)]
    rates, y = np.array([r["error_rate"] for r in rows]), np.arange(len(rows))
    ends = [r["interval"] or (r["error_rate"],) * 2 for r in rows]
    high = max(0.01, *(e[1] for e in ends), *rates, overall) * 1.05
    with drawing(640, 27 * len(rows) + 64) as (figure, axes):
        axes.barh(y, rates, height=0.62, color=BLUE, alpha=0.35, linewidth=0)
        axes.hlines(y, [e[0] for e in ends], [e[1] for e in ends], color=BLUE, linewidth=2)
        axes.plot(rates, y, "o", color=BLUE, markersize=6)
        axes.axvline(overall, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_yticks(y, names)
        for row_y, row in zip(y, rows, strict=True):
            label = f"{percent(row['error_rate'])}, {count(row['num'], 'utterance')}"
            axes.annotate(label, (1.01, row_y), xycoords=("axes fraction", "data"), va="center", color=MUTED)
        axes.set(xlim=(0, high), ylim=(len(rows) - 0.4, -0.6), xlabel=title)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g}%"))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y", visible=False)
        return svg(figure, f"{title} of {len(rows)} groups, {percent(overall)} over all", scroll=True)


def alarms(curve: Mapping[str, Any], point: Mapping[str, float] | None) -> str:
    """Misses against false alarms an hour as the threshold moves, with the operating point.

    Args:
        curve: {"misses", "alarms_per_hour"}, of the same length.
        point: {"threshold", "misses", "alarms_per_hour"} or None.
    """
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    x, y = np.array(curve["alarms_per_hour"]), np.array(curve["misses"])
    least = float(x[x > 0].min(initial=1.0))
    with drawing(440, 360) as (figure, axes):
        axes.step(x, y, color=BLUE, where="post")
        axes.set_xscale("symlog", linthresh=least, linscale=0.4)
        if point is not None:
            at = point["alarms_per_hour"], point["misses"]
            axes.plot(*at, "o", color=ORANGE, markersize=10, clip_on=False, zorder=5)
            axes.annotate(f"threshold {point['threshold']:.2f}", at, (12, 10), textcoords="offset points", color=ORANGE)
        axes.set(xlim=(-least * 0.15, max(float(x.max(initial=0)), least) * 1.3), ylim=(-0.02, 1.03))
        axes.set(xlabel="false alarms an hour", ylabel="misses")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        return svg(figure, f"False alarms an hour against misses, from {x.max(initial=0):.3g} alarms to none")
