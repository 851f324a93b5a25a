"""A name and the model that answers under it at the moment."""

from __future__ import annotations

import asyncio
import io
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dolmen.processors.images.image import FORMATS, ImageProcessor, quiet_pillow
from dolmen.runtime.model import Model
from dolmen.runtime.server.batching import Batcher
from dolmen.runtime.server.inputs import request_of
from dolmen.runtime.server.kinds import INPUT_KINDS, InputKind, num_pixels
from dolmen.runtime.server.limits import Limits, busy
from dolmen.runtime.server.metrics import ServerMetrics
from dolmen.runtime.server.replies import LimitsReply
from dolmen.runtime.server.served import Opener, options_of
from dolmen.types import UserError

GRID = 64
"""Most places along a side of a heat map."""
MAX_EXPLAINED = 4
"""Heat maps that may wait: each takes as long as hundreds of predictions."""


class ModelSlot:
    """A model under its name.

    Attributes:
        name: as in the address.
        path: where it is loaded from.
        current: the model that answers now, with its thread.
        version: 1, and one more each time that it was loaded again.
        takes: what an input is.
        request: the JSON that ``predict`` takes.
    """

    def __init__(self, name: str, path: Path, open_model: Opener, limits: Limits, metrics: ServerMetrics) -> None:
        self.name, self.path, self.limits, self.metrics, self._open = name, path, limits, metrics, open_model
        self.version = 1
        self.current = self._batcher(open_model(path))
        self.task, self.takes = self.current.model.task_name, _takes(self.current.model)
        self.request = request_of(self.takes, self.current.model.Options, limits.max_inputs)
        # beside the model's own thread, so that nobody's prediction waits for a heat map
        self._side = ThreadPoolExecutor(1, thread_name_prefix=f"explain {name}")
        self._explained = 0

    def _batcher(self, model: Model) -> Batcher:
        takes, limits = _takes(model), self.limits
        return Batcher(
            self.name, model, limits, self.metrics,
            weigh=lambda raw: takes.weigh(raw, limits), max_weight=takes.most(limits),
        )  # fmt: skip

    @property
    def model(self) -> Model:
        """The model that answers now."""
        return self.current.model

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
        """From now on this one answers; the other finishes what it accepted. In the event loop."""
        old, self.current = self.current, self._batcher(model)
        self.version += 1
        old.retire()

    def close(self) -> None:
        """No more work comes."""
        self.current.retire()
        self._side.shutdown(wait=False, cancel_futures=True)

    def num_waiting(self) -> int:
        """Inputs that wait."""
        return self.current.num_waiting

    @property
    def explains(self) -> bool:
        """Whether it can say what an answer rests on."""
        return hasattr(self.model.predictor, "heat_map")

    @property
    def streams(self) -> bool:
        """Whether it takes input piece by piece: a network that reads backwards, too, needs the whole."""
        return bool(getattr(self.model.processor, "streams", True))

    def about(self) -> dict[str, Any]:
        """What ``/v1/models`` says of it."""
        said = self.model.describe()
        limits = {name: getattr(self.limits, name) for name in LimitsReply.model_fields}
        return {
            "name": self.name,
            "task": said["task"],
            "takes": said["takes"],
            "kind": said["kind"],
            "precision": said.get("precision"),
            "labels": list(said.get("labels", ())),
            "explains": self.explains,
            "streams": self.streams,
            "options": options_of(self.model.Options).model_json_schema(),
            "stream_options": options_of(self.model.predictor.Streaming).model_json_schema(),
            "version": self.version,
            "limits": limits,
        }

    async def explain(self, raw: bytes, seconds: float) -> dict[str, Any]:
        """What the answer to a picture rests on.

        Raises:
            Refusal: too many wait for it.
            UserError: the picture can't be read.
            TimeoutError: it took too long.
        """
        if self._explained >= MAX_EXPLAINED:
            raise busy(f"{MAX_EXPLAINED} heat maps are being made, which is the most; send it again later", after_s=5)
        model, until = self.model, time.monotonic() + seconds
        predictor: Any = model.predictor  # ``explains`` says that it has heat maps

        def work() -> dict[str, Any]:
            if time.monotonic() > until:
                raise TimeoutError
            num_pixels(raw, self.limits)
            label, found = predictor.heat_map(raw)
            return {"label": label, "heat_map": grid(found), "area": area(model.processor, raw)}

        self._explained += 1
        future = asyncio.get_running_loop().run_in_executor(self._side, work)
        future.add_done_callback(self._explained_one)
        async with asyncio.timeout(seconds):
            return await asyncio.shield(future)

    def _explained_one(self, future: asyncio.Future[Any]) -> None:
        self._explained -= 1
        if not future.cancelled():
            future.exception()  # whoever asked may have left


def _takes(model: Model) -> InputKind:
    return INPUT_KINDS[str(model.describe()["takes"])]


def grid(heat: NDArray[Any]) -> list[list[float]]:
    """(H, W) of 0..1 -> at most ``GRID`` places a side, with three digits. A place takes the most of what it covers."""
    rows, columns = (-(-side // GRID) for side in heat.shape)
    height, width = -(-heat.shape[0] // rows), -(-heat.shape[1] // columns)
    padded = np.zeros((height * rows, width * columns), np.float64)
    padded[: heat.shape[0], : heat.shape[1]] = np.nan_to_num(heat)
    small = padded.reshape(height, rows, width, columns).max((1, 3))
    return [[round(float(v), 3) for v in row] for row in np.clip(small, 0, 1)]


def area(processor: Any, raw: bytes) -> list[float]:
    """What part of the upright picture the network sees: left, top, right, bottom, in widths and heights of it."""
    whole = [0.0, 0.0, 1.0, 1.0]
    if not isinstance(processor, ImageProcessor) or processor.fit == "stretch":
        return whole
    with quiet_pillow():
        try:
            with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
                width, height = image.size
                if image.getexif().get(0x0112) in range(5, 9):
                    width, height = height, width
        except Exception:
            return whole
    choose = min if processor.fit == "crop" else max
    scale = choose(height / processor.height, width / processor.width)
    x, y = scale * processor.width / width, scale * processor.height / height
    return [round(v, 4) for v in ((1 - x) / 2, (1 - y) / 2, (1 + x) / 2, (1 + y) / 2)]
