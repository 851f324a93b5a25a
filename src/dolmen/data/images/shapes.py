"""The shape to decode a set of pictures to, judged by a sample of them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dolmen.data.images.set import ImageSet
from dolmen.processors.images.image import UnreadableImageError, open_image
from dolmen.types import UserError

MAX_SAMPLE_PICTURES = 200
"""Pictures that are opened to find the size and the colours of a set."""


def sample_shapes(images: ImageSet) -> tuple[NDArray[np.int64], Literal[1, 3]]:
    """Sizes and channels of a sample of the pictures.

    Returns:
        (S, 2) their heights and widths; and the channels that are needed, 3 if any of them is in colour.

    Raises:
        UserError: none of them can be read.
    """
    rng = np.random.default_rng(0)
    sample = np.sort(rng.permutation(len(images))[:MAX_SAMPLE_PICTURES])
    sizes, channels, problems = [], 1, {}
    for i, raw in images.read(sample.tolist()):
        try:
            if isinstance(raw, OSError):
                raise raw
            pixels = open_image(raw).pixels
        except (UnreadableImageError, OSError) as error:
            problems[i] = str(error)
            continue
        sizes.append(pixels.shape[:2])
        if pixels.shape[2] == 3 and (pixels != pixels[:, :, :1]).any():
            channels = 3
    if not sizes:
        first = min(problems)
        raise UserError(
            f"none of the {len(problems)} pictures of {images.source} that were tried can be read "
            f"({images.names[first]}: {problems[first]}); bring some that other programs can open"
        )
    return np.array(sizes, np.int64), 3 if channels == 3 else 1


def common_shape(images: ImageSet, image_size: int | None) -> tuple[int, int, Literal[1, 3]]:
    """The size and channels to decode to: as stored where all pictures are alike and small, else a square.

    Returns:
        height, width, channels.
    """
    sizes, colours = sample_shapes(images)
    if image_size is not None:
        return image_size, image_size, colours
    height, width = sizes[0].tolist()
    if (sizes == sizes[0]).all() and max(height, width) <= 64:
        return max(8, height), max(8, width), colours
    short = int(np.median(sizes.min(1)))
    side = int(np.clip(short // 16 * 16, 32, 160))
    return side, side, colours
