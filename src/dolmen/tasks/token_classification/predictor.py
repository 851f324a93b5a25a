"""Sentences to tags and spans."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from dolmen.runtime.network import BATCH, MODEL
from dolmen.runtime.options import Served
from dolmen.runtime.predictor import Predictor, Session, read_text_file, text_pieces
from dolmen.tasks.token_classification.predictions import Spans
from dolmen.tasks.token_classification.processor import LONGEST_WORD, TagProcessor
from dolmen.types import Arrays, Example, Prediction, UserError

MAX_BATCH_TOKENS = 1 << 14
"""Tokens of a batch, padding included."""
MAX_LINE_CHARACTERS = 100_000
"""Characters of a stream that are held back until a line feed comes."""


class TaggingOptions(BaseModel):
    """Choices for a prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_best: Annotated[int, Served()] = Field(
        1, ge=1, le=100, description="so many readings of each sentence, with their probabilities"
    )


class SentencePredictor(Predictor[TagProcessor]):
    """Sentences to ``Spans``."""

    Processor: ClassVar[type[Any]] = TagProcessor
    takes: ClassVar[str] = "text"
    PredictionType: ClassVar[type[Prediction]] = Spans
    inputs_help: ClassVar[str] = "sentences, or files with a sentence a line"
    source_help: ClassVar[str] = "a text file, or - for a text on standard input; each line is a sentence"
    Options = TaggingOptions

    def expected_shapes(self) -> Mapping[str, Mapping[str, tuple[int | str, ...]]]:
        """Shapes that fit the processor, by the network that has them."""
        p = self.processor
        shapes: dict[str, tuple[int | str, ...]] = {
            "words": (BATCH, "time"),
            "characters": (BATCH, "time", LONGEST_WORD),
            "emissions": (BATCH, "time", len(p.labels)),
        }
        return {MODEL: shapes | ({} if p.encoder is None else {"reading": (BATCH, "read")})}

    def predict(
        self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        """Yield each sentence with its ``Spans``, or with why it can't be read."""
        assert isinstance(options, TaggingOptions)
        iterator = iter(inputs)
        while chunk := list(islice(iterator, batch_size)):
            examples = [self.encode(raw) for raw in chunk]
            emissions = iter(self.emissions([e for e in examples if not isinstance(e, UserError)]))
            for raw, example in zip(chunk, examples, strict=True):
                if isinstance(example, UserError):
                    yield raw, example
                else:
                    yield raw, self.processor.answer(sentence(raw), next(emissions), options.n_best)

    def emissions(self, examples: Sequence[Example]) -> list[NDArray[Any]]:
        """(T, K) of each sentence; those of similar length share a batch, so that there is little padding."""
        lengths = np.array([len(e["words"]) for e in examples], np.int64)
        emissions: list[NDArray[Any]] = [np.zeros(0)] * len(examples)
        for rows in batches_of(lengths):
            batch = padded([examples[i] for i in rows])
            for i, values in zip(rows, self.network(batch)["emissions"], strict=True):
                emissions[i] = values[: lengths[i]]
        return emissions

    def encode(self, raw: Any) -> Example | UserError:
        """Encode one sentence, or return why it can't be read."""
        try:
            return self.processor.encode(sentence(raw))
        except UserError as error:
            return error

    def expand(self, inputs: Sequence[str]) -> Iterator[Any]:
        """Sentences as they are; of a file each line."""
        for name in inputs:
            if len(name) < 256 and os.path.isfile(name):
                encoding = self.processor.encoding
                try:
                    with open(name, encoding=encoding) as file:
                        yield from (line.rstrip("\n") for line in file if line.strip())
                except UnicodeDecodeError as error:
                    raise UserError(f"{name} is not text in {encoding}: {error.reason}") from None
            else:
                yield name

    def format_line(self, prediction: Prediction) -> str:
        """``Anna [PER 99%], Rome [LOC 97%]``; with labels ``Anna/PROPN lives/VERB``."""
        assert isinstance(prediction, Spans)
        if self.processor.kind == "labels":
            return " ".join(f"{w}/{t}" for w, t in zip(prediction.words, prediction.tags, strict=True))
        spans = [f"{text} [{label} {p:.0%}]" for _, _, label, text, p in prediction.spans]
        return ", ".join(spans) or "no spans"

    def labels(self) -> tuple[str, ...]:
        """The tags, or what spans are called."""
        p = self.processor
        if p.kind == "labels":
            return p.labels
        return tuple(dict.fromkeys(label.partition("-")[2] for label in p.labels if label != "O"))

    def example(self) -> Any:
        """A sentence of 20 words."""
        return ([word for word in self.processor.words[1:] if word] * 20 + ["word"] * 20)[:20]

    def session(self, idle_timeout_s: float | None = None, options: BaseModel | None = None) -> Session:
        """A text that comes in pieces; each whole line is a sentence."""
        del options
        return _LineSession(self, idle_timeout_s)

    def pieces(self, source: str, options: BaseModel) -> Iterator[str]:
        """Text on standard input, or in a file."""
        del options
        return text_pieces(source)


class _LineSession(Session):
    def __init__(self, predictor: SentencePredictor, idle_timeout_s: float | None) -> None:
        super().__init__(idle_timeout_s)
        self.predictor, self.held = predictor, ""

    def _feed(self, chunk: Any) -> list[Prediction]:
        if not isinstance(chunk, str):
            raise UserError(f"a piece of text was expected, not {type(chunk).__name__}")
        *lines, last = (self.held + chunk).split("\n")
        if len(last) > MAX_LINE_CHARACTERS:
            raise UserError(f"a line of more than {MAX_LINE_CHARACTERS:,} characters; end sentences with a line feed")
        self.held = last
        return self._tagged(lines)

    def _finish(self) -> list[Prediction]:
        lines, self.held = [self.held], ""
        return self._tagged(lines)

    def _tagged(self, lines: Sequence[str]) -> list[Prediction]:
        predictions = self.predictor.predict([line for line in lines if line.strip()], TaggingOptions())
        return [prediction for _, prediction in predictions if not isinstance(prediction, UserError)]

    def _reset(self) -> None:
        self.held = ""

    def _save(self) -> tuple[Arrays, dict[str, Any]]:
        return {}, {"held": self.held}

    def _restore(self, arrays: Arrays, about: dict[str, Any]) -> bool:
        if arrays or about.keys() != {"held"}:
            return False
        self.held = str(about["held"])
        return True


def batches_of(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Indices of the sentences of each batch: similar lengths, at most ``MAX_BATCH_TOKENS`` with the padding."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1  # sorted by length: the last one decides how much padding there is
        while stop < len(order) and (stop + 1 - start) * int(lengths[order[stop]]) <= MAX_BATCH_TOKENS:
            stop += 1
        yield order[start:stop]
        start = stop


def padded(examples: Sequence[Example]) -> Arrays:
    """Sentences as one batch with their ``lengths`` (B,), 0 behind them."""
    batch: Arrays = {"lengths": np.array([len(e["words"]) for e in examples], np.int64)}
    for key, first in examples[0].items():
        batch[key] = np.zeros((len(examples), max(len(e[key]) for e in examples), *first.shape[1:]), first.dtype)
        for row, e in zip(batch[key], examples, strict=True):
            row[: len(e[key])] = e[key]
    return batch


def sentence(raw: Any) -> Any:
    """A sentence as a person gave it; of a file its text."""
    if not isinstance(raw, Path):
        return raw
    text = read_text_file(raw, "a sentence")
    if not text.strip():
        raise UserError(f"{raw} is empty; give a sentence")
    return text
