"""The peer "fastai": its Learner on a ResNet-18 with a stem for CIFAR, its own augmentation. Prints JSON Lines.

As its documentation does it: `DataBlock`, `aug_transforms`, `Normalize`, batch 64, label smoothing, `fit_one_cycle`
(Adam, 3e-3), no worker processes (they would cost more than they give on two cores). The number of epochs is planned
from the measured time of a step, so that they end within the budget. The clock stops while the test pictures are looked
at.

    python benchmarks/peers/fastai_learner.py DATA.npz --minutes 10 [--seed 0] [--lr 3e-3]
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
from itertools import islice  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from fastai.vision.all import (  # noqa: E402
    Callback,
    CategoryBlock,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    LabelSmoothingCrossEntropyFlat,
    Learner,
    Normalize,
    PILImage,
    accuracy,
    aug_transforms,
    cifar_stats,
    set_seed,
)
from plain_torch import cifar_resnet18  # noqa: E402


class Clock(Callback):
    """Prints the accuracy after each epoch, and the time without that of looking."""

    looking, start = 0.0, 0.0

    def before_validate(self) -> None:
        """Stop."""
        self.start = time.perf_counter()

    def after_validate(self) -> None:
        """Go on."""
        self.looking += time.perf_counter() - self.start

    def after_epoch(self) -> None:
        """Print a line."""
        seconds = time.perf_counter() - STARTED - self.looking
        right = float(self.learn.recorder.metrics[0].value)
        print(json.dumps({"epoch": self.epoch + 1, "seconds": seconds, "accuracy": right}), flush=True)


def step_seconds(dls: Any, num_classes: int, probe: int) -> float:
    """The median time of a step of a throw-away network, making its batch included, after two."""
    net, loss_of, times = cifar_resnet18(num_classes).train(), LabelSmoothingCrossEntropyFlat(), []
    batches, start = iter(dls.train), time.perf_counter()
    for x, y in islice(batches, probe + 2):
        loss_of(net(x), y).backward()
        net.zero_grad()
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
    return float(np.median(times[2:]))


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("data")
    options.add_argument("--minutes", type=float, required=True)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--lr", type=float, default=3e-3)
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--probe", type=int, default=6)
    args = options.parse_args()
    set_seed(args.seed)
    data = np.load(args.data)
    images = np.concatenate([data["train_images"], data["test_images"]])
    labels = np.concatenate([data["train_labels"], data["test_labels"]])
    num_train, num_classes = len(data["train_images"]), int(labels.max()) + 1
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(range(num_classes)))),
        get_x=lambda i: PILImage.create(images[i]),
        get_y=lambda i: int(labels[i]),
        splitter=IndexSplitter(range(num_train, len(images))),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(*cifar_stats)],
    )
    dls = block.dataloaders(range(len(images)), bs=args.batch, val_bs=250, num_workers=0)
    step_s = step_seconds(dls, num_classes, args.probe)
    used = time.perf_counter() - STARTED
    per_epoch = len(dls.train)
    epochs = max(1, int((60 * args.minutes - used) / (step_s * per_epoch)))
    print(json.dumps({"plan": True, "steps": epochs * per_epoch, "epochs": epochs, "step_s": step_s}), flush=True)
    learn = Learner(
        dls, cifar_resnet18(num_classes), loss_func=LabelSmoothingCrossEntropyFlat(), metrics=accuracy, cbs=Clock()
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, args.lr)


if __name__ == "__main__":
    main()
