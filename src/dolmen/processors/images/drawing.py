"""Boxes drawn on a picture, so that a person can read them at any size: lines, dashes, names on plates."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dolmen.predictions import Boxes

Pixels = NDArray[np.uint8]
Place = tuple[float, float, float, float]

# Okabe & Ito (2008): any two can be told apart with any colour vision.
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
DARK, LIGHT = "#101214", "#ffffff"
MAX_COVERED_SHARE = 0.3
"""Share of the picture that plates may cover in all; more of them would hide what they name."""
MAX_HIDDEN_SHARE = 0.5
"""Share of an object that one plate may hide."""


@dataclass(frozen=True)
class Mark:
    """A box to draw.

    Attributes:
        box_xyxy: left, top, right, bottom in pixels of the picture.
        colour: as ``#rrggbb``.
        text: on its plate; without one it has no plate.
        dashed: for what is not there, or was not seen.
        thin: for what only gives the surroundings.
    """

    box_xyxy: Place
    colour: str
    text: str = ""
    dashed: bool = False
    thin: bool = False


def colours(names: Sequence[str]) -> tuple[str, ...]:
    """A colour for each class, as ``#rrggbb``.

    A name gets its own colour in whatever order the classes come and wherever they are shown; of names that would have
    the same one, the later in the alphabet moves on to a colour that is free. Beyond seven classes colours come again,
    lighter and then darker.
    """
    used = [0] * len(PALETTE)
    colour_by_name: dict[str, str] = {}
    for name in sorted(set(names)):
        wanted = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % len(PALETTE)
        slot = min(range(len(PALETTE)), key=lambda i: (used[i], (i - wanted) % len(PALETTE)))
        colour_by_name[name] = _shade(PALETTE[slot], used[slot] % 3)
        used[slot] += 1
    return tuple(colour_by_name[name] for name in names)


def _shade(colour: str, turn: int) -> str:
    """The colour itself, half-way to white, or darker."""
    mixed = (_rgb(colour), (_rgb(colour) + 255) / 2, _rgb(colour) * 0.62)[turn]
    return "#" + "".join(f"{round(float(v)):02x}" for v in mixed)


def _rgb(colour: str) -> NDArray[np.float64]:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float64)


def ink(colour: str) -> str:
    """Black or white, whichever is better read on a plate of this colour (contrast as WCAG 2 has it)."""
    share = _rgb(colour) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    light = float(linear @ [0.2126, 0.7152, 0.0722])
    return DARK if light > 0.179 else LIGHT


@dataclass(frozen=True)
class Border:
    """A line, or the border of an area, to draw.

    Attributes:
        points: x and y in pixels, or, if none is above 1, as shares of width and height.
        colour: as ``#rrggbb``.
        text: on its plate, below the middle of its first side.
        closed: whether the last point is joined with the first.
    """

    points: Sequence[tuple[float, float]]
    colour: str
    text: str = ""
    closed: bool = False


def draw_borders(pixels: Pixels, borders: Sequence[Border]) -> Pixels:
    """Draw lines and areas with their plates. (H, W, 3) uint8 -> the same, a copy."""
    picture = Image.fromarray(pixels)
    canvas, line, font = ImageDraw.Draw(picture), _line(picture.size), _font(_letters(picture.size))
    for border in borders:
        points = np.asarray(border.points, np.float64)
        points = points * picture.size if points.max() <= 1 else points
        corners = [(float(x), float(y)) for x, y in ([*points, points[0]] if border.closed else points)]
        canvas.line(corners, fill=ink(border.colour), width=line + 2, joint="curve")
        canvas.line(corners, fill=border.colour, width=line, joint="curve")
        ascent, descent = font.getmetrics()
        text = _shortened(border.text, font, picture.width - 8)
        wide, high = round(font.getlength(text)) + 8, ascent + descent + 4
        (x1, y1), (x2, y2) = corners[:2]
        x = min(max((x1 + x2 - wide) / 2, 0), picture.width - wide)
        y = min(max((y1 + y2) / 2 + line, 0), picture.height - high)
        canvas.rectangle((x, y, x + wide - 1, y + high - 1), fill=border.colour, outline=ink(border.colour))
        canvas.text((x + 4, y + 2 + ascent), text, font=font, fill=ink(border.colour), anchor="ls")
    return np.asarray(picture)


def draw_boxes(
    pixels: Pixels,
    boxes: Boxes,
    *,
    truth: tuple[NDArray[Any], NDArray[Any]] | None = None,
    width: int | None = None,
    with_scores: bool = True,
) -> Pixels:
    """Draw predicted boxes, and true ones beside them.

    Args:
        pixels: (H, W, 1 or 3) uint8, the picture that the boxes belong to.
        boxes: best first. What has a number in a video is called by it ("car 3"), all else by its score ("car 0.87").
        truth: boxes (M, 4) and classes (M,) of objects that are to be seen beside the predicted ones; drawn dashed.
        width: of the result in pixels; None leaves the picture as large as it is.
        with_scores: whether to write scores.

    Returns:
        (H', W', 3) uint8.
    """
    colour = colours(boxes.names)
    marks = []
    for i, (box, score, label) in enumerate(zip(boxes.boxes_xyxy, boxes.scores, boxes.labels, strict=True)):
        text = boxes.names[label]
        if boxes.ids is not None:
            text += f" {boxes.ids[i]}"
        elif with_scores:
            text += f" {score_text(float(score))}"
        marks.append(Mark(_place(box), colour[label], text))
    if truth is not None:
        marks += [Mark(_place(b), colour[k], boxes.names[k], dashed=True) for b, k in zip(*truth, strict=True)]
    return draw_marks(pixels, marks, width=width)


def as_png(pixels: Pixels) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def score_text(score: float) -> str:
    """Two digits; what is not quite certain is not called 1.00."""
    return f"{min(score, 0.99) if score < 1 else score:.2f}"


def _place(box: NDArray[Any]) -> Place:
    left, top, right, bottom = (float(v) for v in box)
    return left, top, right, bottom


def draw_marks(
    pixels: Pixels, marks: Sequence[Mark], *, width: int | None = None, letters: int | None = None
) -> Pixels:
    """Draw boxes with their plates; the first ones are the last to go without a plate where there is no room.

    Args:
        pixels: (H, W, 1 or 3) uint8.
        marks: in the picture's pixels, the most important first.
        width: of the result; None for the picture's own.
        letters: size of the text in pixels; None for one that fits the picture.

    Returns:
        (H', W', 3) uint8.
    """
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]).convert("RGB")
    scale = 1.0 if width is None else width / picture.width
    if width is not None and width != picture.width:
        picture = picture.resize((width, max(1, round(picture.height * scale))), Image.Resampling.LANCZOS)
    canvas = ImageDraw.Draw(picture)
    places = np.array([m.box_xyxy for m in marks], np.float64).reshape(-1, 4) * scale
    edge = np.array([picture.width, picture.height] * 2) - 1
    places = np.clip(places, 0, edge)
    line = _line(picture.size)
    areas = (places[:, 2:] - places[:, :2]).prod(1)
    for i in np.argsort(-areas, kind="stable"):  # small ones lie on top of large ones
        _outline(canvas, places[i], marks[i], line)
    _plates(canvas, picture.size, places, marks, letters or _letters(picture.size))
    return np.asarray(picture)


def _line(size: tuple[int, int]) -> int:
    """Width of lines in a picture of (width, height)."""
    return max(2, round(math.sqrt(size[0] * size[1]) / 200))


def _letters(size: tuple[int, int]) -> int:
    """Size of text in a picture of (width, height)."""
    return min(max(round(math.sqrt(size[0] * size[1]) / 36), 11), 64)


def _outline(canvas: ImageDraw.ImageDraw, place: NDArray[np.float64], mark: Mark, line: int) -> None:
    """The box in its colour between two dark lines (bright ones of a dark colour), so that it is seen on any ground."""
    left, top, right, bottom = (round(float(v)) for v in place)
    room = max(1, min(right - left, bottom - top) // 5)
    line = min(max(2, line // 2) if mark.thin else line, room)
    dark = max(1, line // 3)
    canvas.rectangle(
        (left - dark, top - dark, right + dark, bottom + dark), outline=ink(mark.colour), width=line + 2 * dark
    )
    if not mark.dashed:
        canvas.rectangle((left, top, right, bottom), outline=mark.colour, width=line)
        return
    dash, inner = max(3, 4 * line), line - 1
    for x in _dashes(left, right, dash):
        canvas.rectangle((x[0], top, x[1], top + inner), fill=mark.colour)
        canvas.rectangle((x[0], bottom - inner, x[1], bottom), fill=mark.colour)
    for y in _dashes(top, bottom, dash):
        canvas.rectangle((left, y[0], left + inner, y[1]), fill=mark.colour)
        canvas.rectangle((right - inner, y[0], right, y[1]), fill=mark.colour)


def _dashes(start: int, stop: int, dash: int) -> list[tuple[int, int]]:
    """Dashes from corner to corner, as many as fit, with gaps of their length; both corners are drawn."""
    num = max(1, round((stop - start) / (2 * dash)))
    step = (stop - start) / (2 * num + 1)
    return [(round(start + 2 * i * step), round(start + (2 * i + 1) * step)) for i in range(num + 1)]


# ---- plates


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _plates(
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    places: NDArray[np.float64],
    marks: Sequence[Mark],
    letters: int,
) -> None:
    """Write the names, each where it hides least; one for which there is no room is left out."""
    font = _font(letters)
    ascent, descent = font.getmetrics()
    pad = max(2, ascent // 5)
    height = ascent + descent + pad
    taken = np.zeros((0, 4))
    left_over = MAX_COVERED_SHARE * size[0] * size[1]
    for i, mark in enumerate(marks):
        text = _shortened(mark.text, font, size[0] - 2 * pad)
        wide = round(font.getlength(text)) + 2 * pad
        at = _room(i, wide, height, size, places, taken) if text and wide * height <= left_over else None
        if at is None:
            continue
        x, y = at
        left_over -= wide * height
        taken = np.concatenate([taken, [[x, y, x + wide, y + height]]])
        canvas.rectangle((x, y, x + wide - 1, y + height - 1), fill=mark.colour, outline=ink(mark.colour))
        canvas.text((x + pad, y + pad // 2 + ascent), text, font=font, fill=ink(mark.colour), anchor="ls")


def _shortened(text: str, font: Any, max_width: float) -> str:
    """The text, or as much of its beginning as is ``max_width`` pixels wide; nothing if that is too little to read."""
    if font.getlength(text) <= max_width:
        return text
    while len(text) > 3 and font.getlength(text + "…") > max_width:
        text = text[:-1]
    return text + "…" if len(text) > 3 else ""


def _room(
    own: int,
    wide: int,
    height: int,
    size: tuple[int, int],
    places: NDArray[np.float64],
    taken: NDArray[np.float64],
) -> tuple[int, int] | None:
    """Upper left corner of a plate beside or in its box, where it lies on no other plate and hides little."""
    left, top, right, bottom = (round(float(v)) for v in places[own])
    end = right - wide + 1
    choices = [
        (left, top - height, 0.0), (end, top - height, 0.15), (left, top, 0.1), (end, top, 0.2),
        (left, bottom - height + 1, 0.3), (end, bottom - height + 1, 0.35), (left, bottom + 1, 0.4),
        (end, bottom + 1, 0.45),
    ]  # fmt: skip
    best: tuple[float, tuple[int, int]] | None = None
    for x, y, cost in choices:
        if y < 0 or y + height > size[1]:
            continue
        x = min(max(x, 0), size[0] - wide)
        plate = np.array([x, y, x + wide, y + height], np.float64)
        if _shared(plate, taken).any():
            continue
        hidden = _shared(plate, places) / np.maximum((places[:, 2:] - places[:, :2]).prod(1), 1.0)
        if hidden.max() > MAX_HIDDEN_SHARE:
            continue
        cost += 4 * float(hidden.sum()) - 2.5 * float(hidden[own])  # on its own object it is at least not mistaken
        if best is None or cost < best[0]:
            best = cost, (x, y)
    return None if best is None else best[1]


def _shared(plate: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) area that a rectangle (4,) shares with each of (N, 4)."""
    low, high = np.maximum(plate[:2], others[:, :2]), np.minimum(plate[2:], others[:, 2:])
    return np.asarray((high - low).clip(0).prod(1), np.float64)
