"""An application of three fakes, and a client of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime.server.fakes import open_fake, write_fake
from starlette.testclient import TestClient

from dolmen.runtime.server.app import make_app
from dolmen.runtime.server.limits import Limits

Start = Callable[..., TestClient]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Serve some fakes: ``start({"pictures": {"batch_ms": 5}}, limits, token="secret")``."""
    running: list[TestClient] = []

    def begin(fakes: dict[str, dict[str, Any]] | None = None, limits: Limits | None = None, **named: Any) -> TestClient:
        chosen = {"pictures": {}, "sentences": {}, "texts": {}} if fakes is None else fakes
        paths = {name: write_fake(tmp_path, name, **values) for name, values in chosen.items()}
        app = make_app(paths, open_fake, limits=limits or Limits(max_wait_ms=0), **{"reload": False, **named})
        client = TestClient(app, raise_server_exceptions=True)
        client.__enter__()
        running.append(client)
        return client

    yield begin
    for client in running:
        client.__exit__(None, None, None)


@pytest.fixture
def client(start: Start) -> TestClient:
    """A client of one picture model, one tagger and one writer."""
    return start()
