"""A training that diverges goes back, says so, and is the same whether it was killed or not."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ended_well
from engine.toy import Toy, toy
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dolmen.engine import checkpoint
from dolmen.engine.divergence import DivergenceError, GoodState, has_exploded, require_finite, require_numbers
from dolmen.engine.train import Interrupted, fit
from dolmen.nn.losses import Loss
from dolmen.nn.optimizers import linear
from dolmen.tasks.task import Batch, Objective
from dolmen.types import MachineError

TESTS = Path(__file__).parent.parent
Spoil = Callable[[int, nn.Module, Loss], Loss]


class NoWayBack(torch.autograd.Function):
    """A value through which no gradient may go."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, value: float) -> Tensor:
        return total.detach() * 0 + value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise AssertionError("a loss that is not finite got into the backward pass")


def loss_of(value: float, result: Loss) -> Loss:
    return Loss(NoWayBack.apply(result.total, value), result.weight)


def steep(model: nn.Module, result: Loss) -> Loss:
    """The same value, with an infinite gradient."""
    weight = next(model.parameters()).sum()
    return Loss(result.total + (weight - weight.detach()).sqrt(), result.weight)


def broken_average(model: nn.Module, result: Loss) -> Loss:
    """A buffer that only the evaluation uses."""
    model.get_submodule("2").running_mean = torch.full((8,), math.nan)
    return result


def heavy(calls: int, model: nn.Module, result: Loss) -> Loss:
    """No number where the weights have grown beyond a bound: the same in every process, and after every restart."""
    too_heavy = float(sum(p.detach().square().sum() for p in model.parameters())) > 20.0
    return loss_of(math.nan, result) if too_heavy else result


def trained(folder: Path, monkeypatch: pytest.MonkeyPatch, spoil: Spoil | None, **choices: Any) -> dict[str, Tensor]:
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(Toy, "spoil", spoil and staticmethod(spoil))
    return {k: v.clone() for k, v in fit(toy(**choices), folder, seconds=None).state_dict().items()}


def records(folder: Path, *events: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["event"] in (events or ("look", "diverged"))]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in kept]


@pytest.mark.parametrize(
    ("spoil", "step", "what"),
    [
        (lambda calls, model, result: loss_of(math.nan, result) if calls == 20 else result, 20, "loss became nan"),
        (lambda calls, model, result: loss_of(math.inf, result) if calls == 20 else result, 20, "loss became inf"),
        (lambda calls, model, result: loss_of(-math.inf, result) if calls == 1 else result, 1, "loss became -inf"),
        (
            lambda calls, model, result: steep(model, result) if calls == 20 else result,
            20,
            "gradient of the loss became inf",
        ),
        (
            lambda calls, model, result: broken_average(model, result) if calls == 18 else result,
            18,
            "weights became nan",
        ),
    ],
)
def test_it_goes_back_to_the_last_look_and_learns_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Spoil, step: int, what: str
) -> None:
    monkeypatch.setattr(Toy, "norm", True)
    # the first loss of a network is the planner's
    planned = (lambda calls, model, result: result) if step == 1 else spoil
    monkeypatch.setattr(Toy, "spoil", staticmethod(planned))
    task, steps = toy(), []

    def listen(record: dict[str, Any]) -> None:
        if record["event"] == "plan":
            monkeypatch.setattr(Toy, "spoil", staticmethod(spoil))
        if record["event"] == "step":
            steps.append(record["step"])

    fit(task, tmp_path, seconds=None, listeners=(listen,))
    back = 18 if step == 20 else 0
    done = step if step == 18 else step - 1
    assert steps == [*range(1, done + 1), *range(back + 1, 29)]
    (record,) = records(tmp_path, "diverged")
    assert record == {
        "event": "diverged", "step": step, "back_to": back, "rate": 0.25,
        "message": f"training diverged, the {what} at step {step}; it went on from step {back} with 1/4 of the "
        "learning rate",
    }  # fmt: skip
    looks = records(tmp_path, "look")
    assert [r["step"] for r in looks] == [18, 28]
    assert looks[-1]["val"]["accuracy"] > 0.8
    assert looks[-1]["loss"] < looks[0]["loss"]


