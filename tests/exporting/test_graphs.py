"""Graphs give what torch gives, at any length and batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dolmen.exporting.graphs import example, to_onnx
from dolmen.exporting.parity import differences
from dolmen.nn.recurrent import GRU, LSTM, RNN
from dolmen.nn.recurrent.state import State
from dolmen.nn.torch_network import Graph, Input, TorchNetwork
from dolmen.runtime.onnx_network import OnnxNetwork
from dolmen.types import UserError

KINDS: dict[str, Any] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}


class Layers(nn.Module):
    """Recurrent layers with their state as plain tensors, or with lengths."""

    def __init__(self, layers: Any, lengths: bool) -> None:
        super().__init__()
        self.layers, self.lengths = layers, lengths

    def forward(self, x: Tensor, given: Tensor, cell: Tensor | None = None) -> tuple[Tensor, ...]:
        if self.lengths:
            return (self.layers(x, lengths=given)[0],)
        out, after = self.layers(x, State(given, cell))
        return (out, after.hidden) if after.cell is None else (out, after.hidden, after.cell)


def graph_of(kind: str, lengths: bool = False, **options: Any) -> Graph:
    torch.manual_seed(0)
    layers = KINDS[kind](6, 10, options.pop("layers", 2), batch_first=True, **options).eval()
    x = Input("float32", ("batch", "time", 6))
    if lengths:
        given = {"x": x, "lengths": Input("int64", ("batch",), low=1, up_to="time")}
        return Graph(Layers(layers, True), given, ("y",))
    state = Input("float32", (layers.num_layers, "batch", layers.hidden_size))
    states = {"hidden": state} | ({"cell": state} if layers.has_memory else {})
    names = {f"next_{name}": name for name in states}
    return Graph(Layers(layers, False), {"x": x, **states}, ("y", *names), names)


@pytest.mark.parametrize(
    ("kind", "options", "node"),
    [
        ("lstm", {}, "LSTM"),
        ("gru", {}, "GRU"),
        ("rnn", {}, "RNN"),
        ("rnn", {"nonlinearity": "relu", "bias": False}, "RNN"),
        ("gru", {"residual": True, "bias": False, "layers": 3}, "GRU"),
        ("lstm", {"lengths": True, "bidirectional": True}, "LSTM"),
        ("gru", {"lengths": True, "bidirectional": True}, "GRU"),
        ("gru", {"lengths": True}, "GRU"),
        ("lstm", {"layer_norm": True}, "Scan"),
        ("gru", {"layer_norm": True, "zoneout": (0.2, 0.0)}, "Scan"),
        ("lstm", {"zoneout": (0.1, 0.3)}, "Scan"),
        ("lstm", {"mogrifier": 4}, "Scan"),
        ("lstm", {"layer_norm": True, "lengths": True, "bidirectional": True}, "Scan"),
    ],
    ids=str,
)
def test_recurrent_layers(kind: str, options: dict[str, Any], node: str) -> None:
    graph = graph_of(kind, **options)
    proto = to_onnx(graph)
    made = [n.op_type for n in proto.graph.node]
    assert node in made
    assert made.count(node) == graph.module.layers.num_layers * graph.module.layers.num_directions
    network = OnnxNetwork(proto.SerializeToString(), graph.states)
    rows = differences(graph, TorchNetwork(graph), network)
    assert len(rows) == (10 if graph.states else 6)
    # A normalised memory that is still close to zero makes much of the last digit.
    assert max(row["difference"] for row in rows) < (2e-4 if "layer_norm" in options else 1e-5)


@pytest.mark.parametrize("opset", [18, 21, 23])
def test_other_opsets(opset: int) -> None:
    graph = graph_of("gru")
    proto = to_onnx(graph, opset)
    assert proto.opset_import[0].version == opset
    rows = differences(graph, TorchNetwork(graph), OnnxNetwork(proto.SerializeToString(), graph.states))
    assert max(row["difference"] for row in rows) < 1e-5


def test_an_opset_that_is_not_possible() -> None:
    with pytest.raises(UserError, match=r"--opset 7 is not possible; give 18 to 23 \(default 20\)"):
        to_onnx(graph_of("gru"), 7)


class Fixed(nn.Module):
    """Knows one length only."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[: len(x[0].tolist())] if x.shape[1] == 3 else x


def test_a_network_of_one_size_is_refused() -> None:
    graph = Graph(Fixed().eval(), {"x": Input("float32", ("batch", "time"))}, ("y",))
    with pytest.raises(UserError, match=r"can't be written as a graph|fixed to one size of time"):
        to_onnx(graph)


def test_examples_keep_to_what_inputs_allow() -> None:
    inputs = {
        "words": Input("int64", ("batch", "time"), 5),
        "lengths": Input("int64", ("batch",), low=1, up_to="time"),
        "x": Input("float32", ("batch", 4)),
    }
    made = example(inputs, {"batch": 200, "time": 3})
    assert {k: v.shape for k, v in made.items()} == {"words": (200, 3), "lengths": (200,), "x": (200, 4)}
    assert (np.unique(made["words"]) == np.arange(5)).all()
    assert (np.unique(made["lengths"]) == [1, 2, 3]).all()
    assert made["x"].dtype == np.float32
