"""What a run and a bundle have in common: they predict, and they stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dolmen.choices import validated
from dolmen.runtime.network import Network
from dolmen.runtime.predictor import Predictor, Session
from dolmen.types import Prediction, UserError


class Model:
    """A trained model that can be used.

    Attributes:
        path: the run folder, or the bundle.
        task_name: what it does.
        predictor: how it does it.
        kind: "run" (PyTorch) or "bundle" (ONNX Runtime).
        precision: of its weights, "fp32" or "int8".
    """

    path: Path
    task_name: str
    kind: str
    precision: str = "fp32"

    @property
    def predictor(self) -> Predictor[Any]:
        """What turns inputs, as a person has them, into predictions."""
        raise NotImplementedError

    @property
    def processor(self) -> Any:
        """What turns raw input into arrays, and outputs into predictions."""
        return self.predictor.processor

    @property
    def network(self) -> Network:
        """Arrays to arrays, of a task with one network; ``predictor.networks`` has them all by name."""
        return self.predictor.network

    @property
    def Options(self) -> type[BaseModel]:  # noqa: N802 - it is a class
        """What can be chosen for a prediction."""
        return self.predictor.Options

    def predict(self, inputs: Any, **options: Any) -> Any:
        """Predict one input, or a list of them.

        Args:
            inputs: what the task takes (for pictures: a path, the bytes of a file, an array, a PIL image; for
                recordings: a path, the bytes of a file, samples, or samples with their rate), or a list.
            options: of ``Options``.

        Returns:
            One prediction, or a list of as many.

        Raises:
            UserError: an input can't be read.
        """
        several = isinstance(inputs, (list, tuple)) and not self.predictor.is_one(inputs)
        results = []
        for _, prediction in self.predict_each(inputs if several else [inputs], **options):
            if isinstance(prediction, UserError):
                raise prediction
            results.append(prediction)
        return results if several else results[0]

    def predict_each(
        self, inputs: Iterable[Any], *, batch_size: int = 64, **options: Any
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        """Yield ``(input, prediction)`` with flat memory; an input that can't be read gives its error.

        Args:
            inputs: as for ``predict``.
            batch_size: inputs at once.
            options: of ``Options``.
        """
        chosen = validated(self.Options, options, self.task_name, f"dolmen predict {self.path} --help")
        return self.predictor.predict(inputs, chosen, batch_size=batch_size)

    def stream(self, *, idle_timeout_s: float | None = None, **options: Any) -> Session:
        """Begin a stream: pieces of input in, predictions out, with constant memory.

        Args:
            idle_timeout_s: after so many seconds without a call it is over; None for never.
            options: of ``predictor.Streaming``.
        """
        chosen = validated(self.predictor.Streaming, options, self.task_name, f"dolmen watch {self.path} --help")
        return self.predictor.session(idle_timeout_s, chosen)

    def watch(self, source: str | Path, **options: Any) -> Iterator[Prediction]:
        """Predict a live source, as it comes.

        Args:
            source: ``-`` for standard input, or what the task knows besides: a video, a folder of pictures.
            options: of ``predictor.Watching``.

        Raises:
            UserError: it can't be read.
        """
        chosen = validated(self.predictor.Watching, options, self.task_name, f"dolmen watch {self.path} --help")
        return self.predictor.watch(str(source), chosen)

    def describe(self) -> dict[str, Any]:
        """What it is, as plain JSON values."""
        return {
            "task": self.task_name,
            "kind": self.kind,
            "takes": self.predictor.takes,
            "labels": list(self.predictor.labels()),
        }
