"""What is measured before a training, and what is decided by it."""

from __future__ import annotations

import pytest
import torch
from engine.toy import Toy, toy

from dolmen.engine import hardware, planner
from dolmen.nn.losses import Loss
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
