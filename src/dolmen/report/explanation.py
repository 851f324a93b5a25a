"""One picture that shows why a network answers as it does for one input: for ``dolmen explain``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dolmen.files import write_whole
from dolmen.report import pictures
from dolmen.report.figures import BLUE, INK, LINE, MUTED, drawing
from dolmen.report.numbers import percent
from dolmen.wording import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, MARGIN, LABELS = 1440, 48, 168
BIG, TILE, GAP = 420, 138, 8
TEXT = 15.0
MAX_BARS = 6
"""Classes in the chart of probabilities."""
COLUMNS, MAX_FILTERS = 24, 48


def explanation_picture(
    out: Path,
    *,
    picture: NDArray[np.uint8],
    cam: NDArray[Any],
    top: Sequence[tuple[str, float]],
    maps: Mapping[str, NDArray[Any]],
    filters: NDArray[Any] | None,
    title: str,
    sanity: float | None,
) -> Path:
    """Write a PNG of 1440 pixels width: picture, heat map, probabilities, feature maps, first filters.

    Args:
        out: where to; folders are made, and a file that is there is replaced as a whole.
        picture: (H, W, 1 or 3) uint8, as the network saw it.
        cam: (H, W) float 0..1, the heat map of the decided class.
        top: classes with their probabilities, the decided one first.
        maps: stage name to (n, h, w) or (1, n, h, w), in the order of the network.
        filters: (O, C, k, k) of the first convolution, or None.
        title: the input's name.
        sanity: what ``randomisation_check`` gave, if it was asked.

    Raises:
        MachineError: the file can't be written.
    """
    stages = {name: np.asarray(m)[0] if np.ndim(m) == 4 else np.asarray(m) for name, m in maps.items()}
    rows = [(name, m, feature_row(m)) for name, m in stages.items()]
    tiles = None if filters is None else _filters(filters)
    height = 118 + BIG + 62 + 74 + sum(r.shape[0] + 14 for *_, r in rows)
    height += 0 if tiles is None else tiles.shape[0] + 74
    with drawing(WIDTH, height, empty=True) as (figure, _):
        figure.set_facecolor("white")
        page = Page(figure, height)
        page.say(title if len(title) <= 90 else "…" + title[-89:], MARGIN, 26, size=22, weight="bold")
        page.say(f"{top[0][0]}, {percent(top[0][1])}", MARGIN, 58, size=18, color=BLUE)
        _head(page, picture, cam, top, sanity)
        y = 118 + BIG + 62
        if rows:
            page.say("What the network sees, layer by layer", MARGIN, y, size=17, weight="bold")
            y += 40
            for name, stage, row in rows:
                page.say(name, MARGIN, y + 4)
                size = f"{stage.shape[2]} × {stage.shape[1]} cells"
                page.say(size, MARGIN, y + 26, size=TEXT - 2, color=MUTED)
                page.put(row, MARGIN + LABELS, y)
                y += row.shape[0] + 14
            y += 20
        if tiles is not None and filters is not None:
            num_tiles = f"{min(len(filters), MAX_FILTERS)} of {count(len(filters), 'filter')}"
            page.say("What the first layer looks for", MARGIN, y, size=17, weight="bold")
            page.say(f"{num_tiles}; mid grey is zero", MARGIN + 310, y + 2, color=MUTED)
            page.put(tiles, MARGIN, y + 40)
        return save(figure, out)


def _head(
    page: Page,
    picture: NDArray[np.uint8],
    cam: NDArray[Any],
    top: Sequence[tuple[str, float]],
    sanity: float | None,
) -> None:
    """The picture, the heat map and the probabilities, side by side."""
    y, second = 104, MARGIN + BIG + 28
    plain, heat = pictures.fit(pictures.rgb(picture), BIG), pictures.overlay(picture, cam, BIG)
    page.put(plain, MARGIN, y)
    page.put(heat, second, y)
    page.say("what it was given", MARGIN, y + plain.shape[0] + 10, color=MUTED)
    page.say(f"what spoke for “{_short(top[0][0], 30)}” (Grad-CAM)", second, y + plain.shape[0] + 10, color=MUTED)
    if sanity is not None:
        note = f"likeness to maps of a network with re-drawn weights: {sanity:.2f} (0 is best, 1 is useless)"
        page.say(note, second, y + plain.shape[0] + 32, size=TEXT - 2, color=MUTED)
    left = second + BIG + 40
    page.say("How probable is which class?", left, y, size=17, weight="bold")
    wide = WIDTH - MARGIN - left
    for i, (name, probability) in enumerate(top[:MAX_BARS]):
        at, colour = y + 46 + 62 * i, BLUE if i == 0 else MUTED
        page.say(_short(name, 34), left, at, weight="bold" if i == 0 else "normal")
        page.say(percent(probability), left + wide, at, align="right", color=INK if i == 0 else MUTED)
        page.bar(left, at + 25, wide, 12, LINE)
        page.bar(left, at + 25, max(2.0, wide * probability), 12, colour)


class Page:
    """Places text, pixels and bars on a figure; x and y in pixels from the upper left corner."""

    def __init__(self, figure: Figure, height: int) -> None:
        self.figure, self.height = figure, height

    def say(self, text: str, x: float, y: float, *, size: float = TEXT, align: str = "left", **style: Any) -> None:
        """Write a text whose upper left corner is at (x, y)."""
        corner = x / WIDTH, 1 - y / self.height
        self.figure.text(*corner, text, fontsize=size, ha=align, va="top", **{"color": INK} | style)

    def put(self, pixels: NDArray[np.uint8], x: int, y: int) -> None:
        """Place pixels."""
        self.figure.figimage(pixels, x, self.height - y - pixels.shape[0], origin="upper")

    def bar(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Draw a filled rectangle."""
        from matplotlib.patches import Rectangle

        corner = x / WIDTH, 1 - (y + height) / self.height
        self.figure.add_artist(Rectangle(corner, width / WIDTH, height / self.height, color=colour, linewidth=0))


def _short(name: str, max_length: int) -> str:
    return name if len(name) <= max_length else name[: max_length - 1] + "…"


def feature_row(maps: NDArray[Any]) -> NDArray[np.uint8]:
    """One row of pictures from (n, h, w) maps, each from its smallest value (dark) to its largest (bright)."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    shares = (maps - low) / np.maximum(high - low, 1e-12)
    colours = (pictures.heat_colours("viridis", 0.0, 1.0)[(shares * 255).astype(int)] * 255).round().astype(np.uint8)
    h, w = maps.shape[1:]
    factor = TILE / max(h, w)
    size = max(1, round(w * factor)), max(1, round(h * factor))
    resampling = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    return pictures.tiles(np.stack([np.asarray(Image.fromarray(c).resize(size, resampling)) for c in colours]), 8, GAP)


def _filters(filters: NDArray[Any]) -> NDArray[np.uint8]:
    cell = (WIDTH - 2 * MARGIN + GAP) // COLUMNS - GAP
    scale = max(1, cell // filters.shape[-1])
    return pictures.filter_tiles(filters, scale=scale, columns=COLUMNS, max_filters=MAX_FILTERS, gap=GAP)


def save(figure: Figure, out: Path) -> Path:
    """Write the figure as a PNG, whole or not at all."""
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=72, transparent=False)
    return write_whole(out, picture.getvalue())
