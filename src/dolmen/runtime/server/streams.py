"""A session of a model for each WebSocket connection.

The client sends pieces of what the model takes: a picture's file, or 16-bit samples of sound, as a binary message; a
text as JSON of one field, as everything else. The server answers

========================  ==========================================================================
a piece                   ``{"results": [...]}``, what has become clear with it
``{"feed": text}``        the same
``{"finish": true}``      ``{"results": [...]}`` of what was held back because more could have come
``{"begin": {options}}``  ``{"done": true}``; the session begins anew, with options. ``rate`` of them is that of samples
``{"write": {options}}``  ``{"piece": text}`` as often as needed, then ``{"done": true}``
``{"stop": true}``        nothing; what is being written ends
``{"save": true}``        ``{"saved": base64}``
``{"restore": base64}``   ``{"done": true}``
``{"reset": true}``       ``{"done": true}``
anything else             ``{"error": sentence}``, as it does to what fails; the session goes on
========================  ==========================================================================
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect
from starlette.responses import JSONResponse

from dolmen.runtime.predictor import Session
from dolmen.runtime.server.batching import Batcher
from dolmen.runtime.server.gate import TOKEN_PREFIX, State
from dolmen.runtime.server.hosting import ModelSlot
from dolmen.runtime.server.input_types import rate_of
from dolmen.runtime.server.inputs import check_options, parse_json
from dolmen.runtime.server.limits import Limits, Refusal
from dolmen.runtime.server.logs import say
from dolmen.runtime.server.metrics import ServerMetrics
from dolmen.runtime.server.work import ModelFailedError, TextStream
from dolmen.types import Prediction, UserError

SUBPROTOCOL = "dolmen"
GOING_AWAY, UNSUPPORTED = 1001, 1003
MAX_REASON_BYTES = 123
"""Bytes that a closing frame has room for (RFC 6455)."""
COMMANDS = "feed, begin, write, stop, finish, reset, save, restore"


class Streams:
    """All sessions of a server."""

    def __init__(self, state: State, limits: Limits, metrics: ServerMetrics) -> None:
        self.state, self.limits, self.metrics = state, limits, metrics

    async def serve(self, socket: WebSocket, host: ModelSlot) -> None:
        """Serve one connection until either side ends it; refuse it where there are as many as there may be."""
        if self.state.num_sessions >= self.limits.max_sessions:
            sentence = f"there are {self.state.num_sessions} sessions, which is the most; connect again later"
            await socket.send_denial_response(JSONResponse({"error": sentence}, 429, {"Retry-After": "10"}))
            return
        batcher, start, num_messages = host.current, time.monotonic(), 0
        gauge = self.metrics.sessions.labels(host.name)
        self.state.num_sessions += 1
        gauge.inc()
        batcher.hold()
        try:
            offered = socket.scope.get("subprotocols", [])
            chosen = SUBPROTOCOL if SUBPROTOCOL in offered else None
            if chosen is None and any(word.startswith(TOKEN_PREFIX) for word in offered):
                chosen = next(word for word in offered if word.startswith(TOKEN_PREFIX))
            await socket.accept(chosen)
            connection = _Connection(socket, host, batcher, self.limits)
            num_messages = await connection.run(self.state.drained)
        finally:
            batcher.release()
            gauge.dec()
            self.state.num_sessions -= 1
            say("session", model=host.name, messages=num_messages, seconds=round(time.monotonic() - start, 3))


class _Connection:
    def __init__(self, socket: WebSocket, host: ModelSlot, batcher: Batcher, limits: Limits) -> None:
        self.socket, self.host, self.batcher, self.limits = socket, host, batcher, limits
        self.model = batcher.model
        self.rate = host.takes.stream_rate(self.model.processor)
        self.next: asyncio.Task[Any] | None = None

    async def run(self, drained: asyncio.Event) -> int:
        """Answer message after message, until either side ends it; return how many there were."""
        ending, num_messages = asyncio.ensure_future(drained.wait()), 0
        try:
            try:
                await self._begin({})
            except UserError as error:
                await self._close(UNSUPPORTED, str(error))
                return num_messages
            while True:
                self._listen()
                assert self.next is not None
                await asyncio.wait(
                    (self.next, ending), timeout=self.limits.idle_timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not self.next.done():
                    reason = "the server is shutting down" if ending.done() else "nothing came for too long"
                    await self._close(GOING_AWAY, f"{reason}; connect again")
                    return num_messages
                message = self._received()
                if message["type"] == "websocket.disconnect":
                    return num_messages
                num_messages += 1
                await self._answer(message)
        except (WebSocketDisconnect, RuntimeError):  # the client has left while we sent
            return num_messages
        finally:
            ending.cancel()
            if self.next is not None:
                self.next.cancel()

    def _listen(self) -> None:
        if self.next is None:
            self.next = asyncio.ensure_future(self.socket.receive())

    def _received(self) -> Any:
        assert self.next is not None
        message, self.next = self.next.result(), None
        return message

    async def _answer(self, message: Any) -> None:
        try:
            async with contextlib.aclosing(self._answers(message)) as answers:
                async for answer in answers:
                    await self.socket.send_json(answer)
        except Refusal as refusal:
            await self.socket.send_json({"error": refusal.sentence})
        except (UserError, ModelFailedError) as error:
            await self.socket.send_json({"error": str(error)})
        except TimeoutError:
            await self.socket.send_json({"error": f"it was not done after {self.limits.timeout_s:g} s"})

    async def _answers(self, message: Any) -> AsyncGenerator[dict[str, Any]]:
        if (content := message.get("bytes")) is not None:
            if not self.host.takes.is_file:
                raise self._wrong_form()
            takes, rate, limits = self.host.takes, self.rate, self.limits
            yield await self._results(lambda: self.session.feed(takes.piece(content, rate, limits)))
            return
        values = parse_json(message["text"].encode("utf-8", "surrogatepass"))
        if not isinstance(values, dict) or len(values) != 1:
            raise Refusal(422, f"a message is a JSON object with one of these fields: {COMMANDS}")
        [(name, value)] = values.items()
        if name == "feed":
            yield await self._results(functools.partial(self.session.feed, self._text(value)))
        elif name == "write":
            async with contextlib.aclosing(self._write(value)) as pieces:
                async for answer in pieces:
                    yield answer
        elif name == "stop":
            return  # nothing is being written any more, and the end of that was said
        elif name == "begin":
            await self._begin(value)
            yield {"done": True}
        elif name == "finish":
            yield await self._results(self.session.finish)
        elif name == "reset":
            await self._call(self.session.reset)
            yield {"done": True}
        elif name == "save":
            yield {"saved": base64.b64encode(await self._call(self.session.save)).decode()}
        elif name == "restore":
            await self._call(functools.partial(self.session.restore, unpack_session(value)))
            yield {"done": True}
        else:
            raise Refusal(422, f"a message is a JSON object with one of these fields: {COMMANDS}")

    async def _begin(self, values: Any) -> None:
        """Begin anew with options; what is wrong with them leaves everything as it was."""
        rate = self.rate
        if rate is not None and isinstance(values, dict) and "rate" in values:
            rate = rate_of(values["rate"])
            values = {name: value for name, value in values.items() if name != "rate"}
        options = check_options(values, self.model.predictor.Streaming)
        work = functools.partial(self.model.stream, idle_timeout_s=self.limits.idle_timeout_s, **options)
        self.session: Session = await self._call(work)
        self.rate = rate

    def _wrong_form(self) -> Refusal:
        takes = self.host.takes
        return Refusal(422, f"this model takes {takes.plural.lower()}; send them {takes.stream_form}")

    def _text(self, value: Any) -> str:
        if self.host.takes.is_file:
            raise self._wrong_form()
        if not isinstance(value, str):
            raise Refusal(422, "feed must be a text")
        if len(value) > self.limits.max_characters:
            raise Refusal(422, f"a piece of {len(value):,} characters, the most is {self.limits.max_characters:,}")
        return value

    async def _results(self, work: Callable[[], list[Prediction]]) -> dict[str, Any]:
        return await self._call(lambda: {"results": [p.to_json() for p in work()]})  # type: ignore[no-any-return]

    async def _call(self, work: Callable[[], Any], *, stream_text: bool = False) -> Any:
        call = self.batcher.call(work, time.monotonic() + self.limits.timeout_s, stream_text=stream_text)
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                return await asyncio.shield(call.future)
        finally:
            if not call.future.done():
                self.batcher.forget(call)

    async def _write(self, options: Any) -> AsyncGenerator[dict[str, Any]]:
        if not self.model.predictor.writes:
            raise Refusal(422, "this model does not write")
        chosen = check_options(options, self.model.Options)
        stream: TextStream = await self._call(lambda: self.session.write(**chosen), stream_text=True)
        listening = asyncio.ensure_future(self._stop_on_request(stream))
        try:
            async for piece in stream:
                yield {"piece": piece}
        finally:
            stream.stop()
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening
            await stream.finished.wait()  # the session must not be touched before
        yield {"done": True}

    async def _stop_on_request(self, stream: TextStream) -> None:
        """Listen while a text is written: a stop, or the end of the connection, ends it; all else waits."""
        self._listen()
        assert self.next is not None
        await asyncio.wait((self.next,))
        message = self.next.result()
        if message["type"] == "websocket.disconnect":
            stream.stop()
        elif (message.get("text") or "").replace(" ", "") == '{"stop":true}':
            self.next = None
            stream.stop()

    async def _close(self, code: int, reason: str) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self.socket.send_json({"error": reason})
            await self.socket.close(code, reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore"))


def unpack_session(value: Any) -> bytes:
    """The bytes of a saved session.

    Raises:
        Refusal: it is not base64.
    """
    try:
        return (
            base64.b64decode(value, validate=True) if isinstance(value, str) else base64.b64decode("?", validate=True)
        )
    except (binascii.Error, ValueError):
        raise Refusal(422, "restore must be what save gave, in base64") from None
