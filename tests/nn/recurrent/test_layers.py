"""The recurrent layers equal torch.nn's, equal their own definition step by step, and do what torch.nn has not."""

from __future__ import annotations

import functools
import itertools
import os
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dolmen.nn.initialisers import initialise
from dolmen.nn.recurrent import GRU, LSTM, RNN
from dolmen.nn.recurrent import path as recurrent_path
from dolmen.nn.recurrent.layers import Recurrent
from dolmen.nn.recurrent.state import State

CELLS: dict[str, tuple[type[Recurrent], Any, dict[str, Any]]] = {
    "rnn": (RNN, nn.RNN, {}),
    "relu": (RNN, nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (LSTM, nn.LSTM, {}),
    "gru": (GRU, nn.GRU, {}),
}
T, B, SIZE, H = 7, 5, 6, 50  # 50 units: neither a multiple of a vector nor of a panel


def build(cell_name: str, **options: Any) -> Recurrent:
    torch.manual_seed(0)
    ours, _, more = CELLS[cell_name]
    return ours(SIZE, H, **more, **options)


def sequence(seed: int = 0, steps: int = T) -> Tensor:
    return torch.randn(steps, B, SIZE, generator=torch.Generator().manual_seed(seed))


def gradients(layer: nn.Module, y: Tensor, *others: Tensor | None) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(9)
    total = (y * torch.randn(y.shape, generator=g)).sum()
    for other in others:
        if other is not None:
            total = total + (other * torch.randn(other.shape, generator=g)).sum()
    layer.zero_grad()
    total.backward()
    return {n: p.grad.clone() for n, p in layer.named_parameters() if p.grad is not None}


def assert_near(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 2e-5) -> None:
    assert a.keys() == b.keys()
    for name in a:  # a gradient is a sum over all steps: its error grows with its largest entries
        near = tolerance * max(1.0, float(b[name].abs().max()))
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=near, msg=lambda m, n=name: f"{n}: {m}")


SHAPES = [{}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True, "bias": False}]


@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell_name", CELLS)
def test_equals_torch(cell_name: str, options: dict[str, Any], batch_first: bool) -> None:
    theirs = CELLS[cell_name][1](SIZE, H, batch_first=batch_first, **CELLS[cell_name][2], **options)
    ours = CELLS[cell_name][0].from_torch(theirs)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x = sequence().transpose(0, 1).contiguous() if batch_first else sequence()
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, state = ours(a)
    expected, last = theirs(b)
    hidden, cell = last if isinstance(last, tuple) else (last, None)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state.hidden, hidden, rtol=1e-5, atol=1e-5)
    if cell is not None:
        torch.testing.assert_close(state.cell, cell, rtol=1e-5, atol=1e-5)
    assert_near(gradients(ours, y, *state), gradients(theirs, expected, hidden, cell))
    assert a.grad is not None
    assert b.grad is not None
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[0], expected, rtol=1e-5, atol=1e-5)
    back = ours.to_torch()
    assert type(back) is type(theirs)
    assert all(torch.equal(v, back.state_dict()[k]) for k, v in theirs.state_dict().items())


