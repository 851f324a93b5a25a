"""The application: its addresses, and what each of them does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response, StreamingResponse

from dolmen.runtime.server import replies
from dolmen.runtime.server.batching import Batcher
from dolmen.runtime.server.gate import AccessMiddleware, State
from dolmen.runtime.server.hosting import ModelSlot
from dolmen.runtime.server.inputs import ParsedRequest, read_inputs
from dolmen.runtime.server.limits import Limits, Memory, Refusal, body_of, busy
from dolmen.runtime.server.metrics import ServerMetrics
from dolmen.runtime.server.openapi import EVENTS, describe
from dolmen.runtime.server.page_files import add_page
from dolmen.runtime.server.reload import Watcher
from dolmen.runtime.server.served import Opener
from dolmen.runtime.server.streams import Streams
from dolmen.runtime.server.work import Job, ModelFailedError, Outcome, TextStream
from dolmen.types import UserError

MIN_THREADED_BYTES = 1 << 18
"""Size of a body from which on it is parsed in a thread: it would make everybody wait."""
REFUSALS = {
    400: "The body is damaged.",
    401: "The token is missing or wrong.",
    403: "A page of another host parsed.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body is of another type.",
    421: "Another name than that of this machine was asked for.",
    422: "The request says what it should not, or no input of it can be used.",
    429: "Too much waits; Retry-After says when to ask again.",
    500: "The model failed on every input.",
    503: "Time was up, or the server shuts down; Retry-After says when to ask again.",
}


def make_app(
    models: Mapping[str, Path],
    open_model: Opener,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    reload: bool = True,
    only_local: bool = False,
) -> FastAPI:
    """Load models and build the application that serves them.

    Args:
        models: where each lies, by the name under which it is served.
        open_model: opens a run or a bundle.
        limits: what requests may cost.
        token: who asks must know it.
        reload: look for new files in the place of the old ones.
        only_local: answer only to names of this machine.

    Raises:
        UserError: a model can't be opened.
    """
    limits, metrics, state = limits or Limits(), ServerMetrics(), State()
    hosts = {name: ModelSlot(name, path, open_model, limits, metrics) for name, path in models.items()}

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(Watcher(list(hosts.values())).run()) if reload else None
        yield
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
        for host in hosts.values():
            host.close()

    from dolmen import __version__

    app = FastAPI(
        title="Dolmen", version=__version__, docs_url=None, redoc_url=None, lifespan=life,
        description="Small models over HTTP: predictions, heat maps, texts that are written, and streams.",
    )  # fmt: skip
    app.state.shared, app.state.hosts, app.state.metrics = state, hosts, metrics
    app.add_middleware(AccessMiddleware, state=state, metrics=metrics, token=token, only_local=only_local)
    _add_error_handlers(app, hosts)
    memory = Memory(limits.max_held_bytes)
    metrics.held.set_function(lambda: memory.held)
    streams = Streams(state, limits, metrics)
    for host in hosts.values():
        metrics.waiting.labels(host.name).set_function(host.num_waiting)
        _add_model(app, host, Answers(host, limits, memory), streams, secured=token is not None)
    add_page(app, {host.task for host in hosts.values()})
    _add_facts(app, hosts, state, metrics)
    spec = describe(app, hosts, limits)
    app.openapi = lambda: spec  # type: ignore[method-assign]  # as FastAPI documents it
    return app


class Answers:
    """Requests of one model: from the body to its thread, and back to a response."""

    def __init__(self, host: ModelSlot, limits: Limits, memory: Memory) -> None:
        self.host, self.limits, self.memory = host, limits, memory

    async def predict(self, request: Request) -> Response:
        """Predict the inputs of a request."""
        host, deadline = self.host, time.monotonic() + self.limits.timeout_s
        seen = request.scope["state"]["seen"]
        seen["model"] = host.name
        async with self._in_time(request, deadline) as body:
            parsed = await self._parsed(request, body)
            seen |= {"inputs": len(parsed.inputs), "bytes": len(body)}
            unreadable: dict[int, Outcome] = {
                i: raw for i, raw in enumerate(parsed.inputs) if isinstance(raw, UserError)
            }
            readable = [raw for i, raw in enumerate(parsed.inputs) if i not in unreadable]
            as_events = EVENTS in request.headers.get("accept", "")
            if as_events and len(parsed.inputs) != 1:
                raise Refusal(422, f"a stream of events is of one input, this request has {len(parsed.inputs)}")
            result: list[Outcome] | TextStream = []
            if readable:
                batcher = host.current
                job = batcher.submit(readable, parsed.options, deadline, stream_text=as_events)
                result = await self._result(job, batcher, request)
            if isinstance(result, TextStream):
                return StreamingResponse(events(result), media_type=EVENTS)
            predicted = iter(result)
            outcomes = [unreadable[i] if i in unreadable else next(predicted) for i in range(len(parsed.inputs))]
            seen["errors"] = sum(not isinstance(o, dict) for o in outcomes) or None
            return JSONResponse({"model": host.name, "predictions": reply_values(outcomes)})

    async def explain(self, request: Request) -> Response:
        """Say what the answer to an input rests on."""
        deadline = time.monotonic() + self.limits.timeout_s
        request.scope["state"]["seen"]["model"] = self.host.name
        async with self._in_time(request, deadline) as body:
            parsed = await self._parsed(request, body)
            if len(parsed.inputs) != 1:
                raise Refusal(422, f"one input at a time can be explained, this request has {len(parsed.inputs)}")
            raw = parsed.inputs[0]
            if isinstance(raw, UserError):
                raise Refusal(422, str(raw))
            try:
                return JSONResponse(await self.host.explain(raw, deadline - time.monotonic()))
            except UserError as error:
                raise Refusal(422, str(error)) from None

    @contextlib.asynccontextmanager
    async def _in_time(self, request: Request, deadline: float) -> AsyncIterator[bytes]:
        """The body of a request; whatever is done with it ends at the deadline."""
        reading = True
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                async with body_of(request, self.limits, self.memory) as body:
                    reading = False
                    yield body
        except TimeoutError:
            if reading:
                sentence = f"the body was not there after {self.limits.timeout_s:g} s; send it faster, or less at once"
                raise Refusal(408, sentence, {"Connection": "close"}) from None
            raise busy(
                f"the answer was not ready after {self.limits.timeout_s:g} s; send it again later, or less at once",
                status=503, after_s=5,
            ) from None  # fmt: skip
        except ClientDisconnect:
            raise Refusal(400, "the connection ended before the body did") from None

    async def _parsed(self, request: Request, body: bytes) -> ParsedRequest:
        host, media = self.host, request.headers.get("content-type", "")
        arguments = (media, body, host.takes, host.model.Options, host.request, self.limits)
        if len(body) < MIN_THREADED_BYTES:  # handing it to a thread would take longer
            return read_inputs(*arguments)
        return await asyncio.to_thread(read_inputs, *arguments)

    async def _result(self, job: Job, batcher: Batcher, request: Request) -> list[Outcome] | TextStream:
        """Wait for a job; it is dropped if the client leaves or time is up."""
        left = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait((job.future, left), return_when=asyncio.FIRST_COMPLETED)
            if not job.future.done():
                raise Refusal(499, "the client has left")
            return job.future.result()
        except UserError as error:
            raise Refusal(422, str(error)) from None
        except ModelFailedError as error:
            raise Refusal(500, str(error)) from None
        finally:
            left.cancel()
            if not job.future.done():
                batcher.forget(job)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def reply_values(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Predictions as they are sent, with a sentence where there is none.

    Raises:
        Refusal: there is none at all.
    """
    if not any(isinstance(o, dict) for o in outcomes):
        first = outcomes[0]
        if any(isinstance(o, TimeoutError) for o in outcomes):
            raise TimeoutError
        status = 500 if all(isinstance(o, ModelFailedError) for o in outcomes) else 422
        prefix = f"none of the {len(outcomes)} inputs can be used; the first: " if len(outcomes) > 1 else ""
        raise Refusal(status, f"{prefix}{first}")
    return [o if isinstance(o, dict) else {"error": str(o) or "time was up before it was done"} for o in outcomes]


