"""The jobs, by name. Listing them imports no torch; a task's page is imported when the task is asked for."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dolmen.types import UserError

if TYPE_CHECKING:
    from dolmen.tasks.task import Task


@dataclass(frozen=True)
class TaskEntry:
    """A line of ``dolmen tasks``.

    Attributes:
        pillar: "CNN", "RNN" or both.
        brings: what the person brings.
        headline: what is measured.
        page: module and class, or "" while the task does not work yet.
    """

    pillar: str
    brings: str
    headline: str
    page: str = ""


TASKS: dict[str, TaskEntry] = {
    "image-classification": TaskEntry(
        "CNN",
        "folder per class, CSV/JSONL, .npz, named public sets",
        "accuracy, AUROC, sensitivity at a chosen specificity",
        "dolmen.tasks.image_classification.task:ImageClassification",
    ),
    "object-detection": TaskEntry(
        "CNN + RPN",
        "COCO json, Pascal VOC xml, YOLO txt, CSV/JSONL",
        "mAP, mAP@0.5",
        "dolmen.tasks.object_detection.task:ObjectDetection",
    ),
    "face-recognition": TaskEntry("CNN", "folder per person; LFW-style pairs", "TAR at FAR, DET, rank-1"),
    "video-classification": TaskEntry("CNN + RNN", "folder of clips per class", "accuracy; event recall and delay"),
    "image-segmentation": TaskEntry("CNN", "image and mask folders, COCO polygons", "Dice, IoU, HD95"),
    "text-generation": TaskEntry(
        "RNN",
        "plain text files",
        "perplexity, bits per character",
        "dolmen.tasks.text_generation.task:TextGeneration",
    ),
    "speech-recognition": TaskEntry(
        "RNN + CNN",
        "recordings: CSV/JSONL, LibriSpeech, Common Voice",
        "WER, CER",
        "dolmen.tasks.speech_recognition.task:SpeechRecognition",
    ),
    "translation": TaskEntry("RNN", "two aligned text files, TSV", "BLEU, chrF"),
    "token-classification": TaskEntry(
        "RNN",
        "CoNLL columns, CoNLL-U, JSONL with spans",
        "entity F1, token accuracy",
        "dolmen.tasks.token_classification.task:TokenClassification",
    ),
    "image-generation": TaskEntry("CNN (GAN)", "folder of images", "FID, KID"),
}


def load_task(name: str) -> type[Task[Any]]:
    """Import a task's page and return its class.

    Raises:
        UserError: there is no such task, it does not work yet, or torch is missing.
    """
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, 1, cutoff=0.5)
        raise UserError(
            f"there is no task {name!r}"
            + (f"; did you mean {close[0]}?" if close else ";")
            + " dolmen tasks lists them"
        )
    module, _, attribute = TASKS[name].page.partition(":")
    if not module:
        raise UserError(f"{name} does not work yet; dolmen tasks shows what does")
    for library in ("torch", "sklearn", "matplotlib", "jinja2"):  # now, and not when the report is to be written
        if importlib.util.find_spec(library) is None:
            raise UserError(f"{name} needs {library} here; type: pip install 'dolmen[train]'")
    task: type[Task[Any]] = getattr(importlib.import_module(module), attribute)
    return task
