"""What is asked over HTTP, and what is answered."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runtime.server.conftest import Start
from runtime.server.fakes import png
from starlette.testclient import TestClient

from dolmen.predictions import HeatMap
from dolmen.runtime.pictures import area_seen
from dolmen.runtime.server.limits import Limits
from dolmen.runtime.server.page_files import PAGE

PREDICT = "/v1/models/{}/predict"
LIGHT = {"label": "light", "probability": 0.989533, "probabilities": {"dark": 0.010467, "light": 0.989533}}


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def raw(client: TestClient, name: str, content: bytes, kind: str = "application/octet-stream", **headers: str) -> Any:
    return client.post(PREDICT.format(name), content=content, headers={"Content-Type": kind, **headers})


def is_problem(answer: Any, status: int, part: str) -> None:
    """One sentence of JSON, and no traceback."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert part in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/octet-stream"])
def test_raw_bytes_are_one_picture(client: TestClient, kind: str) -> None:
    assert raw(client, "pictures", png(), kind).json() == {"model": "pictures", "predictions": [LIGHT]}


def test_json_holds_pictures_as_base64(client: TestClient) -> None:
    inputs = [b64(png(20)), "data:image/png;base64," + b64(png())]
    found = client.post(PREDICT.format("pictures"), json={"inputs": inputs}).json()["predictions"]
    assert [f["label"] for f in found] == ["dark", "light"]


def test_multipart_holds_files(client: TestClient) -> None:
    files = [("inputs", ("1.png", png(20))), ("inputs", ("2.png", png()))]
    found = client.post(PREDICT.format("pictures"), files=files).json()["predictions"]
    assert [f["label"] for f in found] == ["dark", "light"]
    is_problem(
        client.post(PREDICT.format("pictures"), files={"file": png()}), 422, "has a field 'file'; its fields are"
    )
    is_problem(client.post(PREDICT.format("pictures"), files={"inputs": (None, "a")}), 422, "send pictures as files")


def test_texts_come_in_every_form(client: TestClient) -> None:
    expected = [{"start": 0, "end": 4, "label": "PER", "text": "Anna", "confidence": 0.826667}]
    url = PREDICT.format("sentences")
    answers = [
        client.post(url, json={"inputs": ["Anna lives"]}),
        client.post(url, json={"inputs": [["Anna", "lives"]]}),
        raw(client, "sentences", b"Anna lives", "text/plain; charset=utf-8"),
        client.post(url, files=[("inputs", ("a.txt", b"Anna lives"))]),
        client.post(url, files=[("inputs", (None, "Anna lives"))]),
    ]
    assert [a.json()["predictions"][0]["spans"] for a in answers] == [expected] * 5


def test_options_are_those_of_the_model(client: TestClient) -> None:
    url, body = PREDICT.format("sentences"), {"inputs": ["Anna"], "options": {"n_best": 3}}
    assert len(client.post(url, json=body).json()["predictions"][0]["readings"]) == 3
    form = [("inputs", (None, "Anna")), ("options", (None, '{"n_best": 3}'))]
    assert len(client.post(url, files=form).json()["predictions"][0]["readings"]) == 3


