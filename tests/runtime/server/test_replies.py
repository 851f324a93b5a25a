"""Every working task's reply is described, and what is sent is what was described."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from runtime.server.fakes import KINDS, png, sound
from starlette.testclient import TestClient

from dolmen.catalogue import TASKS
from dolmen.runtime.server.replies import PREDICTIONS, Reply
from dolmen.types import Boxes

WORKING = {name for name, entry in TASKS.items() if entry.page}


BODIES: dict[str, dict[str, Any]] = {
    "image/png": {"content": png(), "headers": {"Content-Type": "image/png"}},
    "audio/wav": {"content": sound(300, 3000), "headers": {"Content-Type": "audio/wav"}},
    "text": {"json": {"inputs": ["Anna came in 1984"]}},
}
TAKES = {
    "pictures": "image/png",
    "objects": "image/png",
    "recordings": "audio/wav",
    "sentences": "text",
    "texts": "text",
}


def test_every_working_task_has_a_description() -> None:
    assert set(PREDICTIONS) == WORKING
    assert {fake.task_name for fake in KINDS.values()} == WORKING  # so that the test below knows them all
    for reply in PREDICTIONS.values():
        assert issubclass(reply, Reply)
        assert reply.model_fields


@pytest.mark.parametrize("fake", KINDS)
def test_what_is_sent_is_what_openapi_describes(start: Callable[..., TestClient], fake: str) -> None:
    client = start({fake: {}})
    url = f"/v1/models/{fake}/predict"
    sent = client.post(url, **BODIES[TAKES[fake]]).json()["predictions"]
    spec = client.get("/openapi.json").json()
    content = spec["paths"][url]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    name = content["properties"]["predictions"]["items"]["anyOf"][0]["$ref"].rpartition("/")[2]
    schema = spec["components"]["schemas"][name]
    assert len(sent) == 1
    assert set(schema["required"]) <= set(sent[0]) <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    PREDICTIONS[KINDS[fake].task_name].model_validate(sent[0], strict=True)


@pytest.mark.parametrize("num", [0, 1, 3])
def test_boxes(num: int) -> None:
    boxes = np.random.default_rng(0).uniform(0, 9, (num, 4)).astype(np.float32)
    found = Boxes((20, 30), ("cup", "jug"), boxes, np.full(num, 0.5, np.float32), np.ones(num, np.int64))
    reply = PREDICTIONS["object-detection"].model_validate(found.to_json(), strict=True)
    assert reply.model_dump() == found.to_json()
    with pytest.raises(ValueError, match="boxes_xyxy"):
        PREDICTIONS["object-detection"].model_validate(found.to_json() | {"boxes_xyxy": [[1.0, 2.0]]})
