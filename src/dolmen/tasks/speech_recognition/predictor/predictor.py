"""The predictor of speech recognition: recordings and live sound to words with times and confidences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from dolmen.files import files_below
from dolmen.processors.audio.files import LOUDEST, SUFFIXES, decode, read_in_pieces
from dolmen.processors.audio.log_mel import Resampler, resample
from dolmen.runtime.microphone import from_int16, listen
from dolmen.runtime.network import BATCH, MODEL
from dolmen.runtime.predictor import Predictor, Session
from dolmen.tasks.speech_recognition.predictions import Transcript, Word
from dolmen.tasks.speech_recognition.predictor.options import DecodeOptions, StreamOptions, decoding
from dolmen.tasks.speech_recognition.processors.speech import SpeechProcessor
from dolmen.tasks.speech_recognition.processors.transcribing import Decoding, Transcriber
from dolmen.types import Arrays, Prediction, UserError

__all__ = ["FILE_PIECE_S", "DecodeOptions", "SpeechPredictor", "SpeechSession", "StreamOptions", "joined"]

LIVE_PIECE_S = 0.1
"""Seconds of a live source that are run through the network together."""
FILE_PIECE_S = 30.0
"""The same of a recording."""


class SpeechPredictor(Predictor[SpeechProcessor]):
    """Recordings and live sound to transcripts."""

    Processor: ClassVar[type[Any]] = SpeechProcessor
    takes: ClassVar[str] = "recording"
    PredictionType: ClassVar[type[Prediction]] = Transcript
    inputs_help: ClassVar[str] = "recordings, or folders of recordings"
    source_help: ClassVar[str] = (
        "a recording, microphone, or - for 16-bit samples at the network's rate on standard input"
    )
    Options: ClassVar[type[BaseModel]] = DecodeOptions
    Streaming: ClassVar[type[BaseModel]] = StreamOptions
    Watching: ClassVar[type[BaseModel]] = StreamOptions

    @property
    def is_stateful(self) -> bool:  # type: ignore[override]
        """False where layers read backwards."""
        return self.processor.streams

    @property
    def accepts_stream(self) -> bool:  # type: ignore[override]
        """False where layers read backwards."""
        return self.processor.streams

    def step(self) -> NDArray[Any]:
        """(1, S, F) zeros: a step of a stream."""
        p = self.processor
        return np.zeros((1, p.stride, p.front.num_mels), np.float32)

    def expected_shapes(self) -> Mapping[str, Mapping[str, tuple[int | str, ...]]]:
        """The shapes of a network that fits the processor."""
        p = self.processor
        frames = (BATCH, "time", p.stride, p.front.num_mels)
        return {MODEL: {"frames": frames, "log_probabilities": (BATCH, "time", len(p.units))}}

    def predict(
        self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        """Each recording to its transcript, or to the error that it can't be read.

        Memory is that of half a minute; where the network also reads backwards, that of a recording.
        """
        del batch_size
        assert isinstance(options, DecodeOptions)
        settings = decoding(self.processor, options, self.open_model)
        for raw in inputs:
            try:
                yield raw, self._transcript(raw, settings)
            except UserError as error:
                yield raw, error

    def _transcript(self, raw: Any, settings: Decoding) -> Transcript:
        p = self.processor
        transcriber = Transcriber(p.units, p.step_s, settings)
        transcripts: list[Transcript] = []
        num_samples = 0
        if p.streams:
            front, steps = p.stream(), self.network.steps()
            for samples in self.pieces_of(raw, FILE_PIECE_S):
                num_samples += len(samples)
                transcripts += _transcribe(front.feed(samples), steps, transcriber)
            transcripts += _transcribe(front.finish(), steps, transcriber)
        else:
            samples = np.concatenate(list(self.pieces_of(raw, FILE_PIECE_S)))
            num_samples = len(samples)
            frames = p.steps(samples)[None]
            lengths = np.array([frames.shape[1]], np.int64)
            transcripts += transcriber.feed(
                self.network({"frames": frames, "lengths": lengths})["log_probabilities"][0]
            )
        return joined(transcripts + transcriber.finish(), num_samples / p.rate)

    def pieces_of(self, raw: Any, seconds: float) -> Iterator[NDArray[np.float32]]:
        """The samples of a recording at the processor's rate.

        Args:
            raw: a file's name, its bytes, an array of samples at that rate, or (samples, rate).
            seconds: of a piece.
        """
        rate = self.processor.rate
        if isinstance(raw, (str, Path)):
            resampler = None
            for samples, own_rate in read_in_pieces(Path(raw), seconds):
                if own_rate != rate and resampler is None:
                    resampler = Resampler(own_rate, rate)
                yield samples if resampler is None else resampler.feed(samples)
            if resampler is not None:
                yield resampler.finish()
            return
        if isinstance(raw, bytes):
            sound = decode(raw, "the recording")
            raw = sound.samples, sound.rate
        samples, own_rate = checked(raw, rate)
        if not len(samples):
            raise UserError("a recording without a sample was given; give one with some sound")
        yield resample(samples, own_rate, rate)

    def expand(self, inputs: Sequence[str]) -> Iterator[Path]:
        """Files as they are, and every recording below each folder, in order of name."""
        return files_below(inputs, SUFFIXES, "recording", "recordings")

    def is_one(self, inputs: Sequence[Any]) -> bool:
        """Whether the inputs are (samples, rate): one recording."""
        return isinstance(inputs, tuple) and len(inputs) == 2 and isinstance(inputs[1], (int, np.integer))

    def format_line(self, prediction: Prediction) -> str:
        """A transcript with its begin; dots stand behind a partial one."""
        assert isinstance(prediction, Transcript)
        return f"{prediction.start_s:8.2f} s  {self.format_answer(prediction)}"

    def format_answer(self, prediction: Prediction) -> str:
        """A transcript's text with its confidence, and the alternatives."""
        assert isinstance(prediction, Transcript)
        if not prediction.final:
            return f"{prediction.text} ..."
        if prediction.rejected:
            return "(none of the commands)"
        others = [f"{text or '(nothing)'} ({share:.0%})" for text, share in prediction.alternatives[1:]]
        sure = f"  ({prediction.confidence:.0%})" if prediction.text else ""
        return f"{prediction.text or '(nothing)'}{sure}{', or: ' if others else ''}{', '.join(others)}"

    def labels(self) -> tuple[str, ...]:
        """The words of a network that names words, else none."""
        p = self.processor
        return tuple(unit[1:] for unit in p.units[1:]) if p.kind == "words" else ()

    def example(self) -> Any:
        """A second of noise."""
        return np.random.default_rng(0).normal(0, 0.01, self.processor.rate).astype(np.float32)

    def session(self, idle_timeout_s: float | None = None, options: BaseModel | None = None) -> SpeechSession:
        """A stream: sound in pieces in, transcripts out."""
        if not self.processor.streams:
            raise UserError("this network reads recordings as a whole (--bidirectional); train one without, to stream")
        chosen = options if isinstance(options, StreamOptions) else StreamOptions()
        return SpeechSession(self, idle_timeout_s, chosen)

    def pieces(self, source: str, options: BaseModel) -> Iterator[Any]:
        """Pieces of a recording, of ``microphone``, or of ``-`` (16-bit samples at the network's rate on stdin)."""
        del options
        if source in ("-", "microphone"):
            yield from listen(source, self.processor.rate, LIVE_PIECE_S)
        else:
            yield from read_in_pieces(Path(source), LIVE_PIECE_S)


