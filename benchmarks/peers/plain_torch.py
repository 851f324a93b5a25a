"""The peer "plain PyTorch": torchvision's ResNet-18 with a stem for CIFAR, SGD, one cycle, fp32. Prints JSON Lines.

A good script as people write it: all data as tensors, random crop with padding 4, random flip, label smoothing 0.1,
Nesterov momentum 0.9, weight decay 5e-4, batch 128, OneCycleLR. The number of steps is planned from the measured time
of a step, so that the schedule ends within the budget. The clock stops while the test pictures are looked at.

    python benchmarks/peers/plain_torch.py DATA.npz --minutes 10 [--seed 0] [--lr 0.1]
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import torchvision  # noqa: E402
from torch import Tensor, nn  # noqa: E402


def cifar_resnet18(num_classes: int) -> nn.Module:
    net = torchvision.models.resnet18(num_classes=num_classes)
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net


def vary(x: Tensor) -> Tensor:
    """Random crop with padding 4 and random flip, another one for each picture: (B, 3, H, W)."""
    b, c, h, w = x.shape
    padded = F.pad(x, (4, 4, 4, 4))
    top, left = torch.randint(0, 9, (2, b, 1))
    rows = top + torch.arange(h)
    cols = left + torch.arange(w)
    cols = torch.where(torch.rand(b, 1) < 0.5, cols.flip(1), cols)
    index = torch.arange(b)
    return padded[
        index[:, None, None, None], torch.arange(c)[:, None, None], rows[:, None, :, None], cols[:, None, None]
    ]


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    net.eval()
    with torch.inference_mode():
        right = sum(int((net(a).argmax(1) == b).sum()) for a, b in zip(x.split(250), y.split(250), strict=True))
    net.train()
    return right / len(y)


def step_seconds(x: Tensor, y: Tensor, num_classes: int, args: argparse.Namespace) -> float:
    """The median of six steps of a throw-away network, after two."""
    net, times = cifar_resnet18(num_classes).train(), []
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    for _ in range(args.probe + 2):
        start = time.perf_counter()
        F.cross_entropy(net(vary(x[: args.batch])), y[: args.batch]).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    return float(np.median(times[2:]))


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("data")
    options.add_argument("--minutes", type=float, required=True)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--lr", type=float, default=0.1)
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--probe", type=int, default=6)
    args = options.parse_args()
    torch.manual_seed(args.seed)
    data = np.load(args.data)
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])

    def tensors(split: str) -> tuple[Tensor, Tensor]:
        x = (torch.from_numpy(data[f"{split}_images"]).float() / 255 - mean) / std
        return x.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(data[f"{split}_labels"]).long()

    x, y = tensors("train")
    test_x, test_y = tensors("test")
    num_classes = int(y.max()) + 1
    step_s = step_seconds(x, y, num_classes, args)
    used = time.perf_counter() - STARTED
    total = max(2, int((60 * args.minutes - used) * 0.97 / step_s))
    per_epoch = len(x) // args.batch
    print(json.dumps({"plan": True, "steps": total, "epochs": total / per_epoch, "step_s": step_s}), flush=True)

    net = cifar_resnet18(num_classes).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=args.lr, total_steps=total, pct_start=0.25)
    looking, done = 0.0, 0
    for epoch in range(math.ceil(total / per_epoch)):
        order = torch.randperm(len(x))
        for number in range(min(per_epoch, total - done)):
            rows = order[number * args.batch : (number + 1) * args.batch]
            loss = F.cross_entropy(net(vary(x[rows])), y[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
        start = time.perf_counter()
        right = accuracy(net, test_x, test_y)
        looking += time.perf_counter() - start
        seconds = time.perf_counter() - STARTED - looking
        print(json.dumps({"epoch": epoch + 1, "seconds": seconds, "accuracy": right}), flush=True)


if __name__ == "__main__":
    main()
