"""The jobs: one literal dict, a line a job. Listing them imports no torch; a task is imported when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dolmen.types import UserError
from dolmen.wording import did_you_mean

if TYPE_CHECKING:
    from dolmen.runtime.predictor import Predictor
    from dolmen.tasks.task import AnyTask

TRAINING = ("torch", "sklearn", "matplotlib", "jinja2")
"""Libraries of the extra ``train``; asked for before a training starts, and not when its report is to be written."""


@dataclass(frozen=True)
class TaskEntry:
    """A line of ``dolmen tasks``, and where the task is.

    Attributes:
        pillar: "CNN", "RNN" or both.
        brings: what the person brings.
        headline: what is measured.
        package: the task's folder, dotted; "" while the task does not work yet.
        task: module in it and class of its ``Task``, "task:ImageClassification".
        predictor: the same of its ``Predictor``.
        needs: libraries without which it can't be trained.
        extra: what to install to have them, ``pip install 'dolmen[EXTRA]'``.
        does: what a model of it does, as a sentence goes on after its name: "says what a picture shows".
    """

    pillar: str
    brings: str
    headline: str
    package: str = ""
    task: str = ""
    predictor: str = ""
    needs: tuple[str, ...] = TRAINING
    extra: str = "train"
    does: str = ""

    @property
    def works(self) -> bool:
        """Whether the task can be used today."""
        return bool(self.package)


TASKS: dict[str, TaskEntry] = {
    "image-classification": TaskEntry(
        "CNN",
        "folder per class, CSV/JSONL, .npz, named public sets",
        "accuracy, AUROC, sensitivity at a chosen specificity",
        "dolmen.tasks.image_classification",
        "task:ImageClassification",
        "predictor:ClassificationPredictor",
        does="says what a picture shows",
    ),
    "object-detection": TaskEntry(
        "CNN + RPN",
        "COCO json, Pascal VOC xml, YOLO txt, CSV/JSONL",
        "mAP, mAP@0.5",
        "dolmen.tasks.object_detection",
        "task:ObjectDetection",
        "predictor.predictor:DetectionPredictor",
        does="finds what is in a picture, and where",
    ),
    "face-recognition": TaskEntry("CNN", "folder per person; LFW-style pairs", "TAR at FAR, DET, rank-1"),
    "video-classification": TaskEntry("CNN + RNN", "folder of clips per class", "accuracy; event recall and delay"),
    "image-segmentation": TaskEntry("CNN", "image and mask folders, COCO polygons", "Dice, IoU, HD95"),
    "text-generation": TaskEntry(
        "RNN",
        "plain text files",
        "perplexity, bits per character",
        "dolmen.tasks.text_generation",
        "task:TextGeneration",
        "predictor:TextPredictor",
        does="writes on from how a text begins",
    ),
    "speech-recognition": TaskEntry(
        "RNN + CNN",
        "recordings: CSV/JSONL, LibriSpeech, Common Voice",
        "WER, CER",
        "dolmen.tasks.speech_recognition",
        "task:SpeechRecognition",
        "predictor.predictor:SpeechPredictor",
        does="writes down what is said, and when",
    ),
    "translation": TaskEntry("RNN", "two aligned text files, TSV", "BLEU, chrF"),
    "token-classification": TaskEntry(
        "RNN",
        "CoNLL columns, CoNLL-U, JSONL with spans",
        "entity F1, token accuracy",
        "dolmen.tasks.token_classification",
        "task:TokenClassification",
        "predictor:SentencePredictor",
        does="finds what a text names",
    ),
    "image-generation": TaskEntry("CNN (GAN)", "folder of images", "FID, KID"),
}


def load_task(name: str) -> type[AnyTask]:
    """Import a task's page and return its class.

    Raises:
        UserError: there is no such task, it does not work yet, or a library that it needs is missing.
    """
    if name not in TASKS:
        raise UserError(f"there is no task {name!r}; {did_you_mean(name, TASKS, cutoff=0.5)}dolmen tasks lists them")
    entry = TASKS[name]
    if not entry.works:
        raise UserError(f"{name} does not work yet; dolmen tasks shows what does")
    for library in entry.needs:
        if importlib.util.find_spec(library) is None:
            raise UserError(f"{name} needs {library} here; type: pip install 'dolmen[{entry.extra}]'")
    task: type[AnyTask] = _load(entry.package, entry.task)
    return task


def load_predictor(name: str) -> type[Predictor[Any]]:
    """Import what predicts for a task and return its class; this needs no torch.

    Raises:
        UserError: there is no such task, or it does not work yet.
    """
    entry = TASKS.get(name)
    if entry is None or not entry.works:
        raise UserError(f"this version of Dolmen has no task {name!r}; upgrade it: pip install -U dolmen")
    predictor: type[Predictor[Any]] = _load(entry.package, entry.predictor)
    return predictor


def _load(package: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(f"{package}.{module}"), attribute)
