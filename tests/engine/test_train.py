from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ended_well
from engine.toy import Toy, toy

from dolmen.engine import checkpoint
from dolmen.engine.planner import Plan
from dolmen.engine.train import Interrupted, fit
from dolmen.tasks.task import batch_indices
from dolmen.types import MachineError, UserError


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns(tmp_path: Path, seed: int) -> None:
    """Measured with 20 seeds: accuracy 0.92 to 0.96."""
    fit(toy(epochs=20, lr=0.05, seed=seed), tmp_path, seconds=None)
    looks = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()][1:]
    assert looks[-1]["val"]["accuracy"] > 0.85
    assert looks[0]["val"]["loss"] > looks[-1]["val"]["loss"]
    assert looks[-1]["progress"] == pytest.approx(1)
    assert set(looks[-1]["grad_norms"]) == {"1", "4"}


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    first, second = (weights(fit(toy(), tmp_path / str(i), seconds=None)) for i in range(2) if make(tmp_path / str(i)))
    other = weights(fit(toy(seed=1), make(tmp_path / "2"), seconds=None))
    assert equal(first, second)
    assert not equal(first, other)


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("norm", [False, True])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "norm", norm)
    whole = weights(fit(toy(), make(tmp_path / "whole"), seconds=None))
    folder = make(tmp_path / "cut")
    steps = 0

    def press_ctrl_c(record: dict[str, object]) -> None:
        nonlocal steps
        steps += record["event"] == "step"
        if steps == 9:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"stopped at step 9 of 28; the state is saved"):
        fit(toy(), folder, seconds=None, listeners=(press_ctrl_c,))
    resumed = weights(fit(toy(), folder, seconds=None, resume=True))
    assert equal(whole, resumed)
    assert records(tmp_path / "whole") == records(folder)


def records(folder: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in lines if line["event"] == "look"]


KILLED = """
import os, signal, sys
from pathlib import Path
from engine.toy import toy
import dolmen.engine.train as train
train.CHECKPOINT_EVERY_S = 0.0
seen = 0
def kill(record):
    global seen
    seen += record["event"] == "step"
    if seen == 14:
        os.kill(os.getpid(), signal.SIGKILL)
train.fit(toy(), Path(sys.argv[1]), seconds=None, listeners=(kill,))
"""


def test_killed_at_any_moment_it_reaches_the_same_weights(tmp_path: Path) -> None:
    whole = weights(fit(toy(), make(tmp_path / "whole"), seconds=None))
    folder = make(tmp_path / "killed")
    tests = Path(__file__).parent.parent
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env=env)
    assert done.returncode == -signal.SIGKILL
    assert checkpoint.read_state(folder)["state"]["step"] == 13
    assert equal(whole, weights(fit(toy(), folder, seconds=None, resume=True)))


def test_accumulated_gradients_equal_the_large_batch(tmp_path: Path) -> None:
    large = weights(fit(toy(), make(tmp_path / "a"), seconds=None))
    small = weights(fit(toy(micro_batch_size=5), make(tmp_path / "b"), seconds=None))
    for name in large:
        torch.testing.assert_close(small[name], large[name], rtol=1e-4, atol=1e-6)


def test_patience_ends_a_training_that_gains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "noise", 5.0)
    fit(toy(epochs=200, patience=3, lr=0.05), tmp_path, seconds=None)
    looks = records(tmp_path)
    assert looks[-1]["progress"] < 0.9
    assert [r["best"] for r in looks[-3:]] == [False] * 3


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    task = toy(epochs=12, lr=2.0)
    model = fit(task, tmp_path, seconds=None)
    from dolmen.engine.evaluate import gather_outputs

    val = task.datasets["val"]
    loss = task.evaluate(gather_outputs(task, model, val), val).metrics["loss"]
    assert loss == pytest.approx(min(r["val"]["loss"] for r in records(tmp_path)), abs=1e-6)


@pytest.mark.xdist_group("time")
def test_a_budget_in_seconds_is_kept(tmp_path: Path) -> None:
    task = toy(epochs=None)
    task.enough_steps = lambda *_: 10**9  # type: ignore[method-assign]
    end = time.monotonic() + 3
    fit(task, tmp_path, seconds=lambda: end - time.monotonic())
    assert time.monotonic() - end < 2  # generous: the machine may be busy
    last = records(tmp_path)[-1]
    assert last["progress"] == pytest.approx(1, abs=2 / last["step"])  # on a busy machine they are few


