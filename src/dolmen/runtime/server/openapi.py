"""OpenAPI from the types by which requests are checked and replies are built."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from dolmen.runtime.server.hosting import ModelSlot
from dolmen.runtime.server.inputs import describe_body
from dolmen.runtime.server.limits import Limits
from dolmen.runtime.server.replies import Problem
from dolmen.types import Prediction

EVENTS = "text/event-stream"
REFERENCE = "#/components/schemas/{model}"
PROBLEM = {"$ref": REFERENCE.format(model=Problem.__name__)}


def json_type(prediction: type[Prediction]) -> Any:
    """What ``to_json`` of a prediction type returns.

    Raises:
        TypeError: the type does not say so.
    """
    try:
        return typing.get_type_hints(prediction.to_json, include_extras=True)["return"]
    except KeyError:
        raise TypeError(
            f"{prediction.__name__}.to_json has no return type; give it the TypedDict of its JSON"
        ) from None


def describe(app: FastAPI, hosts: Mapping[str, ModelSlot], limits: Limits) -> dict[str, Any]:
    """The whole of ``/openapi.json``: what FastAPI knows of the routes, and each model's requests and replies."""
    spec = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = spec.setdefault("components", {}).setdefault("schemas", {})
    types: dict[Any, None] = {Problem: None}
    for host in hosts.values():
        types |= dict.fromkeys((host.request, *map(json_type, _answers(host))))
    adapters = [(t, "validation", TypeAdapter(t)) for t in types]
    references, definitions = TypeAdapter.json_schemas(adapters, ref_template=REFERENCE)  # type: ignore[arg-type]
    schemas |= definitions.get("$defs", {})

    def any_of(predictions: Iterable[type[Prediction]]) -> dict[str, Any]:
        alternatives = [references[json_type(p), "validation"] for p in predictions]
        return alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}

    for host in hosts.values():
        body = describe_body(host.takes, references[host.request, "validation"], limits)
        predictor, base = host.predictor, f"/v1/models/{host.name}"
        replies = {
            "predict": {"application/json": {"schema": _predictions(host.name, any_of([predictor.PredictionType]))}}
        }
        if predictor.writes:
            replies["predict"][EVENTS] = {"schema": {"type": "string"}}
        if predictor.ExplanationType is not None:
            replies["explain"] = {"application/json": {"schema": any_of([predictor.ExplanationType])}}
        for verb, content in replies.items():
            post = spec["paths"][f"{base}/{verb}"]["post"]
            post["requestBody"] = body
            post["responses"]["200"]["content"] = content
        spec["paths"][f"{base}/stream"] = {
            "summary": f"A session of {host.name}, over WebSocket",
            "x-websocket": {"schema": _message(any_of(predictor.StreamTypes or [predictor.PredictionType]))},
        }
    return spec


def _answers(host: ModelSlot) -> list[type[Prediction]]:
    predictor = host.predictor
    explanations = [] if predictor.ExplanationType is None else [predictor.ExplanationType]
    return [predictor.PredictionType, *predictor.StreamTypes, *explanations]


def _predictions(name: str, prediction: dict[str, Any]) -> dict[str, Any]:
    """JSON schema of what ``predict`` replies."""
    items = {"anyOf": [prediction, PROBLEM]}
    predictions = {"type": "array", "items": items, "minItems": 1, "description": "in the inputs' order"}
    return _object({"model": {"const": name, "description": "which model answers"}, "predictions": predictions})


def _message(prediction: dict[str, Any]) -> dict[str, Any]:
    """JSON schema of what a session sends, a message at a time."""
    results = {"type": "array", "items": prediction, "description": "what has become clear with this piece"}
    return {
        "anyOf": [
            _object({"results": results}),
            _object({"piece": {"type": "string", "description": "of a text that is being written"}}),
            _object({"saved": {"type": "string", "description": "the session, in base64"}}),
            _object({"done": {"const": True, "description": "what was asked for is done"}}),
            PROBLEM,
        ]
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
