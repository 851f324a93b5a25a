"""What a request may cost, and how a body is read within it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Everything that one client, or all of them together, could make grow, has its bound here.

    Attributes:
        max_bytes: of a request's body.
        max_held_bytes: of all bodies together that are being read or computed.
        max_inputs: in one request.
        max_pixels: of a picture, by its header; and of all pictures that are decoded together.
        max_seconds: of a recording, by its header; and of all recordings that are computed together.
        max_characters: of one text, and of all texts that are computed together.
        max_batch: inputs that are computed together.
        max_wait_ms: how long the first of them waits for others.
        queue: inputs of one model that wait; what comes beyond is refused.
        timeout_s: of a request, from its first byte to its answer.
        max_sessions: WebSocket connections at once.
        idle_timeout_s: after so long without a message a session is over.
        max_connections: at once.
    """

    max_bytes: int = 16 * MEBIBYTE
    max_held_bytes: int = 256 * MEBIBYTE
    max_inputs: int = 256
    max_pixels: int = 64_000_000
    max_seconds: float = 300.0
    max_characters: int = 50_000
    max_batch: int = 32
    max_wait_ms: float = 2.0
    queue: int = 256
    timeout_s: float = 30.0
    max_sessions: int = 64
    idle_timeout_s: float = 300.0
    max_connections: int = 1024

    @property
    def max_message_bytes(self) -> int:
        """Bytes of a message on a WebSocket: all that can come at once are bounded together, too."""
        return min(self.max_bytes, self.max_held_bytes // self.max_sessions)


class Refusal(Exception):  # noqa: N818 - it is an answer, not an error of ours
    """An answer that is no prediction.

    Attributes:
        status: of HTTP.
        sentence: what was found, what was expected.
        headers: to send with it.
    """

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers or {}


def busy(sentence: str, *, status: int = 429, after_s: int = 1) -> Refusal:
    """The refusal of a request that is not wrong, and may be sent again."""
    return Refusal(status, sentence, {"Retry-After": str(after_s)})


class Memory:
    """The bytes of all bodies that are held at the moment."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.held = max_bytes, 0

    def take(self, num_bytes: int) -> None:
        """Count bytes that are held from now on.

        Raises:
            Refusal: there is no room for them.
        """
        if self.held + num_bytes > self.max_bytes:
            raise busy("the server holds as many bytes of requests as it may; send this one again later")
        self.held += num_bytes

    def give(self, num_bytes: int) -> None:
        """Count bytes that are held no longer."""
        self.held -= num_bytes


@asynccontextmanager
async def body_of(request: Request, limits: Limits, memory: Memory) -> AsyncIterator[bytes]:
    """The whole body of a request, whose bytes are counted for as long as it is in use.

    Raises:
        Refusal: 413 if it is too large, 429 if there is no room, 400 if its length is no number.
        ClientDisconnect: the client has left.
    """
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or len(length) > 20:
        raise Refusal(400, "the header Content-Length must be a number of bytes")
    if int(length) > limits.max_bytes:
        await _discard(request, limits)
        raise too_large(limits)
    parts: list[bytes] = []
    held = 0
    try:
        more = True
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part, more = message.get("body", b""), message.get("more_body", False)
            if held + len(part) > limits.max_bytes:
                if more:
                    await _discard(request, limits)
                raise too_large(limits)
            memory.take(len(part))
            held += len(part)
            parts.append(part)
        yield b"".join(parts) if len(parts) != 1 else parts[0]
    finally:
        memory.give(held)


def too_large(limits: Limits) -> Refusal:
    """The refusal of a body that is too large; it has not been read to its end, so the connection ends."""
    return Refusal(
        413,
        f"the body is larger than the {limits.max_bytes / MEBIBYTE:g} MiB that this server takes; send less at once",
        {"Connection": "close"},
    )


async def _discard(request: Request, limits: Limits) -> None:
    """Read on for a moment without keeping anything.

    Most clients listen only when they have sent everything: if the connection broke before, they would see no sentence.
    """
    if request.headers.get("expect", "").lower() == "100-continue":
        return  # it waits for the answer before it sends anything
    left = 4 * limits.max_bytes
    try:
        async with asyncio.timeout(2):
            while left > 0:
                message = await request.receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
    except TimeoutError:
        return
