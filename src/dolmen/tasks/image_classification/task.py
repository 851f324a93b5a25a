"""Image classification: which of K classes is this picture?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from dolmen.data.images import augment
from dolmen.data.images.checks import check_images
from dolmen.data.images.dataset import ImageDataset, image_dataset
from dolmen.data.images.decoded import Decoded, decode_all
from dolmen.data.images.mirror import mirror_test
from dolmen.data.images.read import read_images, require_trainable
from dolmen.data.images.set import ImageSet, relabel
from dolmen.data.images.shapes import common_shape
from dolmen.data.sources.layout import choose_split
from dolmen.data.splits import assign_splits, leave_out_few_copies
from dolmen.metrics import classification as metrics
from dolmen.metrics.shared import shared
from dolmen.nn.convolutional.blocks import Normalise
from dolmen.nn.convolutional.classifiers import NETWORKS, ViewAverage, build_classifier, initialise_from_data
from dolmen.nn.losses import Loss, cross_entropy
from dolmen.nn.optimizers import classifier_optimizers, linear
from dolmen.nn.torch_network import Graph, Input
from dolmen.report.numbers import MAX_NAMES, classes_text
from dolmen.runtime.network import MODEL
from dolmen.tasks.config import TaskConfig
from dolmen.tasks.image_classification import views
from dolmen.tasks.image_classification.data.labels import suspect_labels
from dolmen.tasks.image_classification.data.sample import write_image_sample
from dolmen.tasks.image_classification.predictor import ClassificationPredictor
from dolmen.tasks.image_classification.processor import ClassificationProcessor
from dolmen.tasks.task import Batch, Budget, Calibrated, Moment, Objective, Prepared, Progress, Task, stage_progress
from dolmen.types import Arrays, Evaluation, Finding, Section, UserError
from dolmen.wording import count, listed

ENOUGH_EPOCHS_TO_LEARN = 20  # a picture size for which the budget allows fewer passes is too large
MIXED_SHARE, LONG_TRAINING_EPOCHS = 0.75, 40.0  # share of batches that are mixed, reached in trainings so long
DEFAULT_SPECIFICITY = 0.9  # at which sensitivity is stated where nothing else was asked for


class ImageClassificationConfig(TaskConfig):
    """Choices for image classification."""

    model: str = Field("auto", description=f"network: {', '.join(NETWORKS)}, or timm:NAME; auto: fast")
    weights: Literal["none", "pretrained"] = Field(
        "none",
        description="pretrained: start from published weights (timm: networks only; their licence is shown)",
    )
    image_size: int | None = Field(None, ge=8, le=1024, description="side in pixels that pictures are brought to")
    fit: Literal["crop", "pad", "stretch"] = Field("crop", description="how a picture gets that shape")
    flip: bool | None = Field(None, description="mirror images count as the same class; asked of the data if not given")
    augment: Literal["auto", "none", "light", "strong"] = Field("auto", description="how much pictures are varied")
    mix: Literal["auto", "none", "cutmix", "mixup"] = Field(
        "auto", description="how pictures of a batch are mixed; auto: cutmix of colour pictures in long trainings"
    )
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of the label spread over all classes")
    views: Literal[1, 2, 6] | None = Field(
        None, description="predict from so many views together; if not given, mirrored ones where flips are right"
    )
    positive: str | None = Field(None, description="with two classes: the one that sensitivity speaks of")
    specificity: float | None = Field(
        None, gt=0, lt=1, description="with two classes: decide at the threshold that has it on validation"
    )

    def for_loading(self) -> Self:
        """These choices without published weights: a file has the run's own."""
        return self.model_copy(update={"weights": "none"})


