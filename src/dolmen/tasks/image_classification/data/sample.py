"""A small real data set to look at and to try things with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dolmen.data.images.arrays import read_digits
from dolmen.files import fills_folder

PER_CLASS, SIDE = 20, 32
NOTICE = """Handwritten digits, 20 of each, enlarged from 8 x 8 to 32 x 32 pixels.
Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, as shipped with scikit-learn. Licence: CC BY 4.0.
The layout is one folder per class. To name splits yourself, put such folders below train, val and test.
"""


@fills_folder
def write_image_sample(folder: Path) -> None:
    """Write 200 pictures in ten class folders."""
    digits = read_digits()
    for label, name in enumerate(digits.classes):
        (folder / name).mkdir()
        for index, pixels in digits.read(np.flatnonzero(digits.labels == label)[:PER_CLASS].tolist()):
            assert isinstance(pixels, np.ndarray)
            large = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            large.save(folder / name / f"{index:04d}.png")
    (folder / "NOTICE.txt").write_text(NOTICE, encoding="utf-8")
