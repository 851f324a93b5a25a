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
UnitType = Literal["words", "characters", "bpe"]
MAX_WORD_UNITS, MIN_MEAN_COUNT = 200, 5
"""A vocabulary of at most so many words, each of which comes so often in the mean, is learned as words."""


class SpeechProcessor(BaseModel):
    """Everything between samples and the network, and between units and a text.

    Attributes:
        kind: what a unit is.
        units: V of them as text; the first is CTC's blank, and one that begins with ``BOUNDARY`` begins a word.
        rules: what is done to a transcript before it is learned.
        front: samples to log-mel frames.
        level: gain control; networks see how far below the level each band is.
        mean: (F,) of that in the training recordings.
        deviation: (F,) of the same.
        stride: frames that make a step.
        tail_s: silence that is put behind a recording, so that its last word is recognised.
        streams: whether the network reads forwards only.
        bpe: sentencepiece's model, base64, of BPE.
        threshold: words less sure than this are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: UnitType
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
        """Steps of recordings of so many samples (the silence behind them is added here)."""
        frames = [self.front.num_frames(int(n) + self.tail) for n in num_samples]
        return -(-np.array(frames, np.int64) // self.stride)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Units of a transcript.

        Raises:
            UserError: it holds what no unit stands for.
        """
        spelled = normalise(text, self.rules)
        if self.kind == "bpe":
            pieces = tuple(self._pieces.encode(spelled))
            if 0 in pieces:
                raise UserError(f"{text!r} holds a character that is not among the units")
            return pieces
        parts = (
            [BOUNDARY + word for word in spelled.split()] if self.kind == "words" else spelled.replace(" ", BOUNDARY)
        )
        numbers = self._numbers
        missing = [part for part in parts if part not in numbers]
        if missing:
            noun = "word" if self.kind == "words" else "character"
            raise UserError(f"the {noun} {missing[0].replace(BOUNDARY, '')!r} in {text!r} is not among the units")
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
        """Subtract the level, and bring features to mean 0 and deviation 1 over the training recordings.

        Args:
            features: (T, F) of ``front``.
            last: the level before them; None at the beginning.

        Returns:
            (T, F), and the level after them.
        """
        mean, deviation = self._scaling
        below, last = self.level.relative(features, self.level.least if last is None else last)
        scaled: NDArray[np.float32] = (below - mean) / deviation
        return scaled, last

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
        steps = [self._cut(self.frames.feed(np.zeros(p.tail, np.float32))), self._cut(self.frames.finish())]
        if len(self.held):
            filled = np.zeros((1, p.stride, self.held.shape[1]), np.float32)
            filled[0, : len(self.held)] = self.held
            steps.append(filled)
        self.reset()
        return np.concatenate(steps)

    def _cut(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        stride = self.processor.stride
        normalised, self.level = self.processor.normalised(features, self.level)
        frames = np.concatenate([self.held, normalised])
        steps = len(frames) // stride
        self.held = frames[steps * stride :].copy()
        return frames[: steps * stride].reshape(steps, stride, frames.shape[1])

    def reset(self) -> None:
        """Begin anew."""
        self.frames.reset()
        self.held, self.level = self.held[:0], self.processor.level.least

    @property
    def state(self) -> Arrays:
        """Held frames, level and front end; a damaged one raises ValueError, KeyError or TypeError when set."""
        return {"held_frames": self.held.copy(), "level": np.array([self.level]), **self.frames.state}

    @state.setter
    def state(self, state: Arrays) -> None:
        held, (level,) = np.array(state["held_frames"], np.float32), state["level"].tolist()
        fits = held.shape[1:] == self.held.shape[1:] and len(held) < self.processor.stride
        if not fits or not self.processor.level.least <= level < np.inf:
            raise ValueError("the state of this stream is damaged")
        self.frames.state = {k: v for k, v in state.items() if k not in ("held_frames", "level")}
        self.held, self.level = held, level


def choose_unit_type(texts: Sequence[str]) -> UnitType:
    """Words where there are few and each comes often; else characters."""
    counts = Counter(word for text in texts for word in text.split())
    few = 0 < len(counts) <= MAX_WORD_UNITS
    return "words" if few and sum(counts.values()) >= MIN_MEAN_COUNT * len(counts) else "characters"


def fit_units(unit_type: UnitType, texts: Sequence[str], num_units: int) -> tuple[tuple[str, ...], str]:
    """The units of transcripts, and sentencepiece's model of BPE.

    Args:
        unit_type: what a unit is.
        texts: normalised.
        num_units: pieces of BPE.

    Raises:
        UserError: the texts are too small for BPE, or its library is missing.
    """
    if unit_type == "words":
        return ("", *(BOUNDARY + w for w in sorted({word for text in texts for word in text.split()}))), ""
    if unit_type == "characters":
        return ("", *sorted({c for text in texts for c in text.replace(" ", BOUNDARY)})), ""
    library, model = _sentencepiece(), io.BytesIO()
    least = len({c for text in texts for c in text.replace(" ", BOUNDARY)}) + 2  # the unknown piece, and the boundary
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
    units = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    # The unknown piece has the blank's number, and is refused.
    return ("", *units[1:]), base64.b64encode(model.getvalue()).decode()


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise UserError("--units bpe needs sentencepiece; type: pip install sentencepiece") from None
    return sentencepiece