def test_text_is_written_as_a_whole_or_as_events(client: TestClient) -> None:
    url, body = PREDICT.format("texts"), {"inputs": ["So"], "options": {"length": 3}}
    assert client.post(url, json=body).json()["predictions"] == [{"prompt": "So", "text": " 0 1 2"}]
    with client.stream("POST", url, json=body, headers={"Accept": "text/event-stream"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line]
    assert "".join(e.get("piece", "") for e in events) == " 0 1 2"
    assert events[-1] == {"done": True}


def test_inputs_that_fail_say_so_in_their_place(client: TestClient) -> None:
    body = {"inputs": ["?", b64(b"nothing"), b64(png())]}
    found = client.post(PREDICT.format("pictures"), json=body).json()["predictions"]
    assert "base64" in found[0]["error"]
    assert found[1] == {"error": "the picture can't be read: not a picture"}
    assert found[2] == LIGHT
    is_problem(client.post(PREDICT.format("pictures"), json={"inputs": ["?", "!"]}), 422, "none of the 2 inputs")


def test_heat_map_has_its_place(client: TestClient) -> None:
    url = "/v1/models/pictures/explain"
    found = client.post(url, content=png(size=(30, 10)), headers={"Content-Type": "image/png"}).json()
    assert found["label"] == "light"
    assert np.shape(found["heat_map"]) == (12, 12)
    assert found["area"] == [0.3333, 0, 0.6667, 1]
    is_problem(client.post(url, content=b"no", headers={"Content-Type": "image/png"}), 422, "can't be read")
    is_problem(client.post(url, json={"inputs": [b64(png())] * 2}), 422, "one input at a time")
    is_problem(client.post("/v1/models/sentences/explain"), 404, "nothing at this address")


def test_area_knows_the_camera_s_orientation() -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(file, "JPEG", exif=exif)
    assert area_seen(file.getvalue(), (8, 8), "crop") == (0, 0.25, 1, 0.75)
    assert area_seen(file.getvalue(), (8, 8), "pad") == (-0.5, 0, 1.5, 1)
    assert area_seen(file.getvalue(), (8, 8), "stretch") == (0, 0, 1, 1)


def test_heat_maps_are_small() -> None:
    heat = np.zeros((100, 65))
    heat[99, 64] = 0.98765
    small = HeatMap("a", heat).to_json()["heat_map"]
    assert np.shape(small) == (50, 33)
    assert small[-1][-1] == 0.988
    assert sum(map(sum, small)) == 0.988


HOSTILE = [
    ("application/json", b"[", 400, "not JSON"),
    ("application/json", b'{"inputs": [NaN]}', 400, "not JSON"),
    ("application/json", b'{"inputs": [Infinity]}', 400, "not JSON"),
    ("application/json", b"[" * 100_000, 400, "recursion limit"),
    ("application/json", b'{"a":' * 100_000, 400, "recursion limit"),
    ("application/json", b'{"inputs": ["\\ud800"]}', 400, "not JSON"),
    ("application/json", b'"\xff"', 400, "not JSON"),
    ("application/json", b"", 400, "not JSON"),
    ("application/json", b"[]", 422, "must be a JSON object"),
    ("application/json", b"{}", 422, "the body lacks inputs"),
    ("application/json", b'{"inputs": []}', 422, "at least 1 item"),
    ("application/json", b'{"inputs": "Anna"}', 422, "inputs"),
    ("application/json", b'{"inputs": [7]}', 422, "inputs[0] must be"),
    ("application/json", b'{"inputs": [[]]}', 422, "inputs[0] must be"),
    ("application/json", b'{"inputs": ["a"], "more": 1}', 422, "field 'more'"),
    ("application/json", b'{"inputs": ["a"], "options": []}', 422, "options must be a JSON object"),
    ("application/json", b'{"inputs": ["a"], "options": {"lenght": 3}}', 422, "there is no option 'lenght'"),
    ("application/json", b'{"inputs": ["a"], "options": {"length": "3"}}', 422, "options.length"),
    ("application/json", b'{"inputs": ["a"], "options": {"length": 0}}', 422, "greater than or equal to 1"),
    ("application/json", b'{"inputs": ["a"], "options": {"temperature": 1e999}}', 422, "a number beyond"),
    ("application/json", b'{"inputs": ["a"], "options": {"seed": 1' + b"0" * 400 + b"}}", 422, "a number beyond"),
    ("application/json", b'{"inputs": ["a"], "options": {"seed": 1' + b"0" * 9000 + b"}}", 400, "not JSON"),
    (
        "application/json",
        b'{"inputs": ["a"], "options": {"state": "/etc/passwd"}}',
        422,
        "names a file and is not served",
    ),
    ("application/json", b'{"inputs": ["a"], "options": {"stop": "' + b"x" * 2000 + b'"}}', 422, "the most is 1,000"),
    ("application/json", b'{"inputs": ["' + b"x" * 60_000 + b'"]}', 422, "the most is 50,000"),
    ("application/json", b'{"inputs": [' + b'"a",' * 300 + b'"a"]}', 422, "at most 256 items"),
    ("text/plain", b"\xff\xfe", 422, "not UTF-8"),
    ("text/plain", b"x" * 60_000, 422, "the most is 50,000"),
    ("image/png", b"x", 415, "this model takes application/json"),
    ("", b"x", 415, "Content-Type says nothing"),
    ("multipart/form-data", b"x", 400, "the form is damaged"),
    ("multipart/form-data; boundary=x", b"--x\r\nno", 400, "the form is damaged"),
    ("multipart/form-data; boundary=x", b"--x--\r\n", 422, "the form holds no text"),
    ("multipart/form-data; boundary=" + "x" * 500, b"", 400, "the form is damaged"),
]


@pytest.mark.parametrize(("kind", "body", "status", "part"), HOSTILE, ids=range(len(HOSTILE)))
def test_bad_bodies_are_one_sentence(client: TestClient, kind: str, body: bytes, status: int, part: str) -> None:
    is_problem(raw(client, "texts", body, kind), status, part)


def test_addresses_that_are_none(client: TestClient) -> None:
    is_problem(client.post("/v1/models/nobody/predict"), 404, "the models are: pictures, sentences, texts")
    is_problem(client.get("/v1/models/pictures/predict"), 405, "GET is not possible here")
    is_problem(client.get("/nowhere"), 404, "/openapi.json lists")
    is_problem(client.get("/page/..%2fapp.py"), 404, "nothing at this address")
    is_problem(client.get("/page/app.py"), 404, "no such part")


def test_too_large_is_refused_before_it_is_read(start: Start) -> None:
    client = start(limits=Limits(max_bytes=1000, max_wait_ms=0))
    read: list[int] = []

    def parts() -> Iterator[bytes]:
        for _ in range(1000):
            read.append(100)
            yield b"x" * 100

    is_problem(raw(client, "pictures", b"x" * 1001), 413, "larger than")
    answer = client.post(PREDICT.format("pictures"), content=parts(), headers={"Content-Type": "image/png"})
    is_problem(answer, 413, "larger than")
    assert answer.headers["connection"] == "close"
    is_problem(raw(client, "pictures", b"x", "image/png", **{"Content-Length": "many"}), 400, "must be a number")


def test_bodies_have_a_bound_together(start: Start) -> None:
    client = start(limits=Limits(max_held_bytes=10))
    answer = raw(client, "pictures", png())
    is_problem(answer, 429, "as many bytes")
    assert answer.headers["retry-after"] == "1"
    assert "dolmen_held_bytes 0.0" in client.get("/metrics").text


def test_bomb_is_refused_by_its_header(start: Start) -> None:
    client = start(limits=Limits(max_pixels=1000))
    is_problem(raw(client, "pictures", png(size=(100, 11))), 422, "more than 0.001 megapixels")
    assert raw(client, "pictures", png(size=(100, 10))).status_code == 200


def test_full_queue_says_when_to_come_again(start: Start) -> None:
    client = start({"sentences": {"batch_ms": 300}}, Limits(queue=2, max_batch=1, max_wait_ms=0))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: raw(client, "sentences", b"Anna", "text/plain"), range(8)))
    assert {a.status_code for a in answers} == {200, 429}
    assert sum(a.status_code == 200 for a in answers) <= 4
    refused = next(a for a in answers if a.status_code == 429)
    is_problem(refused, 429, "the most is 2")
    assert refused.headers["retry-after"] == "1"
    body = {"inputs": ["Anna"] * 3}  # more than ever fit
    is_problem(client.post(PREDICT.format("sentences"), json=body), 429, "the most is 2")


