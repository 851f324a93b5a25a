"""Recordings to steps of log-mel frames, and transcripts to units and back."""

from __future__ import annotations

import base64
import functools
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from dolmen.processors.audio.log_mel import LogMel
from dolmen.tasks.speech_recognition.processors.level import Level
from dolmen.tasks.speech_recognition.processors.text_rules import TextRules, normalise
from dolmen.types import Arrays, UserError

BOUNDARY = "\u2581"
"""A unit that begins with it begins a word."""
Kind = Literal["words", "characters", "bpe"]
MOST_WORDS, FREQUENT = 200, 5
"""A vocabulary of at most so many words, each said so often in the mean, is learned as words."""


class SpeechProcessor(BaseModel):
    """Everything between samples and the network, and between units and a text.

    Attributes:
        kind: what a unit is.
        units: V of them as text; the first is CTC's blank, and one that begins with ``BOUNDARY`` begins a word.
        rules: what is done to a transcript before it is learned.
        front: samples to log-mel frames.
        level: how loud it has been of late; what networks see is how far below it each band is.
        mean: (F,) of that in the training recordings.
        deviation: (F,) of them.
        stride: frames that make a step.
        tail_s: silence that is put behind a recording, so that its last word can be told.
        streams: whether the network reads forwards only.
        bpe: sentencepiece's model, base64, of BPE.
        threshold: words less sure than this are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    units: tuple[str, ...]
    rules: TextRules = TextRules()
    front: LogMel = LogMel()
    level: Level = Level()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    stride: int = 4
    tail_s: float = 0.3
    streams: bool = True
    bpe: str = ""
    threshold: float = 0.0

    @property
    def rate(self) -> int:
        """Samples a second that it takes."""
        return self.front.rate

    @property
    def step_s(self) -> float:
        """Seconds from step to step."""
        return self.stride * self.front.hop / self.rate

    @property
    def tail(self) -> int:
        """Samples of silence behind a recording."""
        return round(self.tail_s * self.rate)

    @property
    def between(self) -> int | None:
        """The unit that stands between two words, where there is one."""
        return self.units.index(BOUNDARY) if self.kind == "characters" and BOUNDARY in self.units else None

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {unit: i for i, unit in enumerate(self.units) if i}

    @functools.cached_property
    def _scaling(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        mean = np.asarray(self.mean or np.zeros(self.front.num_mels), np.float32)
        return mean, np.asarray(self.deviation or np.ones(self.front.num_mels), np.float32)

    def num_steps(self, num_samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of recordings of so many samples (the silence behind them is added here)."""
        frames = [self.front.num_frames(int(n) + self.tail) for n in num_samples]
        return -(-np.array(frames, np.int64) // self.stride)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Units of a transcript.

        Raises:
            UserError: it holds what no unit stands for.
        """
        said = normalise(text, self.rules)
        if self.kind == "bpe":
            found = tuple(self._pieces.encode(said))
            if 0 in found:
                raise UserError(f"{text!r} holds a character that is not among the units")
            return found
        parts = [BOUNDARY + word for word in said.split()] if self.kind == "words" else said.replace(" ", BOUNDARY)
        numbers = self._numbers
        missing = [part for part in parts if part not in numbers]
        if missing:
            what = "word" if self.kind == "words" else "character"
            raise UserError(f"the {what} {missing[0].replace(BOUNDARY, '')!r} in {text!r} is not among the units")
        return tuple(numbers[part] for part in parts)

    @functools.cached_property
    def _pieces(self) -> Any:
        return _sentencepiece().SentencePieceProcessor(model_proto=base64.b64decode(self.bpe))

    def stream(self) -> StepStream:
        """Samples in pieces to steps."""
        return StepStream(self)

    def steps(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) samples of a whole recording to (T, S, F) steps, normalised."""
        stream = self.stream()
        return np.concatenate([stream.feed(samples), stream.finish()])

    def normalised(self, features: NDArray[np.float32], last: float | None = None) -> tuple[NDArray[np.float32], float]:
        """Take off the level of late, and bring to mean 0 and deviation 1 over the training recordings.

        Args:
            features: (T, F) of ``front``.
            last: the level before them; None at the beginning.

        Returns:
            (T, F), and the level after them.
        """
        mean, deviation = self._scaling
        below, last = self.level.relative(features, self.level.least if last is None else last)
        found: NDArray[np.float32] = (below - mean) / deviation
        return found, last

    def encode(self, raw: Any) -> Arrays:
        """``{"frames": (T, S, F)}`` of (N,) samples at ``rate``."""
        return {"frames": self.steps(np.asarray(raw, np.float32))}

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SpeechProcessor:
        """Undo ``to_json``."""
        return cls.model_validate(values)


class StepStream:
    """Samples in pieces of any size to the steps that they complete."""

    def __init__(self, processor: SpeechProcessor) -> None:
        self.processor, self.frames = processor, processor.front.stream()
        self.held = np.zeros((0, processor.front.num_mels), np.float32)
        self.level = processor.level.least

    def feed(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) samples to (t, S, F) steps."""
        return self._cut(self.frames.feed(samples))

    def finish(self) -> NDArray[np.float32]:
        """The steps of the silence behind a recording, the last filled up with zeros; it begins anew after it."""
        p = self.processor
        found = [self._cut(self.frames.feed(np.zeros(p.tail, np.float32))), self._cut(self.frames.finish())]
        if len(self.held):
            filled = np.zeros((1, p.stride, self.held.shape[1]), np.float32)
            filled[0, : len(self.held)] = self.held
            found.append(filled)
        self.reset()
        return np.concatenate(found)

    def _cut(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        stride = self.processor.stride
        found, self.level = self.processor.normalised(features, self.level)
        both = np.concatenate([self.held, found])
        steps = len(both) // stride
        self.held = both[steps * stride :].copy()
        return both[: steps * stride].reshape(steps, stride, both.shape[1])

    def reset(self) -> None:
        """Begin anew."""
        self.frames.reset()
        self.held, self.level = self.held[:0], self.processor.level.least

    @property
    def state(self) -> Arrays:
        """All that it has in mind. Setting it raises ValueError, KeyError or TypeError where it can't be one."""
        return {"held_frames": self.held.copy(), "level": np.array([self.level]), **self.frames.state}

    @state.setter
    def state(self, state: Arrays) -> None:
        held, (level,) = np.array(state["held_frames"], np.float32), state["level"].tolist()
        fits = held.shape[1:] == self.held.shape[1:] and len(held) < self.processor.stride
        if not fits or not self.processor.level.least <= level < np.inf:
            raise ValueError("the state of this stream is damaged")
        self.frames.state = {k: v for k, v in state.items() if k not in ("held_frames", "level")}
        self.held, self.level = held, level


def choose_kind(texts: Sequence[str]) -> Kind:
    """Words where there are few and each is said often; else characters."""
    counts = Counter(word for text in texts for word in text.split())
    few = 0 < len(counts) <= MOST_WORDS
    return "words" if few and sum(counts.values()) >= FREQUENT * len(counts) else "characters"


def fit_units(kind: Kind, texts: Sequence[str], num_units: int) -> tuple[tuple[str, ...], str]:
    """The units of transcripts, and sentencepiece's model of BPE.

    Args:
        kind: of the units.
        texts: normalised.
        num_units: of BPE.

    Raises:
        UserError: the texts are too small for BPE, or its library is missing.
    """
    if kind == "words":
        return ("", *(BOUNDARY + w for w in sorted({word for text in texts for word in text.split()}))), ""
    if kind == "characters":
        return ("", *sorted({c for text in texts for c in text.replace(" ", BOUNDARY)})), ""
    library, model = _sentencepiece(), io.BytesIO()
    least = len({c for text in texts for c in text.replace(" ", BOUNDARY)}) + 2  # what is unknown, and the boundary
    if texts and num_units < least:
        raise UserError(
            f"--vocabulary {num_units} is too small for BPE: the {least - 2} characters of these transcripts take "
            f"{least} pieces at least; try --vocabulary {4 * least}, or --units characters"
        )
    try:
        library.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, model_type="bpe", vocab_size=num_units,
            normalization_rule_name="identity", character_coverage=1.0, unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1,
            hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].rpartition("] ")[2] or str(error)
        raise UserError(
            f"BPE can't be learned from these transcripts ({reason}); try --vocabulary 60, or --units characters"
        ) from None
    pieces = library.SentencePieceProcessor(model_proto=model.getvalue())
    found = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    # What is unknown has the blank's number, and is refused.
    return ("", *found[1:]), base64.b64encode(model.getvalue()).decode()


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise UserError("--units bpe needs sentencepiece; type: pip install sentencepiece") from None
    return sentencepiece
