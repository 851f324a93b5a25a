"""One picture that shows how a recogniser came to its words: for ``dolmen explain``."""

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
from dolmen.tasks.speech_recognition.report.pictures import SHOWN_S, draw_mels, ems, levels, spikes, unit_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.floating[Any]]

WIDTH, LEFT, RIGHT = 1600, 148, 40
WAVE, MELS, POSTERIOR, GATE, GAP = 110, 230, 170, 120, 14
TEXT, LINES = 14.0, 3
"""Size of labels, and the lines that those above a picture may take."""
UNSURE, SECOND = 0.5, 0.1
"""Below this confidence a word is drawn in orange; from this probability on the second best unit is drawn."""
MEANING = {
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
        out: where to; folders are made, and a file that is there is replaced as a whole.
        title: the recording's name.
        text: that was heard.
        confidence: 0..1, in it.
        samples: (N,) -1..1 at ``rate``. Of more than 20 seconds the beginning is drawn.
        rate: samples a second.
        features: (F', F) log-mel frames.
        hop_s: from frame to frame.
        logp: (T, V) log-probabilities; None where the network gives none.
        step_s: from step to step.
        units: V texts of the units, the first of them blank.
        words: that were heard, with their times.
        gates: name to (T, H) activations of the last layer; may be empty.

    Raises:
        MachineError: the file can't be written.
    """
    whole = len(samples) / rate
    # What lies behind the sound is there for the last word to be told; it is drawn, too, where it is short.
    end = min(SHOWN_S, max(whole, *(w.end_s for w in words), (0 if logp is None else len(logp)) * step_s, hop_s))
    told = textwrap.wrap(f"“{text}”", 118)[:3] if text else ["nothing was heard"]
    heard = [w for w in words if w.start_s < end]
    logp = None if logp is None or not len(logp) else logp[: max(1, round(end / step_s))]
    found = [] if logp is None else spikes(logp)
    named = [((t + 0.5) * step_s, unit_text(units[unit])[:16], INK) for t, unit in found]
    spoken, called = _placed(end, [_told(word, end) for word in heard]), _placed(end, named)
    heights = [WAVE, MELS, *([] if logp is None else [POSTERIOR]), *[GATE] * len(gates)]
    above = [_room(spoken), GAP + 26, *([] if logp is None else [_room(called) + 34]), *[GAP + 26] * len(gates)]
    head = 92 + 26 * len(told)
    height = head + sum(heights) + sum(above) + 64
    with drawing(WIDTH, height, empty=True) as (figure, _):
        figure.set_facecolor("white")
        _head(figure, height, title, told, _sure(confidence, heard) if text else "", whole, end)
        panels, y = [], float(head)
        for size, room in zip(heights, above, strict=True):
            y += room
            panels.append(_panel(figure, height, y, size, end))
            y += size
        _wave(panels[0], samples[: round(end * rate)], rate, heard, end)
        _labels(panels[0], spoken)
        _mels(panels[1], features[: round(end / hop_s)], hop_s, [(t + 0.5) * step_s for t, _ in found])
        rest = panels[2:]
        if logp is not None:
            _labels(rest[0], called)
            _posterior(rest.pop(0), logp, step_s, _room(called))
        for axes, (name, values) in zip(rest, gates.items(), strict=True):
            _gate(axes, name, values[: round(end / step_s)], step_s)
        for axes in panels[:-1]:
            axes.tick_params(labelbottom=False)
        panels[-1].set_xlabel("seconds", fontsize=TEXT)
        return save(figure, out)


def _sure(confidence: float, words: Sequence[Word]) -> str:
    unsure = any(word.confidence < UNSURE for word in words)
    return f"confidence {percent(confidence)}" + (f" (orange: words under {percent(UNSURE)})" if unsure else "")


def _head(figure: Figure, height: float, title: str, told: Sequence[str], sure: str, whole: float, end: float) -> None:
    def say(words: str, y: float, **style: Any) -> None:
        figure.text(40 / WIDTH, 1 - y / height, words, va="top", **style)

    say(title if len(title) <= 100 else "…" + title[-99:], 26, fontsize=22, weight="bold", color=INK)
    for i, line in enumerate(told):
        say(line, 62 + 26 * i, fontsize=19, color=BLUE)
    length = f"{whole:.1f} s" + (f", drawn are the first {end:.0f}" if whole > end else "")
    say(", ".join(filter(None, [sure, length])), 66 + 26 * len(told), fontsize=TEXT, color=MUTED)


def _panel(figure: Figure, height: float, y: float, size: float, end: float) -> Axes:
    """Axes whose upper edge is ``y`` pixels below the figure's."""
    wide = (WIDTH - LEFT - RIGHT) / WIDTH
    axes = figure.add_axes((LEFT / WIDTH, 1 - (y + size) / height, wide, size / height))
    axes.set_xlim(0, end)
    axes.tick_params(labelsize=TEXT - 1)
    axes.grid(axis="y", visible=False)
    return axes


def _name(axes: Axes, name: str, space: float = 18) -> None:
    """What a panel shows, so many pixels to its left."""
    axes.set_yticks([])
    axes.text(-space / (WIDTH - LEFT - RIGHT), 0.5, name, transform=axes.transAxes, ha="right", va="center",
              fontsize=TEXT, color=INK, linespacing=1.4)  # fmt: skip


def _note(axes: Axes, text: str, up: float) -> None:
    axes.annotate(text, (0, 1), (0, up), xycoords="axes fraction", textcoords="offset points", va="bottom",
                  fontsize=TEXT - 1, color=MUTED)  # fmt: skip


class _Label(NamedTuple):
    """A text above a panel: at which time, in which colour, in the middle of what, on which line."""

    at: float
    text: str
    colour: str
    middle: float
    level: int


def _placed(end: float, shown: Sequence[tuple[float, str, str]]) -> list[_Label]:
    """Texts at their times, with colours, on as many lines as it takes; those for which there is no room go."""
    wide = end / (WIDTH - LEFT - RIGHT)
    halves = [(ems(text) * TEXT / 2 + (1 if len(text) == 1 else 4)) * wide for _, text, _ in shown]
    middles = [min(max(at, half), end - half) for (at, *_), half in zip(shown, halves, strict=True)]
    spans = [(middle - half, middle + half) for middle, half in zip(middles, halves, strict=True)]
    placed = zip(shown, middles, levels(spans, LINES), strict=True)
    return [_Label(*label, middle, level) for label, middle, level in placed if level is not None]


def _room(labels: Sequence[_Label]) -> int:
    """Pixels that they take."""
    return 12 + 22 * (1 + max((label.level for label in labels), default=0))


def _labels(axes: Axes, labels: Sequence[_Label]) -> None:
    """Write them, with a line down to the panel from those that stand higher."""
    place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    arrow = {"arrowstyle": "-", "color": LINE, "shrinkA": 0, "shrinkB": 0}
    for label in labels:
        up = 5 + 22 * label.level
        if label.level:
            axes.annotate("", (label.at, 1), (0, up), arrowprops=arrow, **place)
    for label in labels:
        axes.annotate(label.text, (label.middle, 1), (0, 5 + 22 * label.level), ha="center", va="bottom",
                      fontsize=TEXT, color=label.colour, bbox=behind, **place)  # fmt: skip


def _told(word: Word, end: float) -> tuple[float, str, str]:
    colour = BLUE if word.confidence >= UNSURE else ORANGE
    return (word.start_s + min(end, word.end_s)) / 2, f"{word.text} {word.confidence:.0%}", colour


def _wave(axes: Axes, samples: Floats, rate: int, words: Sequence[Word], end: float) -> None:
    """The waveform, of many samples their range in each column of pixels; words above it at their times."""
    size = max(1, len(samples) // (WIDTH - LEFT - RIGHT))
    columns = samples[: len(samples) // size * size].reshape(-1, size)
    at = (np.arange(len(columns)) + 0.5) * size / rate
    if size > 1:
        axes.fill_between(at, columns.min(1), columns.max(1), color=MUTED, linewidth=0.5)
    else:
        axes.plot(at, columns[:, 0], color=MUTED, linewidth=0.8)
    top = max(1e-3, float(np.abs(samples).max(initial=0))) * 1.05
    axes.set_ylim(-top, top)
    _name(axes, "waveform\nand words")
    for word in words:
        colour = _told(word, end)[2]
        axes.axvspan(word.start_s, min(end, word.end_s), color=colour, alpha=0.22, linewidth=0)


def _mels(axes: Axes, features: Floats, hop_s: float, peaks: Sequence[float]) -> None:
    draw_mels(axes, features, hop_s)
    for at in peaks:
        axes.axvline(at, color="white", alpha=0.6, linewidth=1)
    _name(axes, f"log-mel\n{features.shape[1]} bands")
    _note(axes, "What the network hears; lines where it names a unit.", 4)


def _posterior(axes: Axes, logp: Floats, step_s: float, room: float) -> None:
    """Blank as a pale area, the best other unit of each step as a blue bar, the second best as an orange one."""
    p = np.exp(logp.astype(np.float64))
    at = (np.arange(len(p)) + 0.5) * step_s
    axes.fill_between(np.arange(len(p) + 1) * step_s, np.append(p[:, BLANK], p[-1:, BLANK]), step="post",
                      color=LINE, linewidth=0)  # fmt: skip
    others = np.delete(p, BLANK, 1)
    order = np.sort(others, 1)
    for column, colour, width in ((-1, BLUE, 0.86), (-2, ORANGE, 0.5)):
        if others.shape[1] >= -column:
            value = order[:, column]
            tall = value >= (0.02 if column == -1 else SECOND)
            axes.bar(at[tall], value[tall], width=step_s * width, color=colour, linewidth=0)
    axes.set_ylim(0, 1.02)
    _name(axes, "units\n(CTC)", 58)
    axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    axes.tick_params(axis="y", labelsize=TEXT - 3, pad=2)
    _note(
        axes,
        "How probable units are at each step: the best one blue, the second orange, blank (nothing new) pale.",
        room,
    )


def _gate(axes: Axes, name: str, values: Floats, step_s: float) -> None:
    low = -1.0 if float(values.min(initial=0)) < 0 else 0.0
    axes.imshow(liveliest(values).T, aspect="auto", cmap="cividis", vmin=low, vmax=1, interpolation="nearest",
                extent=(0, len(values) * step_s, 0, 1))  # fmt: skip
    axes.grid(visible=False)
    _name(axes, f"{name}\ngate" if name not in ("cell", "new") else name)
    _note(axes, f"A row is a unit of the last layer{'; ' + MEANING[name] if name in MEANING else ''}.", 4)