def test_answers_on_validation_that_are_no_numbers_are_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, outputs = 0, Toy.outputs

    def sometimes(self: Toy, model: nn.Module, batch: Batch) -> Batch:
        nonlocal calls
        calls += 1
        return {k: v + (math.nan if calls == 2 else 0) for k, v in outputs(self, model, batch).items()}

    monkeypatch.setattr(Toy, "outputs", sometimes)
    fit(toy(), tmp_path, seconds=None)
    (record,) = records(tmp_path, "diverged")
    assert (record["step"], record["back_to"]) == (28, 18)
    assert "the network's output on validation became nan at step 28" in record["message"]


@pytest.mark.parametrize("choices", [{}, {"clip_norm": 1.0}, {"micro_batch_size": 5}])
def test_one_that_always_diverges_ends_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choices: dict[str, Any]
) -> None:
    monkeypatch.setattr(
        Toy, "spoil", staticmethod(lambda calls, model, result: loss_of(math.nan, result) if calls > 9 else result)
    )
    with pytest.raises(MachineError) as caught:
        fit(toy(**choices), tmp_path, seconds=None)
    message = str(caught.value)
    assert message.startswith("the loss became nan at step ")
    assert " of 28, after 2 returns to an earlier state (learning rate 0.00625 by now, fp32): " in message
    assert message.endswith("--lr 0.0016, or with --clip-norm 1, or with --precision fp32")
    assert [r["rate"] for r in records(tmp_path, "diverged")] == [0.25, 0.0625]


def test_a_learning_rate_that_is_too_large_is_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss explodes over many steps that are finite: what it has become by then is no state to go back to."""

    def bowl(calls: int, model: nn.Module, result: Loss) -> Loss:
        decay = torch.stack([p.square().sum() for p in model.parameters()]).sum()
        return Loss(result.total * 0 + decay * result.weight, result.weight)

    trained(tmp_path, monkeypatch, bowl, lr=4.0, epochs=10)
    (setback,) = records(tmp_path, "diverged")
    looks = records(tmp_path, "look")
    exploded = [r["step"] for r in looks if r["loss"] > 1000]
    assert exploded
    assert setback["back_to"] < min(exploded)
    assert setback["step"] > max(exploded)
    assert looks[-1]["step"] == 70
    assert looks[-1]["loss"] < 0.01


@pytest.mark.parametrize("stop_after", [3, 18, 19, 20, 26, 28])
def test_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    monkeypatch.setattr(Toy, "norm", True)
    whole = trained(tmp_path / "whole", monkeypatch, heavy)
    # the look was a step too late: going back to it does not help, so the second time all begins anew
    assert [(r["step"], r["back_to"]) for r in records(tmp_path / "whole", "diverged")] == [(19, 18), (19, 0)]
    folder, steps = tmp_path / "cut", 0
    folder.mkdir()

    def press_ctrl_c(record: dict[str, object]) -> None:
        nonlocal steps
        steps += record["event"] == "step"
        if steps == stop_after and record["event"] == "step":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        fit(toy(), folder, seconds=None, listeners=(press_ctrl_c,))
    resumed = fit(toy(), folder, seconds=None, resume=True).state_dict()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert records(tmp_path / "whole") == records(folder)


KILLED = """
import os, signal, sys
from pathlib import Path
from engine.test_divergence import heavy
from engine.toy import Toy, toy
import dolmen.engine.train as train
train.CHECKPOINT_EVERY_S = 0.0
Toy.spoil, Toy.norm = staticmethod(heavy), True
gone_back = False
def kill(record):
    global gone_back
    gone_back |= record["event"] == "diverged"
    if gone_back and record["event"] == "step":
        os.kill(os.getpid(), signal.SIGKILL)
train.fit(toy(), Path(sys.argv[1]), seconds=None, listeners=(kill,))
"""


def test_killed_in_the_step_after_it_went_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint is from before: it goes back once more, to the same state."""
    monkeypatch.setattr(Toy, "norm", True)
    whole = trained(tmp_path / "whole", monkeypatch, heavy)
    folder = tmp_path / "killed"
    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env=os.environ | {"PYTHONPATH": path()})
    assert done.returncode == -signal.SIGKILL
    state = checkpoint.read_state(folder)["state"]
    first = records(tmp_path / "whole", "diverged")[0]
    assert (state["setbacks"], state["step"]) == (0, first["step"] - 1)
    resumed = fit(toy(), folder, seconds=None, resume=True).state_dict()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert records(tmp_path / "whole") == records(folder)


