"""A small set of pictures with boxes to look at and to try things with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dolmen.data.images.arrays import read_digits
from dolmen.files import fills_folder

NUM_PICTURES, NUM_EMPTY, SIDE_PX = 60, 4, 96
MIN_DIGIT_PX, MAX_DIGIT_PX, MAX_DIGITS = 20, 44, 4
CLASSES = ("zero", "one", "two")
NOTICE = """Handwritten digits 0, 1 and 2, enlarged and laid on a soft noisy background, with a box around each.
Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, as shipped with scikit-learn. Licence: CC BY 4.0.
The format is COCO's: annotations.json lists the pictures in images/, the boxes (left, top, width, height in pixels) and
the classes. Four pictures show nothing. To name splits yourself, write instances_train.json and instances_val.json.
"""


@fills_folder
def write_box_sample(folder: Path) -> None:
    """Write 60 pictures of 96 x 96 with one to four digits each, four of them with none."""
    (folder / "images").mkdir()
    digits = read_digits()
    stored = dict(digits.read(np.flatnonzero(digits.labels < len(CLASSES)).tolist()))
    generator = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(NUM_PICTURES):
        picture = _background(generator)
        taken: list[tuple[int, int, int, int]] = []
        is_empty = number % (NUM_PICTURES // NUM_EMPTY) == NUM_PICTURES // NUM_EMPTY - 1
        for _ in range(0 if is_empty else int(generator.integers(1, MAX_DIGITS + 1))):
            index = int(generator.choice(list(stored)))
            pixels = stored[index]
            assert isinstance(pixels, np.ndarray)
            box = _paste(picture, pixels, taken, generator)
            if box is None:
                continue
            left, top, right, bottom = box
            taken.append(box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": int(digits.labels[index]) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                }
            )
        name = f"{number:02d}.png"
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / "images" / name)
        images.append({"id": number + 1, "file_name": name, "height": SIDE_PX, "width": SIDE_PX})
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES, start=1)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(coco, indent=1), encoding="utf-8")
    (folder / "NOTICE.txt").write_text(NOTICE, encoding="utf-8")


def _background(generator: np.random.Generator) -> NDArray[np.float64]:
    """(96, 96, 3) clouds of one dark colour, with noise."""
    clouds = Image.fromarray(generator.integers(0, 90, (6, 6, 3), np.uint8))
    soft = np.asarray(clouds.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC), np.float64)
    return soft + generator.normal(0, 6, soft.shape)


def _paste(
    picture: NDArray[np.float64],
    digit: NDArray[np.uint8],
    taken: list[tuple[int, int, int, int]],
    generator: np.random.Generator,
) -> tuple[int, int, int, int] | None:
    """Lay a digit on the picture (in place) where it touches no other; return the box of its ink.

    Returns:
        left, top, right, bottom; None where no room was found.
    """
    side = int(generator.integers(MIN_DIGIT_PX, MAX_DIGIT_PX + 1))
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    ink = np.asarray(large, np.float64) / 255
    rows, columns = np.flatnonzero((ink > 0.2).any(axis=1)), np.flatnonzero((ink > 0.2).any(axis=0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = ink.shape
    for _ in range(20):
        left, top = (int(generator.integers(0, SIDE_PX - s + 1)) for s in (width, height))
        right, bottom = left + width, top + height
        if all(right <= x1 or x2 <= left or bottom <= y1 or y2 <= top for x1, y1, x2, y2 in taken):
            colour = generator.integers(150, 256, 3).astype(np.float64)
            place = picture[top:bottom, left:right]
            place += ink[:, :, None] * (colour - place)
            return left, top, right, bottom
    return None