class ImageClassification(Task[ImageClassificationConfig, ClassificationProcessor, ImageDataset, nn.Module]):
    """Pictures to class probabilities."""

    name: ClassVar[str] = "image-classification"
    Config = ImageClassificationConfig
    Processor = ClassificationProcessor
    Predictor = ClassificationPredictor
    METRICS = shared(
        "accuracy", "balanced_accuracy", "macro_f1", "auroc", "loss", "calibrated_loss", "brier", "ece",
        "top_5_accuracy", "sensitivity", "specificity",
    )  # fmt: skip
    headline = "accuracy"
    monitor = "calibrated_loss"

    # ---- data

    @classmethod
    def prepare(
        cls,
        config: ImageClassificationConfig,
        data: str,
        *,
        fetch: bool = False,
        budget: Budget | None = None,
        progress: Progress | None = None,
        open_model: Callable[[Path], Any] | None = None,
    ) -> Prepared[ImageClassificationConfig, ClassificationProcessor, ImageDataset]:
        del open_model
        images = read_images(data, fetch=fetch, progress=stage_progress(progress, "downloading"))
        require_trainable(images)
        positive = _positive_class(config, images.classes)
        height, width, channels = common_shape(images, config.image_size)
        processor = ClassificationProcessor(
            classes=images.classes, height=height, width=width, channels=channels, fit=config.fit, positive=positive
        )
        config = config.model_copy(
            update={
                "model": "fast" if config.model == "auto" else config.model,
                "augment": "strong" if config.augment == "auto" else config.augment,
                "positive": positive,
            }
        )
        if config.image_size is None and budget is not None:
            processor = cls._fit_size_to_budget(config, processor, budget, int((images.labels >= 0).sum()))
        decoded = _decode(images, processor, progress)
        images = assign_splits(
            images,
            decoded,
            val_fraction=config.val_fraction,
            test_fraction=config.test_fraction,
            seed=config.seed,
        )
        images = leave_out_few_copies(images, decoded)
        report = check_images(images, decoded)
        datasets = {
            split: image_dataset(images, decoded, [i for i, s in enumerate(images.splits) if s == split])
            for split in ("train", "val", "test")
            if split in images.splits
        }
        flip = config.flip
        if flip is None and "train" in datasets:
            rows = datasets["train"].rows
            flip = mirror_test(decoded.thumbnails[rows], images.labels[rows], config.seed).keeps
        views = config.views or _default_views(bool(flip), processor)
        size = min(processor.height, processor.width)
        config = config.model_copy(update={"flip": flip, "image_size": size, "views": views})
        return Prepared(report, config, processor.model_copy(update={"num_views": views}), datasets)

    def open(
        self, data: str, *, split: str | None = None, fetch: bool = False, progress: Progress | None = None
    ) -> ImageDataset:
        images = read_images(data, fetch=fetch, progress=stage_progress(progress, "downloading"))
        images = relabel(images, self.processor.classes)
        decoded = _decode(images, self.processor, progress)
        chosen = choose_split(data, split, sorted({s for s in images.splits if s}), ("test", "val"))
        rows = [
            i
            for i, s in enumerate(images.splits)
            if (chosen is None or s == chosen) and images.labels[i] >= 0 and i not in decoded.problems
        ]
        if not rows:
            reason = next((f" ({images.names[i]}: {problem})" for i, problem in decoded.problems.items()), "")
            raise UserError(f"{data} holds no readable, labelled picture to evaluate on{reason}; give one that does")
        return image_dataset(images, decoded, rows)

    @classmethod
    def _fit_size_to_budget(
        cls, config: ImageClassificationConfig, processor: ClassificationProcessor, budget: Budget, num_images: int
    ) -> ClassificationProcessor:
        """Take the largest picture size with which the budget still allows enough passes over the data."""
        for size in [s for s in (160, 128, 96, 64) if s < min(processor.height, processor.width)]:
            images = torch.zeros(32, processor.channels, processor.height, processor.width)
            model = cls(config, processor).build_model()
            step_s = budget.seconds_of(model, images, lambda model, x: model(x).float().square().sum())
            needed_s = step_s / 32 * num_images * ENOUGH_EPOCHS_TO_LEARN
            if needed_s <= budget.seconds:
                break
            processor = processor.model_copy(update={"height": size, "width": size})
        return processor

    # ---- learning

    def build_model(self) -> nn.Module:
        p = self.processor
        normalise = Normalise([127.5] * p.channels, [64.0] * p.channels)
        return build_classifier(
            self.config.model,
            len(p.classes),
            normalise,
            min(p.height, p.width),
            pretrained=self.config.weights == "pretrained",
        )

    def initialise(self, model: nn.Module) -> None:
        """Set the normalisation from the training pictures, then what else the network takes from them."""
        train = self.datasets["train"]
        sample = np.random.default_rng(self.config.seed).permutation(len(train))[:2000]
        images = train.batch(np.sort(sample))["images"].permute(0, 3, 1, 2).float()
        normalise = next(m for m in model.modules() if isinstance(m, Normalise))
        if self.config.weights == "none":  # published weights come with their own
            normalise.mean.copy_(images.mean((0, 2, 3)).view(1, -1, 1, 1))
            normalise.std.copy_(images.std((0, 2, 3)).clamp(min=1).view(1, -1, 1, 1))
        initialise_from_data(model, images)

    def objectives(self, model: nn.Module) -> Sequence[Objective]:
        """The only objective: cross-entropy with label smoothing."""

        def loss(batch: Batch) -> Loss:
            return cross_entropy(model(batch["images"]), batch["targets"], self.config.label_smoothing)

        optimizers = classifier_optimizers(
            model,
            lr=self.config.lr,
            weight_decay=self.config.weight_decay,
            pretrained=self.config.weights != "none",
        )
        return [Objective("loss", loss, optimizers, linear(warmup=0.1))]

    def augment(self, batch: Batch, moment: Moment) -> Batch:
        """Vary the stored pictures: ``images`` become (B, C, H, W) float 0..255, ``targets`` (B, K) float.

        "light" moves and flips. "strong" also turns, scales, changes the light and mixes colour pictures: the longer
        the training, the more, since pictures that are seen more often have to vary more.
        """
        config, g = self.config, moment.generator
        length = min(1.0, moment.num_epochs / LONG_TRAINING_EPOCHS)
        images, size = batch["images"], min(self.processor.height, self.processor.width)
        targets = F.one_hot(batch["labels"], len(self.processor.classes)).float()
        if config.augment != "none":
            flip = augment.alternating_flip(batch["ids"], moment.epoch, config.seed) if config.flip else None
            images = augment.shift_and_flip(images, g, pixels=max(1, round(size / 16 * (1 + length))), flip=flip)
        x = images.permute(0, 3, 1, 2).float()
        if config.augment == "strong":
            x = augment.vary(x, g, length)
        mix = config.mix
        if mix == "auto":
            mix = "cutmix" if config.augment == "strong" and x.shape[1] == 3 else "none"
        if mix != "none" and float(torch.rand((), generator=g)) < MIXED_SHARE * length:
            x, targets = (augment.cutmix if mix == "cutmix" else augment.mixup)(x, targets, g)
        return {"images": x, "targets": targets}

    # ---- use

    def outputs(self, model: nn.Module, batch: Batch) -> Batch:
        """``{"logits": (B, K)}``, the weighted mean over the processor's views."""
        return {"logits": ViewAverage(model, self.processor.views())(batch["images"])}

    def quick_outputs(self, model: nn.Module, batch: Batch) -> Batch:
        """``{"logits": (B, K)}`` from the pictures as they are."""
        return {"logits": model(batch["images"].permute(0, 3, 1, 2).float()).float()}

    def graphs(self, model: nn.Module) -> dict[str, Graph]:
        """``images`` (B, H, W, C) uint8 to ``logits`` (B, K)."""
        p = self.processor
        shape = ("batch", p.height, p.width, p.channels)
        graph = Graph(ViewAverage(model, p.views()), {"images": Input("uint8", shape)}, ("logits",))
        return {MODEL: graph}

    def predictor(self, model: nn.Module) -> ClassificationPredictor:
        return ClassificationPredictor(self.processor, self.networks(model))

    def evaluate(self, outputs: Arrays, dataset: ImageDataset, *, intervals: bool = True) -> Evaluation:
        """Decide for the most probable class, or by the threshold where one was asked for, and compare."""
        logits, labels, p = outputs["logits"], dataset.labels, self.processor
        if not intervals:
            return Evaluation(self.name, len(labels), metrics.quick_metrics(logits, labels))
        probabilities = metrics.softmax(logits, p.temperature)
        decided = self._decide(probabilities)
        values = metrics.metrics(logits, labels, p.temperature, decided)
        bounds = metrics.intervals(probabilities, labels, dataset.groups, decided=decided)
        tables = metrics.per_class(decided, labels, p.classes)
        ece, bins = metrics.calibration(probabilities, labels)
        before, _ = metrics.calibration(metrics.softmax(logits), labels)
        losses = {"loss": values["loss"], "loss_before": metrics.log_loss(logits, labels)}
        tables["calibration"] = {
            "ece": ece, "ece_before": before, **losses, "temperature": p.temperature, "bins": bins,
        }  # fmt: skip
        if p.positive is not None and p.threshold is not None:
            at_threshold = metrics.at_threshold(
                probabilities[:, p.classes.index(p.positive)], labels, p.classes.index(p.positive), p.threshold
            )
            values |= {name: value for name, (value, _) in at_threshold.items()}
            bounds |= {name: bound for name, (_, bound) in at_threshold.items()}
            tables["operating_point"] = {
                "positive": p.positive,
                "threshold": p.threshold,
                "specificity_wanted": self.config.specificity or DEFAULT_SPECIFICITY,
                "sensitivity": values.get("sensitivity"),
                "specificity": values.get("specificity"),
                "chosen_on": "val",
                "decides": p.decide_by_threshold,
            }
        arrays = {
            "labels": labels,
            "probabilities": probabilities,
            "decided": decided,
            "indices": np.arange(len(labels)),
        }
        return Evaluation(self.name, len(labels), values, bounds, {"classes": list(p.classes), **tables}, arrays)

    def _decide(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """(N,) the class that the processor would decide for."""
        p = self.processor
        if not p.decide_by_threshold or p.positive is None or p.threshold is None:
            return np.asarray(probabilities.argmax(1))
        positive = p.classes.index(p.positive)
        return np.where(probabilities[:, positive] >= p.threshold, positive, 1 - positive)

    def calibrate(
        self, model: nn.Module, outputs: Arrays, dataset: ImageDataset
    ) -> Calibrated[ClassificationProcessor]:
        """Fit the temperature, and for two classes the operating threshold."""
        del model
        logits, labels = outputs["logits"], dataset.labels
        update: dict[str, Any] = {"temperature": metrics.fit_temperature(logits, labels)}
        if self.processor.positive is not None:
            column = self.processor.classes.index(self.processor.positive)
            true = labels == column
            if 0 < true.sum() < len(true):
                scores = metrics.softmax(logits, update["temperature"])[:, column]
                update["threshold"] = metrics.fit_threshold(
                    scores, true, self.config.specificity or DEFAULT_SPECIFICITY
                )
                update["decide_by_threshold"] = self.config.specificity is not None
        return Calibrated(self.processor.model_copy(update=update))

    def suspects(self, outputs: Arrays, dataset: ImageDataset) -> Finding:
        """Labels that networks which never saw them doubt (confident learning)."""
        probabilities = metrics.softmax(outputs["logits"])
        suspects = suspect_labels(probabilities, dataset.labels)
        names, classes = dataset.names, self.processor.classes
        items = [
            f"{names[i]}: labelled {classes[dataset.labels[i]]}, looks like {classes[probabilities[i].argmax()]}"
            for i in suspects
        ]
        message = (
            f"{len(suspects)} of {len(dataset):,} labels look wrong to networks that never trained on them; look at "
            "them, most doubtful first."
            if items
            else f"None of {len(dataset):,} labels looks wrong to networks that never trained on them."
        )
        return Finding(
            code="suspect-labels",
            level="warning" if items else "info",
            message=message,
            count=len(items),
            items=tuple(items),
        )

    # ---- showing

    @classmethod
    def sample(cls, folder: Path) -> None:
        write_image_sample(folder)

    def facts(self) -> list[tuple[str, str]]:
        p = self.processor
        colour = "grey" if p.channels == 1 else "colour"
        return [("classes", classes_text(p.classes)), ("input", f"{p.width} × {p.height} pixels in {colour}")]

    def intended_use(self) -> list[str]:
        classes = self.processor.classes
        return [
            f"Image classification into {count(len(classes), 'class', 'classes')}: {listed(classes, MAX_NAMES)}.",
            "Whatever it is shown, it answers with one of these; it has no answer for anything else.",
        ]

    def sections(
        self, model: nn.Module, evaluations: dict[str, Evaluation], datasets: Mapping[str, ImageDataset]
    ) -> list[Section]:
        return views.sections(model, self.processor, datasets, evaluations)

    def explain(self, model: nn.Module, raw: Any, out: Path) -> dict[str, Any]:
        example = self.predictor(model).encode(raw)
        if isinstance(example, UserError):
            raise example
        title = str(raw) if isinstance(raw, (str, Path)) else "picture"
        return views.explain(model, self.processor, example["images"], title, out)


def _positive_class(config: ImageClassificationConfig, classes: tuple[str, ...]) -> str | None:
    """The class that sensitivity speaks of: where there are two the one asked for, else the second."""
    positive = config.positive
    if len(classes) != 2:
        if positive is not None or config.specificity is not None:
            raise UserError(
                f"--positive and --specificity speak of two classes, and the data have {len(classes)}; leave them out"
            )
        return None
    if positive is not None and positive not in classes:
        raise UserError(f"--positive {positive} is no class of the data; give {classes[0]} or {classes[1]}")
    return positive or classes[1]


def _default_views(flip: bool, processor: ClassificationProcessor) -> Literal[1, 2, 6]:
    """Mirrored views where they are right; moved ones too where pictures are so small that a pixel matters."""
    if not flip:
        return 1
    return 6 if max(processor.height, processor.width) <= 48 else 2


def _decode(images: ImageSet, processor: ClassificationProcessor, progress: Progress | None) -> Decoded:
    return decode_all(images, processor, progress=stage_progress(progress, "reading pictures"))
