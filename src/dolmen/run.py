"""The run folder: the only bridge from training to use. Reading and writing it needs no torch.

    config.json            task, data, the command, every choice (defaults included)
    processor.json         raw input -> arrays and outputs -> predictions, fitted
    weights.safetensors    there when the training has ended
    metrics.jsonl          one line for the plan and one for each look at validation
    environment.json       what it ran on
    check.json             what was in the data
    evaluation.json        validation and test figures
    card.md, report.html   for people
    checkpoint/            there while the training has not ended
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dolmen.types import MachineError, UserError

CONFIG, PROCESSOR, WEIGHTS = "config.json", "processor.json", "weights.safetensors"
METRICS, ENVIRONMENT, CHECK, EVALUATION = "metrics.jsonl", "environment.json", "check.json", "evaluation.json"
REPORT, CARD, CHECKPOINT = "report.html", "card.md", "checkpoint"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it: it is there whole or not at all.

    Raises:
        MachineError: the disk is full or can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise MachineError(
            f"{path} ({len(content) / 1e6:.1f} MB) can't be written: {error.strerror}; make room or choose another --out"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write plain values as readable JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} is no whole run folder: {path.name} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it, or train anew") from error


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of ``metrics.jsonl``; a line that SIGKILL cut off is left out."""
    records = []
    path = folder / METRICS
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def is_run(path: Path) -> bool:
    """Whether a folder is a run, finished or not."""
    return (path / CONFIG).is_file() and (path / PROCESSOR).is_file()


def require_finished(folder: Path) -> dict[str, Any]:
    """Return the run's ``config.json`` if it can be used.

    Raises:
        UserError: it is no run, or its training has not ended.
    """
    if not folder.exists():
        raise UserError(f"there is no run at {folder}; dolmen runs lists the runs that are here")
    if not is_run(folder):
        raise UserError(f"{folder} is no run folder (it has no {CONFIG}); dolmen runs lists the runs that are here")
    config: dict[str, Any] = read_json(folder / CONFIG)
    if not (folder / WEIGHTS).is_file():
        how = f"{config.get('command', 'dolmen train ...')} --resume"
        raise UserError(f"the training of {folder} has not ended; go on with: {how}")
    return config


def next_folder(task: str, data: str, base: Path = Path("runs")) -> Path:
    """A name for a new run: ``runs/<task>-<data>-<n>`` with the first n that is free."""
    stem = Path(data.rstrip("/")).name.split(".")[0] or "data"
    n = 1
    while (base / f"{task}-{stem}-{n}").exists():
        n += 1
    return base / f"{task}-{stem}-{n}"
