"""What a picture looks like, in a few bytes: an exact digest, a difference hash, a thumbnail.

They are taken from the full-size picture while it is decoded for training, so that looking for duplicates
later reads no picture again.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THUMBNAIL_PX = 16  # a side
DIGEST_BYTES = 16  # an accidental collision among a billion pictures has a chance of about 1e-21

# A neighbour must be brighter by more than this many grey levels to set a bit. With the usual 0, every flat
# part of a picture (sky, black border) is a coin toss that JPEG decides anew at each save. Measured on 2,000
# pictures of CIFAR-10 saved again as JPEG of quality 50: at most 4 of the 64 bits change in 84 % of them with
# margin 0, in 94 % with margin 2, in 98 % with margin 4 (half the size: 94, 99, 99 %).
MARGIN_LEVELS = 4


class Appearance(NamedTuple):
    """One picture's digest (16 bytes), grey miniature for the hash (8, 9) and grey thumbnail (16, 16)."""

    digest: bytes
    miniature: NDArray[np.uint8]
    thumbnail: NDArray[np.uint8]


def appearance(pixels: NDArray[np.uint8]) -> Appearance:
    """Describe one decoded picture.

    Args:
        pixels: (H, W, 1 or 3) uint8, full size.
    """
    if pixels.shape[2] == 3 and _is_grey(pixels):
        pixels = np.ascontiguousarray(pixels[:, :, :1])  # a grey picture saved as RGB is the same picture
    digest = hashlib.blake2b(np.array(pixels.shape, "<i8").tobytes(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(pixels).data)
    grey = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("L")
    miniature = grey.resize((9, 8), Image.Resampling.BILINEAR, reducing_gap=4.0)
    thumbnail = grey.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BILINEAR, reducing_gap=4.0)
    return Appearance(digest.digest(), np.asarray(miniature), np.asarray(thumbnail))


def difference_hashes(miniatures: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return (N,) uint64 difference hashes: one bit for "the right-hand neighbour is brighter", row by row.

    Args:
        miniatures: (N, 8, 9) uint8 grey.

    Source: N. Krawetz, "Kind of like that", 2013 (dHash), with a margin against noise.
    """
    values = miniatures.astype(np.int16)
    bits: NDArray[Any] = values[:, :, 1:] - values[:, :, :-1] > MARGIN_LEVELS
    return np.packbits(bits.reshape(-1, 64), axis=1).view(">u8")[:, 0].astype(np.uint64)


def _is_grey(pixels: NDArray[np.uint8]) -> bool:
    """Tell whether three channels are the same; the first row settles it for nearly every colour picture."""
    return all(bool((p == p[..., :1]).all()) for p in (pixels[:1], pixels))