@pytest.mark.parametrize("cell_name", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths_equal_each_sequence_alone(cell_name: str, bidirectional: bool) -> None:
    layer = build(cell_name, num_layers=2, bidirectional=bidirectional)
    x, lengths = sequence(), [7, 1, 4, 6, 2]
    y, state = layer(x, lengths=lengths)
    for b, n in enumerate(lengths):
        alone, last = layer(x[:n, b : b + 1])
        torch.testing.assert_close(y[:n, b : b + 1], alone, rtol=1e-5, atol=1e-6)
        assert not y[n:, b].any()
        for got, want in zip(state, last, strict=True):
            if want is not None:
                torch.testing.assert_close(got[:, b : b + 1], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell_name", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_reset_begins_a_new_sequence(cell_name: str, bidirectional: bool) -> None:
    layer = build(cell_name, bidirectional=bidirectional)
    x = sequence()
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[3, 1] = reset[5, 1] = True
    y, _ = layer(x, reset_mask=reset)
    torch.testing.assert_close(y[:, 0], layer(x)[0][:, 0], rtol=1e-5, atol=1e-6)
    for start, end in ((0, 3), (3, 5), (5, T)):
        alone, _ = layer(x[start:end, 1:2])
        torch.testing.assert_close(y[start:end, 1:2], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell_name", CELLS)
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "layer_norm": True, "zoneout": 0.2}, {"proj_size": 9}], ids=str
)
def test_steps_and_chunks_equal_the_whole(cell_name: str, options: dict[str, Any]) -> None:
    layer = build(cell_name, **options).eval()
    x = sequence()
    whole, last = layer(x)
    for cuts in itertools.combinations(range(1, T), 2):
        state, parts = None, []
        for start, end in itertools.pairwise((0, *cuts, T)):
            part, state = layer(x[start:end], state)
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-6)
    state, steps = None, []
    for t in range(T):
        y, state = layer.step(x[t], state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps), whole, rtol=1e-5, atol=1e-6)
    assert state is not None
    torch.testing.assert_close(state.hidden, last.hidden, rtol=1e-5, atol=1e-6)


OPTIONS = [
    {},
    {"layer_norm": True},
    {"zoneout": (0.3, 0.1)},
    {"layer_norm": True, "zoneout": 0.25, "learn_state": True, "num_layers": 2, "residual": True},
    {"bidirectional": True, "layer_norm": True, "learn_state": True},
]


@pytest.mark.parametrize("call", ["plain", "gates", "masks"])
@pytest.mark.parametrize(
    ("options", "training"),
    # Only of layers that draw random numbers is evaluation another computation than training.
    [(options, True) for options in OPTIONS] + [(options, False) for options in OPTIONS if "zoneout" in options],
    ids=str,
)
@pytest.mark.parametrize("cell_name", CELLS)
def test_the_compiled_cells_equal_their_definition(
    cell_name: str, options: dict[str, Any], call: str, training: bool
) -> None:
    pytest.importorskip("numba")
    quick, slow = build(cell_name, **options), build(cell_name, **options, compiled=False)
    for p, q in zip(quick.parameters(), slow.parameters(), strict=True):
        with torch.no_grad():
            p.add_(torch.randn(p.shape) * 0.1)
            q.copy_(p)
    quick.train(training)
    slow.train(training)
    reset = torch.rand(T, B, generator=torch.Generator().manual_seed(1)) < 0.3
    extras: dict[str, dict[str, Any]] = {  # what is kept for the backward pass depends on them
        "plain": {},
        "gates": {"return_gates": True},
        "masks": {"lengths": [7, 3, 1, 6, 5], "reset_mask": reset, "return_gates": not options},
    }
    more = extras[call]
    state = None
    if not quick.learn_state:
        g = torch.Generator().manual_seed(2)
        shape = (quick.num_layers * quick.num_directions, B, H)
        state = State(torch.randn(shape, generator=g), torch.randn(shape, generator=g) if cell_name == "lstm" else None)
    assert quick.path(extras=True)[0] == "compiled"
    results = []
    for layer in (quick, slow):
        x = sequence().requires_grad_()
        torch.manual_seed(3)
        y, last, *gates = layer(x, state, **more)
        assert layer.path(extras=True)[0] == ("compiled" if layer is quick else "loop")
        grads = gradients(layer, y, *last)
        assert x.grad is not None
        results.append((y, last, gates, grads, x.grad))
    a, b = results
    torch.testing.assert_close(a[0], b[0], rtol=1e-5, atol=1e-5)
    for got, want in zip(a[1], b[1], strict=True):
        if want is not None:
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    inside = torch.arange(T)[:, None] < torch.tensor(more.get("lengths", [T] * B))
    for got, want in zip(*(gates[0] if gates else () for gates in (a[2], b[2])), strict=True):
        assert got.keys() == want.keys()
        for name in got:
            torch.testing.assert_close(got[name][inside], want[name][inside], rtol=1e-5, atol=1e-5)
    assert_near(a[3], b[3])
    torch.testing.assert_close(a[4], b[4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cell_name", CELLS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "layer_norm": True, "zoneout": (0.2, 0.1), "learn_state": True},
        {"num_layers": 3, "residual": True},
    ],
    ids=str,
)
def test_a_stepper_equals_the_whole(cell_name: str, options: dict[str, Any]) -> None:
    layer = build(cell_name, **options).eval()
    for name, p in layer.named_parameters():
        if name.startswith(("start", "scale", "cell_s")):
            with torch.no_grad():
                p.add_(torch.randn(p.shape) * 0.1)
    x = sequence()
    whole, last = layer(x)
    stepper = layer.stepper(B)
    for again in range(2):
        for t in range(T):
            y = stepper.step(x[t].numpy())
            np.testing.assert_allclose(y, whole[t].detach().numpy(), rtol=1e-5, atol=1e-5)
            if t == 3:
                saved = stepper.state
        torch.testing.assert_close(stepper.state.hidden, last.hidden.detach(), rtol=1e-5, atol=1e-5)
        if again:
            stepper.state = saved
            np.testing.assert_allclose(stepper.step(x[4].numpy()), whole[4].detach().numpy(), rtol=1e-5, atol=1e-5)
        stepper.reset()
    for shape in ((B, SIZE + 1), (1, SIZE), (SIZE,), (B + 1, SIZE), ()):
        with pytest.raises(ValueError, match=re.escape(f"the input has the shape {shape}; it has to be {(B, SIZE)}")):
            stepper.step(np.zeros(shape, np.float32))


