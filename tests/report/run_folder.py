"""A small run folder and its evaluations, made by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.report.numbers import classes_text
from dolmen.tasks.image_classification.task import ImageClassification
from dolmen.types import CheckReport, Evaluation, Finding, Skipped

NASTY = "<img src=x onerror=alert(1)>&\"'.png"


def evaluation(num_classes: int = 3, num: int = 60, *, point: bool = False, perfect: bool = False) -> Evaluation:
    """Random probabilities that are right in about 8 of 10 cases."""
    rng = np.random.default_rng(num_classes)
    labels = np.arange(num) % num_classes
    logits = rng.normal(size=(num, num_classes)) + (50 if perfect else 2.5) * np.eye(num_classes)[labels]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confusion = np.zeros((num_classes, num_classes), int)
    np.add.at(confusion, (labels, p.argmax(1)), 1)
    names = class_names(num_classes)
    rows = [
        {"class": c, "num": int(confusion[i].sum()), "precision": 0.9, "recall": 0.8, "f1": 0.85 - i / 1000}
        for i, c in enumerate(names)
    ]
    bins = [{"confidence": c, "accuracy": c - 0.05, "num": 20} for c in (0.55, 0.75, 0.95)]
    tables: dict[str, Any] = {
        "confusion": confusion.tolist(),
        "per_class": rows,
        "calibration": {
            "ece": 0.05,
            "ece_before": 0.09,
            "loss": 0.5,
            "loss_before": 0.75,
            "temperature": 1.4,
            "bins": bins,
        },
    }
    metrics = {"accuracy": float((p.argmax(1) == labels).mean()), "macro_f1": 0.8, "auroc": 0.93, "loss": 0.5}
    if point:
        decided = p[:, 1] >= 0.6
        sensitivity, specificity = float(decided[labels == 1].mean()), float((~decided[labels == 0]).mean())
        metrics |= {"sensitivity": sensitivity, "specificity": specificity}
        tables["operating_point"] = {
            "decides": True,
            "positive": names[1],
            "threshold": 0.6,
            "specificity_wanted": 0.9,
            "sensitivity": sensitivity,
            "specificity": specificity,
            "chosen_on": "val",
        }
    arrays: dict[str, NDArray[Any]] = {"labels": labels, "probabilities": p, "indices": np.arange(num)}
    return Evaluation("image-classification", num, metrics, {"accuracy": (0.7, 0.9)}, tables, arrays)


def class_names(num: int) -> tuple[str, ...]:
    """The last one is nasty: "$" is mathematics to matplotlib, "<" a tag to browsers, "|" a cell to Markdown."""
    return (*(f"class {i}" for i in range(num - 1)), "$a|<b>$")


def run_folder(folder: Path, *, num_classes: int = 3, looks: int = 12) -> Path:
    """Write the files that a finished training leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = [{"event": "plan", "batch_size": 10, "notes": ["fp32, as asked"]}]
    for i in range(looks):
        step = 3 * (i + 1)
        records.append(
            {
                "event": "look", "epoch": (step - 1) // 6, "loss": 2 / (i + 1), "step": step,
                "progress": (i + 1) / looks, "seconds": 10.0 * (i + 1),
                "val": {"loss": 2.1 / (i + 1), "accuracy": 1 - 0.8 / (i + 1)}, "best": i >= looks - 2,
                "grad_norms": {"stages.stem.conv": 0.1 / (i + 1), "head": 0.0 if i == 0 else 0.01},
            }
        )  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records) + '{"event": "lo')
    found = evaluation(num_classes)
    check = CheckReport(
        task="image-classification",
        source="photos",
        num_files=62,
        num_used=60,
        skipped=(Skipped(name=NASTY, reason="truncated"), Skipped(name="notes.txt", reason="not a picture")),
        counts={"train": {"class 0": 40, "$a|<b>$": 1}, "test": {"class 0": 20}},
        summary={"picture size": "32 x 32 (all)"},
        findings=(Finding(code="near", level="warning", message="2 pictures are alike.", count=2, items=(NASTY,)),),
    )
    files = {
        "config.json": {
            "task": "image-classification", "dolmen": "0.1.0", "data": "photos", "num_parameters": 1_230_000,
            "command": "dolmen train image-classification photos --minutes 2", "config": {"model": "fast", "seed": 0},
        },
        "description.json": {
            "headline": "accuracy",
            "metrics": {name: asdict(metric) for name, metric in ImageClassification.METRICS.items()},
            "facts": [("classes", classes_text(class_names(num_classes))), ("input", "48 × 32 pixels in colour")],
            "intended_use": [f"It tells {', '.join(class_names(num_classes))} apart.", "It has no other answer."],
        },
        "environment.json": {"torch": "2.15.0", "cpu": "AMD EPYC", "num_threads": 2, "device": "cpu", "bf16": True},
        "check.json": check.model_dump(),
        "evaluation.json": {"val": found.to_json(), "test": found.to_json()},
    }  # fmt: skip
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    return folder
