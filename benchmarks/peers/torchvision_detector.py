"""The peer "torchvision": fasterrcnn_mobilenet_v3_large_320_fpn from scratch, in a plain script. Prints JSON Lines.

As people write it after torchvision's own detection reference: SGD with momentum 0.9 and weight decay 1e-4, a linear
warm-up, the learning rate scaled with the batch, flips (both, as cells allow them), cosine decay. The number of steps
is planned from the measured time of a step, so that the schedule ends within the budget. The clock stops while the
validation pictures are looked at.

    python benchmarks/peers/torchvision_detector.py COCO_FOLDER --minutes 30 [--lr 0.02] [--batch 8]
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from faster_coco_eval import COCO, COCOeval_faster  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor  # noqa: E402
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn  # noqa: E402

Target = dict[str, Tensor]


def network(num_classes: int) -> Any:
    return fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=num_classes + 1)


def read(folder: Path, split: str) -> tuple[list[Tensor], list[Target], dict[str, Any]]:
    """Pictures (3, H, W) uint8, their boxes, and the annotations as they are."""
    content = json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
    number = {c["id"]: i + 1 for i, c in enumerate(content["categories"])}
    pictures, targets = [], []
    for image in content["images"]:
        pixels = np.array(Image.open(folder / "images" / split / image["file_name"]).convert("RGB"))
        pictures.append(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())
        mine = [a for a in content["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        boxes = torch.tensor([a["bbox"] for a in mine]).reshape(-1, 4).float()
        boxes[:, 2:] += boxes[:, :2]
        targets.append({"boxes": boxes, "labels": torch.tensor([number[a["category_id"]] for a in mine]).long()})
    return pictures, targets, content


def flipped(picture: Tensor, target: Target) -> tuple[Tensor, Target]:
    boxes = target["boxes"].clone()
    height, width = picture.shape[1:]
    if torch.rand(()) < 0.5:
        picture, boxes = (
            picture.flip(2),
            boxes[:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1]) + torch.tensor([width, 0, width, 0]),
        )
    if torch.rand(()) < 0.5:
        picture, boxes = (
            picture.flip(1),
            boxes[:, [0, 3, 2, 1]] * torch.tensor([1, -1, 1, -1]) + torch.tensor([0, height, 0, height]),
        )
    return picture.float() / 255, {"boxes": boxes, "labels": target["labels"]}


def step(net: Any, optimizer: torch.optim.Optimizer, pictures: list[Tensor], targets: list[Target]) -> None:
    pairs = [flipped(p, t) for p, t in zip(pictures, targets, strict=True)]
    losses = net([p for p, _ in pairs], [t for _, t in pairs])
    optimizer.zero_grad()
    sum(losses.values()).backward()
    optimizer.step()


def average_precision(net: Any, pictures: list[Tensor], content: dict[str, Any]) -> dict[str, float]:
    net.eval()
    found, ids = [], [c["id"] for c in content["categories"]]
    with torch.inference_mode():
        for image, picture in zip(content["images"], pictures, strict=True):
            said = net([picture.float() / 255])[0]
            for (x1, y1, x2, y2), label, score in zip(
                said["boxes"].tolist(), said["labels"].tolist(), said["scores"].tolist(), strict=True
            ):
                box = [x1, y1, x2 - x1, y2 - y1]
                found.append({"image_id": image["id"], "category_id": ids[label - 1], "bbox": box, "score": score})
    net.train()
    if not found:
        return {"map": 0.0, "map_50": 0.0}
    truth = COCO(content, print_function=lambda *_: None)
    evaluation = COCOeval_faster(truth, truth.loadRes(found), "bbox", print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, -1]
    return {"map": float(precision[precision > -1].mean()), "map_50": float(precision[0][precision[0] > -1].mean())}


def latency(net: Any, pictures: list[Tensor], seconds: float) -> list[float]:
    """Milliseconds of one picture: p50 and p99."""
    net.eval()
    times: list[float] = []
    with torch.inference_mode():
        for picture in pictures[:5]:
            net([picture.float() / 255])
        end = time.perf_counter() + seconds
        while len(times) < 20 or time.perf_counter() < end:
            start = time.perf_counter()
            net([pictures[len(times) % len(pictures)].float() / 255])
            times.append(time.perf_counter() - start)
    return [float(v) * 1e3 for v in np.percentile(times, (50, 99))]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("data", type=Path)
    options.add_argument("--minutes", type=float, required=True)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--lr", type=float, default=0.01)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--looks", type=int, default=6)
    options.add_argument("--seconds", type=float, default=5.0, help="that latency is measured for")
    args = options.parse_args()
    torch.manual_seed(args.seed)
    pictures, targets, content = read(args.data, "train")
    val_pictures, _, val_content = read(args.data, "val")
    num_classes = len(content["categories"])

    probe, times = network(num_classes).train(), []
    throw_away = torch.optim.SGD(probe.parameters(), lr=1e-5)
    for _ in range(5):
        start = time.perf_counter()
        step(probe, throw_away, pictures[: args.batch], targets[: args.batch])
        times.append(time.perf_counter() - start)
    step_s = float(np.median(times[2:]))
    total = max(2, int((60 * args.minutes - (time.perf_counter() - STARTED)) * 0.97 / step_s))
    print(json.dumps({"plan": True, "steps": total, "epochs": total * args.batch / len(pictures), "step_s": step_s}))

    net = network(num_classes).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=0.9, weight_decay=1e-4)
    warm = max(1, min(200, total // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / warm, 0.5 * (1 + math.cos(math.pi * i / total)))
    )
    looking, order = 0.0, torch.randperm(0)
    for number in range(1, total + 1):
        if len(order) < args.batch:
            order = torch.randperm(len(pictures))
        rows, order = order[: args.batch].tolist(), order[args.batch :]
        step(net, optimizer, [pictures[i] for i in rows], [targets[i] for i in rows])
        schedule.step()
        late = 60 * args.minutes < time.perf_counter() - STARTED - looking
        if number == total or late or number % max(1, total // args.looks) == 0:
            start = time.perf_counter()
            found = average_precision(net, val_pictures, val_content)
            looking += time.perf_counter() - start
            print(json.dumps({"step": number, "seconds": time.perf_counter() - STARTED - looking, **found}), flush=True)
        if late:
            break
    p50, p99 = latency(net, val_pictures, args.seconds)
    parameters = sum(p.numel() for p in net.parameters())
    print(json.dumps({"latency": True, "p50": p50, "p99": p99, "parameters": parameters}))


if __name__ == "__main__":
    main()
