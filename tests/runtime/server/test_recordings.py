"""Recordings over HTTP, and sound that comes in pieces."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runtime.server.conftest import Start
from runtime.server.fakes import open_fake, sound, write_fake
from runtime.server.test_requests import b64, is_problem, raw
from runtime.server.test_streams import STREAM, asked
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from dolmen.runtime.server.app import make_app
from dolmen.runtime.server.input_types import num_milliseconds
from dolmen.runtime.server.limits import Limits
from dolmen.types import UserError

URL = "/v1/models/recordings/predict"
HEADER = 44
"""Bytes of a WAV file before its samples."""


@pytest.fixture
def client(start: Start) -> TestClient:
    return start({"recordings": {}})


def texts(results: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    return [(r["text"], r["final"]) for r in results]


def fed(socket: Any, content: bytes, size: int) -> list[dict[str, Any]]:
    """The results of samples that come in pieces of so many bytes, and of the end."""
    found = []
    for start in range(0, len(content), size):
        socket.send_bytes(content[start : start + size])
        found += socket.receive_json()["results"]
    found += asked(socket, finish=True)["results"]
    return found


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
@pytest.mark.parametrize("kind", ["audio/wav", "application/octet-stream"])
def test_a_recording_is_bytes(client: TestClient, format: str, kind: str) -> None:
    [found] = raw(client, "recordings", sound(300, 2000, format=format, rate=16000), kind).json()["predictions"]
    assert found["text"] == "yes no"
    assert [w["text"] for w in found["words"]] == ["yes", "no"]
    assert found["words"][0]["start_s"] == pytest.approx(0.4, abs=0.05)
    assert found["end_s"] == pytest.approx(2.8, abs=0.1)


def test_recordings_are_base64_and_files(client: TestClient) -> None:
    files = [sound(300), sound(2000, rate=44100, channels=2)]
    answers = [
        client.post(URL, json={"inputs": [b64(f) for f in files]}),
        client.post(URL, json={"inputs": ["data:audio/wav;base64," + b64(f) for f in files]}),
        client.post(URL, files=[("inputs", (f"{i}.wav", f)) for i, f in enumerate(files)]),
    ]
    assert [[p["text"] for p in a.json()["predictions"]] for a in answers] == [["yes", "no"]] * 3
    mixed = client.post(URL, json={"inputs": [b64(files[0]), b64(b"none")]}).json()["predictions"]
    assert mixed[0]["text"] == "yes"
    assert "the recording can't be read as sound" in mixed[1]["error"]
    is_problem(client.post(URL, files={"inputs": (None, "a")}), 422, "send recordings as files")
    is_problem(raw(client, "recordings", b"x", "image/png"), 415, "a recording as audio/* or application/octet-stream")


def test_options_are_obeyed(client: TestClient) -> None:
    def heard(*pitches: float, **options: Any) -> dict[str, Any]:
        form = [("inputs", ("a.wav", sound(*pitches))), ("options", (None, json.dumps(options)))]
        found: dict[str, Any] = client.post(URL, files=form).json()["predictions"][0]
        return found

    assert heard(300, 2000, command=["yes no"], silence_s=2.0)["text"] == "yes no"
    assert heard(2000, 2000, command=["yes"], reject=0.1)["rejected"] is True
    assert heard(300, 2000, threshold=0.8)["text"] == "yes"
    found = heard(300, n_best=3)["alternatives"]
    assert (len(found), found[0]["text"]) == (3, "yes")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"lm": "/etc/passwd"}, "the option lm names a file and is not served; list words as hot instead"),
        ({"lm_out": "/tmp/x"}, "the option lm_out names a file and is not served"),
        ({"lm_order": 2}, "the option lm_order is of a language model, which is not served"),
        ({"commands": "/etc/passwd"}, "the option commands names a file and is not served; list its sentences as"),
        ({"command": "yes"}, "options.command"),
        ({"command": [7]}, "options.command.0"),
        ({"command": ["perhaps"]}, "perhaps"),
        ({"command": ["yes " * 300] * 10}, "the option command has 12,010 characters in all, the most is 10,000"),
        ({"command": ["yes"], "hot": ["no"]}, "--command leaves nothing to choose"),
        ({"hot": ["yes=much"]}, "neither WORD nor WORD=NATS"),
        ({"beam": 101}, "options.beam: input should be less than or equal to 100"),
        ({"longest_s": 61}, "options.longest_s: input should be less than or equal to 60"),
        ({"silence_s": 61.0}, "options.silence_s: input should be less than or equal to 60"),
        ({"partial": True}, "there is no option 'partial'"),
    ],
)
def test_wrong_options_are_one_sentence(client: TestClient, options: dict[str, Any], part: str) -> None:
    body = {"inputs": [b64(sound(300))], "options": options}
    is_problem(client.post(URL, json=body), 422, part)


def silence(seconds: float, rate: int = 8000, channels: int = 1, format: str = "FLAC") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros((round(seconds * rate), channels), np.int16), rate, format=format)
    return file.getvalue()


def claimed(num_frames: int) -> bytes:
    """A FLAC file of a second whose header names another length."""
    content = bytearray(silence(1))
    content[21] &= 0xF0
    content[22:26] = struct.pack(">I", num_frames)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (silence(3601), "the recording is 3,601 s long, the most is 300 s; send it in parts, or stream it"),
        (silence(100, 96000, 8), "the recording has 76,800,000 samples in 8 channels, the most is 28,800,000"),
        (silence(1, 384000, format="WAV"), "the recording has 384,000 samples a second, the most is 192,000"),
        (claimed(8000 * 4000), "the recording is 4,000 s long"),
        (claimed(0), "the recording does not say how long it is"),
        (sound(300)[:HEADER], "holds no sound"),
        (b"", "the recording is empty"),
        (b"RIFF" + bytes(200), "can't be read as sound"),
    ],
    ids=range(8),
)
def test_what_would_cost_too_much_is_refused_by_its_header(client: TestClient, content: bytes, part: str) -> None:
    assert len(content) < 4 << 20
    is_problem(raw(client, "recordings", content, "audio/flac"), 422, part)


def test_what_a_recording_costs() -> None:
    limits = Limits(max_seconds=2)
    assert num_milliseconds(silence(2), limits) == 2000
    assert num_milliseconds(silence(0.5, 48000, 6), limits) == 1500
    with pytest.raises(UserError, match="the recording is 2 s long, the most is 2 s"):
        num_milliseconds(silence(2.01), limits)


def test_sound_comes_in_pieces(client: TestClient) -> None:
    content = sound(300, 2000)[HEADER:]
    [whole] = raw(client, "recordings", sound(300, 2000)).json()["predictions"]
    for size in (1600, 214, len(content)):
        with client.websocket_connect(STREAM.format("recordings")) as socket:
            found = fed(socket, content, size)
        assert texts(found) == [("yes", True), ("no", True)]
        assert [w for f in found for w in f["words"]] == whole["words"]


def test_a_session_begins_with_a_rate_and_options(client: TestClient) -> None:
    content = sound(300, 2000, rate=48000)[HEADER:]
    with client.websocket_connect(STREAM.format("recordings")) as socket:
        socket.send_bytes(content[:9600])
        socket.receive_json()
        assert asked(socket, begin={"rate": 48000, "partial": True, "threshold": 0.8}) == {"done": True}
        found = fed(socket, content, 9600)
        assert texts(found)[:2] == [("yes", False), ("yes", True)]
        assert found[1]["words"][0]["start_s"] == pytest.approx(0.4, abs=0.05)
        assert found[-1]["words"] == []  # "no" is less sure than the threshold
        assert asked(socket, begin={}) == {"done": True}  # the rate stays, the options do not
        assert texts(fed(socket, content, 9600)) == [("yes", True), ("no", True)]


def test_a_session_is_saved_and_restored(client: TestClient) -> None:
    content = sound(300, 2000)[HEADER:]
    half = len(content) // 4 * 2
    with client.websocket_connect(STREAM.format("recordings")) as socket:
        socket.send_bytes(content[:half])
        first = socket.receive_json()["results"]
        saved = asked(socket, save=True)["saved"]
    with client.websocket_connect(STREAM.format("recordings")) as socket:
        assert asked(socket, restore=saved) == {"done": True}
        socket.send_bytes(content[half:])
        found = first + socket.receive_json()["results"]
        assert texts(found + asked(socket, finish=True)["results"]) == [("yes", True), ("no", True)]
        assert asked(socket, reset=True) == {"done": True}
        assert asked(socket, finish=True) == {"results": []}


@pytest.mark.parametrize(
    ("message", "part"),
    [
        ({"feed": "text"}, "this model takes recordings; send them as binary messages of 16-bit samples"),
        ({"begin": 7}, "options must be a JSON object"),
        ({"begin": {"rate": 12345}}, "rate must be one of 8000, 11025"),
        ({"begin": {"rate": 48000.0}}, "rate must be one of"),
        ({"begin": {"rate": True}}, "rate must be one of"),
        ({"begin": {"rate": 48000, "lm": "/etc/passwd"}}, "names a file and is not served"),
        ({"begin": {"rate": 48000, "partial": 1}}, "options.partial"),
        ({"begin": {"hot": ["yes=much"]}}, "neither WORD nor WORD=NATS"),
        ({"begin": {"longest_s": 1e9}}, "less than or equal to 60"),
        ({"write": {}}, "this model does not write"),
        (b"odd", "a message of 3 bytes is not one of 16-bit samples; send an even number"),
        (bytes(2 * 8000 * 31), "a message of 31 s of sound, the most is 30 s; send it in parts"),
    ],
    ids=range(12),
)
def test_mistakes_are_a_sentence_and_the_session_goes_on(client: TestClient, message: Any, part: str) -> None:
    content = sound(300)[HEADER:]
    with client.websocket_connect(STREAM.format("recordings")) as socket:
        socket.send_bytes(content[:8000])
        before = socket.receive_json()["results"]
        if isinstance(message, bytes):
            socket.send_bytes(message)
        else:
            socket.send_json(message)
        said = socket.receive_json()
        assert list(said) == ["error"]
        assert part in said["error"]
        assert texts(before + fed(socket, content[8000:], 1600)) == [("yes", True)]


def test_other_sessions_begin_with_their_options(start: Start) -> None:
    client = start()
    with client.websocket_connect(STREAM.format("sentences")) as socket:
        asked(socket, feed="Anna")
        assert asked(socket, begin={}) == {"done": True}
        assert asked(socket, finish=True) == {"results": []}
        assert "there is no option 'rate'" in asked(socket, begin={"rate": 8000})["error"]


def test_a_network_that_needs_the_whole_says_so(start: Start) -> None:
    client = start({"recordings": {"streams": False}})
    assert raw(client, "recordings", sound(300)).json()["predictions"][0]["text"] == "yes"
    assert client.get("/v1/models/recordings").json()["streams"] is False
    with client.websocket_connect(STREAM.format("recordings")) as socket:
        assert "this network reads recordings as a whole" in socket.receive_json()["error"]
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
        assert closed.value.code == 1003


def test_openapi_says_what_is_taken_and_given(client: TestClient) -> None:
    spec = client.get("/openapi.json").json()
    body = spec["paths"][URL]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data", "audio/*", "application/octet-stream"}
    schemas = spec["components"]["schemas"]
    assert body["application/json"]["schema"] == {"$ref": "#/components/schemas/RecordingsWithDecodeOptions"}
    options = schemas["DecodeOptions"]["properties"]
    assert not {"lm", "lm_out", "lm_order", "lm_weight", "commands"} & set(options)
    assert options["longest_s"]["maximum"] == 60
    assert set(schemas["TranscriptJson"]["properties"]) > {"text", "words", "final", "alternatives"}
    said = client.get("/v1/models/recordings").json()
    assert set(said["stream_options"]["properties"]) == {*options, "partial"}
    assert (said["takes"], said["streams"], said["limits"]["max_seconds"]) == ("recording", True, 300)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("fuzz")
    with TestClient(make_app({"recordings": write_fake(folder, "recordings")}, open_fake, reload=False)) as found:
        yield found


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF"])
def test_damaged_files_are_read_or_refused(lasting: TestClient, format: str) -> None:
    whole = sound(300, each_s=0.1, gap_s=0.1, format=format)
    for length in range(0, len(whole) - 1, max(1, len(whole) // 25)):
        answer = raw(lasting, "recordings", whole[:length])
        assert answer.status_code in (200, 422), answer.text

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=8))
    def change(changes: list[tuple[int, int]]) -> None:
        content = bytearray(whole)
        for place, value in changes:
            content[place % len(content)] = value
        answer = raw(lasting, "recordings", bytes(content))
        assert answer.status_code in (200, 422), answer.text
        if answer.status_code != 200:
            assert "\n" not in answer.json()["error"]

    change()
