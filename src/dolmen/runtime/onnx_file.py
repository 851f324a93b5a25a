"""Whether an ONNX file is complete in itself: a stranger's may name other files, and operators of other libraries.

It is read by its wire format (protobuf), since the onnx library is not there where models are only used.
"""

from __future__ import annotations

from collections.abc import Iterator

# The fields of onnx.proto that lead to what is looked at, by number, and the message that each holds.
FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute", 7: "domain"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "other file", 14: "location"},
}
OWN_DOMAINS = {b"", b"ai.onnx"}
"""The domains of operators that ONNX itself defines; export writes no others."""
VARINT, EIGHT_BYTES, MESSAGE, FOUR_BYTES = 0, 1, 2, 5


def refusal(content: bytes) -> str:
    """Why a file must not be opened; "" if it may.

    Args:
        content: of an ONNX file.
    """
    open_messages = [("model", memoryview(content))]
    try:
        while open_messages:
            message, view = open_messages.pop()
            for number, wire, value in _fields(view):
                holds = FIELDS[message].get(number, "")
                if holds == "other file" or (holds == "location" and wire == VARINT and value):
                    return "it takes weights from another file"
                if holds == "function":
                    return "it defines functions of its own"
                if not isinstance(value, memoryview):
                    continue
                if holds == "domain" and bytes(value) not in OWN_DOMAINS:
                    return "it has an operator that is not of ONNX"
                if holds in FIELDS:
                    open_messages.append((holds, value))
    except (IndexError, ValueError):
        return "it is no ONNX file"
    return ""


def _fields(view: memoryview) -> Iterator[tuple[int, int, memoryview | int]]:
    """Number, wire type and value of each field of a message.

    Raises:
        IndexError: it ends too early.
        ValueError: it is no message.
    """
    at, end = 0, len(view)
    while at < end:
        tag, at = _varint(view, at)
        number, wire = tag >> 3, tag & 7
        value: memoryview | int
        if wire == VARINT:
            value, at = _varint(view, at)
        elif wire == MESSAGE:
            length, at = _varint(view, at)
            value, at = view[at : at + length], at + length
        elif wire in (EIGHT_BYTES, FOUR_BYTES):
            value, at = 0, at + (8 if wire == EIGHT_BYTES else 4)
        else:
            raise ValueError(f"wire type {wire}")
        if at > end or not number:
            raise IndexError(at)
        yield number, wire, value


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
