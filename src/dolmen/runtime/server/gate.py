"""What every request passes: who may ask, what is sent with every answer, and what is written down of it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dolmen.runtime.server.limits import Refusal
from dolmen.runtime.server.logs import fail, say
from dolmen.runtime.server.metrics import ServerMetrics

OPEN_PATHS = {"/", "/healthz", "/readyz"}
"""Answered without the token: the page holds nothing, and probes seldom have one. So is what lies below /page/."""
LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS_OF_EVERY_RESPONSE = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TOKEN_PREFIX = "bearer."
"""How the token is given among the subprotocols of a WebSocket, in base64url: a browser can't send a header there."""


class State:
    """What all requests share.

    Attributes:
        draining: the server ends: it answers still, and asks everybody to go.
        drained: set then, for those who wait.
        accepted, answered: requests so far.
    """

    def __init__(self) -> None:
        self.draining = False
        self.drained = asyncio.Event()
        self.accepted = self.answered = self.num_sessions = 0

    def drain(self) -> None:
        """Begin to end."""
        self.draining = True
        self.drained.set()


class AccessMiddleware:
    """ASGI middleware around everything.

    Args:
        app: what is behind it.
        state: what all requests share.
        metrics: to count in.
        token: who asks must know it; None for everybody.
        only_local: answer only to names of this machine. Without a token, a page from elsewhere could otherwise have
            its own name resolved to this machine and read the answers (DNS rebinding).
    """

    def __init__(
        self, app: ASGIApp, *, state: State, metrics: ServerMetrics, token: str | None, only_local: bool
    ) -> None:
        self.app, self.state, self.metrics, self.only_local = app, state, metrics, only_local
        self.token = None if token is None else token.encode()
        self.series = secrets.token_hex(4)  # of request IDs: asking the system anew for each costs more than the rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it (ASGI)."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        start, status = time.perf_counter(), 0
        seen: dict[str, Any] = {}
        scope.setdefault("state", {})["seen"] = seen
        self.state.accepted += 1
        request_id = f"{self.series}{self.state.accepted:08x}"
        self.metrics.active.inc()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS_OF_EVERY_RESPONSE.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                headers["X-Request-ID"] = request_id
                if self.state.draining:
                    headers["Connection"] = "close"
            await send(message)

        try:
            self._let_in(scope)
            await self.app(scope, receive, send_with_headers)
        except Refusal as refusal:
            await answer(send_with_headers, refusal.status, refusal.sentence, refusal.headers)
        except Exception as error:
            fail("server failed", error, request_id=request_id)
            if not status:
                await answer(send_with_headers, 500, f"the server failed; its log says where, under {request_id}", {})
        finally:
            self.state.answered += 1
            self.metrics.active.dec()
            seconds = time.perf_counter() - start
            route, model = getattr(scope.get("route"), "path", "none"), seen.get("model", "")
            self.metrics.requests.labels(model, route, status).inc()
            self.metrics.seconds.labels(model, route).observe(seconds)
            say(
                "request", id=request_id, method=scope["method"][:16], path=scope["path"][:100], status=status,
                seconds=round(seconds, 4), client=(scope.get("client") or [None])[0], **seen,
            )  # fmt: skip

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["seen"] = {}
        try:
            self._let_in(scope)
            if self.state.draining:
                raise Refusal(503, "the server is shutting down; connect again later", {"Retry-After": "5"})
        except Refusal as refusal:
            await deny(receive, send, refusal)
            return
        try:
            await self.app(scope, receive, send)
        except Refusal as refusal:
            await deny(receive, send, refusal)

    def _let_in(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.only_local and hostname(host) not in LOCAL_HOSTS:
            raise Refusal(421, "this server answers to 127.0.0.1 and localhost only; start it with --host, or a token")
        origin = headers.get("origin")
        if origin is not None and origin_netloc(origin) != host.lower():
            raise Refusal(403, "pages of other hosts may not use this server")
        if self.token is None or scope["path"] in OPEN_PATHS or scope["path"].startswith("/page/"):
            return
        if not hmac.compare_digest(self.token, given_token(headers)):
            raise Refusal(
                401, "this server wants its token: send the header Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip


def hostname(host: str) -> str:
    """The name in a ``Host`` header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def origin_netloc(origin: str) -> str:
    """Host and port of an ``Origin``."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def given_token(headers: Headers) -> bytes:
    """The token that came along, or nothing."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode()
    for word in headers.get("sec-websocket-protocol", "").split(","):
        if word.strip().startswith(TOKEN_PREFIX):
            packed = word.strip().removeprefix(TOKEN_PREFIX)
            try:
                return base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
            except (binascii.Error, ValueError):
                return b""
    return b""


async def answer(send: Send, status: int, sentence: str, headers: Mapping[str, str]) -> None:
    """Send one sentence as JSON."""
    body = json.dumps({"error": sentence}).encode()
    sent = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    await send({
        "type": "http.response.start", "status": status,
        "headers": [(k.lower().encode(), v.encode()) for k, v in sent.items()],
    })  # fmt: skip
    await send({"type": "http.response.body", "body": body})


async def deny(receive: Receive, send: Send, refusal: Refusal) -> None:
    """Refuse a WebSocket before it begins, as an answer of HTTP."""
    await receive()  # websocket.connect
    body = json.dumps({"error": refusal.sentence}).encode()
    sent = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
    headers = [(k.lower().encode(), v.encode()) for k, v in sent.items()]
    await send({"type": "websocket.http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
