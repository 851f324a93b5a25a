"""What is measured before a training, and what is decided by it."""

from __future__ import annotations

import pytest
import torch
from engine.toy import toy

from dolmen.engine import hardware, planner


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
