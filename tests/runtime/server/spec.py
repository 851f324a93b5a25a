"""OpenAPI as those who rely on it read it: what is sent is compared with it, by a validator of JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs


class Spec:
    """The document at ``/openapi.json``."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def reply(self, path: str) -> dict[str, Any]:
        """The schema of a POST's reply."""
        content = self.document["paths"][path]["post"]["responses"]["200"]["content"]
        return self._whole(content["application/json"]["schema"])

    def message(self, path: str) -> dict[str, Any]:
        """The schema of what a session sends."""
        return self._whole(self.document["paths"][path]["x-websocket"]["schema"])

    def _whole(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {**schema, "components": self.document["components"]}  # references begin at the root

    def follow(self, schema: dict[str, Any]) -> dict[str, Any]:
        """What a reference leads to."""
        if "$ref" not in schema:
            return schema
        found: dict[str, Any] = self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return found

    def objects(self, schema: dict[str, Any], place: str = "reply") -> Iterator[tuple[str, dict[str, Any]]]:
        """Every object that a schema describes, with where it stands."""
        target = self.follow(schema)
        if "properties" in target:
            yield place, target
        for name, part in target.get("properties", {}).items():
            yield from self.objects(part, f"{place}.{name}")
        for part in target.get("anyOf", []):
            yield from self.objects(part, place)
        for key in ("items", "additionalProperties"):
            if isinstance(target.get(key), dict):
                yield from self.objects(target[key], f"{place}[]")


def mismatches(schema: dict[str, Any], value: Any) -> list[str]:
    """A sentence for each place where a value is not what a schema says."""
    errors = jsonschema_rs.Draft202012Validator(schema).iter_errors(value)
    return [f"{'.'.join(map(str, error.instance_path))}: {error.message}" for error in errors]


def assert_described(spec: Spec, schema: dict[str, Any]) -> None:
    """Each field has a description, and nothing else may come."""
    found = dict(spec.objects(schema))
    assert found
    for place, part in found.items():
        assert part["additionalProperties"] is False, place
        for name, field in part["properties"].items():
            assert field.get("description"), f"{place}.{name} has no description"
