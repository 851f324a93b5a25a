"""``dolmen serve``: models behind an address until a signal ends it, and no accepted request is lost then."""

from __future__ import annotations

import asyncio
import math
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from dolmen.processors.images.image import quiet_pillow
from dolmen.runtime.server import logs
from dolmen.runtime.server.app import make_app
from dolmen.runtime.server.connections import connection_class
from dolmen.runtime.server.gate import LOCAL_HOSTS, State
from dolmen.runtime.server.limits import Limits
from dolmen.runtime.server.served import Opener
from dolmen.types import UserError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
BACKLOG = 1024
LINGER_S = 1.0
"""After a signal answers go on for so long, each asking its client to connect no more, before the address is closed."""
LAST_REQUEST_S = 0.25
"""Then those who connected just before have so long to send a request."""


def serve(
    models: Mapping[str, Path],
    *,
    open_model: Opener,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    max_batch: int = 32,
    max_wait_ms: float = 2.0,
    queue: int = 256,
    timeout_s: float = 30.0,
    max_bytes: int = 16 << 20,
    reload: bool = True,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve models until SIGTERM or Ctrl-C; a second signal ends it at once.

    Args:
        models: where each lies, by the name under which it is served.
        open_model: opens a run or a bundle.
        host: address to listen at; others than this machine's own are reached from elsewhere.
        port: 0 takes any that is free.
        token: who asks must know it.
        max_batch: inputs of different requests that are computed together.
        max_wait_ms: how long the first of them waits for others.
        queue: inputs of a model that wait at most; what comes beyond is answered with 429.
        timeout_s: what is not answered after so long is answered with 503.
        max_bytes: of a request.
        reload: take over a model that is written in the place of one that is served.
        announce: called with the address when the models are loaded.

    Raises:
        UserError: a model can't be opened, the address can't be had, or a number is impossible.
    """
    positive = {"max_batch": max_batch, "queue": queue, "timeout_s": timeout_s, "max_bytes": max_bytes}
    for name, value in positive.items():
        if not value > 0 or not math.isfinite(value):
            raise UserError(f"{name} = {value} is not possible; give a number above 0")
    if not 0 <= max_wait_ms <= 1000:
        raise UserError(f"max_wait_ms = {max_wait_ms} is not possible; give 0 to 1000 milliseconds")
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise UserError("the token must be of letters, digits and signs, without spaces; choose another")
    for name in models:
        if not NAME.fullmatch(name):
            raise UserError(
                f"{name!r} can't be part of an address; name it with letters, digits, . _ -, e.g. MINE=PATH"
            )
    limits = Limits(
        max_batch=max_batch, max_wait_ms=max_wait_ms, queue=queue, timeout_s=timeout_s, max_bytes=max_bytes,
        max_held_bytes=max(Limits.max_held_bytes, 4 * max_bytes), max_inputs=min(Limits.max_inputs, queue),
    )  # fmt: skip
    with logs.alone(), _listening(host, port) as listener, quiet_pillow():
        only_local = host in LOCAL_HOSTS and token is None
        app = make_app(models, open_model, limits=limits, token=token, reload=reload, only_local=only_local)
        url = _url(listener)
        listener.listen(BACKLOG)  # from here on clients can connect
        if host not in LOCAL_HOSTS and token is None:
            logs.say("everybody who reaches this address can use the models; --token asks for one", address=url)
        announce(f"serving {', '.join(models)} at {url} (Ctrl-C ends it)")
        logs.say("listening", address=url, models={name: str(path) for name, path in models.items()})
        Server(app, limits).run(sockets=[listener])
        logs.say("ended", accepted=_shared(app).accepted, answered=_shared(app).answered)


class Server(uvicorn.Server):
    """uvicorn's server, which after a signal goes on with what clients are sending."""

    def __init__(self, app: FastAPI, limits: Limits) -> None:
        config = uvicorn.Config(
            app, http=connection_class(limits), ws="websockets-sansio", lifespan="on", log_config=None,
            access_log=False, server_header=False, proxy_headers=False, ws_max_size=limits.max_message_bytes,
            ws_per_message_deflate=False, timeout_keep_alive=30,
            timeout_graceful_shutdown=math.ceil(limits.timeout_s) + 5,
        )  # fmt: skip
        super().__init__(config)
        self.shared, self.limits = _shared(app), limits

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends it softly, the second at once. Neither is raised again: this end is no accident."""
        del sig, frame
        self.force_exit = self.should_exit
        self.should_exit = True

    async def main_loop(self) -> None:
        """Serve; then be there for those who are on their way."""
        await super().main_loop()
        logs.say("ending", active=self.shared.accepted - self.shared.answered, sessions=self.shared.num_sessions)
        self.shared.drain()
        await self._pause(LINGER_S)
        for server in self.servers:
            server.close()
        await self._pause(LAST_REQUEST_S)
        until = time.monotonic() + self.limits.timeout_s
        while self.shared.num_sessions and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.02)

    async def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.02)


def _shared(app: FastAPI) -> State:
    shared: State = app.state.shared
    return shared


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise UserError(f"there is no port {port}; choose one of 0 to 65535")
    try:
        family, socket_type, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket_type)
    except OSError as error:
        raise UserError(f"{host} is no address of this machine ({error.strerror}); try --host 127.0.0.1") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise UserError(f"{host} port {port} can't be had ({error.strerror}); choose another with --port") from None
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def named(words: Sequence[str]) -> dict[str, Path]:
    """What is served under which name: ``PATH`` under the name of its file or folder, ``NAME=PATH`` under that name.

    Raises:
        UserError: two have one name, or there is none.
    """
    models: dict[str, Path] = {}
    for word in words:
        name, equals, value = word.partition("=")
        path = Path(value) if equals and NAME.fullmatch(name) else Path(word)
        if not equals or path == Path(word):
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().stem).strip("-._") or "model"
        if name in models:
            raise UserError(
                f"{models[name]} and {path} would both be {name}; name one, e.g.: dolmen serve other={path}"
            )
        models[name] = path
    if not models:
        raise UserError("dolmen serve needs a run or a bundle, e.g.: dolmen serve runs/mine")
    return models
