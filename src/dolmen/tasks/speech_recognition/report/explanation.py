"""The picture of ``dolmen explain``: waveform, log-mel frames, units and gates of one recording."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dolmen.report.explanation import save
from dolmen.report.figures import BLUE, INK, LINE, MUTED, ORANGE, drawing
from dolmen.report.numbers import percent
from dolmen.report.text import liveliest
from dolmen.tasks.speech_recognition.predictions import Word
from dolmen.tasks.speech_recognition.processors.grammar import BLANK
from dolmen.tasks.speech_recognition.report.pictures import MAX_DRAWN_S, draw_mels, ems, label_lines, spikes, unit_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.floating[Any]]

WIDTH_PX, LEFT_PX, RIGHT_PX = 1600, 148, 40
WAVE_PX, MELS_PX, POSTERIOR_PX, GATE_PX, GAP_PX = 110, 230, 170, 120, 14
FONT_SIZE, MAX_LABEL_LINES = 14.0, 3
"""Font size of labels, and the lines that those above a panel may take."""
UNSURE_CONFIDENCE, MIN_SECOND_PROBABILITY = 0.5, 0.1
"""Below this confidence a word is drawn in orange; from this probability on the second best unit is drawn."""
GATE_MEANING = {
    "update": "bright: it keeps what it remembers",
    "reset": "dark: it leaves the past out of what it proposes",
    "input": "bright: it writes",
    "forget": "bright: it keeps what it remembers",
    "output": "bright: it shows what it remembers",
    "cell": "what it would write, from −1 to 1",
    "new": "what it proposes, from −1 to 1",
}


def draw(
    out: Path,
    *,
    title: str,
    text: str,
    confidence: float,
    samples: Floats,
    rate: int,
    features: Floats,
    hop_s: float,
    logp: Floats | None,
    step_s: float,
    units: Sequence[str],
    words: Sequence[Word],
    gates: Mapping[str, Floats],
) -> Path:
    """Write a PNG of 1600 pixels width: waveform, log-mel frames, units and gates over one axis of time.

    Args:
        out: the file; folders are created, and an existing file is replaced as a whole.
        title: the recording's name.
        text: of the transcript.
        confidence: 0..1, of the transcript.
        samples: (N,) -1..1 at ``rate``; the first 20 seconds are drawn.
        rate: samples a second.
        features: (F', F) log-mel frames.
        hop_s: from frame to frame.
        logp: (T, V) log-probabilities; None where the network gives none.
        step_s: from step to step.
        units: V texts of the units, the first of them blank.
        words: of the transcript, with their times.
        gates: name to (T, H) activations of the last layer; may be empty.

    Raises:
        MachineError: the file can't be written.
    """
    whole_s = len(samples) / rate
    # The silence behind the sound lets the last word be recognised; it is drawn, too, where it is short.
    end_s = min(
        MAX_DRAWN_S, max(whole_s, *(w.end_s for w in words), (0 if logp is None else len(logp)) * step_s, hop_s)
    )
    text_lines = textwrap.wrap(f"“{text}”", 118)[:3] if text else ["nothing was heard"]
    drawn_words = [w for w in words if w.start_s < end_s]
    logp = None if logp is None or not len(logp) else logp[: max(1, round(end_s / step_s))]
    peaks = [] if logp is None else spikes(logp)
    unit_texts = [((t + 0.5) * step_s, unit_text(units[unit])[:16], INK) for t, unit in peaks]
    word_labels = _place_labels(end_s, [_word_label(word, end_s) for word in drawn_words])
    unit_labels = _place_labels(end_s, unit_texts)
    heights = [WAVE_PX, MELS_PX, *([] if logp is None else [POSTERIOR_PX]), *[GATE_PX] * len(gates)]
    margins = [_labels_height(word_labels), GAP_PX + 26]
    margins += ([] if logp is None else [_labels_height(unit_labels) + 34]) + [GAP_PX + 26] * len(gates)
    head = 92 + 26 * len(text_lines)
    height = head + sum(heights) + sum(margins) + 64
    with drawing(WIDTH_PX, height, empty=True) as (figure, _):
        figure.set_facecolor("white")
        confidence_line = _confidence_line(confidence, drawn_words) if text else ""
        _draw_head(figure, height, title, text_lines, confidence_line, whole_s, end_s)
        panels, y = [], float(head)
        for size, margin in zip(heights, margins, strict=True):
            y += margin
            panels.append(_panel(figure, height, y, size, end_s))
            y += size
        _draw_wave(panels[0], samples[: round(end_s * rate)], rate, drawn_words, end_s)
        _draw_labels(panels[0], word_labels)
        _draw_mels(panels[1], features[: round(end_s / hop_s)], hop_s, [(t + 0.5) * step_s for t, _ in peaks])
        lower_panels = panels[2:]
        if logp is not None:
            _draw_labels(lower_panels[0], unit_labels)
            _draw_posterior(lower_panels.pop(0), logp, step_s, _labels_height(unit_labels))
        for axes, (name, values) in zip(lower_panels, gates.items(), strict=True):
            _draw_gate(axes, name, values[: round(end_s / step_s)], step_s)
        for axes in panels[:-1]:
            axes.tick_params(labelbottom=False)
        panels[-1].set_xlabel("seconds", fontsize=FONT_SIZE)
        return save(figure, out)


def _confidence_line(confidence: float, words: Sequence[Word]) -> str:
    unsure = any(word.confidence < UNSURE_CONFIDENCE for word in words)
    note = f" (orange: words under {percent(UNSURE_CONFIDENCE)})" if unsure else ""
    return f"confidence {percent(confidence)}{note}"


def _draw_head(
    figure: Figure,
    height: float,
    title: str,
    text_lines: Sequence[str],
    confidence_line: str,
    whole_s: float,
    end_s: float,
) -> None:
    def write(words: str, y: float, **style: Any) -> None:
        figure.text(40 / WIDTH_PX, 1 - y / height, words, va="top", **style)

    write(title if len(title) <= 100 else "…" + title[-99:], 26, fontsize=22, weight="bold", color=INK)
    for i, line in enumerate(text_lines):
        write(line, 62 + 26 * i, fontsize=19, color=BLUE)
    length = f"{whole_s:.1f} s" + (f", drawn are the first {end_s:.0f}" if whole_s > end_s else "")
    write(
        ", ".join(filter(None, [confidence_line, length])), 66 + 26 * len(text_lines), fontsize=FONT_SIZE, color=MUTED
    )


def _panel(figure: Figure, height: float, y: float, size: float, end: float) -> Axes:
    """Axes whose upper edge is ``y`` pixels below the figure's."""
    width = (WIDTH_PX - LEFT_PX - RIGHT_PX) / WIDTH_PX
    axes = figure.add_axes((LEFT_PX / WIDTH_PX, 1 - (y + size) / height, width, size / height))
    axes.set_xlim(0, end)
    axes.tick_params(labelsize=FONT_SIZE - 1)
    axes.grid(axis="y", visible=False)
    return axes


def _name_panel(axes: Axes, name: str, space: float = 18) -> None:
    """Write a panel's name so many pixels to its left."""
    axes.set_yticks([])
    axes.text(-space / (WIDTH_PX - LEFT_PX - RIGHT_PX), 0.5, name, transform=axes.transAxes, ha="right", va="center",
              fontsize=FONT_SIZE, color=INK, linespacing=1.4)  # fmt: skip


def _note_panel(axes: Axes, text: str, up: float) -> None:
    axes.annotate(text, (0, 1), (0, up), xycoords="axes fraction", textcoords="offset points", va="bottom",
                  fontsize=FONT_SIZE - 1, color=MUTED)  # fmt: skip


class _Label(NamedTuple):
    """A text above a panel: its time, text and colour, the time of its middle, and its line."""

    at: float
    text: str
    colour: str
    middle: float
    line: int


def _place_labels(end: float, labels: Sequence[tuple[float, str, str]]) -> list[_Label]:
    """Lay out (time, text, colour) on as many lines as it takes; labels without room are left out."""
    seconds_per_px = end / (WIDTH_PX - LEFT_PX - RIGHT_PX)
    halves = [(ems(text) * FONT_SIZE / 2 + (1 if len(text) == 1 else 4)) * seconds_per_px for _, text, _ in labels]
    middles = [min(max(at, half), end - half) for (at, *_), half in zip(labels, halves, strict=True)]
    spans = [(middle - half, middle + half) for middle, half in zip(middles, halves, strict=True)]
    laid_out = zip(labels, middles, label_lines(spans, MAX_LABEL_LINES), strict=True)
    return [_Label(*label, middle, line) for label, middle, line in laid_out if line is not None]


def _labels_height(labels: Sequence[_Label]) -> int:
    """Pixels that labels take."""
    return 12 + 22 * (1 + max((label.line for label in labels), default=0))


def _draw_labels(axes: Axes, labels: Sequence[_Label]) -> None:
    """Write them, with a line down to the panel from those that stand higher."""
    place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    arrow = {"arrowstyle": "-", "color": LINE, "shrinkA": 0, "shrinkB": 0}
    for label in labels:
        up = 5 + 22 * label.line
        if label.line:
            axes.annotate("", (label.at, 1), (0, up), arrowprops=arrow, **place)
    for label in labels:
        axes.annotate(label.text, (label.middle, 1), (0, 5 + 22 * label.line), ha="center", va="bottom",
                      fontsize=FONT_SIZE, color=label.colour, bbox=behind, **place)  # fmt: skip


def _word_label(word: Word, end: float) -> tuple[float, str, str]:
    colour = BLUE if word.confidence >= UNSURE_CONFIDENCE else ORANGE
    return (word.start_s + min(end, word.end_s)) / 2, f"{word.text} {word.confidence:.0%}", colour


def _draw_wave(axes: Axes, samples: Floats, rate: int, words: Sequence[Word], end: float) -> None:
    """The waveform, as the range of samples in each column of pixels, with words shaded at their times."""
    size = max(1, len(samples) // (WIDTH_PX - LEFT_PX - RIGHT_PX))
    columns = samples[: len(samples) // size * size].reshape(-1, size)
    times_s = (np.arange(len(columns)) + 0.5) * size / rate
    if size > 1:
        axes.fill_between(times_s, columns.min(1), columns.max(1), color=MUTED, linewidth=0.5)
    else:
        axes.plot(times_s, columns[:, 0], color=MUTED, linewidth=0.8)
    top = max(1e-3, float(np.abs(samples).max(initial=0))) * 1.05
    axes.set_ylim(-top, top)
    _name_panel(axes, "waveform\nand words")
    for word in words:
        colour = _word_label(word, end)[2]
        axes.axvspan(word.start_s, min(end, word.end_s), color=colour, alpha=0.22, linewidth=0)


def _draw_mels(axes: Axes, features: Floats, hop_s: float, peaks: Sequence[float]) -> None:
    draw_mels(axes, features, hop_s)
    for at in peaks:
        axes.axvline(at, color="white", alpha=0.6, linewidth=1)
    _name_panel(axes, f"log-mel\n{features.shape[1]} bands")
    _note_panel(axes, "What the network hears; lines where it names a unit.", 4)


def _draw_posterior(axes: Axes, logp: Floats, step_s: float, height: float) -> None:
    """Blank as a pale area, the best other unit of each step as a blue bar, the second best as an orange one."""
    p = np.exp(logp.astype(np.float64))
    times_s = (np.arange(len(p)) + 0.5) * step_s
    axes.fill_between(np.arange(len(p) + 1) * step_s, np.append(p[:, BLANK], p[-1:, BLANK]), step="post",
                      color=LINE, linewidth=0)  # fmt: skip
    others = np.delete(p, BLANK, 1)
    order = np.sort(others, 1)
    for column, colour, width in ((-1, BLUE, 0.86), (-2, ORANGE, 0.5)):
        if others.shape[1] >= -column:
            probability = order[:, column]
            is_drawn = probability >= (0.02 if column == -1 else MIN_SECOND_PROBABILITY)
            axes.bar(times_s[is_drawn], probability[is_drawn], width=step_s * width, color=colour, linewidth=0)
    axes.set_ylim(0, 1.02)
    _name_panel(axes, "units\n(CTC)", 58)
    axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    axes.tick_params(axis="y", labelsize=FONT_SIZE - 3, pad=2)
    _note_panel(
        axes,
        "How probable units are at each step: the best one blue, the second orange, blank (nothing new) pale.",
        height,
    )


def _draw_gate(axes: Axes, name: str, values: Floats, step_s: float) -> None:
    low = -1.0 if float(values.min(initial=0)) < 0 else 0.0
    axes.imshow(liveliest(values).T, aspect="auto", cmap="cividis", vmin=low, vmax=1, interpolation="nearest",
                extent=(0, len(values) * step_s, 0, 1))  # fmt: skip
    axes.grid(visible=False)
    _name_panel(axes, f"{name}\ngate" if name not in ("cell", "new") else name)
    meaning = f"; {GATE_MEANING[name]}" if name in GATE_MEANING else ""
    _note_panel(axes, f"A row is a unit of the last layer{meaning}.", 4)
