"""Texts that go on from a prompt, and texts that are read along, token by token with constant memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from dolmen.files import write_whole
from dolmen.predictions import Text
from dolmen.processors.text.tokens import END_OF_LINE, TextProcessor
from dolmen.runtime.network import BATCH, MODEL, Network
from dolmen.runtime.options import LocalPath, NotServed, Served
from dolmen.runtime.predictor import Predictor, Session, read_text_file, text_pieces
from dolmen.tasks.text_generation.predictions import Reading
from dolmen.tasks.text_generation.processor import Sampler, Speller
from dolmen.types import Arrays, Prediction, UserError

CHUNK_TOKENS = 64
"""Tokens of a prompt that are read in one call."""
NUM_EXPECTED = 3
"""Tokens that were thought most likely, which a reading names."""
MAX_HELD_CHARACTERS = 4096
"""Characters that are held back until it is clear where a token ends."""


class GenerationOptions(BaseModel):
    """Choices for a text that is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: Annotated[int, Served()] = Field(
        400, ge=1, le=100_000, description="tokens to write (default 400; more than 100,000 in turns, with --state)"
    )
    temperature: Annotated[float, Served()] = Field(
        0.8, ge=0, description="below 1 bolder, above 1 more varied, 0 no chance (default 0.8)"
    )
    top_k: Annotated[int, Served()] = Field(0, ge=0, description="choose among so many most probable tokens only")
    top_p: Annotated[float, Served()] = Field(
        1.0, gt=0, le=1, description="choose among the most probable with this probability together"
    )
    repetition_penalty: Annotated[float, Served()] = Field(
        1.0, gt=0, description="above 1, what came lately becomes less likely"
    )
    stop: Annotated[str | None, Served()] = Field(None, description="end before this text")
    seed: Annotated[int, Served()] = Field(0, ge=0, description="of the choices")
    state: Annotated[LocalPath | None, NotServed("save and restore a WebSocket session instead")] = Field(
        None, description="a file: go on from the state in it, if it is there, and leave the new state in it"
    )


class Writer:
    """A language model that reads and writes: a stream with its state.

    What it wrote last is read when it is asked to go on; so its state, with what is still to be read, is all there is
    to keep, whatever computes the network.
    """

    def __init__(self, network: Network, processor: TextProcessor) -> None:
        self.processor, self.steps = processor, network.steps()
        self.reset()

    def reset(self) -> None:
        """Begin anew: at the beginning of a line, or after the most frequent token where there are no lines."""
        symbols = self.processor.symbols
        self.steps.reset()
        start = symbols.index(END_OF_LINE) if END_OF_LINE in symbols else min(1, len(symbols) - 1)
        self.pending = np.array([start], np.int64)

    def read(self, tokens: NDArray[np.integer[Any]]) -> Iterator[NDArray[np.float32]]:
        """Take in tokens; the (V,) logits that stood before each of them. Each is good until the next."""
        numbers: NDArray[np.int64] = tokens.astype(np.int64)
        for start in range(0, len(numbers), CHUNK_TOKENS):
            part = numbers[start : start + CHUNK_TOKENS]
            logits = self.steps.read(np.concatenate((self.pending, part[:-1])))
            self.pending = part[-1:]
            yield from logits[-len(part) :]

    def logits(self) -> NDArray[np.float32]:
        """(V,) of the next token."""
        logits: NDArray[np.float32] = self.steps.read(self.pending)[-1]
        self.pending = self.pending[:0]
        return logits

    def write(self, sampler: Sampler, num_tokens: int, stop: Sequence[str] = ()) -> Iterator[str]:
        """Yield pieces of text as they come, until so many tokens are written or a stop string has come.

        A stop string is not yielded itself; what may become one is held back until it is clear.
        """
        held, spelled = "", Speller(self.processor)
        for _ in range(num_tokens):
            token = sampler.draw(self.logits())
            self.pending = np.array([token], np.int64)
            held += spelled.add(token)
            ends = [at for s in stop if (at := held.find(s)) >= 0]
            if ends:
                yield held[: min(ends)]
                return
            keep = max((n for s in stop for n in range(1, len(s)) if held.endswith(s[:n])), default=0)
            if len(held) > keep:
                yield held[: len(held) - keep]
                held = held[len(held) - keep :]
        yield held + spelled.end()

    @property
    def state(self) -> Arrays:
        """A copy of all that it has in mind."""
        return {**self.steps.state, "pending": self.pending.copy()}

    def go_on(self, state: Arrays) -> bool:
        """Take over a ``state``; False if it is of another network."""
        own = self.state
        fits = state.keys() == own.keys() and all(
            state[k].dtype == v.dtype and (k == "pending" or state[k].shape == v.shape) for k, v in own.items()
        )
        if not fits or state["pending"].ndim != 1 or not len(state["pending"]):
            return False
        if state["pending"].min() < 0 or state["pending"].max() >= len(self.processor):
            return False
        self.pending = state["pending"].copy()
        self.steps.state = {k: v for k, v in state.items() if k != "pending"}
        return True


