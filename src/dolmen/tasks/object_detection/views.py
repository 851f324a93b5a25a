"""What object detection shows: its sections of the report, and the picture that explains one prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dolmen.predictions import Boxes
from dolmen.processors.images.image import open_image
from dolmen.tasks.object_detection.data.dataset import BoxDataset
from dolmen.tasks.object_detection.nn.network import STRIDES, Detector
from dolmen.tasks.object_detection.predictor.predictor import DetectionPredictor, detect
from dolmen.tasks.object_detection.processor import DetectionProcessor
from dolmen.tasks.object_detection.report import sections as detection
from dolmen.tasks.object_detection.report.explanation import explanation_picture
from dolmen.types import Arrays, Evaluation, Section, UserError

MAX_FEATURE_MAPS = 8


def as_arrays(predicted: Sequence[Boxes]) -> Arrays:
    """The objects of all pictures in one list, with the picture of each: what an evaluation keeps of them."""
    return {
        "boxes_xyxy": np.concatenate([b.boxes_xyxy for b in predicted]).reshape(-1, 4),
        "scores": np.concatenate([b.scores for b in predicted]),
        "labels": np.concatenate([b.labels for b in predicted]),
        "picture": np.repeat(np.arange(len(predicted)), [len(b) for b in predicted]),
    }


def from_arrays(arrays: Arrays, sizes: NDArray[np.int64], names: tuple[str, ...]) -> list[Boxes]:
    """Undo ``as_arrays``; sizes (P, 2) of the pictures."""
    edges = np.searchsorted(arrays["picture"], np.arange(len(sizes) + 1))
    predicted = []
    for i, (height, width) in enumerate(sizes.tolist()):
        at = slice(edges[i], edges[i + 1])
        predicted.append(
            Boxes((height, width), names, arrays["boxes_xyxy"][at], arrays["scores"][at], arrays["labels"][at])
        )
    return predicted


def sections(
    processor: DetectionProcessor, datasets: Mapping[str, BoxDataset], evaluations: dict[str, Evaluation]
) -> list[Section]:
    """The report's sections; ``datasets`` by the same names as ``evaluations``."""
    predicted = {s: from_arrays(e.arrays, datasets[s].sizes, processor.classes) for s, e in evaluations.items()}
    return detection.sections(
        evaluations,
        names=processor.classes,
        picture=lambda split, i: datasets[split].picture_of(i),
        name=lambda split, i: datasets[split].names[i],
        predicted=predicted,
        truth={split: dataset.truth for split, dataset in datasets.items()},
    )


def explain(model: Detector, predictor: DetectionPredictor, raw: Any, out: Path) -> dict[str, Any]:
    """Write the explanation of one prediction.

    Args:
        model: the network.
        predictor: predicts with this network.
        raw: a picture as a person has it.
        out: a .png file to write.

    Returns:
        The objects, and how many places and proposals they came from.
    """
    example = predictor.encode(raw)
    if isinstance(example, UserError):
        raise example
    p = predictor.processor
    boxes = next(detect(p, predictor.network, [example]))
    reported = p.reported(boxes)
    largest_view = int(np.argmax((example["crops"][:, 2:] - example["crops"][:, :2]).prod(1)))
    view, crop = example["images"][largest_view], example["crops"][largest_view]
    device = next(model.parameters()).device
    with torch.inference_mode():
        levels = model.features(torch.from_numpy(view[None]).permute(0, 3, 1, 2).float().to(device))
        proposed = model.proposals(levels)
        regions, objectness = model.select(proposed)
    maps = objectness_maps(model, proposed.objectness[0])
    strength = objectness[0].sigmoid().cpu().numpy()
    order = np.argsort(-strength, kind="stable")
    title = str(raw) if isinstance(raw, (str, Path)) else "picture"
    proposals = p.from_input(regions[0].cpu().numpy()[order], crop)
    explanation_picture(
        out,
        picture=open_image(raw).pixels,
        reported=reported,
        view=view,
        objectness=maps,
        proposals=regions[0].cpu().numpy()[order],
        strength=strength[order],
        levels={f"stride {s}": _most_varied(level[0]) for s, level in zip(STRIDES, levels, strict=True)},
        title=title,
    )
    return {
        "input": title,
        **reported.to_json(),
        "below_threshold": len(boxes) - len(reported),
        "places": int(proposed.objectness.shape[1]) * len(example["images"]),
        "proposals": len(proposals) * len(example["images"]),
        "surest_proposals": [
            {"box_xyxy": [round(float(v), 1) for v in box], "objectness": round(float(s), 4)}
            for box, s in zip(proposals[:5], strength[order][:5], strict=True)
        ],
        "picture": str(out),
    }


def _most_varied(level: torch.Tensor) -> NDArray[np.float32]:
    """(F, h, w) -> (8, h, w) or fewer: the maps that vary most over the picture."""
    indices = level.flatten(1).std(1).topk(min(MAX_FEATURE_MAPS, len(level))).indices
    return level[indices].float().cpu().numpy()


def objectness_maps(model: Detector, objectness: torch.Tensor) -> dict[str, NDArray[np.float32]]:
    """Objectness at each place, the largest of its anchors: (h, w) in 0..1 for each stride."""
    maps, start = {}, 0
    for stride, shapes in zip(STRIDES, model.proposals.num_shapes, strict=True):
        height, width = model.height // stride, model.width // stride
        part = objectness[start : start + height * width * shapes].view(height, width, shapes)
        maps[f"stride {stride}"] = part.amax(2).sigmoid().float().cpu().numpy()
        start += height * width * shapes
    return maps
