"""What image classification shows: its sections of the report, and the picture that explains one prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dolmen.data.images.dataset import ImageDataset
from dolmen.nn.convolutional import gradcam
from dolmen.nn.convolutional.classifiers import ViewAverage
from dolmen.report.explanation import explanation_picture
from dolmen.tasks.image_classification import report as classification
from dolmen.tasks.image_classification.processor import ClassificationProcessor
from dolmen.types import Evaluation, Section, UserError

MAX_SANITY_PICTURES = 16


def sections(
    model: nn.Module,
    processor: ClassificationProcessor,
    datasets: Mapping[str, ImageDataset],
    evaluations: dict[str, Evaluation],
) -> list[Section]:
    """The report's sections; ``datasets`` by the same names as ``evaluations``."""

    def cam(split: str, indices: Sequence[int], classes: Sequence[int]) -> NDArray[Any]:
        pixels = _pixels(model, datasets[split], indices)
        return gradcam.grad_cam(model, pixels, torch.tensor(list(classes), device=pixels.device)).cpu().numpy()

    split = "test" if "test" in evaluations else next(iter(evaluations))
    indices = list(range(min(MAX_SANITY_PICTURES, len(datasets[split]))))
    likely = evaluations[split].arrays["probabilities"][indices].argmax(1)
    pixels = _pixels(model, datasets[split], indices)
    has_map, sanity = True, None
    try:
        sanity = gradcam.randomisation_check(model, pixels, torch.from_numpy(likely).to(pixels.device))
    except UserError:  # a network without a spatial map: the report goes without heat maps
        has_map = False
    return classification.sections(
        evaluations,
        classes=processor.classes,
        picture=lambda split, i: datasets[split].pixels[datasets[split].rows[i]],
        name=lambda split, i: datasets[split].names[i],
        cam=cam if has_map else None,
        temperature=processor.temperature,
        sanity=sanity,
        filters=gradcam.first_filters(model),
    )


def _pixels(model: nn.Module, dataset: ImageDataset, indices: Sequence[int]) -> Tensor:
    """(B, C, H, W) float on the model's device."""
    images = dataset.batch(np.array(indices, np.int64))["images"]
    return images.permute(0, 3, 1, 2).float().to(next(model.parameters()).device)


def explain(
    model: nn.Module, processor: ClassificationProcessor, picture: NDArray[np.uint8], title: str, out: Path
) -> dict[str, Any]:
    """Write the explanation of one prediction.

    Args:
        model: the network.
        processor: fitted.
        picture: (H, W, C) uint8, encoded.
        title: what the picture is called.
        out: a .png file to write.

    Returns:
        The prediction, where the network looked, and how much the heat map can be trusted.
    """
    device = next(model.parameters()).device
    pixels = torch.from_numpy(np.array(picture[None])).permute(0, 3, 1, 2).float().to(device)
    with torch.inference_mode():
        logits = ViewAverage(model, processor.views())(torch.from_numpy(np.array(picture[None])).to(device))
    prediction = processor.decode({"logits": logits.cpu().numpy()})[0]
    chosen = torch.tensor([processor.classes.index(prediction.label)], device=device)
    cam = gradcam.grad_cam(model, pixels, chosen)[0].cpu().numpy()
    sanity = gradcam.randomisation_check(model, pixels, chosen)
    maps = {name: m[0].cpu().numpy() for name, m in gradcam.feature_maps(model, pixels).items()}
    explanation_picture(
        out,
        picture=picture,
        cam=cam,
        top=prediction.top(8),
        maps=maps,
        filters=gradcam.first_filters(model),
        title=title,
        sanity=sanity,
    )
    peak = np.unravel_index(int(cam.argmax()), cam.shape)
    return {
        "input": title,
        "label": prediction.label,
        "probability": round(prediction.probability, 4),
        "looked_at": {
            "x": round((float(peak[1]) + 0.5) / cam.shape[1], 3),
            "y": round((float(peak[0]) + 0.5) / cam.shape[0], 3),
        },
        "agreement_with_random_network": round(sanity, 3),
        "picture": str(out),
    }
