"""What is measured before a training, and what is decided by it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from engine.toy import Toy, toy
from torch import Tensor, nn

from dolmen.engine import hardware, planner
from dolmen.nn.losses import Loss
from dolmen.nn.recurrent.layers import GRU, LSTM, RNN
from dolmen.tasks.config import TaskConfig
from dolmen.tasks.task import Batch, Objective
from dolmen.types import MachineError


@pytest.mark.parametrize(("alone_s", "together_s", "chosen"), [(0.2, 9.0, 1), (0.2, 0.1, 2)])
def test_times_are_of_the_threads_that_compute(
    alone_s: float, together_s: float, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that is busy, threads wait for each other, and no precision looks like the quicker one."""

    def seconds(self: object, precision: str, size: int) -> float:
        return (alone_s if torch.get_num_threads() == 1 else together_s) * (0.5 if precision == "bf16" else 1)

    monkeypatch.setattr(planner._Probe, "seconds", seconds)
    monkeypatch.setattr(hardware, "has_bf16", lambda: True)
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cpu"))
    task = toy(precision="auto", threads=None, epochs=None, minutes=1)
    with hardware.computing_threads(2):
        plan = planner.make_plan(task, task.build_model, seconds=30.0)
        assert torch.get_num_threads() == 2
    assert plan.num_threads == chosen
    factor = 0.5 if plan.precision == "bf16" else 1
    assert plan.seconds_per_step == (alone_s if chosen == 1 else together_s) * factor
    assert any(note.startswith("one thread: 45.0x as fast here as 2") for note in plan.notes) == (chosen == 1)


def test_measuring_changes_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no warm-up in it, so a few steps at the full rate could end anywhere."""
    task, built = toy(lr=1e30), []

    def build() -> torch.nn.Module:
        torch.manual_seed(0)
        built.append(task.build_model())
        return built[-1]

    planner.make_plan(task, build, seconds=None)
    first = built[0].state_dict()
    assert len(built) > 1
    assert all(torch.equal(v, model.state_dict()[k]) for model in built for k, v in first.items())
    assert all(v.abs().max() < 10 for v in first.values())


def test_a_loss_that_is_no_number_from_the_beginning_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Toy, "spoil", staticmethod(lambda calls, model, result: Loss(result.total * float("nan"), result.weight))
    )
    task = toy()
    with pytest.raises(MachineError, match=r"^the loss is nan before the first step \(fp32\): see with dolmen check"):
        planner.make_plan(task, task.build_model, seconds=None)


class Machine:
    """A clock and a memory that only the losses of a task move."""

    def __init__(self) -> None:
        self.time_s, self.num_bytes = 0.0, 0

    def kept_bytes(self, compute: Callable[[], object], known: Iterable[Tensor]) -> int:
        before = self.num_bytes
        compute()
        return self.num_bytes - before


class TwoObjectives(Toy):
    """A cheap objective and one that costs three times as much, of two layers of one network, like a GAN's."""

    machine: Machine
    opposite = ""
    """The objective whose gradient is another one in bf16."""

    def objectives(self, model: nn.Module) -> Sequence[Objective]:
        layers = {"cheap": model[1], "dear": model[4]}  # type: ignore[index]
        return [
            self._objective(name, model, layer, 0.1 * cost, cost)
            for cost, (name, layer) in zip((1, 3), layers.items(), strict=True)
        ]

    def _objective(self, name: str, model: nn.Module, layer: nn.Module, cost_s: float, num_bytes: int) -> Objective:
        rest = super().objectives(model)[0]

        def loss(batch: Batch) -> Loss:
            in_bf16 = torch.is_autocast_enabled("cpu")
            self.machine.time_s += cost_s / 2 if in_bf16 else cost_s
            self.machine.num_bytes += num_bytes * len(batch["points"])
            result = rest.loss(batch)
            return Loss(-result.total, result.weight) if in_bf16 and name == self.opposite else result

        return Objective(name, loss, (torch.optim.SGD(layer.parameters(), 0.1),), rest.schedule)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> TwoObjectives:
    task = TwoObjectives.from_prepared(TwoObjectives.prepare(TaskConfig(minutes=1, threads=1)))
    task.machine = Machine()
    monkeypatch.setattr(planner.time, "perf_counter", lambda: task.machine.time_s)
    monkeypatch.setattr(planner, "kept_bytes", task.machine.kept_bytes)
    monkeypatch.setattr(planner, "_free_memory", lambda device: 1000)
    monkeypatch.setattr(hardware, "has_bf16", lambda: True)
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cpu"))
    return task


