"""Dynamic micro-batching: one thread a model, and one bounded queue before it.

Whatever waits when the thread becomes free is computed together, up to ``max_batch``; only where that is less, the
first input waits up to ``max_wait_ms`` for others. Texts that are written get turns of a few hundredths of a second, so
that nobody waits for another's long text.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from dolmen.predictions import Text
from dolmen.runtime.model import Model
from dolmen.runtime.server.limits import Limits, busy
from dolmen.runtime.server.logs import fail
from dolmen.runtime.server.metrics import ServerMetrics
from dolmen.runtime.server.work import Call, Item, Job, ModelFailedError, Outcome, TextStream, hand_over, resolve
from dolmen.types import UserError

TURN_S = 0.02
"""How long a text is written on before others have their turn."""
MAX_TEXT_STREAMS = 16
"""Texts that are written at the same time; what comes beyond waits in the queue."""


class Batcher:
    """A model with its thread and its queue.

    Args:
        name: of the model, for metrics and the log.
        weigh: what an input costs beside others (pixels, characters); it raises UserError for one that costs too much.
        max_weight: of inputs that are computed together.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        limits: Limits,
        metrics: ServerMetrics,
        *,
        weigh: Callable[[Any], int] = lambda _: 0,
        max_weight: int = 1,
    ) -> None:
        self.name, self.model, self.limits, self.weigh, self.max_weight = name, model, limits, weigh, max_weight
        self.metrics = metrics
        self._inputs = {o: metrics.inputs.labels(name, o) for o in ("answered", "refused", "failed")}
        self._sizes, self._seconds = metrics.batches.labels(name), metrics.batch_seconds.labels(name)
        self._changed = threading.Condition()
        self._waiting: deque[Item | Call] = deque()
        self._text_streams: list[TextStream] = []
        self._holders, self._retired = 0, False
        self.thread = threading.Thread(target=self._run, name=f"model {name}", daemon=True)
        self.thread.start()

    # ---- in the event loop

    def submit(
        self, inputs: Sequence[Any], options: dict[str, Any], deadline: float, *, stream_text: bool = False
    ) -> Job:
        """Queue the inputs of a request.

        Raises:
            Refusal: there is no room for them.
        """
        job = Job(len(inputs), options, deadline, stream_text=stream_text)
        self._add([Item(job, place, raw) for place, raw in enumerate(inputs)])
        return job

    def call(self, work: Callable[[], Any], deadline: float, *, stream_text: bool = False) -> Call:
        """Queue a call of a session.

        Raises:
            Refusal: there is no room for it.
        """
        call = Call(work, deadline, stream_text=stream_text)
        self._add([call])
        return call

    def _add(self, new: Sequence[Item | Call]) -> None:
        with self._changed:
            before = len(self._waiting)
            if before + len(new) > self.limits.queue:
                raise busy(f"{before} inputs wait for this model, the most is {self.limits.queue}; send it again later")
            self._waiting.extend(new)
            # a thread that waits for company is woken when it is complete: each waking costs more than an answer
            if not before or len(self._waiting) >= self.limits.max_batch or isinstance(new[0], Call):
                self._changed.notify()

    def forget(self, work: Job | Call) -> None:
        """Nobody waits for this any more: what has not begun is dropped."""
        work.cancelled = True
        work.future.cancel()
        with self._changed:
            kept = [w for w in self._waiting if w is not work and not (isinstance(w, Item) and w.job is work)]
            self._waiting = deque(kept)
            self._changed.notify()

    @property
    def num_waiting(self) -> int:
        """How many inputs wait."""
        return len(self._waiting)

    def hold(self) -> None:
        """A session begins: the thread stays although the model is replaced."""
        self._holders += 1

    def release(self) -> None:
        """A session has ended."""
        with self._changed:
            self._holders -= 1
            self._changed.notify()

    def retire(self) -> None:
        """End when all that was accepted is done and no session is left."""
        with self._changed:
            self._retired = True
            self._changed.notify()

    # ---- in the model's thread

    def _run(self) -> None:
        while True:
            work = self._take()
            if work is None:
                return
            if isinstance(work, Call):
                self._do(work)
            elif work:
                self._predict(work)
            for stream in list(self._text_streams):
                if stream.has_room and stream.advance(TURN_S):
                    self._text_streams.remove(stream)

    def _take(self) -> list[Item] | Call | None:
        """Wait for work: a batch (empty where there are only texts to write on), a call, or None for the end."""
        while True:
            with self._changed:
                work = self._next()
                if work is None:
                    continue
                if work == []:
                    return None if self._is_over() else []
            if isinstance(work, Call):
                return work
            if batch := self._weighed(work):
                return batch

    def _is_over(self) -> bool:
        return self._retired and not self._holders and not self._waiting and not self._text_streams

    def _next(self) -> list[Item] | Call | None:
        """What to do now; None after waiting for a change. The lock is held."""
        full = len(self._text_streams) >= MAX_TEXT_STREAMS
        while self._waiting:
            head = self._waiting[0]
            if (head.job if isinstance(head, Item) else head).dead:
                self._waiting.popleft()
                continue
            if full:
                break
            if isinstance(head, Call):
                self._waiting.popleft()
                return head
            batch = self._batch_with(head)
            patience = head.since + self.limits.max_wait_ms / 1000 - time.monotonic()
            if len(batch) >= self.limits.max_batch or patience <= 0 or self._text_streams or self._retired:
                taken = set(map(id, batch))
                self._waiting = deque(w for w in self._waiting if id(w) not in taken)
                return batch
            self._changed.wait(patience)
        if any(stream.has_room for stream in self._text_streams) or self._is_over():
            return []
        # a text without room is looked at again, so that its deadline ends it
        self._changed.wait(0.25 if self._text_streams else None)
        return None

    def _batch_with(self, head: Item) -> list[Item]:
        """The waiting inputs that can be computed together with the first."""
        batch = []
        for work in self._waiting:
            if isinstance(work, Item) and work.job.key == head.job.key and not work.job.dead:
                batch.append(work)
                if len(batch) == self.limits.max_batch:
                    break
        return batch

    def _weighed(self, items: list[Item]) -> list[Item]:
        """As many as are not too much together; the others go back to the front, and what costs too much is settled."""
        batch: list[Item] = []
        back: list[Item] = []
        settled: list[tuple[Item, Outcome]] = []
        total = 0
        for item in items:
            if item.weight < 0:
                try:
                    item.weight = self.weigh(item.raw)
                except UserError as error:
                    settled.append((item, error))
                    continue
                except Exception as error:
                    fail("input can't be weighed", error, model=self.name)
                    settled.append((item, ModelFailedError()))
                    continue
            if back or (batch and total + item.weight > self.max_weight):
                back.append(item)
                continue
            total += item.weight
            batch.append(item)
        if back:
            with self._changed:
                self._waiting.extendleft(reversed(back))
        self._settle(settled)
        return batch

    def _predict(self, items: Sequence[Item]) -> None:
        start = time.monotonic()
        outcomes = self._outcomes(items)
        self._sizes.observe(len(items))
        self._seconds.observe(time.monotonic() - start)
        self._settle([(i, o) for i, o in zip(items, outcomes, strict=True) if o is not None])

    def _outcomes(self, items: Sequence[Item]) -> list[Outcome | None]:
        """The outcome of each input; None for a text that is still to be written."""
        job = items[0].job
        try:
            predictions = self.model.predict_each([i.raw for i in items], batch_size=len(items), **job.options)
            answers = [p if isinstance(p, (UserError, Text)) else dict(p.to_json()) for _, p in predictions]
            if len(answers) != len(items):
                raise RuntimeError(f"{len(items)} inputs, {len(answers)} answers")
        except UserError as error:
            return [error] * len(items)
        except Exception as error:
            if len(items) > 1:  # the others are not to blame
                return [outcome for item in items for outcome in self._outcomes([item])]
            fail("model failed", error, model=self.name)
            return [ModelFailedError()]
        for item, answer in zip(items, answers, strict=True):
            if isinstance(answer, Text):
                self._begin(item, answer)
        return [None if isinstance(a, Text) else a for a in answers]

    def _begin(self, item: Item, text: Text) -> None:
        """Write a text in turns, and hand it over as it comes, or as a whole."""
        job = item.job
        stream = self._open_stream(text.pieces, job, None if job.stream_text else self._ending(item, text))
        if job.stream_text:
            hand_over(job.loop, resolve, [(job.future, stream)])

    def _ending(self, item: Item, prediction: Text) -> Callable[[str, Exception | None], None]:
        """What happens when a text that is handed over as a whole has been written."""

        def ended(text: str, end: Exception | None) -> None:
            if end is None:
                outcome: Outcome = dict(Text(prediction.prompt, iter((text,))).to_json())
            elif isinstance(end, (UserError, TimeoutError)):
                outcome = end
            else:
                fail("model failed", end, model=self.name)
                outcome = ModelFailedError()
            self._settle([(item, outcome)])

        return ended

    def _open_stream(
        self, pieces: Iterator[str], work: Job | Call, ended: Callable[[str, Exception | None], None] | None
    ) -> TextStream:
        stream = TextStream(_until_dead(pieces, work), work.loop, work.deadline, wake=self._wake, ended=ended)
        self._text_streams.append(stream)
        return stream

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _do(self, call: Call) -> None:
        result: Any
        try:
            result = call.work()
            if call.stream_text:
                result = self._open_stream(iter(result), call, None)
        except UserError as error:
            result = error
        except Exception as error:
            fail("model failed", error, model=self.name)
            result = ModelFailedError()
        hand_over(call.loop, resolve, [(call.future, result)])

    def _settle(self, pairs: Iterable[tuple[Item, Outcome]]) -> None:
        """Hand over the answers of the requests that are complete now, all of them at once."""
        done: dict[Any, list[tuple[Any, Any]]] = {}
        for item, outcome in pairs:
            label = (
                "answered" if isinstance(outcome, dict) else "refused" if isinstance(outcome, UserError) else "failed"
            )
            self._inputs[label].inc()
            if item.job.settle(item.place, outcome):
                if item.job.stream_text and isinstance(outcome, Exception):
                    done.setdefault(item.job.loop, []).append((item.job.future, outcome))
                else:
                    done.setdefault(item.job.loop, []).append((item.job.future, item.job.outcomes))
        for loop, answers in done.items():
            hand_over(loop, resolve, answers)


def _until_dead(pieces: Iterator[str], work: Job | Call) -> Iterator[str]:
    """A text ends where nobody waits for it any more."""
    for piece in pieces:
        yield piece
        if work.cancelled:
            return
