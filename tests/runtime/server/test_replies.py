"""What is sent is what OpenAPI describes, of each task's fake and of a task that no part of Dolmen knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from runtime.server.fakes import FAKES, png, sound
from runtime.server.spec import Spec, assert_described, mismatches
from runtime.server.test_streams import STREAM, asked
from starlette.testclient import TestClient

from dolmen.catalogue import TASKS
from dolmen.predictions import Boxes, Event, HeatMap, Tally
from dolmen.runtime.server.openapi import json_type
from dolmen.types import Prediction

BODIES: dict[str, dict[str, Any]] = {
    "picture": {"content": png(), "headers": {"Content-Type": "image/png"}},
    "recording": {"content": sound(300, 3000), "headers": {"Content-Type": "audio/wav"}},
    "text": {"json": {"inputs": ["Anna came in 1984"]}},
}
PIECES: dict[str, Any] = {"picture": png(), "recording": sound(300, 3000)[44:], "text": "Anna came in 1984\n"}


def test_every_working_task_has_a_fake() -> None:
    assert {task for task, _ in FAKES.values()} >= {
        name for name, entry in TASKS.items() if entry.package[:6] == "dolmen"
    }


@pytest.mark.parametrize("fake", FAKES)
def test_what_is_sent_is_what_openapi_describes(start: Callable[..., TestClient], fake: str) -> None:
    client = start({fake: {}})
    url, spec = f"/v1/models/{fake}", Spec(client.get("/openapi.json").json())
    about = client.get(url).json()
    takes = about["takes"]
    reply = spec.reply(f"{url}/predict")
    assert_described(spec, reply)
    sent = client.post(f"{url}/predict", **BODIES[takes]).json()
    assert mismatches(reply, sent) == []
    assert len(sent["predictions"]) == 1
    for broken in ({**sent, "more": 1}, {**sent, "predictions": [{**sent["predictions"][0], "more": 1}]}):
        assert mismatches(reply, broken)
    if about["explains"]:
        assert mismatches(spec.reply(f"{url}/explain"), client.post(f"{url}/explain", **BODIES[takes]).json()) == []
    else:
        assert f"{url}/explain" not in spec.document["paths"]

    message = spec.message(f"{url}/stream")
    assert_described(spec, message)
    results = 0
    with client.websocket_connect(STREAM.format(fake)) as socket:
        if isinstance(PIECES[takes], bytes):
            socket.send_bytes(PIECES[takes])
            said = [socket.receive_json()]
        else:
            said = [asked(socket, feed=PIECES[takes])]
        said += [asked(socket, save=True), asked(socket, finish=True), asked(socket, reset=True), asked(socket, no=1)]
    for one in said:
        assert mismatches(message, one) == []
        results += len(one.get("results", []))
    assert results or fake == "texts"  # which only counts


def test_options_of_the_same_name_are_each_their_own(start: Callable[..., TestClient]) -> None:
    schemas = Spec(start({"pictures": {}, "objects": {}, "lengths": {}}).get("/openapi.json").json())
    bodies = [
        schemas.document["paths"][f"/v1/models/{name}/predict"]["post"]["requestBody"]["content"]["application/json"]
        for name in ("pictures", "objects", "lengths")
    ]
    fields = [schemas.follow(schemas.follow(b["schema"])["properties"]["options"]) for b in bodies]
    assert [set(f["properties"]) for f in fields] == [set(), {"threshold"}, {"factor"}]


def test_a_prediction_that_does_not_say_its_json_is_refused() -> None:
    class Silent:
        def to_json(self):  # type: ignore[no-untyped-def]
            return {}

    with pytest.raises(TypeError, match=r"Silent\.to_json has no return type"):
        json_type(Silent)


def boxes(num: int, **more: Any) -> Boxes:
    corners = np.random.default_rng(0).uniform(0, 9, (num, 4)).astype(np.float32)
    scores, labels = np.full(num, 0.5, np.float32), np.ones(num, np.int64)
    return Boxes((20, 30), ("cup", "jug"), corners, scores, labels, **more)


@pytest.mark.parametrize(
    "prediction",
    [
        boxes(0), boxes(1), boxes(3), boxes(2, ids=np.array([4, 7]), time_s=1.23456),
        Event(1.0, "appears", 3, "cup"), Event(1.0, "exits", 3, "cup", "door", 2.5),
        Tally({"cup": 2}), Tally(
            {"cup": 2}, {"a": {"left": {"cup": 1}, "right": {}}},
            {"b": {"entered": {"cup": 1}, "inside": 0, "stayed_s": 1.5}},
        ),
        HeatMap("cup", np.random.default_rng(0).uniform(-1, 2, (100, 3))),
    ],
    ids=range(9),
)  # fmt: skip
def test_json_of_predictions_is_what_their_types_describe(prediction: Prediction) -> None:
    adapter: Any = TypeAdapter(json_type(type(prediction)))
    sent = prediction.to_json()
    assert adapter.validate_python(sent, strict=True) == sent
    assert mismatches(adapter.json_schema(), sent) == []
    with pytest.raises(ValueError, match="more"):
        adapter.validate_python({**sent, "more": 1})
