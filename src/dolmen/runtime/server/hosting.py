"""A name and the model that answers under it at the moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dolmen.catalogue import TASKS
from dolmen.runtime.model import Model
from dolmen.runtime.predictor import Predictor
from dolmen.runtime.server.batching import Batcher
from dolmen.runtime.server.input_types import INPUT_TYPES, InputType
from dolmen.runtime.server.inputs import request_of
from dolmen.runtime.server.limits import Limits, busy
from dolmen.runtime.server.metrics import ServerMetrics
from dolmen.runtime.server.page_files import panel_path
from dolmen.runtime.server.replies import LimitsReply
from dolmen.runtime.server.served import Opener, served_options
from dolmen.types import UserError

MAX_EXPLANATIONS = 4
"""Explanations that may wait: each may take as long as hundreds of predictions."""


class ModelSlot:
    """A model under its name.

    Attributes:
        name: as in the address.
        path: where it is loaded from.
        current: the model that answers now, with its thread.
        version: 1, and one more each time that it was loaded again.
        takes: what an input is.
        panel: where the page finds how it shows this task; None where it has no way of its own.
        request: the JSON that ``predict`` takes.
    """

    def __init__(self, name: str, path: Path, open_model: Opener, limits: Limits, metrics: ServerMetrics) -> None:
        self.name, self.path, self.limits, self.metrics, self._open = name, path, limits, metrics, open_model
        self.version = 1
        self.current = self._batcher(open_model(path))
        self.task, self.takes = self.model.task_name, _takes(self.model)
        self.panel = panel_path(self.task)
        self.request = request_of(self.takes, self.model.Options, limits.max_inputs)
        # beside the model's own thread, so that nobody's prediction waits for an explanation
        self._side = ThreadPoolExecutor(1, thread_name_prefix=f"explain {name}")
        self._num_explanations = 0

    def _batcher(self, model: Model) -> Batcher:
        takes, limits = _takes(model), self.limits
        return Batcher(
            self.name, model, limits, self.metrics,
            weigh=lambda raw: takes.weigh(raw, limits), max_weight=takes.max_weight(limits),
        )  # fmt: skip

    @property
    def model(self) -> Model:
        """The model that answers now."""
        return self.current.model

    @property
    def predictor(self) -> Predictor[Any]:
        """The predictor of the model that answers now."""
        return self.model.predictor

    def load_again(self) -> Model:
        """Open what lies at ``path`` now, beside the model that answers; in any thread.

        Raises:
            UserError: it is of another task, whose answers nobody here expects.
        """
        model = self._open(self.path)
        if model.task_name != self.task:
            raise UserError(f"{self.path} is now of the task {model.task_name}, it was {self.task}; restart the server")
        return model

    def replace(self, model: Model) -> None:
        """Let this model answer from now on; the other finishes what it accepted. In the event loop."""
        old, self.current = self.current, self._batcher(model)
        self.version += 1
        old.retire()

    def close(self) -> None:
        """End when what was accepted is done."""
        self.current.retire()
        self._side.shutdown(wait=False, cancel_futures=True)

    def num_waiting(self) -> int:
        """How many inputs wait."""
        return self.current.num_waiting

    def about(self) -> dict[str, Any]:
        """What ``/v1/models`` says of it."""
        model, predictor = self.model, self.predictor
        return {
            "name": self.name,
            "task": self.task,
            "does": TASKS[self.task].does,
            "takes": predictor.takes,
            "media": list(self.takes.media),
            "kind": model.kind,
            "precision": model.precision,
            "labels": list(predictor.labels()),
            "explains": predictor.explains,
            "streams": predictor.accepts_stream,
            "options": served_options(predictor.Options).model_json_schema(),
            "stream_options": served_options(predictor.Streaming).model_json_schema(),
            "panel": self.panel,
            "version": self.version,
            "limits": {name: getattr(self.limits, name) for name in LimitsReply.model_fields},
        }

    async def explain(self, raw: Any, seconds: float) -> Mapping[str, Any]:
        """What the answer to an input rests on.

        Raises:
            Refusal: too many wait for it.
            UserError: the input can't be read.
            TimeoutError: it took too long.
        """
        if self._num_explanations >= MAX_EXPLANATIONS:
            raise busy(
                f"{MAX_EXPLANATIONS} answers are being explained, which is the most; send it again later", after_s=5
            )
        predictor, until = self.predictor, time.monotonic() + seconds

        def work() -> Mapping[str, Any]:
            if time.monotonic() > until:
                raise TimeoutError
            self.takes.weigh(raw, self.limits)
            return predictor.explain_input(raw).to_json()

        self._num_explanations += 1
        future = asyncio.get_running_loop().run_in_executor(self._side, work)
        future.add_done_callback(self._end_explanation)
        async with asyncio.timeout(seconds):
            return await asyncio.shield(future)

    def _end_explanation(self, future: asyncio.Future[Any]) -> None:
        self._num_explanations -= 1
        if not future.cancelled():
            future.exception()  # whoever asked may have left


def _takes(model: Model) -> InputType:
    return INPUT_TYPES[model.predictor.takes]
