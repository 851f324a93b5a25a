"""Speech in recordings and live: what was said, when, and how surely."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from dolmen.files import write_whole
from dolmen.processors.audio import Resampler, resample
from dolmen.processors.audio_files import SUFFIXES, decode, read_in_pieces
from dolmen.processors.ctc_grammar import Grammar
from dolmen.processors.ngrams import NGrams
from dolmen.processors.speech import SpeechProcessor
from dolmen.processors.speech_text import normalise
from dolmen.processors.transcribing import Decoding, Transcriber
from dolmen.runtime.microphone import from_int16, listen
from dolmen.runtime.predictor import Predictor, Session, text_of
from dolmen.types import Arrays, Prediction, Transcript, UserError, Word

WIDTH = 16
"""Hypotheses that are followed where a language model, hot words or several readings want some."""
HOT = 4.0
"""Nats by which a hot word is preferred."""
PIECE_S = 0.1
"""Seconds of a live source that are worked off together."""
AT_ONCE_S = 30.0
"""Seconds of a recording."""


class Hearing(BaseModel):
    """What can be chosen for what is heard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    beam: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="hypotheses that are followed; 1 takes the best unit of each step (default: 1, or 16 with --lm, "
        "--hot or --num-best)",
    )
    lm: str | None = Field(None, description="a language model of words: an ARPA file, or a text to make one of")
    lm_order: int = Field(3, ge=1, le=6, description="words of an n-gram that is made of a text (default 3)")
    lm_out: str | None = Field(None, description="write the n-grams that were made of a text: NAME.arpa")
    lm_weight: float = Field(0.5, ge=0, description="of the language model (default 0.5)")
    word_bonus: float = Field(0.0, description="nats for each word, against too few of them (default 0)")
    hot: tuple[str, ...] = Field((), description="WORD or WORD=NATS: prefer it where it may have been said (4 nats)")
    command: tuple[str, ...] = Field((), description="a sentence that may be said; with these, nothing else is heard")
    commands: str | None = Field(None, description="a file with such sentences, one a line")
    reject: float = Field(
        2.0, ge=0, description="nats a unit by which a command may fall behind what is heard without them (default 2)"
    )
    threshold: float | None = Field(
        None, ge=0, le=1, description="leave words out that are less sure (default: chosen in training, or 0)"
    )
    num_best: int = Field(1, ge=1, le=100, description="readings to give, with their probabilities (default 1)")
    silence_s: float = Field(0.6, gt=0, description="silence that ends a stretch of speech (default 0.6)")
    longest_s: float = Field(30.0, gt=0, description="speech after which a stretch ends without one (default 30)")


class Live(Hearing):
    """What can be chosen for a stream."""

    partial: bool = Field(False, description="also give what is heard while a stretch of speech goes on")


