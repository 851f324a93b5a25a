"""Eight bits: what becomes smaller, what stays, and how far answers move."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from dolmen.exporting import quantise
from dolmen.exporting.graphs import example, to_onnx
from dolmen.nn.convolutional.blocks import Normalise
from dolmen.nn.convolutional.classifiers import ViewAverage, build_classifier
from dolmen.nn.recurrent.language_model import LanguageGraph, LanguageModel
from dolmen.nn.torch_network import Graph, Input
from dolmen.runtime.onnx_network import OnnxNetwork
from dolmen.tasks.image_classification.processor import ClassificationProcessor


def language_graph(cell: str, mogrifier: int) -> Graph:
    torch.manual_seed(0)
    model = LanguageModel(200, size=48, hidden=64, layers=2, cell=cell, mogrifier=mogrifier).eval()
    state = Input("float32", (2, "batch", 64))
    states = {"hidden": state} | ({"cell": state} if cell == "lstm" else {})
    names = {f"next_{n}": n for n in states}
    tokens = Input("int64", ("batch", "time"), 200)
    return Graph(LanguageGraph(model), {"tokens": tokens, **states}, ("logits", *names), names)


@pytest.mark.parametrize(("cell", "mogrifier"), [("lstm", 0), ("gru", 0), ("rnn", 0), ("lstm", 2)])
def test_recurrent_weights(cell: str, mogrifier: int) -> None:
    graph = language_graph(cell, mogrifier)
    proto = to_onnx(graph)
    small = quantise.weights_to_int8(proto)
    onnx.checker.check_model(small, full_check=True)
    assert quantise.is_recurrent(proto)
    assert len(proto.SerializeToString()) > 2.9 * len(small.SerializeToString())
    kinds = Counter(n.op_type for n in small.graph.node)
    assert kinds["Scan" if mogrifier else cell.upper()] == 2
    # Two layers with two matrices and what gates them, the embedding that the softmax shares, the bridge between.
    assert kinds["DequantizeLinear"] == 6 + 2 * mogrifier
    inputs = example(graph.inputs, {"batch": 3, "time": 9})
    whole = OnnxNetwork(proto.SerializeToString(), graph.states)(inputs)
    for dequantise in (True, False):
        found = OnnxNetwork(small.SerializeToString(), graph.states, dequantise_at_load=dequantise)(inputs)
        apart = np.abs(found["logits"] - whole["logits"]).max() / np.abs(whole["logits"]).max()
        assert 0 < apart < 0.03


def classifier() -> tuple[Graph, ClassificationProcessor]:
    torch.manual_seed(0)
    p = ClassificationProcessor(classes=("a", "b", "c"), height=16, width=16, channels=3, num_views=2)
    model = build_classifier("resnet8", 3, Normalise([127.5] * 3, [64.0] * 3), 16).eval()
    return Graph(ViewAverage(model, p.views()), {"images": Input("uint8", ("batch", 16, 16, 3))}, ("logits",)), p


def test_convolutions_compute_on_eight_bits() -> None:
    graph, _ = classifier()
    proto = to_onnx(graph)
    before = proto.SerializeToString()
    inputs = example(graph.inputs, {"batch": 40})
    small = quantise.static_int8(proto, inputs)
    assert proto.SerializeToString() == before
    assert len(before) > 3.5 * len(small.SerializeToString())
    whole, found = (OnnxNetwork(p.SerializeToString())(inputs)["logits"] for p in (proto, small))
    assert 0 < np.abs(whole - found).max() < 0.1 * np.abs(whole).max()
    layers = quantise.layers_of(proto)
    kept = quantise.static_int8(proto, inputs, float_layers=layers[:2])
    weights = {
        t.name
        for t in kept.graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 4 and t.dims[0] > 1
    }
    assert len(weights) == 2
    harms = quantise.harms(proto, inputs, whole)
    assert sorted(harms) == sorted(layers)
    assert 0 < min(harms.values()) <= max(harms.values()) < 0.1


class Places(nn.Module):
    """Two layers, a sum of both, and places in a large picture worked out from what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(c, 8, 3, padding=1) for c in (3, 8, 8))
        self.register_buffer("anchors", torch.linspace(0, 2000, 64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first = self.first(images.permute(0, 3, 1, 2).float() / 255)
        second = torch.relu(self.second(first))
        found = self.third(first + second).flatten(2).mean(1)
        return (found * 2 + self.anchors).clamp(0, 2000)


def test_what_is_worked_out_from_the_layers_stays_exact() -> None:
    torch.manual_seed(0)
    graph = Graph(Places().eval(), {"images": Input("uint8", ("batch", 8, 8, 3))}, ("places",))
    proto, inputs = to_onnx(graph), example(graph.inputs, {"batch": 4})
    small = quantise.static_int8(proto, inputs)
    whole, found = (OnnxNetwork(p.SerializeToString())(inputs)["places"] for p in (proto, small))
    assert 0 < np.abs(whole - found).max() < 0.1  # in steps of 2000 / 255 it would be up to 4
    rounded = {i for n in small.graph.node if n.op_type == "QuantizeLinear" for i in n.input}
    between = [n for n in small.graph.node if n.op_type in ("Add", "Relu") and rounded.intersection(n.output)]
    assert len(between) >= 1  # the sum of two layers' features is a feature
