"""HTTP connections: uvicorn's, with a bound on all that a client could make grow before the application is asked."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dolmen.runtime.server.limits import Limits

MAX_HEAD_BYTES = 1 << 16
"""Bytes of the address and the headers of a request, and of what is around the pieces of its body."""
MAX_HEAD_S = 10.0
"""Seconds in which the head of a request has to be there."""


class Connection(HttpToolsProtocol):
    """A connection of one client, which is refused what goes beyond the bounds.

    ``connection_class`` sets ``limits``.
    """

    limits: Limits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._num_bytes = self._num_in_bodies = 0
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Turn the client away where there are as many as there may be."""
        super().connection_made(transport)
        self._wait_for_head()
        if len(self.connections) > self.limits.max_connections:
            self._refuse(503, "there are as many connections as there may be; connect again later")

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in bytes; a head, or trailers, that do not end are refused."""
        self._num_bytes += len(data)
        super().data_received(data)
        # a byte of a body may come as a chunk of its own, with six bytes around it
        if self._num_bytes - 8 * self._num_in_bodies > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, f"the head of the request is longer than {MAX_HEAD_BYTES:,} bytes; send less")

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._num_in_bodies += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        self._num_bytes = self._num_in_bodies = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP."""
        self._refuse(400, "what came is no request of HTTP")

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(MAX_HEAD_S, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self._refuse(408, f"the head of the request was not there after {MAX_HEAD_S:g} s")

    def _refuse(self, status: int, sentence: str) -> None:
        body = json.dumps({"error": sentence}).encode()
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        retry = "retry-after: 5\r\n" if status == 503 else ""
        head += f"{retry}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()


def connection_class(limits: Limits) -> type[Connection]:
    """The class that uvicorn makes connections of."""
    return type("Connection", (Connection,), {"limits": limits})