class SpeechSession(Session):
    """A stream of sound to transcripts, a stretch of speech at a time; memory is that of the longest stretch.

    A piece is (N,) samples from -1 to 1 at the processor's rate, (samples, rate) of any other rate, or the bytes of
    16-bit samples (little-endian, one channel) at the processor's rate.
    """

    def __init__(self, predictor: SpeechPredictor, idle_timeout_s: float | None, options: StreamOptions) -> None:
        super().__init__(idle_timeout_s)
        self.processor, self.options = predictor.processor, options
        self.front, self.steps = self.processor.stream(), predictor.network.steps()
        self.transcriber = self._new_transcriber(decoding(self.processor, options, predictor.open_model))
        self.resampler: Resampler | None = None
        self.num_samples = 0

    def _new_transcriber(self, settings: Decoding) -> Transcriber:
        return Transcriber(self.processor.units, self.processor.step_s, settings)

    def _feed(self, chunk: Any) -> list[Prediction]:
        predictions: list[Prediction] = list(self._transcribe(self._samples(chunk)))
        if self.options.partial and (partial := self.transcriber.partial()) is not None:
            predictions.append(partial)
        return predictions

    def _transcribe(self, samples: NDArray[np.float32]) -> list[Transcript]:
        self.num_samples += len(samples)
        return _transcribe(self.front.feed(samples), self.steps, self.transcriber)

    def _samples(self, chunk: Any) -> NDArray[np.float32]:
        """A piece at the processor's rate; behind what the resampler holds where the piece comes at another rate."""
        if isinstance(chunk, bytes):
            if len(chunk) % 2:
                raise UserError("a piece of 16-bit samples has an even number of bytes")
            chunk = from_int16(chunk)
        samples, rate = checked(chunk, self.processor.rate)
        present_rate = self.processor.rate if self.resampler is None else self.resampler.rate
        if rate == present_rate:
            return samples if self.resampler is None else self.resampler.feed(samples)
        resampler = None if rate == self.processor.rate else Resampler(rate, self.processor.rate)
        held = self._flush_resampler()
        self.resampler = resampler
        return np.concatenate([held, samples if resampler is None else resampler.feed(samples)])

    def _flush_resampler(self) -> NDArray[np.float32]:
        """The samples that the resampler holds back."""
        return np.zeros(0, np.float32) if self.resampler is None else self.resampler.finish()

    def _finish(self) -> list[Prediction]:
        transcripts = self._transcribe(self._flush_resampler())
        transcripts += _transcribe(self.front.finish(), self.steps, self.transcriber)
        transcripts += self.transcriber.finish()
        seconds = self.transcriber.start_s + self.num_samples / self.processor.rate
        self.steps.reset()
        self.transcriber.reset(seconds)
        self.num_samples = 0
        return [_until(seconds, transcript) for transcript in transcripts]

    def _reset(self) -> None:
        self.front.reset()
        self.steps.reset()
        self.transcriber.reset()
        self.resampler, self.num_samples = None, 0

    def _save(self) -> tuple[Arrays, dict[str, Any]]:
        arrays, about = self.transcriber.save()
        arrays |= {f"front.{k}": v for k, v in self.front.state.items()}
        arrays |= {f"steps.{k}": v for k, v in self.steps.state.items()}
        rate = None
        if self.resampler is not None:
            rate = self.resampler.rate
            arrays |= {f"resampler.{k}": v for k, v in self.resampler.state.items()}
        return arrays, {"heard": about, "rate": rate, "num_samples": self.num_samples}

    def _restore(self, arrays: Arrays, about: dict[str, Any]) -> bool:
        def part(name: str) -> Arrays:
            return {k.removeprefix(name + "."): v for k, v in arrays.items() if k.startswith(name + ".")}

        steps, present = part("steps"), self.steps.state
        if steps.keys() != present.keys() or any(steps[k].shape != v.shape for k, v in present.items()):
            return False
        # Restore everything before using any of it: a damaged state leaves the stream where it was.
        front, transcriber, resampler = self.processor.stream(), self._new_transcriber(self.transcriber.decoding), None
        front.state = part("front")
        transcriber.restore(arrays, about["heard"])
        if about["rate"] is not None:
            resampler = Resampler(about["rate"], self.processor.rate)
            resampler.state = part("resampler")
        self.num_samples = int(about["num_samples"])
        self.front, self.transcriber, self.resampler, self.steps.state = front, transcriber, resampler, steps
        return True


