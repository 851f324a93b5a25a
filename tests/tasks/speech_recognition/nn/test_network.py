"""The recogniser: whole and in steps, forwards and both ways; its loss against the sum over all paths."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tasks.speech_recognition.processors.ctc_paths import all_sums, distributions

from dolmen.nn.torch_network import Graph, GraphSteps, Input, TorchNetwork
from dolmen.tasks.speech_recognition.nn.network import Recogniser, StreamGraph, WholeGraph, ctc_loss, stacked

FEATURES, UNITS, STRIDE = 13, 6, 3


def recogniser(**more: Any) -> Recogniser:
    torch.manual_seed(0)
    model = Recogniser(FEATURES, UNITS, stride=STRIDE, channels=(3, 4), hidden=8, **more)
    for norm in (model.norm, model.deep_norm):  # as after a training
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(norm.bias, -0.5, 0.5)
        torch.nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model.eval()


def frames(t: int, b: int = 1, seed: int = 1) -> torch.Tensor:
    return torch.randn(b, t, STRIDE, FEATURES, generator=torch.Generator().manual_seed(seed))


def network(model: Recogniser) -> TorchNetwork:
    before, maps, state = model.initial_state(1)
    shapes = {"before": before, "maps": maps, "hidden": state.hidden, "cell": state.cell}
    axes = {"before": 0, "maps": 0, "hidden": 1, "cell": 1}
    states = {
        name: Input("float32", tuple("batch" if i == axes[name] else n for i, n in enumerate(value.shape)))
        for name, value in shapes.items()
        if value is not None
    }
    inputs = {"frames": Input("float32", ("batch", "time", STRIDE, FEATURES)), **states}
    outputs = ("log_probabilities", *(f"next_{name}" for name in states))
    return TorchNetwork(Graph(StreamGraph(model), inputs, outputs, {f"next_{name}": name for name in states}))


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_a_stream_cut_anywhere_gives_what_the_whole_gives(cell: str, layers: int) -> None:
    model, x = recogniser(cell=cell, layers=layers), frames(20)
    with torch.no_grad():
        whole = model(x)[0].numpy()
    assert whole.shape == (20, UNITS)
    np.testing.assert_allclose(np.exp(whole).sum(1), 1, rtol=1e-5)
    steps = network(model).steps()
    assert isinstance(steps, GraphSteps)
    for cuts in ((), (1, 2, 3), (10,), tuple(range(1, 20))):
        steps.reset()
        pieces = [steps.read(x[0, a:b].numpy()) for a, b in itertools.pairwise((0, *cuts, 20))]
        np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=1e-5)


def test_a_stream_goes_on_from_its_state() -> None:
    x, net = frames(12)[0].numpy(), network(recogniser(cell="lstm"))
    first, second = net.steps(), net.steps()
    first.read(x[:5])
    state = first.state
    assert state.keys() == {"before", "maps", "hidden", "cell"}
    expected = first.read(x[5:])
    assert not np.array_equal(state["hidden"], first.state["hidden"])  # a copy
    second.state = state
    state["hidden"][:] = 9.0
    np.testing.assert_array_equal(second.read(x[5:]), expected)
    first.reset()
    np.testing.assert_array_equal(first.read(x), net.steps().read(x))


def test_nothing_to_go_on_from() -> None:
    inputs = {"frames": Input("float32", ("batch", "time", STRIDE, FEATURES)), "lengths": Input("int64", ("batch",))}
    graph = Graph(WholeGraph(recogniser(bidirectional=True)), inputs, ("log_probabilities",))
    with pytest.raises(TypeError, match="WholeGraph has no state to go on from"):
        TorchNetwork(graph).steps()
    outputs = TorchNetwork(graph)({"frames": frames(4).numpy(), "lengths": np.array([4])})
    assert outputs["log_probabilities"].shape == (1, 4, UNITS)


def test_it_does_not_look_ahead() -> None:
    model, x = recogniser(), frames(10)
    other = x.clone()
    other[:, 6] += 1
    with torch.no_grad():
        same = (model(x) - model(other)).abs().amax((0, 2))
    assert same[:6].max() == 0
    assert same[6] > 0


def test_both_ways_what_stands_behind_the_end_does_not_count() -> None:
    model, x = recogniser(bidirectional=True), frames(9, 2)
    lengths = torch.tensor([9, 5])
    other = x.clone()
    other[1, 5:] = 7.0
    with torch.no_grad():
        outputs, again, alone = model(x, lengths), model(other, lengths), model(x[1:, :5], torch.tensor([5]))
        reversed_ = model(x.roll(1, 1), lengths)
    torch.testing.assert_close(outputs[1, :5], again[1, :5])
    torch.testing.assert_close(outputs[1, :5], alone[0])
    assert not torch.allclose(outputs[0], reversed_[0])


def test_forwards_padding_changes_nothing() -> None:
    model, x = recogniser(), frames(9, 2)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1, :5], model(x[1:, :5])[0])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_parameter_learns(bidirectional: bool) -> None:
    model = recogniser(bidirectional=bidirectional, dropout=0.2).train()
    steps, num_units = torch.tensor([7, 4]), torch.tensor([3, 1])
    units = torch.tensor([[1, 1, 5], [2, -1, -1]])
    loss = ctc_loss(model(frames(7, 2), steps), steps, units, num_units)
    loss.total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def losses(logp: NDArray[np.float32], steps: list[int], units: list[list[int]]) -> tuple[float, float]:
    longest = max(map(len, units))
    padded = torch.tensor([u + [-1] * (longest - len(u)) for u in units]).reshape(len(units), longest)
    numbers = torch.tensor([len(u) for u in units])
    loss = ctc_loss(torch.from_numpy(logp), torch.tensor(steps), padded, numbers)
    return float(loss.total), loss.weight


def test_the_loss_is_that_of_all_paths() -> None:
    logp = np.stack([distributions(5, 4, seed) for seed in range(3)])
    total, weight = losses(logp, [5, 3, 4], [[1, 2], [3], [2, 2]])
    sums = [all_sums(row[:n]) for row, n in zip(logp, (5, 3, 4), strict=True)]
    assert total == pytest.approx(-(sums[0][1, 2] + sums[1][(3,)] + sums[2][2, 2]), rel=1e-5)
    assert weight == pytest.approx(5)
    # By hand: two steps, one unit: "a-", "-a", "aa".
    even = np.full((1, 2, 4), np.log(0.25), np.float32)
    assert losses(even, [2], [[1]])[0] == pytest.approx(-np.log(3 / 16))


def test_what_is_too_short_for_its_units_weighs_nothing() -> None:
    logp = np.stack([distributions(3, 4, seed) for seed in range(2)])
    alone = losses(logp[:1], [3], [[1, 2]])
    assert losses(logp, [3, 3], [[1, 2], [2, 2, 3]]) == pytest.approx(alone)
    assert losses(logp[1:], [3], [[2, 2, 3]]) == pytest.approx((0, 0), abs=1e-6)


@pytest.mark.parametrize(("n", "stride", "steps"), [(7, 3, 3), (6, 3, 2), (1, 4, 1), (5, 1, 5)])
def test_frames_to_steps(n: int, stride: int, steps: int) -> None:
    x = torch.randn(2, n, 5)
    chunks = stacked(x, stride)
    assert chunks.shape == (2, steps, stride, 5)
    flat = chunks.reshape(2, steps * stride, 5)
    torch.testing.assert_close(flat[:, :n], x)
    assert not flat[:, n:].any()


def test_the_edge_size_has_60_thousand_parameters() -> None:
    model = Recogniser(40, 11, channels=(16, 16), hidden=56, layers=2)
    assert sum(p.numel() for p in model.parameters()) <= 60_000