async def events(stream: TextStream) -> AsyncIterator[str]:
    """A text as events: ``{"piece"}`` as often as needed, then ``{"done": true}``, or ``{"error"}``."""
    try:
        async for piece in stream:
            yield event({"piece": piece})
        yield event({"done": True})
    except TimeoutError:
        yield event({"error": "time was up before the text was done; ask for a shorter one"})
    except UserError as error:
        yield event({"error": str(error)})
    except Exception:  # the model's thread has logged it
        yield event({"error": str(ModelFailedError())})
    finally:
        stream.stop()


def event(value: dict[str, Any]) -> str:
    """One event of a stream."""
    return f"data: {json.dumps(value)}\n\n"


# ---- addresses


def _add_model(app: FastAPI, host: ModelSlot, answers: Answers, streams: Streams, *, secured: bool) -> None:
    base = f"/v1/models/{host.name}"
    tags: list[str | Enum] = [host.name]
    refused: dict[int | str, dict[str, Any]] = {
        status: {"model": replies.Problem, "description": description}
        for status, description in REFUSALS.items()
        if secured or status != 401
    }

    @app.get(base, summary=f"What {host.name} is", tags=tags, response_model=replies.ModelReply)
    async def about() -> Response:
        return JSONResponse(host.about())

    @app.post(
        f"{base}/predict", summary=f"Predict with {host.name}", tags=tags,
        responses={200: {"description": "Predictions, in the order of the inputs."}, **refused},
    )  # fmt: skip
    async def predict(request: Request) -> Response:
        return await answers.predict(request)

    if host.predictor.explains:

        @app.post(
            f"{base}/explain", summary="What the answer to one input rests on", tags=tags,
            responses={200: {"description": "What it rests on."}, **refused},
        )  # fmt: skip
        async def explain(request: Request) -> Response:
            return await answers.explain(request)

    @app.websocket(f"{base}/stream")
    async def stream(socket: WebSocket) -> None:
        await streams.serve(socket, host)