@pytest.mark.parametrize("cell_name", CELLS)
def test_without_numba_the_numbers_are_the_same(cell_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = build(cell_name, layer_norm=True).eval()
    plain = build(cell_name).eval()
    x = sequence()
    quick, quick_plain = layer(x)[0], plain(x)[0]
    monkeypatch.setattr(recurrent_path, "not_compiled", lambda: "Numba is not installed")
    assert layer.explain() == "loop: Numba is not installed"
    assert plain.explain() == "torch: Numba is not installed"
    torch.testing.assert_close(layer(x)[0], quick, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(plain(x)[0], quick_plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(plain(x, lengths=[7, 3, 1, 6, 5])[0][:3, 1], quick_plain[:3, 1], rtol=1e-5, atol=1e-5)
    stepper = plain.stepper(B)
    for t in range(T):
        np.testing.assert_allclose(stepper.step(x[t].numpy()), quick_plain[t].detach().numpy(), rtol=1e-5, atol=1e-5)


def test_explain_says_which_path_and_why() -> None:
    assert build("gru").explain() == "compiled: one compiled kernel over all steps"
    assert build("lstm").explain().startswith("torch: in fp32 oneDNN's LSTM")
    assert build("lstm").explain(lengths=True).startswith("compiled")
    with torch.autocast("cpu", torch.bfloat16):
        assert build("lstm").explain().startswith("compiled")
        with torch.inference_mode():
            assert build("lstm").explain().startswith("torch: without a gradient")
    assert build("lstm", mogrifier=2).explain() == "loop: the mogrifier's rounds have no kernel"
    assert build("gru").explain(device="cuda") == "torch: torch's own kernels have this cell"
    fused = "fused" if recurrent_path.has_triton() else "loop"
    assert build("gru", zoneout=0.1).explain(device="cuda").startswith(f"{fused}: torch's own kernels have no layer")
    assert build("gru", zoneout=0.1).explain(device="mps").startswith("loop: torch's own kernels have no layer")
    assert build("gru", compiled=False).explain().startswith("loop: compiled=False")
    assert build("gru", proj_size=9).explain() == "loop: a projection of the state has no kernel"
    assert build("gru").explain(dtype=torch.float64).startswith("loop: the compiled cells know float32")


def test_a_mogrifier_gates_input_and_state_in_turn() -> None:
    layer = build("lstm", num_layers=2, mogrifier=3).eval()
    plain = LSTM(SIZE, H, 2)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if "mogrifier" not in k})
    x = sequence()
    whole, last = layer(x)
    state = layer.initial_state(B)
    for t in range(T):  # by its definition, with the step of a plain layer
        y, hidden, cell = x[t], [], []
        for at in range(2):
            h = state.hidden[at]
            first, second, third = (getattr(layer, f"mogrifier_{i}_l{at}") for i in range(3))
            y = 2 * (h @ first.T).sigmoid() * y
            h = 2 * (y @ second.T).sigmoid() * h
            y = 2 * (h @ third.T).sigmoid() * y
            w = {k: v for k, v in plain.weights(at).items() if v is not None}
            c = torch.nn.LSTMCell(y.shape[1], H)
            c.load_state_dict(w)
            y, memory = c(y, (h, state.cell[at]))
            hidden.append(y)
            cell.append(memory)
        state = State(torch.stack(hidden), torch.stack(cell))
        torch.testing.assert_close(whole[t], y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last.cell, state.cell, rtol=1e-5, atol=1e-5)
    stepper = layer.stepper(B)
    np.testing.assert_allclose(stepper.step(x[0].numpy()), whole[0].detach().numpy(), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="mogrifier is for an LSTM"):
        build("gru", mogrifier=2)
    with pytest.raises(ValueError, match="has no mogrifier"):
        layer.to_torch()


@pytest.mark.parametrize("cell_name", CELLS)
def test_gradients_are_right_by_finite_differences(cell_name: str) -> None:
    layer = build(cell_name, layer_norm=cell_name != "relu", learn_state=True).double()
    x = torch.randn(3, 2, SIZE, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: layer(v)[0], x)
    assert torch.autograd.gradgradcheck(lambda v: layer(v)[0], x)


@pytest.mark.parametrize("cell_name", ["gru", "lstm"])
def test_the_quick_paths_refuse_second_derivatives(cell_name: str) -> None:
    layer = build(cell_name)
    x = sequence().requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative; build the layer with compiled=False"):
        torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)