class SpeechPredictor(Predictor[SpeechProcessor]):
    """See the module."""

    Processor: ClassVar[type[Any]] = SpeechProcessor
    takes: ClassVar[str] = "recording"
    Options: ClassVar[type[BaseModel]] = Hearing
    Streaming: ClassVar[type[BaseModel]] = Live
    Watching: ClassVar[type[BaseModel]] = Live
    streams: ClassVar[bool] = True

    def predict(
        self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        """Each recording to its ``Transcript``; see ``Predictor.predict``. Memory is that of half a minute."""
        del batch_size
        assert isinstance(options, Hearing)
        decoding = self.decoding(options)
        for raw in inputs:
            try:
                yield raw, self._transcript(raw, decoding)
            except UserError as error:
                yield raw, error

    def _transcript(self, raw: Any, decoding: Decoding) -> Transcript:
        p = self.processor
        heard = Transcriber(p.units, p.step_s, decoding)
        found: list[Transcript] = []
        seconds = 0.0
        if p.streams:
            front, steps = p.stream(), self.network.steps()
            for samples in self._pieces_of(raw, AT_ONCE_S):
                seconds += len(samples) / p.rate
                found += _heard(front.feed(samples), steps, heard)
            found += _heard(front.finish(), steps, heard)
        else:
            samples = np.concatenate(list(self._pieces_of(raw, AT_ONCE_S)))
            seconds = len(samples) / p.rate
            frames = p.steps(samples)[None]
            lengths = np.array([frames.shape[1]], np.int64)
            found += heard.feed(self.network({"frames": frames, "lengths": lengths})["log_probabilities"][0])
        return joined(found + heard.finish(), seconds)

    def _pieces_of(self, raw: Any, seconds: float) -> Iterator[NDArray[np.float32]]:
        """The samples of a recording at the processor's rate.

        Args:
            raw: a file's name, its bytes, an array of samples at that rate, or (samples, rate).
            seconds: of a piece.
        """
        rate = self.processor.rate
        if isinstance(raw, (str, Path)):
            resampler = None
            for samples, own in read_in_pieces(Path(raw), seconds):
                if own != rate and resampler is None:
                    resampler = Resampler(own, rate)
                yield samples if resampler is None else resampler.feed(samples)
            if resampler is not None:
                yield resampler.finish()
            return
        if isinstance(raw, bytes):
            sound = decode(raw, "the recording")
            raw = sound.samples, sound.rate
        samples, own = raw if isinstance(raw, tuple) else (raw, rate)
        yield resample(checked(samples), own, rate)

    def decoding(self, options: Hearing) -> Decoding:
        """How words are found, with the files that options name read.

        Raises:
            UserError: one can't be read, or two options contradict each other.
        """
        p = self.processor
        hot = dict(_hot(text, p) for text in options.hot)
        commands = list(options.command)
        if options.commands is not None:
            commands += text_of(Path(options.commands), "a sentence a line").splitlines()
        said = list(dict.fromkeys(s for c in commands if (s := normalise(c, p.rules))))
        if said and (options.lm or hot):
            raise UserError("--command leaves nothing to choose for --lm and --hot; give one or the other")
        wanted = WIDTH if options.lm or hot or options.num_best > 1 else 1
        return Decoding(
            width=options.beam or wanted, scorer=self._scorer(options), weight=options.lm_weight,
            bonus=options.word_bonus, hot=hot, grammar=Grammar(said, p.units) if said else None, reject=options.reject,
            threshold=p.threshold if options.threshold is None else options.threshold, num_best=options.num_best,
            silence_s=options.silence_s, longest_s=options.longest_s,
        )  # fmt: skip

    def _scorer(self, options: Hearing) -> NGrams | None:
        if options.lm is None:
            if options.lm_out is not None:
                raise UserError("--lm-out writes what is made of a text; name the text with --lm")
            return None
        path = Path(options.lm)
        text = text_of(path, "an ARPA file, or a text")
        if text.lstrip().startswith("\\data\\"):
            return NGrams.read_arpa(path)
        lines = (normalise(line, self.processor.rules) for line in text.splitlines())
        made = NGrams.train([line for line in lines if line], options.lm_order)
        if options.lm_out is not None:
            write_whole(Path(options.lm_out), made.to_arpa().encode(), otherwise="choose another --lm-out")
        return made

    def expand(self, inputs: Sequence[str]) -> Iterator[Path]:
        """Files as they are; of a folder every recording below it, in order of name."""
        for name in inputs:
            path = Path(name)
            if not path.is_dir():
                yield path
                continue
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not found:
                raise UserError(f"{name} holds no recordings; name a recording, or a folder of them")
            yield from found

    def one_line(self, prediction: Prediction) -> str:
        """What was said, or what is heard until now with dots behind it."""
        assert isinstance(prediction, Transcript)
        when = f"{prediction.start_s:8.2f} s  "
        if not prediction.final:
            return f"{when}{prediction.text} ..."
        if prediction.rejected:
            return f"{when}(none of the commands)"
        return f"{when}{prediction.text or '(nothing)'}  ({prediction.confidence:.0%})"

    def labels(self) -> tuple[str, ...]:
        """The words that it knows, where they are few."""
        p = self.processor
        return tuple(unit[1:] for unit in p.units[1:]) if p.kind == "words" else ()

    def example(self) -> Any:
        """A second of noise."""
        return np.random.default_rng(0).normal(0, 0.01, self.processor.rate).astype(np.float32)

    def session(self, idle_timeout_s: float | None = None, options: BaseModel | None = None) -> SpeechSession:
        """Sound in pieces, what is said in it out."""
        if not self.processor.streams:
            raise UserError("this network reads recordings as a whole (--bidirectional); train one without, to stream")
        chosen = options if isinstance(options, Live) else Live()
        return SpeechSession(self, idle_timeout_s, chosen)

    def pieces(self, source: str, options: BaseModel) -> Iterator[Any]:
        """A recording, ``microphone``, or ``-`` for 16-bit samples at the network's rate on standard input."""
        del options
        if source in ("-", "microphone"):
            yield from listen(source, self.processor.rate, PIECE_S)
        else:
            yield from read_in_pieces(Path(source), PIECE_S)


class SpeechSession(Session):
    """Sound in pieces to what is said, a stretch of speech at a time; memory is that of the longest stretch.

    A piece is (N,) samples from -1 to 1 at the processor's rate, (samples, rate) of any other rate, or the bytes of
    16-bit samples (little-endian, one channel) at the processor's rate.
    """

    def __init__(self, predictor: SpeechPredictor, idle_timeout_s: float | None, options: Live) -> None:
        super().__init__(idle_timeout_s)
        p = predictor.processor
        self.rate, self.options = p.rate, options
        self.front, self.steps = p.stream(), predictor.network.steps()
        self.heard = Transcriber(p.units, p.step_s, predictor.decoding(options))
        self.resampler: Resampler | None = None
        self.said = ""

    def _feed(self, chunk: Any) -> list[Prediction]:
        samples = self._samples(chunk)
        found: list[Prediction] = list(_heard(self.front.feed(samples), self.steps, self.heard))
        if found:
            self.said = ""
        if self.options.partial and (now := self.heard.partial()) is not None and now.text != self.said:
            self.said = now.text
            found.append(now)
        return found

    def _samples(self, chunk: Any) -> NDArray[np.float32]:
        if isinstance(chunk, bytes):
            if len(chunk) % 2:
                raise UserError("a piece of 16-bit samples has an even number of bytes")
            return from_int16(chunk)
        samples, rate = chunk if isinstance(chunk, tuple) else (chunk, self.rate)
        samples = checked(samples)
        if rate == self.rate:
            return samples
        if self.resampler is None or self.resampler.rate != rate:
            self.resampler = Resampler(rate, self.rate)
        return self.resampler.feed(samples)

    def _finish(self) -> list[Prediction]:
        found: list[Prediction] = []
        if self.resampler is not None:
            found += _heard(self.front.feed(self.resampler.finish()), self.steps, self.heard)
        found += _heard(self.front.finish(), self.steps, self.heard)
        found += self.heard.finish()
        self.steps.reset()
        self.said = ""
        return found

    def _reset(self) -> None:
        self.front.reset()
        self.steps.reset()
        self.heard.reset()
        self.resampler, self.said = None, ""

    def _save(self) -> tuple[Arrays, dict[str, Any]]:
        if self.resampler is not None:
            raise UserError("a stream of another sampling rate can't be saved; send samples at the network's own rate")
        arrays, about = self.heard.save()
        arrays |= {f"front.{k}": v for k, v in self.front.state.items()}
        arrays |= {f"steps.{k}": v for k, v in self.steps.state.items()}
        return arrays, {"heard": about, "said": self.said}

    def _restore(self, arrays: Arrays, about: dict[str, Any]) -> bool:
        mine = {f"front.{k}": v for k, v in self.front.state.items()}
        mine |= {f"steps.{k}": v for k, v in self.steps.state.items()}
        if arrays.keys() != {"heard_logp", *mine} or any(arrays[k].shape[1:] != v.shape[1:] for k, v in mine.items()):
            return False
        self.heard.restore(arrays, about["heard"])
        for part in ("front", "steps"):
            owner: Any = getattr(self, part)
            owner.state = {k.removeprefix(part + "."): v for k, v in arrays.items() if k.startswith(part + ".")}
        self.said, self.resampler = str(about["said"]), None
        return True


def _heard(frames: NDArray[np.float32], steps: Any, heard: Transcriber) -> list[Transcript]:
    """What has ended with (T, S, F) steps."""
    return heard.feed(steps.read(frames)) if len(frames) else []


def joined(found: Sequence[Transcript], seconds: float) -> Transcript:
    """The stretches of one recording as one transcript."""
    if len(found) == 1:
        t = found[0]
        return Transcript(t.text, t.words, t.confidence, 0.0, seconds, True, t.rejected, t.alternatives)
    words: tuple[Word, ...] = tuple(word for t in found for word in t.words)
    text = " ".join(t.text for t in found if t.text)
    sure = float(np.prod([t.confidence for t in found])) if found else 1.0
    rejected = bool(found) and all(t.rejected for t in found)
    return Transcript(text, words, sure, 0.0, seconds, True, rejected)


def checked(samples: Any) -> NDArray[np.float32]:
    """(N,) float32.

    Raises:
        UserError: they are no samples.
    """
    found = np.asarray(samples)
    if found.ndim != 1 or found.dtype.kind != "f":
        raise UserError(
            f"samples were expected as (N,) floats from -1 to 1, not {found.dtype} of shape {json.dumps(found.shape)}"
        )
    if not np.isfinite(found).all():
        raise UserError("the samples hold values that are no numbers (NaN or infinite); leave those out")
    return found.astype(np.float32)


def _hot(text: str, processor: SpeechProcessor) -> tuple[str, float]:
    word, equals, nats = text.rpartition("=")
    try:
        return (normalise(word, processor.rules), float(nats)) if equals else (normalise(text, processor.rules), HOT)
    except ValueError:
        raise UserError(f"--hot {text} is neither WORD nor WORD=NATS; type for example --hot dolmen=5") from None