def test_a_step_is_of_all_objectives(two: TwoObjectives) -> None:
    plan = planner.make_plan(two, two.build_model, seconds=30.0)
    assert plan.precision == "bf16"
    assert plan.seconds_per_step == pytest.approx((0.1 + 0.3) / 2)
    assert plan.total_steps == int(30.0 * planner.PLANNED_SHARE / (0.2 * (1 + planner.EVALUATION_SHARE)))


@pytest.mark.parametrize("opposite", ["cheap", "dear"])
def test_bf16_has_to_suit_all_objectives(two: TwoObjectives, opposite: str) -> None:
    two.opposite = opposite
    plan = planner.make_plan(two, two.build_model, seconds=30.0)
    assert plan.precision == "fp32"
    assert plan.seconds_per_step == pytest.approx(0.1 + 0.3)
    assert "fp32: bf16 changes the gradient here (cosine -1.00)" in plan.notes


def test_memory_is_that_of_the_objective_that_needs_most(two: TwoObjectives) -> None:
    probe = planner._Probe(two, two.build_model, 203)
    assert probe.fitting_micro_batch() == int(1000 / (planner.PEAK * 3))


def test_kept_is_what_the_backward_pass_needs_without_what_was_there() -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Sigmoid()), torch.randn(8, 3)
    known = (*model.parameters(), x)
    assert planner.kept_bytes(lambda: model(x).sum(), known) == 4 * 8 * (4 + 2)  # the tanh once, though two need it
    assert planner.kept_bytes(lambda: model(x * 2).sum(), known) == 4 * 8 * (3 + 4 + 2)
    with torch.no_grad():
        assert planner.kept_bytes(lambda: model(x), known) == 0


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("layer", [GRU, LSTM, RNN])
def test_the_kept_of_recurrent_layers_grows_with_the_steps(layer: type[Any], compiled: bool, norm: bool) -> None:
    """Each step keeps at least its state, which the one after starts from, also where a kernel computes it."""
    torch.manual_seed(0)
    network = layer(3, 16, layer_norm=norm, compiled=compiled)
    short, long = (planner.kept_bytes(partial(network, torch.randn(t, 5, 3)), network.parameters()) for t in (10, 30))
    assert long - short >= 20 * 5 * 16 * 4


def test_the_parts_do_not_depend_on_what_the_process_did_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first step loads libraries, its later ones use the memory of earlier ones: no two grow it alike."""
    monkeypatch.setattr(planner, "_free_memory", lambda device: 10_000)
    task = toy()
    first = planner._Probe(task, task.build_model, 203).fitting_micro_batch()
    more = torch.ones(1 << 25)  # 128 MiB
    assert planner._Probe(task, task.build_model, 203).fitting_micro_batch() == first
    del more
    assert planner._Probe(task, task.build_model, 203).fitting_micro_batch() == first
    assert 1 < first < 203
    code = (
        "from engine.toy import toy; from dolmen.engine import planner; planner._free_memory = lambda device: 10_000; "
        "task = toy(); print(planner._Probe(task, task.build_model, 203).fitting_micro_batch())"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert int(done.stdout) == first


def test_free_memory_is_told_or_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert planner._free_memory(cpu) > 1 << 20
    monkeypatch.setattr(hardware, "available_memory", lambda: None)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert planner._free_memory(cpu) == 1000 * 4096 / 2
    monkeypatch.delattr(os, "sysconf")  # Windows
    assert planner._free_memory(cpu) == math.inf
    task = toy()
    assert planner._Probe(task, task.build_model, 203).fitting_micro_batch() == 203


def test_gradients_are_of_the_own_parameters_alone(two: TwoObjectives) -> None:
    probe = planner._Probe(two, two.build_model, 32)
    torch.manual_seed(0)
    model = two.build_model()
    both = probe.step(model, 32, "fp32")
    assert all(p.grad is None for p in model.parameters())
    for (_, gradient), objective in zip(both, two.objectives(model), strict=True):
        loss = objective.loss(probe.batch)
        expected = torch.autograd.grad(loss.total, objective.parameters())
        torch.testing.assert_close(gradient, torch.cat([g.reshape(-1) for g in expected]))
