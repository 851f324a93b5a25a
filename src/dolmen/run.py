"""A finished run, opened. Listing runs needs no torch; opening one does. ``run_folder`` names the files."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from dolmen.catalogue import load_task
from dolmen.files import write_json
from dolmen.run_folder import CHECK, CONFIG, DESCRIPTION, EVALUATION, PROCESSOR, SEEN, WEIGHTS
from dolmen.runtime.model import Model
from dolmen.runtime.predictor import Predictor
from dolmen.types import Evaluation, UserError

if TYPE_CHECKING:
    from torch import nn

    from dolmen.report.card import Licence
    from dolmen.tasks.task import AnyTask, Dataset, Progress

MAX_SEEN_SHARE = 0.02
"""Share of the measured examples that training may have used; where it is larger, they are left out."""


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} is no whole run folder: {path.name} is missing; restore it, or train anew"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it, or train anew") from error


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
        missing = next(name for name in (CONFIG, PROCESSOR) if not (folder / name).is_file())
        raise UserError(f"{folder} is no run folder (it has no {missing}); dolmen runs lists the runs that are here")
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or not {"task", "config"} <= config.keys():
        raise UserError(f"{folder / CONFIG} is damaged (it names no task); restore it, or train anew")
    if not (folder / WEIGHTS).is_file():
        command = f"{config.get('command', 'dolmen train ...')} --resume"
        raise UserError(f"the training of {folder} has not ended; go on with: {command}")
    return config


def next_folder(task: str, data: str, base: Path = Path("runs")) -> Path:
    """A name for a new run: ``runs/<task>-<data>-<n>`` with the first n that is free."""
    stem = Path(data.rstrip("/")).name.split(".")[0] or "data"
    n = 1
    while (base / f"{task}-{stem}-{n}").exists():
        n += 1
    return base / f"{task}-{stem}-{n}"


class Run(Model):
    """A trained model with everything around it, computed by torch.

    Attributes:
        path: the run folder.
        task: with its configuration and fitted processor.
        model: the network, in evaluation mode.
    """

    kind = "run"

    def __init__(self, path: Path, task: AnyTask, model: nn.Module) -> None:
        self.path, self.task, self.model, self.task_name = path, task, model.eval(), task.name

    @functools.cached_property
    def predictor(self) -> Predictor[Any]:
        """What turns inputs, as a person has them, into predictions."""
        return self.task.predictor(self.model)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, task={self.task.name!r})"

    def describe(self) -> dict[str, Any]:
        """What it is, as plain JSON values."""
        evaluation = self.evaluation
        split = "test" if "test" in evaluation else "val"
        return {
            **super().describe(),
            "precision": self.precision,
            "made_of": self.path.name,
            "measured": {"on": split, **evaluation[split]["metrics"]},
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "bytes": (self.path / WEIGHTS).stat().st_size,
        }

    @property
    def evaluation(self) -> dict[str, Any]:
        """What training measured in the end, by split: ``{"val": {...}, "test": {...}}``."""
        values: dict[str, Any] = read_json(self.path / EVALUATION)
        return values

    def evaluate(
        self,
        data: str | Path,
        *,
        split: str | None = None,
        fetch: bool = False,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Measure the model on labelled data.

        Examples that training used are left out where they are more than 2 % (data without named splits are split the
        same way every time, so this leaves the test part), and counted where they are fewer.

        Args:
            data: a path or the name of a public set.
            split: "train", "val" or "test"; by default the test part, else the validation part, else everything.
            fetch: download a named public set if it is not here yet.
            progress: called with how far reading is.

        Raises:
            UserError: the data can't be used, or hold a class that training never saw.
        """
        return self.measure(data, split=split, fetch=fetch, progress=progress)[0]

    def measure(
        self,
        data: str | Path,
        *,
        split: str | None = None,
        fetch: bool = False,
        progress: Progress | None = None,
    ) -> tuple[Evaluation, Dataset]:
        """Measure as ``evaluate`` does, and also return the data set: a report shows examples of it."""
        from dolmen.engine.evaluate import gather_outputs

        dataset = self.task.open(str(data), split=split, fetch=fetch, progress=progress)
        seen = self.seen(dataset)
        if split is None and seen.mean() > MAX_SEEN_SHARE:
            if seen.all():
                raise UserError(
                    f"all {len(seen):,} examples of {data} were used in training {self.path}; evaluate on others, "
                    "or on a part of them by name, --split train"
                )
            dataset, seen = dataset.subset(np.flatnonzero(~seen)), seen[~seen]
        evaluation = self.task.evaluate(gather_outputs(self.task, self.model, dataset), dataset)
        tables = {"num_seen_in_training": int(seen.sum()), **evaluation.tables}
        return replace(evaluation, tables=tables), dataset

    def seen(self, dataset: Dataset) -> NDArray[np.bool_]:
        """(N,) which examples of a data set the training of this run used, to learn or to validate."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        if not (self.path / SEEN).is_file():
            return np.zeros(len(dataset), np.bool_)
        try:
            known = np.ascontiguousarray(load_file(self.path / SEEN)["digests"])
        except (SafetensorError, KeyError) as error:
            raise UserError(f"{self.path / SEEN} is damaged ({error}); restore it, or train anew") from error
        row_type = f"V{known.shape[1]}"
        digests = np.ascontiguousarray(dataset.digests).view(row_type)[:, 0].tolist()
        seen = set(known.view(row_type)[:, 0].tolist())
        return np.array([digest in seen for digest in digests], np.bool_)

    def explain(self, raw: Any, out: str | Path) -> dict[str, Any]:
        """Write a picture (.png) that shows why the model answers as it does.

        Raises:
            UserError: the input can't be read, or ``out`` is no .png.
        """
        if Path(out).suffix.lower() != ".png":
            raise UserError(f"--out {out} must end in .png")
        return self.task.explain(self.model, raw, Path(out))

    def write_report(self, evaluations: dict[str, Evaluation], datasets: Mapping[str, Dataset]) -> None:
        """Write ``description.json``, ``report.html`` and ``card.md``.

        Args:
            evaluations: by split.
            datasets: what they were made on, by split.
        """
        from dolmen.report.card import write_card
        from dolmen.report.description import Description
        from dolmen.report.page import write_report

        task = self.task
        description = Description(
            headline=task.headline, metrics=dict(task.METRICS), facts=tuple(task.facts()),
            intended_use=tuple(task.intended_use()),
        )  # fmt: skip
        write_json(self.path / DESCRIPTION, description.model_dump())
        write_report(self.path, task.sections(self.model, evaluations, datasets))
        write_card(self.path, licences=self.licences())

    def licences(self) -> list[Licence]:
        """The licences of the code, of the data, and of weights that training started from."""
        from dolmen.report.card import Licence

        check = read_json(self.path / CHECK)
        data = Licence(
            what="data",
            name=check["source"],
            licence=check["summary"].get("licence", "not stated: ask its owners"),
            source=check["source"],
        )
        weights = [Licence(what="weights", name=n, licence=li, source=s) for n, li, s in self.task.weights_licences()]
        code = Licence(what="code", name="Dolmen", licence="Apache-2.0", source="the LICENSE file of the package")
        return [code, data, *weights]


def load(path: str | Path, threads: int | None = None) -> Run:
    """Open a finished run.

    Args:
        path: its folder.
        threads: CPU threads that compute; None leaves torch as it is.

    Raises:
        UserError: it is no run, its training has not ended, or a file of it is damaged.
    """
    folder = Path(path)
    saved = require_finished(folder)
    task_class = load_task(saved["task"])  # which says what is missing where torch is not here
    from dolmen.engine import hardware

    hardware.keep_memory()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = task_class.Config.model_validate(saved["config"])
        processor = task_class.Processor.from_json(read_json(folder / PROCESSOR))
        model = task_class(config.for_loading(), processor).build_model()
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"the run {folder} is damaged or of another version ({first}); restore it, or train anew"
        ) from error
    return Run(folder, task_class(config, processor), model.to(hardware.device()))


def opened(run: Run | str | Path) -> Run:
    """A run as it is, or the one in a folder."""
    return run if isinstance(run, Run) else load(run)
