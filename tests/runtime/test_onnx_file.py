"""Graphs that lead out of their file are refused, wherever in the graph they do."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dolmen.runtime.onnx_file import refusal


def external() -> Any:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    place = tensor.external_data.add()
    place.key, place.value = "location", "secret.txt"
    return tensor


def model(nodes: Any = (), tensors: Any = (), sparse: Any = (), **more: Any) -> Any:
    weight = numpy_helper.from_array(np.ones(2, np.float32), "v")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "v"], ["y"]), *nodes], "g", [value("x", 1, [2])], [value("y", 1, [2])],
        [weight, *tensors], sparse_initializer=list(sparse),
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], **more)


def inside(node: Any, depth: int) -> Any:
    """A node in the branch of an If, so many deep."""
    for _ in range(depth):
        branch = helper.make_graph([node], "branch", [], [])
        node = helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    return node


def sparse(values: Any) -> Any:
    return onnx.SparseTensorProto(values=values, indices=numpy_helper.from_array(np.zeros(2, np.int64)), dims=[9])


CONSTANT = helper.make_node("Constant", [], ["k"], value=external())
SPARSE = helper.make_node("Constant", [], ["k"], sparse_value=sparse(external()))
FOREIGN = helper.make_node("Gelu", ["x"], ["z"], domain="com.microsoft")
FUNCTION = helper.make_function("own", "f", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], [])


@pytest.mark.parametrize(
    ("proto", "reason"),
    [
        (model(), ""),
        (model([helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.ones(2)))]), ""),
        (model([helper.make_node("Neg", ["x"], ["z"], domain="ai.onnx")]), ""),
        (model(tensors=[external()]), "it takes weights from another file"),
        (model([CONSTANT]), "it takes weights from another file"),
        (model([inside(CONSTANT, 3)]), "it takes weights from another file"),
        (model([SPARSE]), "it takes weights from another file"),
        (model(sparse=[sparse(external())]), "it takes weights from another file"),
        (model([FOREIGN]), "it has an operator that is not of ONNX"),
        (model([inside(FOREIGN, 2)]), "it has an operator that is not of ONNX"),
        (model(functions=[FUNCTION]), "it defines functions of its own"),
    ],
)  # fmt: skip
def test_what_leads_out_of_the_file(proto: Any, reason: str) -> None:
    assert refusal(proto.SerializeToString()) == reason


def test_a_location_without_a_place_and_a_place_without_a_location() -> None:
    for field in ("data_location", "external_data"):
        tensor = external()
        tensor.ClearField(field)
        assert refusal(model(tensors=[tensor]).SerializeToString()) == "it takes weights from another file"


def test_what_is_no_graph() -> None:
    whole = model([inside(FOREIGN, 2)]).SerializeToString()
    for cut in range(1, len(whole)):
        assert refusal(whole[:cut]) in {"", "it is no ONNX file", "it has an operator that is not of ONNX"}
    for byte in range(256):
        assert isinstance(refusal(bytes([byte]) * 40), str)
    assert refusal(b"\xff" * 40) == refusal(b"\x0b") == refusal(b"\x3a\x7f") == "it is no ONNX file"
