"""One picture that shows how a detector came to its boxes: for ``dolmen explain``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dolmen.predictions import Boxes
from dolmen.processors.images.drawing import draw_boxes
from dolmen.report import pictures
from dolmen.report.explanation import LABELS, MARGIN, WIDTH, Page, feature_row, save
from dolmen.report.figures import BLUE, MUTED, drawing
from dolmen.wording import count

LARGE_PX, SMALL_PX = 780, 520
MAX_PROPOSALS = 100
"""Proposals that are drawn."""


def explanation_picture(
    out: Path,
    *,
    picture: NDArray[np.uint8],
    reported: Boxes,
    view: NDArray[np.uint8],
    objectness: Mapping[str, NDArray[Any]],
    proposals: NDArray[np.float32],
    strength: NDArray[np.float32],
    levels: Mapping[str, NDArray[Any]],
    title: str,
) -> Path:
    """Write a PNG of 1440 pixels width: objects, where one could be, proposals, the pyramid's maps.

    Args:
        out: the file; its folders are created, and a file that is there is replaced as a whole.
        picture: (H, W, 1 or 3) uint8, as it came.
        reported: what is reported of it.
        view: (h, w, 1 or 3) uint8, as the network saw it, or the largest part of it.
        objectness: of each map (h, w) in 0..1.
        proposals: (K, 4) xyxy in pixels of the view, the surest first.
        strength: (K,) in 0..1, how sure.
        levels: of each map (F, h, w), what the network sees.
        title: the input's name.

    Raises:
        MachineError: the file can't be written.
    """
    large = draw_boxes(
        pictures.fit(pictures.rgb(picture), LARGE_PX), _scaled(reported, LARGE_PX / max(picture.shape[:2]))
    )
    heat = pictures.overlay(view, np.max([_enlarged(m, view.shape[:2]) for m in objectness.values()], 0), SMALL_PX)
    drawn = _with_proposals(view, proposals[:MAX_PROPOSALS], strength[:MAX_PROPOSALS])
    maps = {name: pictures.overlay(view, _enlarged(m, view.shape[:2]), 260) for name, m in objectness.items()}
    rows = [(name, m, feature_row(m)) for name, m in levels.items()]
    top = 104
    below = top + max(large.shape[0], heat.shape[0] + drawn.shape[0] + 62) + 62
    height = below + 46 + next(iter(maps.values())).shape[0] + 96 + sum(r.shape[0] + 14 for *_, r in rows)
    with drawing(WIDTH, height, empty=True) as (figure, _):
        figure.set_facecolor("white")
        page = Page(figure, height)
        page.say(title if len(title) <= 90 else "…" + title[-89:], MARGIN, 26, size=22, weight="bold")
        names = Counter(reported.names[i] for i in reported.labels)
        summary = ", ".join(f"{n} {name}" for name, n in names.most_common(8)) or "nothing found"
        page.say(summary, MARGIN, 58, size=18, color=BLUE)
        right = MARGIN + LARGE_PX + 44
        page.put(large, MARGIN, top)
        page.say("what it reports: score and class of each box", MARGIN, top + large.shape[0] + 10, color=MUTED)
        page.put(heat, right, top)
        page.say("where an object could be (objectness)", right, top + heat.shape[0] + 10, color=MUTED)
        y = top + heat.shape[0] + 48
        page.put(drawn, right, y)
        text = f"the {count(min(len(proposals), MAX_PROPOSALS), 'proposal')} that the second stage looks at"
        page.say(text, right, y + drawn.shape[0] + 10, color=MUTED)
        page.say("The first stage, map by map: small objects on the fine one", MARGIN, below, size=17, weight="bold")
        x = MARGIN
        for name, m in maps.items():
            page.put(m, x, below + 40)
            page.say(f"{name}, at most {objectness[name].max():.0%}", x, below + 46 + m.shape[0], color=MUTED)
            x += m.shape[1] + 28
        y = below + 46 + next(iter(maps.values())).shape[0] + 50
        page.say("What the network sees on each map of its pyramid", MARGIN, y, size=17, weight="bold")
        y += 40
        for name, level, row in rows:
            page.say(name, MARGIN, y + 4)
            size = f"{level.shape[2]} × {level.shape[1]} cells"
            page.say(size, MARGIN, y + 26, size=13, color=MUTED)
            page.put(row, MARGIN + LABELS, y)
            y += row.shape[0] + 14
        return save(figure, out)


def _scaled(boxes: Boxes, factor: float) -> Boxes:
    size = round(boxes.size[0] * factor), round(boxes.size[1] * factor)
    return Boxes(size, boxes.names, boxes.boxes_xyxy * factor, boxes.scores, boxes.labels)


def _enlarged(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """(h, w) in 0..1 to the size of the view."""
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR), np.float32)


def _with_proposals(
    view: NDArray[np.uint8], proposals: NDArray[np.float32], strength: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """The view, with the outlines of proposals; the surer, the brighter."""
    factor = SMALL_PX / max(view.shape[:2])
    grey = pictures.fit(pictures.rgb(view), SMALL_PX).mean(2, keepdims=True)
    canvas = Image.fromarray(np.repeat((grey * 0.55).astype(np.uint8), 3, 2))
    pen = ImageDraw.Draw(canvas)
    colours = (pictures.heat_colours() * 255).round().astype(int)
    for box, sure in list(zip(proposals, strength, strict=True))[::-1]:
        pen.rectangle((box * factor).tolist(), outline=tuple(colours[int(sure * 255)].tolist()), width=2)
    return np.asarray(canvas)