def test_time_out_is_said_and_what_waits_is_dropped(start: Start) -> None:
    client = start({"sentences": {"batch_ms": 400}}, Limits(timeout_s=0.2, max_batch=1, max_wait_ms=0))
    model = client.app.state.hosts["sentences"].model  # type: ignore[attr-defined]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: raw(client, "sentences", b"Anna", "text/plain"), range(4)))
    for answer in answers:
        is_problem(answer, 503, "not ready after 0.2 s")
        assert answer.headers["retry-after"] == "5"
    assert model.batches == [1]  # nobody waited for the other three any more


def test_long_text_ends_at_the_deadline(start: Start) -> None:
    client = start({"texts": {"input_ms": 5}}, Limits(timeout_s=0.3))
    body = {"inputs": [""], "options": {"length": 10**9}}
    is_problem(client.post(PREDICT.format("texts"), json=body), 503, "not ready after")
    with client.stream("POST", PREDICT.format("texts"), json=body, headers={"Accept": "text/event-stream"}) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line]
    assert events[0]["piece"].startswith(" 0 1")
    assert events[-1] == {"error": "time was up before the text was done; ask for a shorter one"}


def test_nobody_waits_for_another_s_long_text(start: Start) -> None:
    client = start({"texts": {"input_ms": 1}}, Limits(timeout_s=20))
    begun = threading.Event()

    def long() -> None:
        body = {"inputs": [""], "options": {"length": 2000}}
        with client.stream("POST", PREDICT.format("texts"), json=body, headers={"Accept": "text/event-stream"}) as got:
            for _ in got.iter_lines():
                begun.set()
        ended.append("long")

    ended: list[str] = []
    thread = threading.Thread(target=long)
    thread.start()
    begun.wait(10)
    client.post(PREDICT.format("texts"), json={"inputs": [""], "options": {"length": 5}})
    ended.append("short")
    thread.join()
    assert ended[0] == "short"


