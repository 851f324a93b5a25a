"""Streams through ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dolmen.exporting.graphs import to_onnx
from dolmen.nn.recurrent.language_model import LanguageGraph, LanguageModel
from dolmen.nn.torch_network import Graph, Input
from dolmen.runtime.onnx_network import OnnxNetwork
from dolmen.tasks.text_generation.nn import LanguageSteps


@pytest.fixture(scope="module", params=["lstm", "gru"])
def both(request: pytest.FixtureRequest) -> tuple[OnnxNetwork, LanguageSteps]:
    torch.manual_seed(0)
    model = LanguageModel(30, size=12, hidden=16, layers=2, cell=request.param).eval()
    state = Input("float32", (2, "batch", 16))
    states = {"hidden": state} | ({"cell": state} if request.param == "lstm" else {})
    names = {f"next_{n}": n for n in states}
    graph = Graph(
        LanguageGraph(model), {"tokens": Input("int64", ("batch", "time"), 30), **states}, ("logits", *names), names
    )
    return OnnxNetwork(to_onnx(graph).SerializeToString(), names, threads=1), LanguageSteps(model)


def test_steps_equal_torch_in_any_parts(both: tuple[OnnxNetwork, LanguageSteps]) -> None:
    network, reference = both
    steps, tokens = network.steps(), np.random.default_rng(0).integers(0, 30, 40)
    reference.reset()
    whole = reference.read(tokens)
    for cuts in ([40], [1] * 40, [7, 1, 1, 1, 20, 1, 9]):
        steps.reset()
        found = [steps.read(part).copy() for part in np.split(tokens, np.cumsum(cuts)[:-1])]
        np.testing.assert_allclose(np.concatenate(found), whole, atol=1e-5)
    saved = steps.state
    after = steps.read(tokens[:1]).copy()
    steps.read(tokens[:5])
    steps.state = saved
    np.testing.assert_array_equal(steps.read(tokens[:1]), after)
    assert saved["hidden"].shape == (2, 1, 16)


def test_streams_do_not_disturb_each_other(both: tuple[OnnxNetwork, LanguageSteps]) -> None:
    network, _ = both
    one, other = network.steps(), network.steps()
    token = np.array([3])
    alone = [one.read(token).copy() for _ in range(3)]
    one.reset()
    turns = []
    for _ in range(3):
        turns.append(one.read(token).copy())
        other.read(np.array([5]))
    np.testing.assert_array_equal(alone, turns)


def test_threads_are_what_was_asked(both: tuple[OnnxNetwork, LanguageSteps]) -> None:
    assert both[0].session.get_session_options().intra_op_num_threads == 1


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_memory_stays_over_a_million_steps(both: tuple[OnnxNetwork, LanguageSteps]) -> None:
    steps, token = both[0].steps(), np.array([3])
    for _ in range(10_000):
        steps.read(token)
    before = resident()
    for _ in range(1_000_000):
        steps.read(token)
    assert resident() - before < 4 << 20