def path() -> str:
    return os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])


TWO = """
import math, sys
from pathlib import Path
import torch
from engine.test_divergence import loss_of
from engine.toy import Toy, toy
from dolmen.engine import distributed
from dolmen.engine.train import fit
torch.set_num_threads(1)
with distributed.processes():
    def spoil(calls, model, result):  # two parts a step: the first of step 12, and only here
        return loss_of(math.nan, result) if distributed.rank() == 1 and calls == 23 else result
    Toy.spoil = staticmethod(spoil)
    model = fit(toy(micro_batch_size=14), Path(sys.argv[1]), seconds=None)
    if distributed.rank() == 0:
        torch.save(model.state_dict(), sys.argv[1] + "/out.pt")
"""


def test_two_processes_go_back_together_where_one_diverges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of 15 and 14 examples in parts of at most 14: both have to count two parts."""

    def spoil(calls: int, model: nn.Module, result: Loss) -> Loss:
        return loss_of(math.nan, result) if calls == 12 else result

    one = trained(tmp_path / "one", monkeypatch, spoil)
    script, folder = tmp_path / "two.py", tmp_path / "two"
    script.write_text(TWO)
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = os.environ | {"PYTHONPATH": path()}
    done = subprocess.run([*command, str(script), str(folder)], env=env, capture_output=True, text=True, timeout=120)
    assert ended_well(done), done.stderr
    two = torch.load(folder / "out.pt")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)
    assert records(folder, "diverged") == records(tmp_path / "one", "diverged")


def test_a_good_state_can_be_gone_back_to_twice() -> None:
    """The optimisers' averages are written in place: they must not be those of the copy."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    objectives = [Objective("loss", lambda batch: Loss(batch["x"], 1.0), (optimizer,), linear())]
    average = AveragedModel(model)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        average.update_parameters(model)

    def everything() -> dict[str, Tensor]:
        return {k: v.clone() for k, v in checkpoint.pack(model, average, objectives, {})[0].items()}

    step()
    good, before = GoodState.copy({}, model, average, objectives, {"state": torch.ones(2)}), everything()
    for _ in range(2):
        step()
        assert any(not torch.equal(v, before[k]) for k, v in everything().items())
        carried = good.restore(model, average, objectives)
        after = everything()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before)
        assert torch.equal(carried["state"], torch.ones(2))
        carried["state"].zero_()


def test_what_has_exploded_is_told_from_what_has_only_risen() -> None:
    first = {"generator": 0.7, "critic": -30.0}
    assert not has_exploded({"generator": 5.0, "critic": -200.0}, first)
    assert not has_exploded({"generator": 5.0, "critic": 200.0}, first)
    assert has_exploded({"generator": 11.0, "critic": 0.0}, first)
    assert has_exploded({"generator": 0.7, "critic": 301.0}, first)
    assert has_exploded({"generator": math.nan, "critic": 0.0}, first)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    require_finite("weights", [torch.ones(3), torch.full((2,), 3e38), torch.tensor(1)], 5)
    with pytest.raises(DivergenceError, match=f"^the weights became {value} at step 5$"):
        require_finite("weights", [torch.ones(3), torch.tensor([1.0, value])], 5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, math.inf]], "became inf at step 5"),
        ([[math.nan, math.nan]], "became nan at step 5"),
        ([[1.0, math.nan]], None),
        ([[1.0, -math.inf]], None),
        ([[]], None),
    ],
)
def test_answers_that_cannot_be_measured_are_refused(values: list[list[float]], message: str | None) -> None:
    answers = {"labels": np.array([1]), "logits": np.array(values, np.float32)}
    if message is None:
        require_numbers(answers, 5)
        return
    with pytest.raises(DivergenceError, match=f"^the network's output on validation {message}$"):
        require_numbers(answers, 5)
