"""What a recurrent network does with a text, as parts of the report and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.files import write_whole
from dolmen.report import figures
from dolmen.report.figures import BLUE, INK, MUTED, ORANGE
from dolmen.report.numbers import decimal
from dolmen.types import Section

FULL_COLOUR_BITS = 8.0
"""Surprise at which a token has its full colour."""
COLUMNS = 96
"""Characters in a line of the picture."""


def coloured(tokens: Sequence[str], values: NDArray[Any], notes: Sequence[str], colour: str = "--orange") -> str:
    """A text whose tokens have a background by value (0..1); ``notes`` show when one points at a token."""
    parts = []
    for token, value, note in zip(tokens, np.clip(values, 0, 1), notes, strict=True):
        style = f"background:color-mix(in srgb, var({colour}) {round(70 * float(value))}%, transparent)"
        html = escape(token).replace("\n", "↵\n")
        parts.append(f'<span style="{style}" title="{escape(note, quote=True)}">{html}</span>')
    return f'<pre class="surprise">{"".join(parts)}</pre>'


def surprise_section(tokens: Sequence[str], bits: NDArray[Any], guesses: Sequence[str]) -> Section:
    """A stretch of the text, coloured by how surprising each token was."""
    notes = [f"{b:.1f} bits; expected {g}" for b, g in zip(bits, guesses, strict=True)]
    return Section(
        "What surprised it",
        coloured(tokens, np.asarray(bits) / FULL_COLOUR_BITS, notes),
        f"A stretch of the text. The darker a token, the less it was expected (full colour: "
        f"{FULL_COLOUR_BITS:g} bits); on average {decimal(float(np.mean(bits)))} bits. Point at one to see what "
        "was expected there.",
    )


def units_section(tokens: Sequence[str], units: Sequence[tuple[str, int, float, NDArray[Any]]]) -> Section | None:
    """Units that follow something legible: (what, unit, correlation, (T,) values in -1..1)."""
    if not units:
        return None
    parts = []
    for what, unit, r, values in units:
        shares = (values * np.sign(r) + 1) / 2
        notes = [f"{v:+.2f}" for v in values]
        parts.append(f"<h3>{escape(what)}: unit {unit} (correlation {r:+.2f})</h3>")
        parts.append(coloured(tokens, shares, notes, "--blue"))
    lead = "The unit of the last layer that goes along best with each of a few things one can see in a text."
    return Section("Units that follow something legible", "".join(parts), lead)


def gates_section(tokens: Sequence[str], gates: Mapping[str, NDArray[Any]]) -> Section:
    """How open the gates are over time: name to (T, H) activations of the last layer."""
    with figures.drawing(900, 92 * len(gates) + 40, nrows=len(gates), sharex=True, squeeze=False) as (figure, axes):
        _draw_gates(axes[:, 0], tokens, gates)
        picture = figures.svg(figure, f"Activations of {', '.join(gates)} over {len(tokens)} tokens", scroll=True)
    return Section(
        "What its gates do",
        picture,
        "Each row is a unit of the last layer, each column a token of the text below it. An open forget gate keeps "
        "what the unit remembers; an open input gate writes; an open output gate shows it.",
    )


def _draw_gates(axes: Sequence[Any], tokens: Sequence[str], gates: Mapping[str, NDArray[Any]]) -> None:
    for axis, (name, values) in zip(axes, gates.items(), strict=True):
        low = -1.0 if float(values.min()) < 0 else 0.0
        axis.imshow(liveliest(values).T, aspect="auto", cmap="cividis", vmin=low, vmax=1, interpolation="nearest")
        axis.set_ylabel(name)
        axis.set_yticks([])
        axis.grid(False)
    letters = [t.strip()[:6] or ("↵" if "\n" in t else "·") for t in tokens]
    axes[-1].set_xticks(range(len(tokens)), letters, fontsize=7, rotation=0 if max(map(len, letters)) == 1 else 90)


def liveliest(values: NDArray[Any], max_units: int = 32) -> NDArray[Any]:
    """The units of (T, H) values that change most, (T, at most ``max_units``), by when each is at its height."""
    chosen = np.argsort(-values.std(0), kind="stable")[:max_units]
    return values[:, chosen[np.argsort(values[:, chosen].argmax(0), kind="stable")]]


def explanation(
    out: Path, *, tokens: Sequence[str], bits: NDArray[Any], gates: Mapping[str, NDArray[Any]], title: str
) -> Path:
    """Write a PNG: the text coloured by surprise, and the gates of the last layer below it.

    Args:
        out: where to.
        tokens: of the text.
        bits: (T,) surprise of each.
        gates: name to (T', H), of its first tokens.
        title: over it.

    Raises:
        MachineError: the file can't be written.
    """
    import io

    lines = _laid_out(tokens, bits)
    num_steps = next(iter(gates.values())).shape[0]
    top = 84 + 22 * len(lines)
    height = top + 110 * len(gates) + 70
    with figures.drawing(1280, height, empty=True) as (figure, _):
        figure.set_facecolor("white")
        figure.text(0.02, 1 - 22 / height, title, fontsize=17, weight="bold", color=INK, va="top")
        note = f"{float(np.mean(bits)):.2f} bits a token on average; full colour: {FULL_COLOUR_BITS:g} bits"
        figure.text(0.02, 1 - 50 / height, note, fontsize=12, color=MUTED, va="top")
        from matplotlib.patches import Rectangle

        cell = 0.96 / COLUMNS
        for row, line in enumerate(lines):
            y = 1 - (84 + 22 * row) / height
            for column, (character, value) in enumerate(line):
                x = 0.02 + column * cell
                alpha = 0.75 * min(1.0, value / FULL_COLOUR_BITS)
                box = Rectangle((x, y - 20 / height), cell, 20 / height, color=ORANGE, alpha=alpha, linewidth=0)
                figure.add_artist(box)
                figure.text(x + cell / 2, y - 10 / height, character, fontsize=12, family="DejaVu Sans Mono",
                            ha="center", va="center", color=INK)  # fmt: skip
        rows = len(gates)
        bottom, each = 50 / height, (height - top - 70) / height / rows
        axes = [figure.add_axes((0.06, bottom + each * (rows - 1 - i), 0.92, each * 0.86)) for i in range(rows)]
        _draw_gates(axes, tokens[:num_steps], gates)
        for axis in axes[:-1]:
            axis.set_xticks([])
        axes[0].set_title("Gates of the last layer (a row is a unit)", color=BLUE)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=72, transparent=False)
    return write_whole(out, picture.getvalue())


def _laid_out(tokens: Sequence[str], bits: NDArray[Any]) -> list[list[tuple[str, float]]]:
    """Lines of (character, surprise of its token), broken at line feeds and at the edge."""
    lines: list[list[tuple[str, float]]] = [[]]
    for token, value in zip(tokens, bits, strict=True):
        for character in token:
            if len(lines[-1]) == COLUMNS:
                lines.append([])
            lines[-1].append(("↵" if character == "\n" else character, float(value)))
            if character == "\n":
                lines.append([])
    return lines if lines[-1] else lines[:-1]
