"""Series to trends, whole or value by value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from dolmen.runtime.predictor import Predictor, Session, read_text_file, text_pieces
from dolmen.types import Arrays, Prediction, UserError
from trends.predictions import Trend
from trends.processor import SeriesProcessor


class TrendPredictor(Predictor[SeriesProcessor]):
    """Series to ``Trend``; of a stream a ``Trend`` after each value."""

    Processor: ClassVar[type[Any]] = SeriesProcessor
    takes: ClassVar[str] = "text"
    PredictionType: ClassVar[type[Prediction]] = Trend
    ExplanationType: ClassVar[type[Prediction] | None] = Trend
    inputs_help: ClassVar[str] = "series, or files that hold one"
    is_stateful = True

    def predict(
        self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        """Yield the trend of each series."""
        del options, batch_size
        for raw in inputs:
            try:
                yield raw, self.trends(raw)[-1]
            except UserError as error:
                yield raw, error

    def trends(self, raw: Any) -> list[Trend]:
        """What is said of a series after each of its values."""
        text = read_text_file(raw, "a series of numbers") if isinstance(raw, Path) else str(raw)
        logits = self.network.steps().read(self.processor.encode(text))
        return [self.processor.decode(row, n) for n, row in enumerate(logits, 1)]

    def explain_input(self, raw: Any) -> Prediction:
        """The first value from which on the answer stays the same."""
        trends = self.trends(raw)
        turns = [n for n, t in enumerate(trends) if t.label != trends[-1].label]
        return trends[turns[-1] + 1 if turns else 0]

    def example(self) -> Any:
        """A series, to measure speed with."""
        return " ".join(["0"] * 20)

    def step(self) -> Any:
        """(1, 1) frames of a stream."""
        return self.processor.encode("0")

    def labels(self) -> tuple[str, ...]:
        """The trends."""
        return self.processor.classes

    def expand(self, inputs: Sequence[str]) -> Iterator[Any]:
        """Series as they are; the name of a file stands for what is in it."""
        for name in inputs:
            yield Path(name) if Path(name).is_file() else name

    def session(self, idle_timeout_s: float | None = None, options: BaseModel | None = None) -> Session:
        """A series that goes on."""
        del options
        return TrendSession(self, idle_timeout_s)

    def pieces(self, source: str, options: BaseModel) -> Iterator[str]:
        """Numbers on standard input, or in a file."""
        del options
        return text_pieces(source)


class TrendSession(Session):
    """A series that comes bit by bit; its state is the network's, and the number that may not be whole yet."""

    def __init__(self, predictor: TrendPredictor, idle_timeout_s: float | None) -> None:
        super().__init__(idle_timeout_s)
        self.processor, self.steps = predictor.processor, predictor.network.steps()
        self.held, self.num_values = "", 0

    def _feed(self, chunk: Any) -> list[Prediction]:
        text = self.held + str(chunk)
        cut = max((i + 1 for i, c in enumerate(text) if c.isspace()), default=0)
        results, self.held = self._read(text[:cut]), text[cut:]
        return results

    def _finish(self) -> list[Prediction]:
        text, self.held = self.held, ""
        return self._read(text)

    def _read(self, text: str) -> list[Prediction]:
        if not text.strip():
            return []
        start, steps = self.num_values + 1, self.processor.encode(text)
        self.num_values += len(steps)
        return [self.processor.decode(row, n) for n, row in enumerate(self.steps.read(steps), start)]

    def _reset(self) -> None:
        self.held, self.num_values = "", 0
        self.steps.reset()

    def _save(self) -> tuple[Arrays, dict[str, Any]]:
        return self.steps.state, {"held": self.held, "num_values": self.num_values}

    def _restore(self, arrays: Arrays, about: dict[str, Any]) -> bool:
        mine = self.steps.state
        if about.keys() != {"held", "num_values"} or {k: v.shape for k, v in arrays.items()} != {
            k: v.shape for k, v in mine.items()
        }:
            return False
        self.steps.state, self.held, self.num_values = arrays, about["held"], about["num_values"]
        return True
