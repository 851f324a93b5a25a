"""Object detection: what is in this picture, and where?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from dolmen.data.boxes.set import BoxSet, relabel_boxes
from dolmen.data.images import augment
from dolmen.data.images.decoded import Decoded, decode_all
from dolmen.data.images.mirror import mirror_test
from dolmen.data.images.shapes import sample_shapes
from dolmen.data.sources.layout import choose_split
from dolmen.data.splits import assign_splits, leave_out_few_copies
from dolmen.nn.convolutional.blocks import Normalise
from dolmen.nn.losses import Loss
from dolmen.nn.optimizers import classifier_optimizers, cosine
from dolmen.nn.torch_network import Graph, Input
from dolmen.predictions import Boxes
from dolmen.report.numbers import MAX_NAMES, classes_text
from dolmen.runtime.network import MODEL
from dolmen.tasks.config import TaskConfig
from dolmen.tasks.object_detection import views
from dolmen.tasks.object_detection.data import augment as box_augment
from dolmen.tasks.object_detection.data.anchors import Shapes, fit_anchors, size_iou
from dolmen.tasks.object_detection.data.checks import check_boxes, clean, stratum
from dolmen.tasks.object_detection.data.dataset import BoxDataset, box_dataset
from dolmen.tasks.object_detection.data.read import read_boxes
from dolmen.tasks.object_detection.data.sample import write_box_sample
from dolmen.tasks.object_detection.data.tiles import tile_boxes
from dolmen.tasks.object_detection.data.writers import FORMS, convert_boxes
from dolmen.tasks.object_detection.metrics import precision as metrics
from dolmen.tasks.object_detection.metrics.declared import METRICS
from dolmen.tasks.object_detection.nn.builders import DETECTORS, build_detector
from dolmen.tasks.object_detection.nn.losses import detection_loss
from dolmen.tasks.object_detection.nn.network import Detector, DetectorGraph, scores_of
from dolmen.tasks.object_detection.predictor.predictor import DetectionPredictor
from dolmen.tasks.object_detection.processor import DetectionProcessor
from dolmen.tasks.task import Batch, Budget, Calibrated, Moment, Objective, Prepared, Progress, Task, stage_progress
from dolmen.types import Arrays, Evaluation, Finding, Section, UserError
from dolmen.wording import count, listed

USUAL_SIZE = 320
"""Pixels along the longer side, of pictures that are larger."""
SMALL_OBJECT = 8.0
"""Pixels that small objects should have in the network's input; pictures are cut into tiles until they do."""
MAX_TILES = 4
COVERED = 0.9
"""Share of the objects that an anchor should cover at IoU 0.5."""
SETTLING = 0.85
"""Share of the training after which pictures are no longer made of parts of four."""


class ObjectDetectionConfig(TaskConfig):
    """Choices for object detection."""

    model: str = Field("auto", description=f"detector: {', '.join(DETECTORS)}, or timm:NAME; auto: edge")
    weights: Literal["none", "pretrained"] = Field(
        "none",
        description="pretrained: start from published weights (timm: networks only; their licence is shown)",
    )
    image_size: int | None = Field(
        None, ge=64, le=2048, description="longer side in pixels of what the network sees (default 320, or less)"
    )
    tiles: int | None = Field(
        None,
        ge=1,
        le=16,
        description="tiles along the longer side of a picture, seen beside the whole of it; asked of "
        "the objects if not given",
    )
    flip: Literal["auto", "none", "horizontal", "both"] = Field(
        "auto", description="which mirror images are as good; auto: asked of the objects"
    )
    augment: Literal["auto", "none", "light", "strong"] = Field(
        "auto", description="how much pictures are varied; auto: strong"
    )
    mosaic: float = Field(0.5, ge=0, le=1, description="share of pictures that are made of parts of four")
    paste: float | None = Field(
        None, ge=0, le=1, description="share of pictures into which an object of a rare class is pasted"
    )
    proposals: int = Field(100, ge=1, le=1000, description="regions that the second stage looks at")
    anchors: int | None = Field(
        None,
        ge=3,
        le=15,
        description="anchor shapes, fitted to the objects; if not given, as many (6 to 15) as cover 90 % of them",
    )

    def for_loading(self) -> Self:
        """The same choices without published weights: those of the run are loaded instead."""
        return self.model_copy(update={"weights": "none"})


