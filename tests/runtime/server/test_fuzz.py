"""Files and requests that mean no good: always one sentence, never a status of 500, never a traceback."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from runtime.server.fakes import open_fake, png, write_fake
from runtime.server.test_process import Running
from starlette.testclient import TestClient

from dolmen.runtime.server.app import make_app

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF0000WEBP", b"P6 ", b"")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("fuzz")
    paths = {name: write_fake(folder, name) for name in ("pictures", "objects", "recordings", "sentences", "texts")}
    with TestClient(make_app(paths, open_fake, reload=False)) as found:
        yield found


def is_fine(answer: Any, *statuses: int) -> None:
    assert answer.status_code in statuses, answer.text
    if answer.status_code != 200:
        assert list(answer.json()) == ["error"]
        assert "\n" not in answer.json()["error"]


def predict(client: TestClient, content: bytes, name: str = "pictures", kind: str = "image/png") -> Any:
    return client.post(f"/v1/models/{name}/predict", content=content, headers={"Content-Type": kind})


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(width: int, height: int) -> bytes:
    """A PNG of zeros: a few kilobytes that hold much more."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = zlib.compress(bytes(min(width * height * 3, 50_000_000)), 9)
    return MAGIC[0] + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(8001, 8000), (30_000, 30_000), (1 << 30, 1 << 30), (64_000_001, 1)])
def test_bombs_are_refused_by_their_header(client: TestClient, size: tuple[int, int]) -> None:
    answer = predict(client, bomb(*size))
    is_fine(answer, 422)
    assert "the picture has more than 64 megapixels; send a smaller one" in answer.json()["error"]


def test_bomb_of_text_is_refused(client: TestClient) -> None:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000), 9))
    is_fine(predict(client, MAGIC[0] + head + text + png()[33:]), 422)


@pytest.mark.parametrize("format", FORMATS)
def test_truncated_files_are_refused(client: TestClient, format: str) -> None:
    whole = png(format=format)
    for length in range(0, len(whole) - 1, max(1, len(whole) // 25)):
        is_fine(predict(client, whole[:length]), 200, 422)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(magic=st.sampled_from(MAGIC), rest=st.binary(max_size=300))
def test_random_files_are_refused(client: TestClient, magic: bytes, rest: bytes) -> None:
    is_fine(predict(client, magic + rest), 200, 422)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(FORMATS), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8))
def test_damaged_files_are_refused(client: TestClient, format: str, changes: list[tuple[int, int]]) -> None:
    content = bytearray(png(format=format))
    for place, value in changes:
        content[place % len(content)] = value
    is_fine(predict(client, bytes(content)), 200, 422)
    answer = client.post("/v1/models/pictures/explain", content=bytes(content), headers={"Content-Type": "image/png"})
    is_fine(answer, 200, 422)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
OPTION = st.sampled_from(
    ["length", "temperature", "stop", "seed", "state", "n_best", "", "__class__", "command", "hot", "beam", "longest_s"]
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(["pictures", "objects", "recordings", "sentences", "texts"]),
    inputs=JSON,
    options=st.dictionaries(OPTION, JSON),
)
def test_random_json_is_refused(client: TestClient, name: str, inputs: Any, options: dict[str, Any]) -> None:
    if isinstance(options.get("length"), int):
        options["length"] = min(options["length"], 20)
    body = json.dumps({"inputs": inputs, "options": options}).encode()  # with infinities, which are no JSON
    is_fine(predict(client, body, name, "application/json"), 200, 400, 422)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(["pictures", "texts"]), body=st.binary(max_size=200), boundary=st.text("ab-", max_size=4))
def test_random_forms_are_refused(client: TestClient, name: str, body: bytes, boundary: str) -> None:
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="inputs"; filename="b"\r\n\r\n'.encode()
    kind = f"multipart/form-data; boundary={boundary}"
    for content in (body, part + body, part + body + f"\r\n--{boundary}--\r\n".encode()):
        is_fine(predict(client, content, name, kind), 200, 400, 422)


def test_huge_json_is_read_or_refused(client: TestClient) -> None:
    for content in (b'{"inputs": [' + b'"",' * 2_000_000 + b'""]}', b'{"inputs": ["' + b"a" * 15_000_000 + b'"]}'):
        is_fine(predict(client, content, "texts", "application/json"), 422)
    is_fine(predict(client, b" " * (16 << 20) + b"[]", "texts", "application/json"), 413)


def test_pictures_that_are_many_are_one(client: TestClient) -> None:
    file = io.BytesIO()
    frames = [Image.new("P", (10, 10), i) for i in range(200)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    is_fine(predict(client, file.getvalue()), 200)


@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    # Without an end of its own, a text of a million tokens would be asked for, and cut off with a 503.
    paths = [
        write_fake(tmp_path, name, most=1000) for name in ("pictures", "objects", "recordings", "sentences", "texts")
    ]
    server = Running(tmp_path, *paths, timeout_s=60)
    try:
        url = f"http://127.0.0.1:{server.port}/openapi.json"
        # what a schema allows is seldom a picture, so that most of it is rightly refused
        flags = ["--max-examples", "100", "--no-color", "--exclude-checks", "positive_data_acceptance"]
        command = [sys.executable, "-c", "from schemathesis.cli import schemathesis as s; s()", "run", url, *flags]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        assert server.process.poll() is None
        assert not [e for e in server.events("request") if e["status"] == 500]
        assert not server.events("server failed") + server.events("model failed")
    finally:
        server.end()
        assert server.process.stdout is not None
        server.process.stdout.close()
