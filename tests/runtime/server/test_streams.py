"""A session for each WebSocket connection."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from runtime.server.conftest import Start
from runtime.server.fakes import held_in, png
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from dolmen.runtime.server.limits import Limits

pytestmark = pytest.mark.xdist_group("time")

STREAM = "/v1/models/{}/stream"


def asked(socket: Any, **message: Any) -> dict[str, Any]:
    socket.send_json(message)
    said: dict[str, Any] = socket.receive_json()
    return said


def denied(client: TestClient, name: str, **named: Any) -> tuple[int, str]:
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect(STREAM.format(name), **named):
        pass
    return refused.value.status_code, refused.value.json()["error"]


def test_lines_come_in_pieces(client: TestClient) -> None:
    with client.websocket_connect(STREAM.format("sentences")) as socket:
        assert asked(socket, feed="Anna li") == {"results": []}
        [found] = asked(socket, feed="ves\nBo")["results"]
        assert found["text"] == "Anna lives"
        saved = asked(socket, save=True)["saved"]
        assert asked(socket, reset=True) == {"done": True}
        assert asked(socket, finish=True) == {"results": []}
        assert asked(socket, restore=saved) == {"done": True}
        assert asked(socket, finish=True)["results"][0]["text"] == "Bo"


def test_sessions_are_apart(client: TestClient) -> None:
    with (
        client.websocket_connect(STREAM.format("sentences")) as one,
        client.websocket_connect(STREAM.format("sentences")) as other,
    ):
        asked(one, feed="Anna")
        asked(other, feed="Bo")
        assert asked(one, finish=True)["results"][0]["text"] == "Anna"
        assert asked(other, finish=True)["results"][0]["text"] == "Bo"


def test_text_is_written_and_stopped(client: TestClient) -> None:
    with client.websocket_connect(STREAM.format("texts")) as socket:
        socket.send_json({"write": {"length": 3}})
        text = ""
        while "done" not in (said := socket.receive_json()):
            text += said["piece"]
        assert text == " 0 1 2"
        socket.send_json({"write": {"length": 10**9}})
        assert "piece" in socket.receive_json()
        socket.send_json({"stop": True})
        while "done" not in socket.receive_json():
            pass
        assert held_in(asked(socket, save=True)["saved"]).startswith(" 0 1 2 0 1 2 3")
        assert asked(socket, reset=True) == {"done": True}


def test_what_comes_while_a_text_is_written_waits(client: TestClient) -> None:
    with client.websocket_connect(STREAM.format("texts")) as socket:
        socket.send_json({"write": {"length": 2000}})
        socket.send_json({"reset": True})
        socket.send_json({"save": True})
        said = []
        while "saved" not in (one := socket.receive_json()):
            said.append(one)
        assert [s for s in said if "piece" not in s] == [{"done": True}] * 2
        assert held_in(one["saved"]) == ""


def test_pictures_are_binary(client: TestClient) -> None:
    with client.websocket_connect(STREAM.format("pictures")) as socket:
        socket.send_bytes(png())
        assert socket.receive_json()["results"][0]["label"] == "light"
        socket.send_bytes(b"none")
        assert "can't be read" in socket.receive_json()["error"]
        assert "send them as binary messages" in asked(socket, feed="text")["error"]


@pytest.mark.parametrize(
    ("message", "part"),
    [
        ("[", "not JSON"),
        ("[]", "a message is a JSON object"),
        ('{"feed": "a", "finish": true}', "a message is a JSON object"),
        ('{"nothing": 1}', "a message is a JSON object"),
        ('{"feed": NaN}', "not JSON"),
        ('{"feed": 7}', "feed must be a text"),
        ('{"feed": "' + "x" * 60_000 + '"}', "the most is 50,000"),
        ('{"restore": 7}', "restore must be"),
        ('{"restore": "?"}', "restore must be"),
        ('{"write": {"state": "/etc/passwd"}}', "names a file"),
        ('{"write": 7}', "options must be a JSON object"),
        ("[" * 100_000, "recursion limit"),
    ],
)
def test_mistakes_are_a_sentence_and_the_session_goes_on(client: TestClient, message: str, part: str) -> None:
    with client.websocket_connect(STREAM.format("texts")) as socket:
        asked(socket, feed="kept")
        socket.send_text(message)
        said = socket.receive_json()
        assert list(said) == ["error"]
        assert part in said["error"]
        assert held_in(asked(socket, save=True)["saved"]) == "kept"
    with client.websocket_connect(STREAM.format("sentences")) as socket:
        assert asked(socket, write={})["error"] == "this model does not write"
        socket.send_bytes(b"x")
        assert "takes text" in socket.receive_json()["error"]


def test_sessions_have_a_bound(start: Start) -> None:
    client = start(limits=Limits(max_sessions=1))
    with client.websocket_connect(STREAM.format("texts")) as socket:
        asked(socket, feed="a")
        status, said = denied(client, "texts")
        assert status == 429
        assert "there are 1 sessions" in said
    with client.websocket_connect(STREAM.format("texts")) as socket:
        asked(socket, feed="a")


def test_idle_sessions_end(start: Start) -> None:
    client = start(limits=Limits(idle_timeout_s=0.1))
    with client.websocket_connect(STREAM.format("texts")) as socket:
        assert "nothing came for too long" in socket.receive_json()["error"]
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
        assert closed.value.code == 1001


def test_token_and_origin_are_asked_for(start: Start) -> None:
    client = start(token="secret")
    assert denied(client, "texts")[0] == 401
    assert denied(client, "texts", headers={"Authorization": "Bearer wrong"})[0] == 401
    assert denied(client, "texts", subprotocols=["dolmen", "bearer.d3Jvbmc"])[0] == 401
    right = {"Authorization": "Bearer secret"}
    status, said = denied(client, "texts", headers={**right, "Origin": "http://evil.example"})
    assert (status, said) == (403, "pages of other hosts may not use this server")
    with client.websocket_connect(STREAM.format("texts"), headers=right) as socket:
        asked(socket, feed="a")
    packed = base64.urlsafe_b64encode(b"secret").decode().rstrip("=")
    with client.websocket_connect(STREAM.format("texts"), subprotocols=["dolmen", f"bearer.{packed}"]) as socket:
        assert socket.accepted_subprotocol == "dolmen"
        asked(socket, feed="a")


def test_text_ends_when_the_client_leaves(start: Start) -> None:
    client = start({"texts": {"input_ms": 1}})
    batcher = client.app.state.hosts["texts"].current  # type: ignore[attr-defined]
    with client.websocket_connect(STREAM.format("texts")) as socket:
        socket.send_text(json.dumps({"write": {"length": 10**9}}))
        socket.receive_json()
    for _ in range(1000):
        if not batcher._text_streams:
            break
        time.sleep(0.01)
    assert batcher._text_streams == []