def test_a_machine_that_becomes_slow_between_two_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that is a thousand times too hopeful, and would look at validation only at its end."""
    monkeypatch.setattr("dolmen.engine.train.REPLAN_EVERY_S", 0.2)
    hopeful = Plan(32, 32, "fp32", 1, total_steps=10**6, most_steps=10**7, evaluate_every=10**6, seconds_per_step=1e-6)
    monkeypatch.setattr("dolmen.engine.train.make_plan", lambda *_, **__: hopeful)
    end = time.monotonic() + 2
    fit(toy(epochs=None), tmp_path, seconds=lambda: end - time.monotonic())
    assert time.monotonic() - end < 2
    assert [r["event"] for r in records(tmp_path)][-1:] == ["look"]


@pytest.mark.parametrize(("num", "size"), [(203, 32), (10, 64), (1, 1), (100, 33)])
def test_every_example_is_seen_once_an_epoch(num: int, size: int) -> None:
    per_epoch = math.ceil(num / size)
    for epoch in (0, 3):
        parts = [batch_indices(num, size, epoch * per_epoch + i, seed=0) for i in range(per_epoch)]
        assert {e for e, _ in parts} == {epoch}
        assert sorted(np.concatenate([i for _, i in parts])) == list(range(num))
        assert max(len(i) for _, i in parts) <= size
        assert max(len(i) for _, i in parts) - min(len(i) for _, i in parts) <= 1


def test_it_trains_outside_the_main_thread(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            fit(toy(epochs=1), tmp_path, seconds=None)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed


TWO = """
import sys
from pathlib import Path
import torch
from engine.toy import Toy, toy
from dolmen.engine import distributed
from dolmen.engine.train import fit
torch.set_num_threads(1)
Toy.norm = True
with distributed.processes():
    model = fit(toy(), Path(sys.argv[1]), seconds=None)
    if distributed.rank() == 0:
        torch.save(model.state_dict(), sys.argv[1] + "/out.pt")
"""


def test_two_processes_equal_one_with_the_same_global_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "norm", True)
    one = weights(fit(toy(), make(tmp_path / "one"), seconds=None))
    script = tmp_path / "two.py"
    script.write_text(TWO)
    folder = make(tmp_path / "two")
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, str(script), str(folder)], env=env, capture_output=True, text=True)
    assert ended_well(done), done.stderr
    two = torch.load(folder / "out.pt")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)
    assert [r["step"] for r in records(folder)] == [r["step"] for r in records(tmp_path / "one")]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (None, "holds no checkpoint to go on from; train anew without --resume and with another --out"),
        (b"", "is damaged"),
        (b"\x10\0\0\0\0\0\0\0{}", "is damaged"),
    ],
)
def test_a_missing_or_damaged_checkpoint_is_a_clear_error(tmp_path: Path, damage: bytes | None, message: str) -> None:
    if damage is not None:
        make(tmp_path / "checkpoint")
        (tmp_path / checkpoint.FILE).write_bytes(damage)
    with pytest.raises(UserError, match=message):
        fit(toy(), tmp_path, seconds=None, resume=True)


def test_a_disk_that_cannot_be_written_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.write(tmp_path, {"a": torch.ones(3)}, {"n": 1})

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        MachineError, match=r"can't be written: No space left on device; the checkpoint before it is whole"
    ):
        checkpoint.write(tmp_path, {"a": torch.zeros(3)}, {"n": 2})
    tensors, state = checkpoint.read(tmp_path)
    assert (float(tensors["a"].sum()), state["n"]) == (3.0, 1)
    assert [p.name for p in (tmp_path / "checkpoint").iterdir()] == ["state.safetensors"]


def test_scores_that_are_no_number_never_count_as_best() -> None:
    from dolmen.engine.train import State

    state = State(plan=None)  # type: ignore[arg-type]
    assert not state.better(math.nan, "min")
    assert state.better(1.0, "min")
