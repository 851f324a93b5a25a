"""Pretrained word vectors from a text file, as GloVe and fastText write them."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dolmen.data.sources.text_files import find_text
from dolmen.types import UserError


def read_vectors(file: str, wanted: Set[str]) -> dict[str, NDArray[np.float32]]:
    """Read the vectors of some words, line by line: memory holds these only.

    Args:
        file: a word and its numbers in a line, separated by spaces; a first line "count size" is allowed; may be
            compressed (.gz, .bz2, .xz).
        wanted: words to keep.

    Raises:
        UserError: lines differ in width, or a number can't be read.
    """
    vectors: dict[str, NDArray[np.float32]] = {}
    width = 0
    held, number = "", 0
    source = find_text(file)
    for piece in (p for part in source.splits.values() for text in part for p in [*text.pieces("utf-8"), "\n"]):
        *lines, held = (held + piece).split("\n")
        for line in lines:
            number += 1
            cells = line.rstrip(" ").split(" ")
            if (number == 1 and len(cells) == 2) or not line:
                continue
            width = width or len(cells) - 1
            if len(cells) - 1 != width or width < 2:
                raise UserError(
                    f"{Path(file).name}:{number} has {len(cells) - 1} numbers, the lines before it {width}; each line "
                    "needs a word and the same count of numbers"
                )
            if cells[0] in wanted and cells[0] not in vectors:
                try:
                    vectors[cells[0]] = np.array(cells[1:], np.float32)
                except ValueError as error:
                    raise UserError(f"{Path(file).name}:{number} can't be read: {error}") from None
    if not vectors:
        raise UserError(f"{file} has a vector for none of the words of the data; is it of the same language?")
    return vectors
