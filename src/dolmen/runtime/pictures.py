"""What predictors of pictures share: reading, folders, streams of pictures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from pydantic import BaseModel

from dolmen.files import files_below
from dolmen.processors.images.image import PICTURE_SUFFIXES, UnreadableImageError, open_image, quiet_pillow
from dolmen.runtime.predictor import Predictor, Session
from dolmen.types import Arrays, Example, Prediction, UserError

P = TypeVar("P")

MIN_THREADED_BYTES = 20_000
"""Size of a file from which on it is worth being handed to another thread."""


class ImagePredictor(Predictor[P]):
    """A predictor that takes pictures."""

    takes: ClassVar[str] = "picture"
    inputs_help: ClassVar[str] = "pictures, or folders of pictures"
    source_help: ClassVar[str] = "a folder of pictures, or - for names of pictures on standard input, one a line"

    def encode(self, raw: Any) -> Example | UserError:
        """Encode one picture, or return why it can't be read."""
        try:
            processor: Any = self.processor
            example: Example = processor.encode(raw)
            return example
        except UnreadableImageError as error:
            return UserError(f"{raw if isinstance(raw, (str, Path)) else 'the picture'} can't be read: {error}")
        except OSError as error:
            return UserError(f"{raw} can't be read: {error.strerror or error}")

    def encode_all(self, inputs: Sequence[Any]) -> list[Example | UserError]:
        """Encode pictures on a few threads: decoding releases Python's lock."""
        if len(inputs) == 1 or all(isinstance(i, bytes) and len(i) < MIN_THREADED_BYTES for i in inputs):
            return [self.encode(raw) for raw in inputs]
        with quiet_pillow(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return list(pool.map(self.encode, inputs))

    def expand(self, inputs: Sequence[str]) -> Iterator[Path]:
        """The files, and of each folder the pictures below it, in order of name."""
        return files_below(inputs, PICTURE_SUFFIXES, "picture", "pictures")

    def example(self) -> Any:
        """Noise of the network's size, so that reading and resizing files is not what is measured."""
        p: Any = self.processor
        return np.random.default_rng(0).integers(0, 256, (p.height, p.width, p.channels)).astype(np.uint8)

    def session(self, idle_timeout_s: float | None = None, options: BaseModel | None = None) -> Session:
        """Pictures one after the other; nothing is carried from one to the next."""
        del options
        return PictureSession(self, idle_timeout_s)

    def pieces(self, source: str, options: BaseModel) -> Iterator[Any]:
        """Files whose names come a line at a time on standard input, or those in a folder."""
        del options
        if source != "-":
            yield from self.expand([source])
            return
        for line in sys.stdin:
            if line.strip():
                yield Path(line.rstrip("\n"))


class PictureSession(Session):
    """Pictures one after the other; nothing goes from one to the next."""

    def __init__(self, predictor: ImagePredictor[Any], idle_timeout_s: float | None) -> None:
        super().__init__(idle_timeout_s)
        self.predictor = predictor

    def _feed(self, chunk: Any) -> list[Prediction]:
        prediction = next(iter(self.predictor.predict([chunk], self.predictor.Options())))[1]
        if isinstance(prediction, UserError):
            raise prediction
        return [prediction]

    def _reset(self) -> None:
        pass

    def _save(self) -> tuple[Arrays, dict[str, Any]]:
        return {}, {}

    def _restore(self, arrays: Arrays, about: dict[str, Any]) -> bool:
        return not arrays and not about


def area_seen(raw: Any, size: tuple[int, int], fit: str) -> tuple[float, float, float, float]:
    """What part of an upright picture the network sees: left, top, right, bottom, in widths and heights of it.

    Args:
        raw: the picture.
        size: height and width of what the network takes.
        fit: how a picture is brought to that size: "crop", "pad" or "stretch".

    Raises:
        UnreadableImageError: it can't be used.
    """
    if fit == "stretch":
        return 0.0, 0.0, 1.0, 1.0
    height, width = open_image(raw).pixels.shape[:2]
    choose = min if fit == "crop" else max
    scale = choose(height / size[0], width / size[1])
    x, y = scale * size[1] / width, scale * size[0] / height
    return (1 - x) / 2, (1 - y) / 2, (1 + x) / 2, (1 + y) / 2
