"""Every task when it is served: its replies are what its OpenAPI describes, and all of it is described."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract.case import Case
from contract.test_contract import case, data, run, task  # noqa: F401 - fixtures
from runtime.server.spec import Spec, assert_described, mismatches
from starlette.testclient import TestClient

import dolmen
from dolmen.runtime.server.app import make_app

URL = "/v1/models/model"


@pytest.fixture(scope="module")
def client(run: Any) -> Iterator[TestClient]:  # noqa: F811
    with TestClient(make_app({"model": run.path}, dolmen.load, reload=False)) as found:
        yield found


@pytest.fixture(scope="module")
def spec(client: TestClient) -> Spec:
    return Spec(client.get("/openapi.json").json())


def form(path: Path, **options: Any) -> list[Any]:
    """A body with one input."""
    return [("inputs", (path.name, path.read_bytes())), ("options", (None, json.dumps(options)))]


def test_replies_are_as_described(client: TestClient, spec: Spec, data: Path, case: Case) -> None:  # noqa: F811
    about = client.get(URL).json()
    assert about["does"]
    schema = spec.reply(f"{URL}/predict")
    assert_described(spec, schema)
    wanted = [{}, *({"n_best": 2} for name in about["options"].get("properties", {}) if name == "n_best")]
    for options in wanted:
        answer = client.post(f"{URL}/predict", files=form(case.an_input(data), **options))
        assert answer.status_code == 200, answer.text
        assert mismatches(schema, answer.json()) == []
        assert "error" not in answer.json()["predictions"][0]


def test_explanations_are_as_described(client: TestClient, spec: Spec, data: Path, case: Case) -> None:  # noqa: F811
    answer = client.post(f"{URL}/explain", files=form(case.an_input(data)))
    if not client.get(URL).json()["explains"]:
        assert answer.status_code == 404
        return
    schema = spec.reply(f"{URL}/explain")
    assert_described(spec, schema)
    assert mismatches(schema, answer.json()) == []


def sent_as(piece: Any) -> dict[str, Any]:
    """A piece of a stream as a message: a picture's file, 16-bit samples, or a text."""
    if isinstance(piece, Path):
        return {"bytes": piece.read_bytes()}
    if isinstance(piece, np.ndarray):
        return {"bytes": np.round(piece * 32767).astype("<i2").tobytes()}
    return {"json": {"feed": piece}}


def test_a_session_says_what_is_described(client: TestClient, spec: Spec, data: Path, case: Case) -> None:  # noqa: F811
    about, schema = client.get(URL).json(), spec.message(f"{URL}/stream")
    assert_described(spec, schema)
    partial = {"partial": True} if "partial" in about["stream_options"].get("properties", {}) else {}
    messages = [{"json": {"begin": partial}}, *map(sent_as, case.pieces(data)), {"json": {"finish": True}}]
    messages += [{"json": {"save": True}}, {"json": {"reset": True}}, {"json": {"nothing": True}}]
    answers: list[dict[str, Any]] = []
    with client.websocket_connect(f"{URL}/stream") as socket:
        for message in messages:
            if "bytes" in message:
                socket.send_bytes(message["bytes"])
            else:
                socket.send_json(message["json"])
            answers.append(socket.receive_json())
            assert mismatches(schema, answers[-1]) == []
        saved = next(a["saved"] for a in answers if "saved" in a)
        socket.send_json({"restore": saved})
        assert socket.receive_json() == {"done": True}
        socket.send_json({"write": {}})
        while "piece" in (answer := socket.receive_json()):
            assert mismatches(schema, answer) == []
            socket.send_json({"stop": True})
        assert mismatches(schema, answer) == []
    assert [next(iter(a)) for a in answers[-2:]] == ["done", "error"]
    assert all("results" in a for a in answers[1:-3])
