"""From a person's inputs to predictions: a processor and a network, the same in a run, a bundle and the server."""

from __future__ import annotations

import codecs
import contextlib
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from dolmen.predictions import Text
from dolmen.runtime.network import MODEL, Network
from dolmen.runtime.options import NoOptions, check_marks
from dolmen.types import Arrays, Prediction, UserError

P = TypeVar("P")


class Predictor(ABC, Generic[P]):
    """What a task does with a trained network.

    The server, its page and the command line know no task: they ask here what one takes, answers and can.

    Attributes:
        processor: raw input to arrays, outputs to predictions.
        networks: arrays to arrays, by name; a task that has only one calls it "model".
        open_model: opens a run or a bundle that an option names; None where there is nothing to open them with.
    """

    Processor: ClassVar[type[Any]]
    takes: ClassVar[str]
    """What an input is: "picture" (the bytes of a file), "recording" (likewise) or "text"."""
    PredictionType: ClassVar[type[Prediction]]
    """What ``predict`` yields; a subclass of ``Text`` is written bit by bit, while it is read."""
    StreamTypes: ClassVar[tuple[type[Prediction], ...]] = ()
    """What a stream yields, where that is not ``PredictionType`` alone."""
    ExplanationType: ClassVar[type[Prediction] | None] = None
    """What ``explain_input`` returns; None where there is nothing to explain an answer with."""
    inputs_help: ClassVar[str] = "files, or folders of files"
    """What can be given to ``expand``, as the help of ``dolmen predict`` says it."""
    source_help: ClassVar[str] = "- for standard input"
    """What can be given to ``pieces``, as the help of ``dolmen watch`` says it."""
    draws: ClassVar[bool] = False
    """Whether it has a ``draw`` of its own; found out, not declared."""
    is_stateful: bool = False
    """Whether the network has a state that goes from step to step."""
    accepts_stream: bool = True
    """Whether input may come piece by piece: a network that reads backwards, too, needs the whole."""
    briefly: ClassVar[dict[str, Any]] = {}
    """Options for one short prediction, to measure speed with."""
    Options: ClassVar[type[BaseModel]] = NoOptions
    Streaming: ClassVar[type[BaseModel]] = NoOptions
    """What can be chosen for a stream."""
    Watching: ClassVar[type[BaseModel]] = NoOptions
    """That, and what can be chosen for a source that is watched."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls.draws = cls.draw is not Predictor.draw
        for options in (cls.Options, cls.Streaming, cls.Watching):
            check_marks(options)

    def __init__(self, processor: P, networks: Network | Mapping[str, Network]) -> None:
        self.processor = processor
        self.networks: Mapping[str, Network] = networks if isinstance(networks, Mapping) else {MODEL: networks}
        self.open_model: Callable[[Path], Any] | None = None

    @property
    def network(self) -> Network:
        """The network of a task that has only one."""
        (only,) = self.networks.values()
        return only

    def expected_shapes(self) -> Mapping[str, Mapping[str, tuple[int | str, ...]]]:
        """The shapes of inputs and outputs that fit the processor, by network; a bundle is compared when it is opened.

        What is not a number (a batch, a length) is a name, and fits everything.
        """
        return {}

    @abstractmethod
    def predict(
        self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        """Yield ``(input, prediction)`` in order, holding one batch in memory.

        An input that can't be read gives its ``UserError`` instead, and the others go on.

        Args:
            inputs: as a person has them.
            options: of the class ``Options``.
            batch_size: inputs at once.
        """

    @property
    def explains(self) -> bool:
        """Whether it can say what an answer rests on."""
        return self.ExplanationType is not None

    @property
    def writes(self) -> bool:
        """Whether predictions are texts that are written bit by bit."""
        return issubclass(self.PredictionType, Text)

    def explain_input(self, raw: Any) -> Prediction:
        """What the answer to one input rests on, an ``ExplanationType``.

        Raises:
            UserError: it can't be read, or nothing can be said of it.
        """
        raise UserError("this model can't say what an answer rests on; dolmen explain RUN INPUT may")

    def draw(self, raw: Any, prediction: Prediction) -> NDArray[np.uint8]:
        """(H, W, 3) of an input with its prediction drawn in."""
        raise NotImplementedError(f"{type(self).__name__} draws nothing")

    @abstractmethod
    def example(self) -> Any:
        """An input, to measure speed with."""

    def step(self) -> NDArray[Any]:
        """What a network with a state takes in one step, to measure speed with; (1,) tokens or (1, S, F) frames."""
        return np.zeros(1, np.int64)

    @abstractmethod
    def session(self, idle_timeout_s: float | None = None, options: BaseModel | None = None) -> Session:
        """Begin a stream, with options of the class ``Streaming``; None for all defaults."""

    def watch(self, source: str, options: BaseModel) -> Iterator[Prediction]:
        """Predict a live source, as it comes.

        Args:
            source: as a person names it: ``-`` for standard input, or what the task knows besides.
            options: of the class ``Watching``.

        Raises:
            UserError: it can't be read; at once, or after the last that could be read.
        """
        yield from self.follow(self.pieces(source, options), self.session(None, options))

    def follow(self, pieces: Iterable[Any], session: Session) -> Iterator[Prediction]:
        """The predictions of a stream of pieces. If they end with an error, what was held back comes before it."""
        error_at_end, begun = None, False
        try:
            for piece in pieces:
                begun = True
                yield from session.feed(piece)
        except UserError as error:
            if not begun:
                raise
            error_at_end = error
        yield from session.finish()
        if error_at_end is not None:
            raise error_at_end

    @abstractmethod
    def pieces(self, source: str, options: BaseModel) -> Iterator[Any]:
        """A live source, as a person names it to ``watch``, in the pieces that a stream takes."""

    def expand(self, inputs: Sequence[str]) -> Iterator[Any]:
        """What the person named on the command line -> single inputs (a folder: the files in it)."""
        yield from inputs

    def is_one(self, inputs: Sequence[Any]) -> bool:
        """Whether this list or tuple is one input, not several."""
        del inputs
        return False

    def format_line(self, prediction: Prediction) -> str:
        """A prediction as a person reads it in a terminal."""
        return str(prediction.to_json())

    def format_answer(self, prediction: Prediction) -> str:
        """The prediction of a whole input as a person reads it, behind the input's name."""
        return self.format_line(prediction)

    def labels(self) -> tuple[str, ...]:
        """What it can answer, where that is a list of names."""
        return ()


