"""Pictures for the report as data URIs: enlarged, with a heat map laid over, many in one grid."""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def data_uri(pixels: Pixels, *, lossless: bool = False, quality: int = 82) -> str:
    """(H, W, 3 or 4) uint8 -> a data URI; JPEG, or PNG where pixels must stay exact or have transparency."""
    buffer = io.BytesIO()
    if lossless or pixels.shape[2] == 4:
        Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def rgb(picture: Pixels) -> Pixels:
    """(H, W, 1 or 3) or (H, W) -> (H, W, 3)."""
    picture = picture[..., None] if picture.ndim == 2 else picture
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else np.ascontiguousarray(picture[..., :3])


def fit(pixels: Pixels, side: int) -> Pixels:
    """Scale to a longer side of ``side``; of up to 16 pixels one sees each, larger pictures are smooth."""
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    resampling = Image.Resampling.NEAREST if max(height, width) <= 16 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(pixels).resize(size, resampling))


@cache
def heat_colours(name: str = "inferno", low: float = 0.25, high: float = 0.95) -> NDArray[np.float64]:
    """(256, 3) colours in 0..1 from cool to hot, rising in lightness, told apart with any colour vision."""
    from matplotlib import colormaps

    return np.asarray(colormaps[name](np.linspace(low, high, 256))[:, :3], np.float64)


def overlay(picture: Pixels, cam: NDArray[Any], side: int) -> Pixels:
    """Lay a heat map over the grey picture: the hotter a place, the more of its colour.

    Args:
        picture: (H, W, 1 or 3) uint8.
        cam: (h, w) float 0..1, of the same proportions.
        side: longer side of the result in pixels.

    Returns:
        (side or less, side or less, 3) uint8.
    """
    base = fit(rgb(picture), side).astype(np.float64)
    grey = base @ [0.299, 0.587, 0.114]
    size = grey.shape[1], grey.shape[0]
    heat = np.asarray(Image.fromarray(np.asarray(cam, np.float32)).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    colour = heat_colours()[(heat * 255).astype(int)] * 255
    weight = (0.08 + 0.67 * heat**0.8)[..., None]
    mixed: NDArray[np.float64] = grey[..., None] * (1 - weight) + colour * weight
    return mixed.round().astype(np.uint8)


def filter_tiles(
    filters: NDArray[Any], *, scale: int | None = None, columns: int = 16, max_filters: int = 64, gap: int = 4
) -> Pixels:
    """(O, C, k, k) filters -> one (H, W, 4) picture; zero is mid grey, each filter fills its own range.

    Filters of three channels are shown in colour, of any other number as the mean over channels.
    """
    filters = np.asarray(filters, np.float64)[:max_filters]
    if filters.shape[1] != 3:
        filters = filters.mean(1, keepdims=True).repeat(3, 1)
    top = np.abs(filters).max((1, 2, 3), keepdims=True)
    shades = (127.5 + 127.5 * filters / np.maximum(top, 1e-12)).round().astype(np.uint8).transpose(0, 2, 3, 1)
    scale = scale or max(4, round(40 / shades.shape[1]))
    return tiles(shades.repeat(scale, 1).repeat(scale, 2), columns, gap)


def tiles(pictures: Pixels, columns: int, gap: int = 4) -> Pixels:
    """(N, H, W, 3) -> (rows, columns) of them in one (H', W', 4) picture with transparent gaps."""
    n, height, width = pictures.shape[:3]
    columns = min(columns, n)
    rows = -(-n // columns)
    out = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        out[y : y + height, x : x + width, :3] = picture
        out[y : y + height, x : x + width, 3] = 255
    return out
