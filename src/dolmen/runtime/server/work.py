"""What a model's thread computes: inputs of requests, calls of sessions, and texts that are written bit by bit."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from dolmen.types import UserError

MAX_AHEAD_CHARACTERS = 1 << 16
"""Characters that are written ahead of a slow reader."""


class ModelFailedError(RuntimeError):
    """The model raised what it should not; the log says where."""

    def __init__(self) -> None:
        super().__init__("the model failed on this input; the server's log says where")


Outcome = dict[str, Any] | UserError | ModelFailedError | TimeoutError
"""A prediction as plain JSON values, or why there is none."""


class Job:
    """The inputs of one request.

    Attributes:
        options: of the model.
        key: equal for jobs whose inputs may be computed together.
        deadline: of ``time.monotonic``; what has not begun by then is dropped.
        stream_text: whether texts are handed over while they are written.
        future: the outcomes in the order of the inputs, or the one ``TextStream``.
    """

    def __init__(self, num_inputs: int, options: dict[str, Any], deadline: float, *, stream_text: bool = False) -> None:
        self.options, self.deadline, self.stream_text = options, deadline, stream_text
        self.key = repr(sorted(options.items()))
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[list[Outcome] | TextStream] = self.loop.create_future()
        self.outcomes: list[Outcome | None] = [None] * num_inputs
        self.left = num_inputs
        self.cancelled = False

    @property
    def dead(self) -> bool:
        """Nobody waits for it any more, or it is past its deadline."""
        return self.cancelled or time.monotonic() > self.deadline

    def settle(self, place: int, outcome: Outcome) -> bool:
        """Note an outcome; whether it was the last one. In the model's thread."""
        self.outcomes[place] = outcome
        self.left -= 1
        return self.left == 0


class Item:
    """One input of a job."""

    __slots__ = ("job", "place", "raw", "since", "weight")

    def __init__(self, job: Job, place: int, raw: Any) -> None:
        self.job, self.place, self.raw = job, place, raw
        self.since, self.weight = time.monotonic(), -1


class Call:
    """Something that is done between two batches.

    Attributes:
        work: is called in the model's thread.
        stream_text: whether it returns the pieces of a text.
        future: what it returns; of pieces a ``TextStream``.
    """

    def __init__(self, work: Callable[[], Any], deadline: float, *, stream_text: bool = False) -> None:
        self.work, self.deadline, self.stream_text = work, deadline, stream_text
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.cancelled = False

    @property
    def dead(self) -> bool:
        """Nobody waits for it any more, or it is past its deadline."""
        return self.cancelled or time.monotonic() > self.deadline


class TextStream:
    """A text that is written in the model's thread and read in the event loop.

    Args:
        pieces: of the text.
        loop: where it is read.
        deadline: of ``time.monotonic``.
        wake: called when there is room again, for the model's thread.
        ended: called with the whole text at the end, in the model's thread; nobody reads the pieces then.

    Attributes:
        finished: done when the model's thread has left the text, whoever read it.
    """

    def __init__(
        self,
        pieces: Iterator[str],
        loop: asyncio.AbstractEventLoop,
        deadline: float,
        *,
        wake: Callable[[], None],
        ended: Callable[[str, Exception | None], None] | None = None,
    ) -> None:
        self.pieces, self.loop, self.deadline, self.wake, self.ended = pieces, loop, deadline, wake, ended
        self.written = self.read = 0  # each is changed by one thread only
        self.stopped = False
        self.texts: list[str] = []
        self._queue: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self.finished = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """Whether it may be written on."""
        return self.written - self.read < MAX_AHEAD_CHARACTERS or self.stopped or time.monotonic() > self.deadline

    def advance(self, seconds: float) -> bool:
        """Write on for a moment; whether that was the end of it. In the model's thread."""
        until, pieces = time.monotonic() + seconds, list[str]()
        end: Exception | None = None
        over = False
        try:
            while True:
                if self.stopped or time.monotonic() > self.deadline:
                    over, end = True, None if self.stopped else TimeoutError()
                    break
                pieces.append(next(self.pieces))
                self.written += len(pieces[-1])
                if time.monotonic() > until or (self.ended is None and not self.has_room):
                    break
        except StopIteration:
            over = True
        except Exception as error:
            over, end = True, error
        if over:
            with contextlib.suppress(Exception):
                getattr(self.pieces, "close", lambda: None)()
        text = "".join(pieces)
        if self.ended is not None:
            self.read = self.written
            self.texts.append(text)
            if over:
                self.ended("".join(self.texts), end)
        else:
            hand_over(self.loop, self._deliver, text, over, end)
        return over

    def _deliver(self, text: str, over: bool, end: Exception | None) -> None:
        if text:
            self._queue.put_nowait(text)
        if over:
            self._queue.put_nowait(end)
            self.finished.set()

    def stop(self) -> None:
        """Write no further."""
        self.stopped = True
        self.wake()

    async def __aiter__(self) -> AsyncIterator[str]:
        """The pieces as they come, several together where they came together.

        Raises:
            TimeoutError: time is up.
            UserError: the model can't go on.
        """
        try:
            while (piece := await self._queue.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                self.read += len(piece)
                if self.written - self.read < MAX_AHEAD_CHARACTERS // 2:
                    self.wake()
                yield piece
        finally:
            self.stop()


def hand_over(loop: asyncio.AbstractEventLoop, work: Callable[..., None], *arguments: Any) -> None:
    """Do something in the event loop, unless it has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(work, *arguments)


def resolve(pairs: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    """Set futures to their results, in the event loop; those that nobody waits for any more are left alone."""
    for future, result in pairs:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
