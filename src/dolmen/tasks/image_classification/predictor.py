"""What predictors of pictures share, and the one that gives their classes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from dolmen.processors.images.image import PICTURE_SUFFIXES, ImageProcessor, UnreadableImageError, quiet_pillow
from dolmen.runtime.predictor import Predictor, Session
from dolmen.types import Arrays, Classes, Example, Prediction, UserError

P = TypeVar("P")

SMALL = 20_000
"""Bytes of a file that is read sooner than it is handed to another thread."""
GRID = 12
"""Places along a side of a picture that are covered, one after the other, to see what the answer rests on."""


class Pictures(Predictor[P]):
    """A predictor that takes pictures."""

    takes: ClassVar[str] = "picture"

    def encode(self, raw: Any) -> Example | UserError:
        """Encode one picture, or return why it can't be read."""
        try:
            processor: Any = self.processor
            found: Example = processor.encode(raw)
            return found
        except UnreadableImageError as error:
            return UserError(f"{raw if isinstance(raw, (str, Path)) else 'the picture'} can't be read: {error}")
        except OSError as error:
            return UserError(f"{raw} can't be read: {error.strerror or error}")

    def encode_all(self, inputs: Sequence[Any]) -> list[Example | UserError]:
        """Encode pictures on a few threads: decoding releases Python's lock."""
        if len(inputs) == 1 or all(isinstance(i, bytes) and len(i) < SMALL for i in inputs):
            return [self.encode(raw) for raw in inputs]
        with quiet_pillow(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return list(pool.map(self.encode, inputs))

    def expand(self, inputs: Sequence[str]) -> Iterator[Path]:
        """Files as they are; of a folder every picture below it, in order of name."""
        for name in inputs:
            path = Path(name)
            if not path.is_dir():
                yield path
                continue
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
            if not found:
                raise UserError(f"{name} holds no pictures; name a picture, or a folder of them")
            yield from found

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


class PicturePredictor(Pictures[ImageProcessor]):
    """See the module."""

    Processor: ClassVar[type[Any]] = ImageProcessor

    def predict(
        self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        """See ``Predictor.predict``."""
        del options
        iterator = iter(inputs)
        while chunk := list(islice(iterator, batch_size)):
            examples = self.encode_all(chunk)
            good = [e["images"] for e in examples if not isinstance(e, UserError)]
            found = iter(self.processor.decode(self.network({"images": np.stack(good)})) if good else ())
            for raw, example in zip(chunk, examples, strict=True):
                yield raw, example if isinstance(example, UserError) else next(found)

    def one_line(self, prediction: Prediction) -> str:
        """``cat 97.1 %  (dog 2.0 %, deer 0.5 %)``."""
        assert isinstance(prediction, Classes)
        others = [(n, p) for n, p in prediction.top(4) if n != prediction.label][:2]
        rest = ", ".join(f"{n} {p:.1%}" for n, p in others)
        return f"{prediction.label} {prediction.probability:.1%}" + (f"  ({rest})" if rest else "")

    def labels(self) -> tuple[str, ...]:
        """The classes."""
        return self.processor.classes

    def heat_map(self, raw: Any) -> tuple[str, NDArray[np.float32]]:
        """What the answer rests on: how much its probability falls where the picture is covered with its own mean.

        Zeiler & Fergus (2014). It needs no gradient, so that it works on any network, a bundle's as well.

        Returns:
            The class that was decided for, and (GRID, GRID) from 0 (nothing) to 1 (the place that matters most).

        Raises:
            UserError: the picture can't be read.
        """
        example = self.encode(raw)
        if isinstance(example, UserError):
            raise example
        picture = example["images"]
        height, width = picture.shape[:2]
        rows, columns = min(GRID, height), min(GRID, width)
        mean, copies = picture.mean((0, 1)).round().astype(np.uint8), [picture]
        for i in range(rows):  # each place is covered together with its neighbours, or small things would be missed
            top, bottom = max(0, (i - 1) * height // rows), min(height, (i + 2) * height // rows)
            for j in range(columns):
                left, right = max(0, (j - 1) * width // columns), min(width, (j + 2) * width // columns)
                covered = picture.copy()
                covered[top:bottom, left:right] = mean
                copies.append(covered)
        answers: list[Classes] = []
        for start in range(0, len(copies), 64):
            answers += self.processor.decode(self.network({"images": np.stack(copies[start : start + 64])}))
        label = answers[0].label
        at = answers[0].names.index(label)
        fall = np.log(answers[0].probabilities[at]) - np.log([max(a.probabilities[at], 1e-12) for a in answers[1:]])
        found = np.maximum(fall, 0).reshape(rows, columns)
        return label, np.asarray(found / max(float(found.max()), 1e-6), np.float32)


class PictureSession(Session):
    """Pictures one after the other; nothing goes from one to the next."""

    def __init__(self, predictor: Pictures[Any], idle_timeout_s: float | None) -> None:
        super().__init__(idle_timeout_s)
        self.predictor = predictor

    def _feed(self, chunk: Any) -> list[Prediction]:
        found = next(iter(self.predictor.predict([chunk], self.predictor.Options())))[1]
        if isinstance(found, UserError):
            raise found
        return [found]

    def _reset(self) -> None:
        pass

    def _save(self) -> tuple[Arrays, dict[str, Any]]:
        return {}, {}

    def _restore(self, arrays: Arrays, about: dict[str, Any]) -> bool:
        return not arrays and not about