def _add_facts(app: FastAPI, hosts: Mapping[str, ModelSlot], state: State, metrics: ServerMetrics) -> None:
    @app.get("/v1/models", summary="The models", response_model=replies.ModelsReply)
    async def listed() -> Response:
        return JSONResponse({"models": [h.about() for h in hosts.values()]})

    @app.get("/healthz", summary="Whether the server is there", response_model=replies.HealthReply)
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    not_ready: Any = {503: {"model": replies.Problem, "description": "It shuts down, or is broken."}}

    @app.get("/readyz", summary="Whether it takes work", response_model=replies.HealthReply, responses=not_ready)
    async def ready() -> Response:
        if state.draining:
            raise Refusal(503, "the server is shutting down", {"Retry-After": "5"})
        if dead := [h.name for h in hosts.values() if not h.current.thread.is_alive()]:
            raise Refusal(503, f"the thread of {dead[0]} has ended; start the server again")
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", summary="Figures for Prometheus", response_class=Response, include_in_schema=False)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_error_handlers(app: FastAPI, hosts: Mapping[str, ModelSlot]) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Exception) -> Response:
        assert isinstance(refusal, Refusal)
        return JSONResponse({"error": refusal.sentence}, refusal.status, refusal.headers)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path, sentence = request.url.path, str(error.detail)
        if error.status_code == 404:
            sentence = "there is nothing at this address; /openapi.json lists those that there are"
            if path.startswith("/v1/models/") and path.split("/")[3] not in hosts:
                sentence = f"there is no model of this name; the models are: {', '.join(hosts)}"
        elif error.status_code == 405:
            sentence = f"{request.method[:16]} is not possible here; /openapi.json says what is"
        return JSONResponse({"error": sentence}, error.status_code, error.headers)
