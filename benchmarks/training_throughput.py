"""Training throughput of Dolmen's engine against the same network in a bare PyTorch loop.

Measured: pictures a second of training steps (no start, no plan, no look at validation), the network `fast` at 32 x 32,
the same batch, optimisers and augmentation call for everybody; processes of their own, in turn, medians of the rounds.

    engine fp32        Dolmen's `fit`, --precision fp32
    engine auto        Dolmen's `fit`, the precision that it chooses here
    bare fp32          a loop as people write it: fp32, NCHW, the allocator as it is
    bare fp32 tuned    the same loop with all of the engine's settings (channels last, allocator, quick products)
    bare bf16 tuned    the same with bf16 as well

    python benchmarks/training_throughput.py        # about 5 minutes
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from measuring import Target, call, child, median, parser, pictures, report, say, workplace

WHO = ("engine fp32", "engine auto", "bare fp32", "bare fp32 tuned", "bare bf16 tuned")
WARM_UP = 4
LONG = 100.0  # epochs that the augmentation is told of: the same variation for everybody


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--batch", type=int, default=256)
    options.add_argument("--child", choices=WHO, help=argparse.SUPPRESS)
    options.add_argument("--set", help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.child:
        print(json.dumps(measured(args.child, args.set, args.steps, args.batch)))
        return
    rounds, steps, batch = (1, 6, 32) if args.smoke else (args.rounds, args.steps, args.batch)
    speeds: dict[str, list[float]] = {who: [] for who in WHO}
    precision = ""
    with workplace() as folder:
        data = pictures(args, folder)
        for number in range(rounds):
            for who in WHO:
                words = ("--child", who, "--set", data, "--steps", steps, "--batch", batch)
                said = call(child(__file__, *words), threads=args.threads, cache=folder / "cache").json()
                speeds[who].append(said["pictures_per_s"])
                precision = said["precision"] if who == "engine auto" else precision
            say(f"round {number + 1} of {rounds}")
    middle = {who: median(values) for who, values in speeds.items()}
    rows = [
        {
            "who": who,
            "pictures/s": round(middle[who], 1),
            "lowest": round(min(values), 1),
            "highest": round(max(values), 1),
            "against bare fp32": middle[who] / middle["bare fp32"],
        }
        for who, values in speeds.items()
    ]
    same = "bare bf16 tuned" if precision == "bf16" else "bare fp32 tuned"
    targets = [
        Target("engine fp32 / bare fp32", middle["engine fp32"] / middle["bare fp32"], least=0.97),
        Target("engine fp32 / bare fp32 tuned", middle["engine fp32"] / middle["bare fp32 tuned"], least=0.97),
        Target("engine auto / engine fp32", middle["engine auto"] / middle["engine fp32"], least=1.0),
        Target(f"engine auto ({precision}) / {same}", middle["engine auto"] / middle[same], least=0.97),
    ]
    report(args, __doc__, rows=rows, targets=targets, num_runs=rounds)


# ---- in a process of its own


def measured(who: str, data: str, steps: int, batch: int) -> dict[str, Any]:
    """Run ``WARM_UP + steps`` steps; return the speed of the last ``steps``."""
    from dolmen.engine import hardware

    if who.startswith("engine") or who.endswith("tuned"):
        hardware.keep_memory()
    import numpy as np

    from dolmen.tasks.image_classification.task import ImageClassification, ImageClassificationConfig

    config = ImageClassificationConfig(
        model="fast",
        epochs=1,
        batch_size=batch,
        flip=True,
        augment="strong",
        precision="fp32" if who == "engine fp32" else "auto",
    )
    prepared = ImageClassification.prepare(config, data)
    whole, val = prepared.datasets["train"], prepared.datasets["val"]
    rows = np.arange((WARM_UP + steps) * batch) % len(whole)  # one epoch is all the steps, wherever the data are fewer
    datasets = {"train": whole.subset(rows), "val": val.subset(np.arange(min(64, len(val))))}
    task = ImageClassification.from_prepared(prepared).replace(datasets=datasets)
    if who.startswith("engine"):
        stamps, precision = engine_stamps(task)
    else:
        precision = "bf16" if "bf16" in who else "fp32"
        stamps = bare_stamps(task, batch, WARM_UP + steps, precision, tuned=who.endswith("tuned"))
    seconds = stamps[-1] - stamps[WARM_UP - 1]
    return {"pictures_per_s": steps * batch / seconds, "precision": precision, "steps": len(stamps)}


def engine_stamps(task: Any) -> tuple[list[float], str]:
    """When each step of Dolmen's engine ended, and the precision it took."""
    from dolmen.engine.train import fit

    stamps: list[float] = []
    plan: dict[str, Any] = {}

    def listen(record: dict[str, Any]) -> None:
        if record["event"] == "plan":
            plan.update(record)
        elif record["event"] == "step":
            stamps.append(time.perf_counter())

    augment = task.augment
    task.augment = lambda batch, moment: augment(batch, long_moment(moment.generator, moment.progress))
    with tempfile.TemporaryDirectory() as folder:
        fit(task, Path(folder), seconds=None, listeners=(listen,))
    return stamps, plan["precision"]


def long_moment(generator: Any, progress: float) -> Any:
    """The same moment of a long training for everybody."""
    from dolmen.tasks.task import Moment

    return Moment(0, progress, LONG, generator)


def bare_stamps(task: Any, batch_size: int, steps: int, precision: str, *, tuned: bool) -> list[float]:
    """When each step of a bare loop ended."""
    import numpy as np
    import torch

    from dolmen.nn.fp32 import quick_products
    from dolmen.nn.losses import cross_entropy
    from dolmen.nn.optimizers import classifier_optimizers

    torch.manual_seed(0)
    model = task.build_model()
    task.initialise(model)
    model.train()
    if tuned:
        model = model.to(memory_format=torch.channels_last)
    train = task.datasets["train"]
    everything = train.batch(np.arange(len(train)))  # all pictures as tensors
    optimizers = classifier_optimizers(model)
    rates = [[g["lr"] for g in o.param_groups] for o in optimizers]
    stamps = []
    with quick_products() if tuned else nullcontext():
        order = torch.randperm(len(train))
        for step in range(steps):
            rows = order[step * batch_size : (step + 1) * batch_size]
            generator = torch.Generator().manual_seed(step)
            batch = task.augment({k: v[rows] for k, v in everything.items()}, long_moment(generator, step / steps))
            images = batch["images"] if tuned else batch["images"].contiguous()
            for optimizer in optimizers:
                optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = cross_entropy(model(images), batch["targets"], 0.1)
            mean = loss.total / loss.weight
            mean.backward()
            share = 1 - step / steps
            for optimizer, before in zip(optimizers, rates, strict=True):
                for group, rate in zip(optimizer.param_groups, before, strict=True):
                    group["lr"] = rate * share
                optimizer.step()
            mean.item()  # people print it
            stamps.append(time.perf_counter())
    return stamps


if __name__ == "__main__":
    sys.exit(main())
