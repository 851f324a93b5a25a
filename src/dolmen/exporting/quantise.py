"""Weights and activations of eight bits."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dolmen.types import Arrays

RECURRENT = {"LSTM", "GRU", "RNN", "Scan"}
STATIC = ("Conv", "Gemm", "MatMul")
BETWEEN_LAYERS = {"Add", "Mul", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "HardSwish"}
MIN_WEIGHTS = 1024
"""Smaller tensors stay as they are: they weigh nothing."""
CALIBRATION_BATCH_SIZE = 32


def is_recurrent(proto: Any) -> bool:
    """Whether a graph has recurrent layers: their weights alone are quantised."""
    return any(node.op_type in RECURRENT for node in proto.graph.node)


def weights_to_int8(proto: Any) -> Any:
    """Store large weights as int8 with a scale for each of their rows, dequantised when the graph is opened.

    Recurrent layers stay ONNX's own nodes this way, GRU included, which ONNX Runtime has no int8 kernel for; files get
    smaller, and steps are as quick as before. The largest value of a row becomes 127 (symmetric, to the nearest).
    """
    small = onnx.ModelProto()
    small.CopyFrom(proto)
    graph = small.graph
    users: dict[str, list[tuple[Any, int]]] = {}
    for node in _nodes(graph):
        for at, name in enumerate(node.input):
            users.setdefault(name, []).append((node, at))
    kept, dequantised = [], []
    for tensor in graph.initializer:
        axis = _row_axis(users.get(tensor.name, ()), len(tensor.dims))
        if tensor.data_type != onnx.TensorProto.FLOAT or int(np.prod(tensor.dims)) < MIN_WEIGHTS or axis is None:
            kept.append(tensor)
            continue
        values = numpy_helper.to_array(tensor)
        others = tuple(i for i in range(values.ndim) if i != axis)
        scale = np.maximum(np.abs(values).max(others, keepdims=True) / 127, 1e-12).astype(np.float32)
        rounded = np.clip(np.round(values / scale), -127, 127).astype(np.int8)
        name = tensor.name
        kept += [
            numpy_helper.from_array(rounded, f"{name}_int8"),
            numpy_helper.from_array(scale.ravel(), f"{name}_scale"),
        ]
        dequantised.append(
            helper.make_node("DequantizeLinear", [f"{name}_int8", f"{name}_scale"], [name], f"{name}_widen", axis=axis)
        )
    nodes = [*dequantised, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    return small


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those inside of others too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _row_axis(users: Sequence[tuple[Any, int]], ndim: int) -> int | None:
    """Along which axis a weight has a scale for each place; None where it is no weight."""
    if ndim < 2 or not users:
        return None
    op_types = {node.op_type for node, _ in users}
    if op_types <= {"Gather", "Transpose"}:  # an embedding, perhaps tied to the softmax
        return 0
    (node, at), *others = users
    if others:
        return None
    if node.op_type in RECURRENT and at in (1, 2):
        return 1
    if node.op_type == "MatMul" and at == 1:
        return ndim - 1
    if node.op_type == "Conv" and at == 1:
        return 0
    if node.op_type == "Gemm" and at == 1:
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return None


def layers_of(proto: Any) -> list[str]:
    """Names of the nodes that static quantisation takes, in their order."""
    constant = {t.name for t in proto.graph.initializer}
    return [n.name for n in proto.graph.node if n.op_type in STATIC and any(i in constant for i in n.input)]


def static_int8(proto: Any, examples: Arrays, float_layers: Collection[str] = (), only: Collection[str] = ()) -> Any:
    """Convolutions and fully connected layers on eight bits, both weights and activations (QDQ, a scale a channel).

    Weights get seven of the eight bits: processors without VNNI add products of full bytes in 16 bits, and would
    clip them, so that a device would give other answers than the machine that measured them.

    Args:
        proto: the graph in fp32.
        examples: inputs from the training data, by which the ranges of activations are taken.
        float_layers: nodes that stay in fp32.
        only: nodes that are quantised; empty for all others.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            num_examples = len(next(iter(examples.values())))
            self.batches: Iterator[Arrays] = iter(
                {k: v[i : i + CALIBRATION_BATCH_SIZE] for k, v in examples.items()}
                for i in range(0, num_examples, CALIBRATION_BATCH_SIZE)
            )

        def get_next(self) -> Arrays | None:
            return next(self.batches, None)

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)  # it is emptied on the way
    with tempfile.TemporaryDirectory() as name, _quietly():
        place = Path(name) / "int8.onnx"
        quantize_static(
            copy, place, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=_quantised(proto),
            nodes_to_exclude=[*float_layers, *_outside(proto)], nodes_to_quantize=list(only),
        )  # fmt: skip
        return onnx.load(place)


def _quantised(proto: Any) -> list[str]:
    """What stands between quantised layers has to be quantised too, or numbers go to fp32 and back in between."""
    return [*STATIC, *sorted(BETWEEN_LAYERS & {n.op_type for n in proto.graph.node})]


def _outside(proto: Any) -> list[str]:
    """Nodes of types that stand between layers, but here do not: they compute with what is no feature.

    The arithmetic of a detector's boxes is of the same additions and products, and a pixel would become what its eight
    bits can tell apart (measured on blood cells: 3 points of mAP).
    """
    layers, nodes = set(layers_of(proto)), list(proto.graph.node)  # in the order in which they are computed
    after: set[str] = set()  # tensors that come from a layer, by nothing but what stands between
    for node in nodes:
        if node.name in layers or (node.op_type in BETWEEN_LAYERS and after.intersection(node.input)):
            after.update(node.output)
    before: set[str] = set()  # tensors that go to one, likewise
    for node in reversed(nodes):
        if node.name in layers or (node.op_type in BETWEEN_LAYERS and before.intersection(node.output)):
            before.update(node.input)
    return [
        node.name
        for node in nodes
        if node.op_type in BETWEEN_LAYERS and not (after.intersection(node.input) and before.intersection(node.output))
    ]


def harms(proto: Any, examples: Arrays, reference: NDArray[Any]) -> dict[str, float]:
    """How far the first output moves when one layer alone has eight bits: its mean square error by its mean square.

    Args:
        proto: the graph in fp32.
        examples: some inputs.
        reference: the graph's first output for them.
    """
    from dolmen.runtime.onnx_network import OnnxNetwork

    harm, size = {}, max(float(np.square(reference).mean()), 1e-30)
    for name in layers_of(proto):
        outputs = OnnxNetwork(static_int8(proto, examples, only=[name]).SerializeToString())(examples)
        harm[name] = float(np.square(next(iter(outputs.values())) - reference).mean()) / size
    return harm


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it speaks to the root logger
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