class ObjectDetection(Task[ObjectDetectionConfig, DetectionProcessor, BoxDataset, Detector]):
    """Pictures to boxes with classes."""

    name: ClassVar[str] = "object-detection"
    Config = ObjectDetectionConfig
    Processor = DetectionProcessor
    Predictor = DetectionPredictor
    convert_formats = FORMS
    METRICS = METRICS
    headline = "map"
    monitor = "map"

    # ---- data

    @classmethod
    def prepare(
        cls,
        config: ObjectDetectionConfig,
        data: str,
        *,
        fetch: bool = False,
        budget: Budget | None = None,
        progress: Progress | None = None,
        open_model: Callable[[Path], Any] | None = None,
    ) -> Prepared[ObjectDetectionConfig, DetectionProcessor, BoxDataset]:
        del fetch, budget, open_model
        boxes = read_boxes(data)
        sample, channels = sample_shapes(boxes.images)
        height, width = _input_shape(sample, config.image_size)
        processor = DetectionProcessor(
            classes=boxes.images.classes, height=height, width=width, channels=channels, anchors=(((8.0, 8.0),),) * 3
        )
        whole = _decode(boxes, processor, progress)
        sizes = whole.sizes.astype(np.int64)
        boxes, findings = clean(boxes, sizes)
        if not len(boxes.boxes_xyxy):
            raise UserError(f"{data} holds no usable box; dolmen check {cls.name} {data} says what is wrong with them")
        tiles = config.tiles or _tiles_needed(boxes, sizes, max(height, width))
        processor = processor.model_copy(update={"tiles": tiles, "max_detections": 100 * tiles})
        views, picture, crops, decoded = _decode_views(processor, boxes, whole, progress)
        images = assign_splits(
            boxes.images.replace(labels=stratum(boxes)), whole, val_fraction=config.val_fraction,
            test_fraction=config.test_fraction, seed=config.seed,
        )  # fmt: skip
        images = leave_out_few_copies(images, whole)
        boxes = boxes.replace(images=images.replace(labels=boxes.images.labels))
        report = check_boxes(boxes, whole, findings)
        datasets = {
            split: box_dataset(boxes, sizes, chosen, views, picture, crops, decoded, processor)
            for split in ("train", "val", "test")
            if len(chosen := np.flatnonzero(np.array(images.splits) == split))
        }
        if "train" in datasets:
            config, processor = _fit(config, processor, datasets["train"])
            anchors = _anchor_finding(datasets["train"], processor)
            report = report.model_copy(update={"findings": (*report.findings, anchors)})
        return Prepared(report, config, processor, datasets)

    def open(
        self, data: str, *, split: str | None = None, fetch: bool = False, progress: Progress | None = None
    ) -> BoxDataset:
        del fetch
        boxes = relabel_boxes(read_boxes(data), self.processor.classes)
        whole = _decode(boxes, self.processor, progress)
        sizes = whole.sizes.astype(np.int64)
        boxes, _ = clean(boxes, sizes)
        chosen = choose_split(data, split, sorted({s for s in boxes.images.splits if s}), ("test", "val"))
        usable = (boxes.images.labels >= 0) & (sizes[:, 0] > 0)
        rows = np.flatnonzero([chosen is None or s == chosen for s in boxes.images.splits] & usable)
        if not len(rows):
            raise UserError(f"{data} holds no readable picture with annotations to evaluate on; give one that does")
        views, picture, crops, decoded = _decode_views(self.processor, boxes, whole, progress)
        return box_dataset(boxes, sizes, rows, views, picture, crops, decoded, self.processor)

    # ---- learning

    def build_model(self) -> Detector:
        p = self.processor
        return build_detector(
            self.config.model, Normalise([127.5] * p.channels, [64.0] * p.channels), anchor_shapes=p.anchors,
            height=p.height, width=p.width, num_classes=len(p.classes), num_proposals=self.config.proposals,
            pretrained=self.config.weights == "pretrained",
        )  # fmt: skip

    def initialise(self, model: Detector) -> None:
        """Set the normalisation from the training pictures; published weights come with their own."""
        if self.config.weights == "none":
            train = self.datasets["train"]
            sample = np.random.default_rng(self.config.seed).permutation(len(train))[:200]
            images = train.batch(np.sort(sample))["images"].permute(0, 3, 1, 2).float()
            model.normalise.mean.copy_(images.mean((0, 2, 3)).view(1, -1, 1, 1))
            model.normalise.std.copy_(images.std((0, 2, 3)).clamp(min=1).view(1, -1, 1, 1))

    def batch_size(self, num_examples: int) -> int:
        """Pictures are large here."""
        return int(np.clip(2 ** round(np.log2(max(1, num_examples) / 12)), 4, 16))

    def enough_steps(self, num_examples: int, batch_size: int) -> int:
        """From scratch, detectors learn for a hundred passes (205 pictures of blood cells: mAP@0.5 0.91 after 117)."""
        return max(1500, 120 * num_examples // batch_size)

    def objectives(self, model: Detector) -> Sequence[Objective]:
        """One: both stages together."""

        def loss(batch: Batch) -> Loss:
            return detection_loss(model, batch["images"], batch["boxes"], batch["labels"], batch["near"])

        optimizers = classifier_optimizers(
            model, lr=self.config.lr, weight_decay=self.config.weight_decay, pretrained=self.config.weights != "none",
            outputs=model.proposals.predict,
        )  # fmt: skip
        return [Objective("loss", loss, optimizers, cosine(warmup=0.05))]

    def augment(self, batch: Batch, moment: Moment) -> Batch:
        """Vary the stored pictures: ``images`` become (B, C, H, W) float 0..255, ``boxes`` and ``labels`` move along.

        "light" scales, crops and flips. "strong" also pastes objects of rare classes, makes pictures of parts of four,
        and changes the light and the colours.
        """
        config, g = self.config, moment.generator
        varied = box_augment.Boxed(batch["images"].permute(0, 3, 1, 2).float(), batch["boxes"], batch["labels"])
        flips = (config.flip in ("horizontal", "both"), config.flip == "both")
        if config.augment == "strong" and config.paste:
            objects = self._rare_objects(len(varied.images), g)
            varied = box_augment.paste_objects(varied, objects, g, share=config.paste)
        if config.augment == "light":
            varied = box_augment.scale_and_crop(varied, g, zoom=(0.8, 1.25), stretch=0.1, flips=flips)
        if config.augment == "strong":
            num_mosaics = round(config.mosaic * len(varied.images)) if moment.progress < SETTLING else 0
            parts = []
            if num_mosaics:
                parts.append(box_augment.mosaic(varied, g, num_mosaics, zoom=(0.5, 1.2), stretch=0.2, flips=flips))
            if num_mosaics < len(varied.images):
                remaining = box_augment.Boxed(*(t[num_mosaics:] for t in varied))
                parts.append(box_augment.scale_and_crop(remaining, g, zoom=(0.7, 1.5), stretch=0.2, flips=flips))
            varied = box_augment.joined(*parts)
            images = augment.light(varied.images, g, brightness=0.1, contrast=0.3, gamma=0.2)
            if images.shape[1] == 3:
                images = augment.colour(images, g, saturation=0.4)
            varied = varied._replace(images=images)
        return {**varied._asdict(), "near": box_augment.jittered(varied.boxes, g)}

    def _rare_objects(self, number: int, generator: torch.Generator) -> list[tuple[torch.Tensor, int]]:
        """Objects of rare classes with their labels, from the training pictures; each such class is equally likely."""
        train = self.datasets["train"]
        rare = _rare_classes(train, len(self.processor.classes))
        if not len(rare):
            return []
        drawn = torch.randint(0, len(rare), (number,), generator=generator).tolist()
        turns = torch.rand(number, generator=generator).tolist()
        objects = []
        for label, turn in zip([rare[d] for d in drawn], turns, strict=True):
            places = train.of_class(label)
            view, box = places[int(turn * len(places))]
            left, top, right, bottom = train.boxes[view][box].round().astype(int).tolist()
            patch = torch.from_numpy(train.pixels[train.rows[view], max(0, top) : bottom, max(0, left) : right].copy())
            if patch.numel():
                objects.append((patch.permute(2, 0, 1).float(), label))
        return objects

    # ---- use

    def outputs(self, model: Detector, batch: Batch) -> Batch:
        """``boxes`` (B, R, 4), ``scores`` (B, R, K); ``proposals`` (B, R, 4) where the second stage looked."""
        outputs = model(batch["images"].permute(0, 3, 1, 2).float())
        return {"boxes": outputs.boxes, "scores": scores_of(outputs), "proposals": outputs.proposals}

    def graphs(self, model: Detector) -> dict[str, Graph]:
        """``images`` (B, H, W, C) uint8 to ``boxes`` (B, R, 4) and ``scores`` (B, R, K)."""
        p = self.processor
        shape = ("batch", p.height, p.width, p.channels)
        return {MODEL: Graph(DetectorGraph(model), {"images": Input("uint8", shape)}, ("boxes", "scores"))}

    def predictor(self, model: Detector) -> DetectionPredictor:
        return DetectionPredictor(self.processor, self.networks(model))

    def evaluate(self, outputs: Arrays, dataset: BoxDataset, *, intervals: bool = True) -> Evaluation:
        p = self.processor
        predicted, proposals = self._decoded(outputs, dataset)
        truth = [metrics.Truth(*t) for t in dataset.truth]
        if not intervals:
            values = metrics.quick(predicted, truth, len(p.classes))
            return Evaluation(self.name, len(truth), values | self._proposal_recall(proposals, truth))
        values, tables = metrics.evaluation_tables(predicted, truth, p.classes, p.thresholds)
        recall = self._proposal_recall(proposals, truth)
        bounds = metrics.intervals(predicted, truth, len(p.classes), dataset.groups, seed=self.config.seed)
        tables |= {"classes": list(p.classes), "proposals": recall}
        return Evaluation(self.name, len(truth), values | recall, bounds, tables, views.as_arrays(predicted))

    def _decoded(self, outputs: Arrays, dataset: BoxDataset) -> tuple[list[Boxes], list[NDArray[np.float32]]]:
        """The objects of each picture, and the proposals if there are any, in pixels of the picture."""
        predicted, proposals = [], []
        edges = np.searchsorted(dataset.picture, np.arange(len(dataset.truth) + 1))
        for i, (height, width) in enumerate(dataset.sizes.tolist()):
            at = slice(edges[i], edges[i + 1])
            picture_outputs = {name: values[at] for name, values in outputs.items()}
            predicted.append(self.processor.decode_picture(picture_outputs, dataset.crops[at], (height, width)))
            if "proposals" in picture_outputs:
                pairs = zip(picture_outputs["proposals"], dataset.crops[at], strict=True)
                proposals.append(np.concatenate([self.processor.from_input(p, c) for p, c in pairs]))
        return predicted, proposals

    def _proposal_recall(self, proposals: list[NDArray[np.float32]], truth: list[metrics.Truth]) -> dict[str, float]:
        return metrics.proposal_recall(proposals, truth) if proposals else {}

    def calibrate(self, model: Detector, outputs: Arrays, dataset: BoxDataset) -> Calibrated[DetectionProcessor]:
        """Choose the score of each class from which on an object is reported: the best F1 on validation."""
        del model
        predicted, _ = self._decoded(outputs, dataset)
        truth = [metrics.Truth(*t) for t in dataset.truth]
        thresholds = metrics.fit_thresholds(predicted, truth, len(self.processor.classes))
        return Calibrated(self.processor.model_copy(update={"thresholds": tuple(thresholds)}))

    # ---- showing

    @classmethod
    def sample(cls, folder: Path) -> None:
        write_box_sample(folder)

    @classmethod
    def convert(cls, data: str, form: str, out: Path, progress: Progress | None = None) -> list[str]:
        return convert_boxes(data, form, out, progress)

    def facts(self) -> list[tuple[str, str]]:
        p = self.processor
        colour = "grey" if p.channels == 1 else "colour"
        tiles = f", and {p.tiles} tiles along the longer side" if p.tiles > 1 else ""
        return [("classes", classes_text(p.classes)), ("input", f"{p.width} × {p.height} pixels in {colour}{tiles}")]

    def intended_use(self) -> list[str]:
        classes = self.processor.classes
        return [
            f"It finds objects of {count(len(classes), 'class', 'classes')} in pictures: {listed(classes, MAX_NAMES)}.",
            "Objects of other classes it passes over, or takes for one of these.",
        ]

    def sections(
        self, model: Detector, evaluations: dict[str, Evaluation], datasets: Mapping[str, BoxDataset]
    ) -> list[Section]:
        del model
        return views.sections(self.processor, datasets, evaluations)

    def explain(self, model: Detector, raw: Any, out: Path) -> dict[str, Any]:
        return views.explain(model, self.predictor(model), raw, out)


def _decode(boxes: BoxSet, processor: DetectionProcessor, progress: Progress | None) -> Decoded:
    return decode_all(boxes.images, processor.image_fit, progress=stage_progress(progress, "reading pictures"))


def _decode_views(
    processor: DetectionProcessor, boxes: BoxSet, whole: Decoded, progress: Progress | None
) -> tuple[BoxSet, NDArray[np.int64], NDArray[np.int64], Decoded]:
    """What the network sees of the pictures: the views, the picture of each, where in it they are, their pixels."""
    sizes = whole.sizes.astype(np.int64)
    if processor.tiles == 1:
        return boxes, np.arange(len(boxes)), np.pad(sizes[:, ::-1], ((0, 0), (2, 0))), whole
    min_share = SMALL_OBJECT**2 / (processor.height * processor.width)
    tiled, picture, crops = tile_boxes(boxes, sizes, processor.views, min_share)
    return tiled, picture, crops, _decode(tiled, processor, progress)


def _fit(
    config: ObjectDetectionConfig, processor: DetectionProcessor, train: BoxDataset
) -> tuple[ObjectDetectionConfig, DetectionProcessor]:
    """Decide what the training objects decide: anchors, flips, which classes are rare."""
    sizes = object_sizes(train)
    for num_shapes in (config.anchors,) if config.anchors else (6, 9, 12, 15):
        shapes = fit_anchors(sizes, num_shapes)
        if (anchor_iou(sizes, shapes) >= 0.5).mean() >= COVERED:
            break
    flip, paste = config.flip, config.paste
    if flip == "auto":
        thumbnails, labels = train.thumbnails(config.seed)
        horizontal = mirror_test(thumbnails, labels, config.seed, same_appearance=True).keeps
        vertical = mirror_test(thumbnails.transpose(0, 2, 1), labels, config.seed, same_appearance=True).keeps
        flip = "both" if horizontal and vertical else "horizontal" if horizontal else "none"
    if paste is None:
        paste = 0.5 if len(_rare_classes(train, len(processor.classes))) else 0.0
    config = config.model_copy(
        update={
            "model": "edge" if config.model == "auto" else config.model,
            "augment": "strong" if config.augment == "auto" else config.augment,
            "image_size": max(processor.height, processor.width),
            "tiles": processor.tiles,
            "flip": flip,
            "paste": paste,
        }
    )
    return config, processor.model_copy(update={"anchors": shapes})


def _anchor_finding(train: BoxDataset, processor: DetectionProcessor) -> Finding:
    """How many objects the fitted anchors could find, before anything is learnt."""
    best = anchor_iou(object_sizes(train), processor.anchors)
    covered, covered_well = (best >= 0.5).mean(), (best >= 0.7).mean()
    shapes = "; ".join(
        f"stride {stride}: " + ", ".join(f"{w:g} x {h:g}" for w, h in level)
        for stride, level in zip((8, 16, 32), processor.anchors, strict=True)
    )
    message = (
        f"An anchor covers {covered:.1%} of the training objects at IoU 0.5 and {covered_well:.1%} at 0.7 ({shapes}), "
        f"in pixels of {processor.width} x {processor.height}."
    )
    level: Literal["warning", "info"] = "warning" if covered < COVERED else "info"
    if covered < COVERED:
        message += " Give more of them with --anchors, a larger --image-size, or --tiles."
    return Finding(code="anchors", level=level, message=message, count=int((best < 0.5).sum()))


def _input_shape(sizes: NDArray[np.int64], longer: int | None) -> tuple[int, int]:
    """Height and width of what the network sees: of the shape that nearly all pictures fit into."""
    known = sizes[sizes[:, 0] > 0].astype(np.float64)
    side = longer or min(USUAL_SIZE, int(np.median(known.max(1))))
    shape = np.quantile(known / known.max(1, keepdims=True), 0.95, axis=0) * side
    height, width = (max(64, int(np.ceil(v / 32 - 1e-6)) * 32) for v in shape)
    return height, width


def _tiles_needed(boxes: BoxSet, sizes: NDArray[np.int64], side: int) -> int:
    """Into how many tiles pictures have to be cut so that small objects are large enough to be seen."""
    extents = boxes.boxes_xyxy[:, 2:] - boxes.boxes_xyxy[:, :2]
    longer_sides = sizes[boxes.pictures()].max(1)
    input_px = np.sqrt(extents.prod(1)) * side / longer_sides
    small_px = float(np.quantile(input_px[~boxes.crowd], 0.1)) if (~boxes.crowd).any() else SMALL_OBJECT
    if small_px >= SMALL_OBJECT or float(np.median(longer_sides)) < 2 * side:
        return 1
    return int(np.clip(np.ceil(SMALL_OBJECT / small_px), 2, MAX_TILES))


def _rare_classes(train: BoxDataset, num_classes: int) -> list[int]:
    """The classes of which there are less than a fifth as many objects as of the most frequent one."""
    counts = np.bincount(np.concatenate([n[n >= 0] for n in train.labels]), minlength=num_classes)
    return [i for i, n in enumerate(counts.tolist()) if 0 < n < counts.max() / 5]


def object_sizes(dataset: BoxDataset) -> NDArray[np.float64]:
    """(M, 2) width and height of each object, in pixels of the input."""
    boxes = np.concatenate([b[n >= 0] for b, n in zip(dataset.boxes, dataset.labels, strict=True)])
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).clip(1), np.float64)


def anchor_iou(sizes: NDArray[np.float64], anchors: Shapes) -> NDArray[np.float64]:
    """(M,) IoU of objects of these sizes (M, 2) with the anchor shape that fits best, were it in the right place."""
    shapes = np.array([shape for level in anchors for shape in level])
    return np.asarray(size_iou(sizes, shapes).max(1))