@pytest.mark.parametrize("cell_name", ["rnn", "lstm", "gru"])
def test_bf16_stays_near(cell_name: str) -> None:
    layer = build(cell_name, num_layers=2)
    x = sequence()
    exact, _ = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        half, _ = layer(x)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0, atol=0.03)
    a, b = gradients(layer, exact), gradients(layer, half)
    for name in a:
        near = torch.nn.functional.cosine_similarity(a[name].flatten(), b[name].flatten(), dim=0)
        assert near > 0.995, name
    whole = build(cell_name).bfloat16()(x.bfloat16())[0]
    assert whole.dtype == torch.bfloat16


@pytest.mark.parametrize("options", [{}, {"layer_norm": True}, {"learn_state": True, "zoneout": 0.2}], ids=str)
@pytest.mark.parametrize("cell_name", CELLS)
def test_weights_in_bf16_give_nearly_what_they_give_in_fp32(cell_name: str, options: dict[str, Any]) -> None:
    halves = build(cell_name, **options).bfloat16().eval()
    exact = build(cell_name, compiled=False, **options).eval()
    exact.load_state_dict({k: v.float() for k, v in halves.state_dict().items()})
    reset = torch.rand(T, B, generator=torch.Generator().manual_seed(1)) < 0.3
    for more in ({}, {"reset_mask": reset}):
        x = sequence().bfloat16()
        y, state = halves(x, **more)
        want, last = exact(x.float(), **more)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), want, rtol=0.05, atol=0.02)
        torch.testing.assert_close(state.hidden.float(), last.hidden, rtol=0.05, atol=0.02)
        got, expected = (gradients(layer, out.float()) for layer, out in ((halves, y), (exact, want)))
        for name in expected:
            error = (got[name].float() - expected[name]).norm() / (expected[name].norm() + 1e-3)
            assert error < 0.05, name