def test_a_model_that_fails_is_a_sentence_and_the_others_get_theirs(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    client = start({"pictures": {"fails_on_black": True}})
    body = {"inputs": [b64(png()), b64(png(0)), b64(png())]}
    with caplog.at_level(logging.INFO, "dolmen.server"):
        found = client.post(PREDICT.format("pictures"), json=body).json()["predictions"]
        is_problem(raw(client, "pictures", png(0)), 500, "the model failed on this input")
    assert [next(iter(f)) for f in found] == ["label", "error", "label"]
    failed = [r for r in caplog.records if r.getMessage() == "model failed"]
    assert failed[0].fields["exception"] == "IndexError"  # type: ignore[attr-defined]
    assert "what people sent" not in str([r.__dict__ for r in caplog.records])


def test_requests_are_worked_off_together(start: Start) -> None:
    client = start({"pictures": {"batch_ms": 30}}, Limits(max_batch=8, max_wait_ms=5))
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: raw(client, "pictures", png()).json()["predictions"], range(64)))
    assert answers == [[LIGHT]] * 64
    batches = client.app.state.hosts["pictures"].model.batches  # type: ignore[attr-defined]
    assert sum(batches) == 64
    assert max(batches) <= 8
    assert len(batches) < 40


def test_token_opens_everything_but_page_and_probes(start: Start) -> None:
    client = start(token="secret")
    for path in ("/", "/page/page.js", "/healthz", "/readyz"):
        assert client.get(path).status_code == 200
    for path in ("/v1/models", "/metrics", "/openapi.json", "/nowhere"):
        is_problem(client.get(path), 401, "this server wants its token")
        is_problem(client.get(path, headers={"Authorization": "Bearer wrong"}), 401, "wants its token")
    assert client.get("/v1/models").headers["www-authenticate"] == "Bearer"
    assert client.get("/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
    is_problem(
        client.post(PREDICT.format("pictures"), headers={"Authorization": "Bearer sécret".encode()}), 401, "token"
    )


def test_pages_of_others_are_kept_out(start: Start) -> None:
    client = start(only_local=True)
    is_problem(client.get("/", headers={"Host": "evil.example"}), 421, "127.0.0.1")
    assert client.get("/", headers={"Host": "localhost:8000"}).status_code == 200
    assert client.get("/", headers={"Host": "[::1]:8000"}).status_code == 200
    local = {"Host": "localhost:8000"}
    is_problem(client.get("/v1/models", headers={**local, "Origin": "http://evil.example"}), 403, "other hosts")
    is_problem(client.get("/v1/models", headers={**local, "Origin": "null"}), 403, "other hosts")
    answer = client.get("/v1/models", headers={**local, "Origin": "http://localhost:8000"})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_every_answer_has_its_headers(client: TestClient) -> None:
    for answer in (client.get("/"), client.get("/nowhere"), raw(client, "pictures", png())):
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert len(answer.headers["x-request-id"]) == 16


def test_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    index = client.get("/")
    assert index.headers["content-type"].startswith("text/html")
    parts = [index.text]
    names = [f.name for f in PAGE.iterdir() if f.suffix in (".js", ".css", ".svg")]
    assert {"page.js", "capture.js", "style.css", "mark.svg"} < set(names)
    panels = [model["panel"] for model in client.get("/v1/models").json()["models"]]
    assert panels == ["tasks/image-classification.js", "tasks/token-classification.js", "tasks/text-generation.js"]
    for name in [*names, *panels]:
        answer = client.get(f"/page/{name}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-cache"
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        parts.append(answer.text)
    is_problem(client.get("/page/tasks/speech-recognition.js"), 404, "no such part")  # none of it is served
    for text in parts:
        assert "https://" not in text
        assert " style=" not in text
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")


def test_log_has_no_payload(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "dolmen.server"):
        raw(client, "sentences", b"Rumpelstiltskin", "text/plain")
        client.post(PREDICT.format("texts"), json={"inputs": ["a"], "options": {"Rumpelstiltskin": 1}})
        client.get("/v1/models?name=Rumpelstiltskin", headers={"Authorization": "Bearer Rumpelstiltskin"})
    [first, *_] = [r.fields for r in caplog.records if r.getMessage() == "request"]  # type: ignore[attr-defined]
    assert first["path"] == "/v1/models/sentences/predict"
    assert (first["model"], first["inputs"], first["bytes"], first["status"]) == ("sentences", 1, 15, 200)
    assert "Rumpelstiltskin" not in str([r.__dict__ for r in caplog.records])


def test_metrics_count(client: TestClient) -> None:
    raw(client, "pictures", png())
    client.get("/nowhere/at/all")
    text = client.get("/metrics").text
    assert 'dolmen_inputs_total{model="pictures",outcome="answered"} 1.0' in text
    assert 'dolmen_requests_total{model="pictures",route="/v1/models/pictures/predict",status="200"} 1.0' in text
    assert 'dolmen_requests_total{model="",route="none",status="404"} 1.0' in text
    assert "process_resident_memory_bytes" in text


def test_openapi_says_what_each_model_takes(client: TestClient) -> None:
    spec = client.get("/openapi.json").json()
    schemas = spec["components"]["schemas"]
    body = spec["paths"]["/v1/models/texts/predict"]["post"]["requestBody"]["content"]
    assert body["application/json"]["schema"] == {"$ref": "#/components/schemas/TextsWithEndlessOptions"}
    options = {"length", "temperature", "top_k", "top_p", "repetition_penalty", "stop", "seed"}
    assert set(schemas["EndlessOptions"]["properties"]) == options
    assert schemas["EndlessOptions"]["additionalProperties"] is False
    assert "image/*" in spec["paths"]["/v1/models/pictures/predict"]["post"]["requestBody"]["content"]
    assert client.get("/docs").status_code == 404  # its page would load from elsewhere


def test_models_are_listed(client: TestClient) -> None:
    said = client.get("/v1/models").json()["models"]
    assert [(m["name"], m["task"], m["takes"], m["explains"]) for m in said] == [
        ("pictures", "image-classification", "picture", True),
        ("sentences", "token-classification", "text", False),
        ("texts", "text-generation", "text", False),
    ]
    assert client.get("/v1/models/texts").json() == said[2]
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