class TextPredictor(Predictor[TextProcessor]):
    """Texts to what follows them: ``Text``; of a text that is read along a ``Reading`` each token."""

    Processor: ClassVar[type[Any]] = TextProcessor
    takes: ClassVar[str] = "text"
    Options = GenerationOptions
    PredictionType: ClassVar[type[Prediction]] = Text
    StreamTypes: ClassVar[tuple[type[Prediction], ...]] = (Reading,)
    inputs_help: ClassVar[str] = "how texts begin, or files that hold that"
    source_help: ClassVar[str] = "a text file, or - for a text on standard input"
    is_stateful = True
    briefly: ClassVar[dict[str, Any]] = {"length": 16}

    def expected_shapes(self) -> Mapping[str, Mapping[str, tuple[int | str, ...]]]:
        """Shapes that fit the processor, by the network that has them."""
        return {MODEL: {"tokens": (BATCH, "time"), "logits": (BATCH, "time", len(self.processor))}}

    def predict(
        self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        """Go on from each prompt: a text that is written while it is read."""
        assert isinstance(options, GenerationOptions)
        for raw in inputs:
            try:
                yield raw, self._text(raw, options)
            except UserError as error:
                yield raw, error

    def expand(self, inputs: Sequence[str]) -> Iterator[Any]:
        """Texts to begin with; the name of a file stands for what is in it."""
        for name in inputs:
            yield Path(name) if len(name) < 256 and Path(name).is_file() else name

    def format_line(self, prediction: Prediction) -> str:
        """A text, or a token with the bits by which it surprised and what was expected in its place."""
        if isinstance(prediction, Text):
            return prediction.prompt + prediction.text
        assert isinstance(prediction, Reading)
        expected = ", ".join(f"{text!r} {p:.0%}" for text, p in prediction.expected)
        return f"{prediction.text!r:<14}{prediction.bits:6.2f} bits   expected: {expected}"

    def example(self) -> Any:
        """A text to begin with."""
        return self.processor.decode_tokens(range(1, min(17, len(self.processor))))

    def session(self, idle_timeout_s: float | None = None, options: BaseModel | None = None) -> TextSession:
        """A text that is read along, and continued where asked."""
        del options
        return TextSession(self, idle_timeout_s)

    def pieces(self, source: str, options: BaseModel) -> Iterator[str]:
        """Text on standard input, or in a file."""
        del options
        return text_pieces(source)

    def _text(self, raw: Any, options: GenerationOptions) -> Text:
        text = prompt(raw)
        session = self.session()
        place = None if options.state is None else Path(options.state)
        if place is not None and place.exists():
            try:
                session.restore(place.read_bytes())
            except UserError as error:
                raise UserError(f"{place}: {error}, or name a new file") from None
            except OSError as error:
                raise UserError(f"{place} can't be read: {error.strerror}; name a new file") from None
        for _ in session.writer.read(self.processor.encode_text(text)):
            pass

        def pieces() -> Iterator[str]:
            yield from session.writer.write(_sampler(options), options.length, _stops(options))
            if place is not None:
                write_whole(place, session.save(), otherwise="choose another --state")

        return Text(text, pieces())


class TextSession(Session):
    """A language model that reads along: each token with how much it surprised; and it goes on writing where asked."""

    def __init__(self, predictor: TextPredictor, idle_timeout_s: float | None = None) -> None:
        super().__init__(idle_timeout_s)
        self.processor, self.held = predictor.processor, ""
        self.writer = Writer(predictor.network, predictor.processor)

    def write(self, **options: Any) -> Iterator[str]:
        """Go on writing from here, in pieces of a token or so.

        Args:
            options: of ``GenerationOptions``, all but ``state``.
        """
        self._awake()
        chosen = GenerationOptions(**options)
        self._finish()
        for piece in self.writer.write(_sampler(chosen), chosen.length, _stops(chosen)):
            self._awake()
            yield piece

    def _feed(self, chunk: Any) -> list[Prediction]:
        if not isinstance(chunk, str):
            raise UserError(f"a piece of text was expected, not {type(chunk).__name__}")
        held, cut = self.held + chunk, 0
        if self.processor.units == "characters":
            cut = len(held)
        elif self.processor.units == "bpe":  # its pieces depend on all of a line
            cut = held.rfind(END_OF_LINE) + 1
        else:
            cut = max((i + 1 for i in range(len(held) - 1, -1, -1) if held[i].isspace()), default=0)
        if not cut and len(held) > MAX_HELD_CHARACTERS:
            cut = held.rfind(" ") + 1 or len(held)
        self.held = held[cut:]
        return self._read(held[:cut])

    def _finish(self) -> list[Prediction]:
        text, self.held = self.held, ""
        return self._read(text)

    def _read(self, text: str) -> list[Prediction]:
        readings: list[Prediction] = []
        tokens = self.processor.encode_text(text)
        for token, logits in zip(tokens, self.writer.read(tokens), strict=True):
            z = np.asarray(logits, np.float64)
            total = float(z.max() + np.log(np.exp(z - z.max()).sum()))
            best = np.argpartition(-z, min(NUM_EXPECTED, len(z)) - 1)[:NUM_EXPECTED]
            readings.append(
                Reading(
                    text=self.processor.show(int(token)),
                    bits=(total - float(z[token])) / math.log(2),
                    expected=tuple(
                        (self.processor.show(int(i)), math.exp(float(z[i]) - total)) for i in best[np.argsort(-z[best])]
                    ),
                )
            )
        return readings

    def _reset(self) -> None:
        self.held = ""
        self.writer.reset()

    def _save(self) -> tuple[Arrays, dict[str, Any]]:
        return self.writer.state, {"held": self.held}

    def _restore(self, arrays: Arrays, about: dict[str, Any]) -> bool:
        if about.keys() != {"held"} or not self.writer.go_on(arrays):
            return False
        self.held = str(about["held"])
        return True


def _sampler(options: GenerationOptions) -> Sampler:
    return Sampler(
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        repetition_penalty=options.repetition_penalty,
        seed=options.seed,
    )


def _stops(options: GenerationOptions) -> tuple[str, ...]:
    return () if options.stop is None else (options.stop,)


def prompt(raw: Any) -> str:
    """The text to begin with: itself, or the content of a file."""
    if isinstance(raw, Path):
        return read_text_file(raw, "a text to begin with")
    if not isinstance(raw, str):
        raise UserError(f"a text to begin with was expected, not {type(raw).__name__}")
    return raw