@pytest.mark.parametrize("cell_name", CELLS)
def test_a_number_that_is_none_is_not_lost(cell_name: str) -> None:
    x = sequence()
    x[2, 1, 0] = float("nan")
    y, _ = build(cell_name)(x)
    assert y[2:, 1].isnan().all()
    assert y[:2].isfinite().all()
    assert y[:, 0].isfinite().all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_it_works_after_a_fork() -> None:
    layer, x = build("gru"), sequence()
    with torch.no_grad():
        expected = layer(x)[0]
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(layer(x)[0], expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("own", [False, True])
def test_threads_change_nothing(threads: int, own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    from dolmen.nn.recurrent.kernels import team

    layer, x = build("lstm"), sequence()
    expected, _ = layer(x)
    if own:
        monkeypatch.setattr(team, "_enter_team", lambda: None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    y, _ = layer(x)
    assert torch.equal(y, expected)
    assert_near(gradients(layer, y), gradients(layer, expected), 1e-6)


def test_locked_dropout_uses_one_mask_for_all_steps() -> None:
    layer = build("gru", output_dropout=0.5)
    y, _ = layer(sequence())
    dropped = y == 0
    assert dropped.any()
    assert not dropped.all()
    assert (dropped == dropped[:1]).all()
    plain = build("gru").eval()(sequence())[0]
    torch.testing.assert_close(layer.eval()(sequence())[0], plain)


def test_weight_drop_drops_weights_in_training_only() -> None:
    layer = build("lstm", weight_drop=0.5)
    x = sequence()
    assert not torch.equal(layer(x)[0], layer(x)[0])
    assert torch.equal(layer.eval()(x)[0], build("lstm").eval()(x)[0])
    grads = gradients(layer.train(), layer(x)[0])
    assert 0.3 < float((grads["weight_hh_l0"] == 0).float().mean()) < 0.7


def test_zoneout_keeps_units() -> None:
    layer = build("rnn", zoneout=0.5)
    y, _ = layer(sequence())
    same = (y[1:] == y[:-1]).float().mean()
    assert 0.3 < float(same) < 0.7


def test_a_residual_adds_the_layer_below() -> None:
    one, two = build("gru"), build("gru", num_layers=2, residual=True)
    below, _ = one(sequence())
    two.load_state_dict(one.state_dict(), strict=False)
    plain = GRU(SIZE, H, 2)
    plain.load_state_dict(two.state_dict())
    torch.testing.assert_close(two(sequence())[0], plain(sequence())[0] + below, rtol=1e-5, atol=1e-5)


def test_initialisers() -> None:
    lstm, gru = initialise(build("lstm"), longest=100), initialise(build("gru"), longest=100)
    for gate in lstm.weight_hh_l0.split(H):
        torch.testing.assert_close((gate @ gate.T).detach(), torch.eye(H), rtol=0, atol=1e-4)
    forget = lstm.bias_ih_l0[H : 2 * H].detach()
    assert 0 <= float(forget.min()) < float(forget.max()) <= float(np.log(99))
    assert torch.equal(lstm.bias_ih_l0[:H], -forget)
    assert (gru.bias_ih_l0[H : 2 * H] > 1).any()
    plain = initialise(build("lstm"), orthogonal=False)
    assert (plain.bias_ih_l0[H : 2 * H] == 1).all()
    assert (plain.bias_ih_l0[:H] != 0).any()


def test_a_state_can_be_cut_selected_and_moved() -> None:
    layer = build("lstm")
    _, state = layer(sequence())
    assert state.hidden.requires_grad
    assert not state.detach().hidden.requires_grad
    few = state.select([2, 0])
    assert torch.equal(few.hidden, state.hidden[:, [2, 0]])
    assert few.cell is not None
    assert state.to(torch.float64).hidden.dtype == torch.float64
    hidden, cell = state
    assert hidden is state.hidden
    assert cell is state.cell


def test_a_single_sequence_needs_no_batch_axis() -> None:
    layer = build("gru", num_layers=2)
    x = sequence()
    y, state = layer(x[:, 0])
    torch.testing.assert_close(y, layer(x)[0][:, 0], rtol=1e-5, atol=1e-6)
    assert state.hidden.shape == (2, H)
    torch.testing.assert_close(layer(x[:2, 0], layer(x[:5, 0])[1])[0], layer(x[:2, :1], layer(x[:5, :1])[1])[0][:, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GRU(0, 4), "have to be at least 1"),
        (lambda: LSTM(3, 4, proj_size=4), "proj_size 4 has to be less than hidden_size 4"),
        (lambda: GRU(3, 4, zoneout=1.5), "is no rate between 0 and 1"),
        (lambda: RNN(3, 4, nonlinearity="gelu"), "neither tanh nor relu"),
        (lambda: GRU(3, 4)(torch.zeros(2, 2, 5)), r"shape \(2, 2, 5\); its last axis has to be 3"),
        (lambda: GRU(3, 4)(torch.zeros(0, 2, 3)), "the input has no step"),
        (lambda: GRU(3, 4)(torch.zeros(2, 2, 3), torch.zeros(1, 3, 4)), r"it has to be \(1, 2, 4\)"),
        (lambda: LSTM(3, 4)(torch.zeros(2, 2, 3), torch.zeros(1, 2, 4)), "has a cell besides the hidden part"),
        (lambda: GRU(3, 4)(torch.zeros(2, 2, 3), lengths=[1, 3]), "2 numbers from 1 to 2"),
        (lambda: GRU(3, 4)(torch.zeros(2, 2, 3), reset_mask=torch.zeros(3, 2)), r"it has to be \(2, 2\)"),
        (lambda: GRU(3, 4, bidirectional=True).step(torch.zeros(2, 3)), "needs the whole sequence"),
        (lambda: GRU(3, 4, layer_norm=True).to_torch(), "torch.nn's GRU has no layer_norm"),
        (lambda: LSTM.from_torch(nn.GRU(3, 4)), "got torch's GRU; use GRU"),
    ],
)
def test_mistakes_are_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# ---- nothing of another shape reaches a kernel


def near_misses(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes that differ in one axis, among them those that would be broadcast, and with an axis more or less."""
    sizes = [(*shape[:i], n, *shape[i + 1 :]) for i, d in enumerate(shape) for n in {1, d - 1, d + 1, 2 * d} - {d}]
    return [*sizes, shape[1:], (1, *shape), shape[::-1]]


def refuses(call: Any, name: str, actual: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if actual != expected:
        with pytest.raises(ValueError, match=re.escape(f"{name} has the shape {actual}; it has to be {expected}")):
            call()


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes as far as to run a layer's kernel fails otherwise than by a ValueError."""
    from dolmen.nn.recurrent import function as recurrent_function
    from dolmen.nn.recurrent import layers as recurrent
    from dolmen.nn.recurrent.kernels import stream, team

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a kernel was entered")

    monkeypatch.setattr(recurrent_function, "run_layer", never)
    monkeypatch.setattr(stream, "step", lambda cell: 0)
    monkeypatch.setattr(team, "function", lambda address: never)
    for name in ("run_torch", "run_in_graph"):
        monkeypatch.setattr(recurrent, name, never)
    monkeypatch.setattr(recurrent.recurrent_loop, "run", never)


@pytest.mark.usefixtures("no_kernel")
@pytest.mark.parametrize("cell_name", CELLS)
@pytest.mark.parametrize(
    "options", [{}, {"layer_norm": True}, {"zoneout": 0.1}, {"bias": False}, {"proj_size": 7}], ids=str
)
def test_a_weight_of_another_shape_reaches_no_kernel(cell_name: str, options: dict[str, Any]) -> None:
    x, tried = sequence(), 0

    def stepped(layer: Recurrent) -> Any:
        return layer.stepper(B).step(x[0].numpy())

    for name, p in build(cell_name, learn_state=True, **options).named_parameters():
        for shape in near_misses(tuple(p.shape)):
            layer = build(cell_name, learn_state=True, **options)
            setattr(layer, name, nn.Parameter(torch.zeros(shape)))
            calls = {layer: (x,), functools.partial(layer, reset_mask=torch.zeros(T, B)): (x,), stepped: (layer,)}
            for call, given in calls.items():
                refuses(functools.partial(call, *given), name.removesuffix("_l0"), shape, tuple(p.shape))
                tried += 1
    assert tried > 60


@pytest.mark.parametrize("cell_name", CELLS)
@pytest.mark.parametrize("options", [{"num_layers": 2}, {"bidirectional": True}], ids=str)
def test_every_layer_and_direction_is_checked(cell_name: str, options: dict[str, Any]) -> None:
    x, whole = sequence(), build(cell_name, compiled=False, layer_norm=True, **options)
    for name, p in whole.named_parameters():
        layer = build(cell_name, compiled=False, layer_norm=True, **options)
        setattr(layer, name, nn.Parameter(torch.zeros(len(p) + 1, *p.shape[1:])))
        refuses(lambda layer=layer: layer(x), re.sub(r"_l\d.*", "", name), (len(p) + 1, *p.shape[1:]), tuple(p.shape))


@pytest.mark.usefixtures("no_kernel")
@pytest.mark.parametrize("cell_name", CELLS)
@pytest.mark.parametrize("options", [{}, {"layer_norm": True}, {"bidirectional": True}, {"proj_size": 7}], ids=str)
def test_a_state_of_another_shape_reaches_no_kernel(cell_name: str, options: dict[str, Any]) -> None:
    layer, x = build(cell_name, num_layers=2, **options), sequence()
    good = layer.initial_state(B)
    for part, label in (("hidden", "the state"), ("cell", "the state's cell")):
        if (right := getattr(good, part)) is None:
            continue
        for shape in near_misses(tuple(right.shape)):
            bad = good._replace(**{part: torch.zeros(shape)})
            refuses(lambda bad=bad: layer(x, bad), label, shape, tuple(right.shape))
            refuses(lambda bad=bad: layer(x, tuple(bad)), label, shape, tuple(right.shape))
    for shape in near_misses((T, B)):
        refuses(lambda shape=shape: layer(x, reset_mask=torch.zeros(shape)), "reset_mask", shape, (T, B))
    for lengths in ([T] * (B - 1), [T] * (B + 1), [[T] * B], T, [0] * B, [T + 1] * B):
        with pytest.raises(ValueError, match=f"lengths have to be {B} numbers from 1 to {T}"):
            layer(x, lengths=lengths)


@pytest.mark.parametrize("cell_name", CELLS)
def test_a_stepper_takes_no_state_of_another_shape(cell_name: str) -> None:
    for options in ({}, {"residual": True}):  # with a kernel, and without
        stepper = build(cell_name, num_layers=2, **options).stepper(B)
        good = stepper.state
        for part, label in (("hidden", "the state"), ("cell", "the state's cell")):
            if (right := getattr(good, part)) is None:
                continue
            for shape in near_misses(tuple(right.shape)):
                bad = good._replace(**{part: torch.zeros(shape)})
                go_on = functools.partial(setattr, stepper, "state", bad)
                refuses(go_on, label, shape, tuple(right.shape))


def test_weights_on_another_device_reach_no_kernel() -> None:
    layer = build("gru")
    layer.weight_hh_l0 = nn.Parameter(torch.zeros(3 * H, H, device="meta"))
    with pytest.raises(ValueError, match="weights, states and masks lie on cpu, meta; bring them together"):
        layer(sequence())


# ---- what lies behind a sequence's end, and what a state is made of


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell_name", CELLS)
@pytest.mark.parametrize("options", [{}, {"layer_norm": True}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_what_lies_behind_the_lengths_changes_nothing(
    cell_name: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    layer, lengths = build(cell_name, **options).to(dtype), torch.tensor([7, 3, 1, 5, 2])
    behind = (torch.arange(T)[:, None] >= lengths)[:, :, None]
    results = []
    for filling in (0.0, 1e30, float("nan"), float("inf")):
        x = sequence().to(dtype).masked_fill(behind, filling).requires_grad_()
        y, last = layer(x, lengths=lengths)
        results.append([y, last.hidden, *gradients(layer, y, *last).values(), x.grad])
    for other in results[1:]:
        for one, another in zip(results[0], other, strict=True):
            torch.testing.assert_close(another, one, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("cell_name", CELLS)
@pytest.mark.parametrize("options", [{}, {"layer_norm": True}, {"proj_size": 7}], ids=str)
def test_a_state_is_in_the_weights_precision(cell_name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    layer = build(cell_name, **options).to(dtype)
    y, last = layer(sequence().to(dtype))
    again, _ = layer(sequence().to(dtype), last)
    first = layer.initial_state(B)
    assert {v.dtype for v in (y, again, *last, *first) if v is not None} == {dtype}
    assert [None if v is None else v.shape for v in last] == [None if v is None else v.shape for v in first]