def _transcribe(frames: NDArray[np.float32], steps: Any, transcriber: Transcriber) -> list[Transcript]:
    """The stretches that end with (T, S, F) steps."""
    return transcriber.feed(steps.read(frames)) if len(frames) else []


def joined(transcripts: Sequence[Transcript], seconds: float) -> Transcript:
    """The stretches of one recording as one transcript.

    Args:
        transcripts: of the stretches, in their order.
        seconds: how long the recording is.
    """
    transcripts = [_until(seconds, t) for t in transcripts]
    words: tuple[Word, ...] = tuple(word for t in transcripts for word in t.words)
    text = " ".join(t.text for t in transcripts if t.text)
    spoken = [t for t in transcripts if t.text] or transcripts  # a stretch without words takes nothing from the others
    confidence = float(np.prod([t.confidence for t in spoken]))
    rejected = bool(transcripts) and all(t.rejected for t in transcripts)
    return Transcript(text, words, confidence, 0.0, seconds, True, rejected, _joined_alternatives(transcripts))


def _joined_alternatives(transcripts: Sequence[Transcript]) -> tuple[tuple[str, float], ...]:
    """The most probable readings of all stretches together, as many as a stretch has at most."""
    most = max((len(t.alternatives) for t in transcripts), default=0)
    best = [("", 1.0)] if most else []
    for t in transcripts if most else ():
        pairs = [(f"{a} {b}".strip(), p * q) for a, p in best for b, q in t.alternatives or [(t.text, 1.0)]]
        best = sorted(pairs, key=lambda item: -item[1])[:most]
        total = sum(p for _, p in best)
        best = [(text, p / total) for text, p in best]
    return tuple(best)


def _until(seconds: float, t: Transcript) -> Transcript:
    """A transcript that ends with the sound, not with the silence that is put behind it."""
    if t.end_s <= seconds:
        return t
    words = tuple(replace(w, start_s=min(w.start_s, seconds), end_s=min(w.end_s, seconds)) for w in t.words)
    return replace(t, words=words, start_s=min(t.start_s, seconds), end_s=seconds)


def checked(raw: Any, rate: int) -> tuple[NDArray[np.float32], int]:
    """(N,) float32 samples, and how many there are a second.

    Args:
        raw: samples, or (samples, rate).
        rate: of samples that come without one.

    Raises:
        UserError: they are no samples.
    """
    samples, own_rate = raw if isinstance(raw, tuple) and len(raw) == 2 else (raw, rate)
    try:
        values = np.asarray(samples)
    except ValueError:  # lists of several lengths
        values = np.array(None)
    if values.ndim != 1 or values.dtype.kind != "f":
        shape = " x ".join(map(str, values.shape)) or "a single value"
        raise UserError(f"samples were expected as (N,) floats from -1 to 1, not as {shape} of {values.dtype}")
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError("the samples hold values that are no numbers (NaN or infinite); leave those out")
    if np.abs(values).max(initial=0) > LOUDEST:
        raise UserError(f"the samples hold values over {LOUDEST:g}, expected -1 to 1; divide 16-bit ones by 32768")
    if isinstance(own_rate, bool) or not isinstance(own_rate, (int, np.integer)):
        raise UserError(f"a sampling rate of {own_rate!r} was given; it takes a whole number, e.g. 16000")
    return values, int(own_rate)