class Session(ABC):
    """A stream: pieces of input come, predictions go, and memory stays as it is. For one thread at a time.

    Args:
        idle_timeout_s: after so many seconds without a call the stream is over; None for never.
    """

    def __init__(self, idle_timeout_s: float | None = None) -> None:
        self.idle_timeout_s, self._last, self._over = idle_timeout_s, time.monotonic(), False

    def feed(self, chunk: Any) -> list[Prediction]:
        """Take in the next piece; what has become clear with it.

        Raises:
            UserError: it can't be read, or the stream is over.
        """
        self._awake()
        return self._feed(chunk)

    def finish(self) -> list[Prediction]:
        """What was held back because more could have come; the stream goes on after it as at a boundary."""
        self._awake()
        return self._finish()

    def reset(self) -> None:
        """Begin anew; a stream that was over begins anew as well."""
        self._last, self._over = time.monotonic(), False
        self._reset()

    def save(self) -> bytes:
        """All that ``restore`` needs to go on exactly here."""
        self._awake()
        from safetensors.numpy import save

        arrays, about = self._save()
        text = json.dumps({"session": type(self).__name__, **about}).encode()
        packed: bytes = save({**arrays, "about": np.frombuffer(text, np.uint8)})
        return packed

    def restore(self, saved: bytes) -> None:
        """Go on where ``save`` was called, here or in another process.

        Raises:
            UserError: it is no saved session, or one of another network; the stream stays where it was.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(saved)
            about = json.loads(arrays.pop("about").tobytes())
            fits = about.pop("session") == type(self).__name__ and self._restore(arrays, about)
        except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"this is no saved session ({str(error).splitlines()[0]}); save one anew") from None
        if not fits:
            raise UserError("this is a saved session of another network; restore one that this network saved")
        self._last, self._over = time.monotonic(), False

    def _awake(self) -> None:
        now = time.monotonic()
        if self.idle_timeout_s is not None and now - self._last > self.idle_timeout_s and not self._over:
            self._over = True
            self._reset()
        if self._over:
            raise UserError(
                f"the session was idle for more than {self.idle_timeout_s:g} s and is over; begin a new one"
            )
        self._last = now

    @abstractmethod
    def _feed(self, chunk: Any) -> list[Prediction]: ...

    def write(self, **options: Any) -> Iterator[str]:
        """Go on writing from here, in pieces of a token or so, where ``Predictor.writes``.

        Args:
            options: of ``Predictor.Options``.

        Raises:
            UserError: it does not write.
        """
        raise UserError("this model does not write")

    def _finish(self) -> list[Prediction]:
        return []

    @abstractmethod
    def _reset(self) -> None: ...

    @abstractmethod
    def _save(self) -> tuple[Arrays, dict[str, Any]]:
        """Arrays, and plain values."""

    @abstractmethod
    def _restore(self, arrays: Arrays, about: dict[str, Any]) -> bool:
        """Undo ``_save``; False if it is of another network."""


def read_text_file(path: Path, expected: str) -> str:
    """The text in a file.

    Args:
        path: of the file.
        expected: what to give instead of an empty one.

    Raises:
        UserError: it can't be read, is not UTF-8, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8; convert it") from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    if not text:
        raise UserError(f"{path} is empty; give {expected}")
    return text


def text_pieces(source: str) -> Iterator[str]:
    """A text in pieces, as much as there is at each moment.

    Args:
        source: a file, or ``-`` for standard input.

    Raises:
        UserError: it can't be read, or is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if source == "-" else open(source, "rb") as stream:
            while content := stream.read1(1 << 16):  # type: ignore[union-attr]
                if text := decoder.decode(content):
                    yield text
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        name = "standard input" if source == "-" else source
        raise UserError(f"{name} is not text in UTF-8 ({error.reason}); convert it") from None
    except OSError as error:
        raise UserError(
            f"{source} can't be read: {error.strerror}; name a text file, or give - and pipe a text: "
            "cat text | dolmen watch ..."
        ) from None
