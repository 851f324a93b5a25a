"""The steps of ``train``, in order: prepare the data, fit, measure, write the run folder."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_numpy

from dolmen import run as folder_of
from dolmen import run_folder
from dolmen.display import Display
from dolmen.engine import checkpoint, distributed, hardware
from dolmen.engine.evaluate import gather_outputs
from dolmen.engine.planner import MachineBudget, evaluation_seconds
from dolmen.engine.train import fit
from dolmen.files import write_json, write_whole
from dolmen.report.card import table
from dolmen.run import Run
from dolmen.tasks.config import TaskConfig
from dolmen.tasks.task import AnyTask, Calibrated, Prepared
from dolmen.types import CheckReport, Evaluation, MachineError, Metric, UserError


def require_folder(folder: Path, resume: bool) -> None:
    """Refuse a folder that can't be trained into, or not be resumed.

    Raises:
        UserError: it holds something, or it is no unfinished run.
    """
    if resume:
        if not folder_of.is_run(folder):
            raise UserError(f"{folder} is no run to go on with; leave --resume out to train one there")
        if (folder / run_folder.WEIGHTS).is_file():
            raise UserError(
                f"the training of {folder} has ended, there is nothing to resume; train anew with another --out"
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already; choose another --out, or add --resume to go on with it")


class Trainer:
    """The steps of ``train``, in order."""

    def __init__(
        self,
        task_class: type[AnyTask],
        data: str,
        folder: Path,
        asked: TaskConfig,
        started: float,
        display: Display,
        open_model: Callable[[Path], Any],
    ) -> None:
        self.task_class, self.data, self.folder, self.asked = task_class, data, folder, asked
        self.started, self.display, self.open_model = started, display, open_model

    def train(self, *, resume: bool, fetch: bool, allow_leaks: bool, tensorboard: bool) -> Run:
        """Prepare, fit, measure, write."""
        writer = _tensorboard_writer() if tensorboard and distributed.rank() == 0 else None
        task = self._resumed() if resume else self._prepared(fetch, allow_leaks)
        resume = resume and checkpoint.exists(self.folder)  # stopped before the first one: from the start
        spent = self._seconds_before() if resume else 0.0
        reserve = self._reserve(task)

        def seconds_left() -> float:
            assert task.config.minutes is not None
            return float(task.config.minutes * 60 - spent - (time.monotonic() - self.started) - reserve)

        self.display.metrics = task.METRICS
        listeners: list[Callable[[dict[str, Any]], None]] = [self.display.record]
        if writer is not None:
            listeners.append(_tensorboard(writer(str(self.folder / "tensorboard")), task.METRICS))
        sizes = ", ".join(f"{name} {len(dataset):,}" for name, dataset in task.datasets.items())
        self.display.say(f"training {task.name} on {self.data} ({sizes}) -> {self.folder}")
        model = fit(
            task,
            self.folder,
            seconds=seconds_left if task.config.minutes is not None else None,
            resume=resume,
            listeners=tuple(listeners),
        )
        outputs = {s: gather_outputs(task, model, d) for s, d in task.datasets.items() if s != "train"}
        calibrated = task.calibrate(model, outputs["val"], task.datasets["val"])
        task = task.replace(processor=calibrated.processor)
        evaluations = {s: task.evaluate(o, task.datasets[s]) for s, o in outputs.items()}
        evaluations["val"] = with_calibration(evaluations["val"], calibrated)
        run = Run(self.folder, task, model)
        if distributed.rank() == 0:
            self._write(run, evaluations)
        distributed.barrier()
        return run

    def _prepared(self, fetch: bool, allow_leaks: bool) -> AnyTask:
        """Read and check the data, decide what was left open, open the run folder."""
        budget = None if self.asked.minutes is None else MachineBudget(0.85 * self.asked.minutes * 60)
        prepared = None
        if distributed.rank() == 0:
            prepared = self._prepare(self.asked, fetch=fetch, budget=budget, progress=self.display.progress)
        config: Any = distributed.same(None if prepared is None else prepared.config)
        if prepared is None:  # what process 0 decoded is in the cache, and what it decided is in its config
            prepared = self._prepare(config)
        self._refuse(prepared.report, allow_leaks)
        task = self.task_class.from_prepared(prepared)
        if distributed.rank() == 0:
            self._open_folder(task, prepared.report)
        distributed.barrier()
        return task

    def _prepare(self, config: TaskConfig, **options: Any) -> Prepared[Any, Any, Any]:
        return self.task_class.prepare(config, self.data, open_model=self.open_model, **options)

    def _open_folder(self, task: AnyTask, report: CheckReport) -> None:
        """Write what is known before the first step: all of it, or nothing stays."""
        digests = np.concatenate([task.datasets[s].digests for s in ("train", "val")])
        config = {
            "task": task.name,
            "dolmen": hardware.describe()["dolmen"],
            "data": self.data,
            "command": self._command(),
            "num_parameters": sum(p.numel() for p in task.build_model().parameters()),
            "asked": self.asked.model_dump(exclude_unset=True),
            "config": task.config.model_dump(),
            "processor_at_start": task.processor.to_json(),
        }
        written = []
        try:
            for name, values in (
                (run_folder.CONFIG, config),
                (run_folder.PROCESSOR, task.processor.to_json()),
                (run_folder.ENVIRONMENT, hardware.describe()),
                (run_folder.CHECK, report.model_dump()),
            ):
                write_json(self.folder / name, values)
                written.append(name)
            write_whole(self.folder / run_folder.SEEN, save_numpy({"digests": np.ascontiguousarray(digests)}))
        except MachineError:
            for name in written:
                (self.folder / name).unlink()
            with suppress(OSError):  # it was never made, or there is something in it by now
                self.folder.rmdir()
            raise

    def _refuse(self, report: CheckReport, allow_leaks: bool) -> None:
        for finding in report.findings:
            if finding.level == "warning":
                self.display.say(f"  warning: {finding.message}")
        report.require_usable()
        if report.leaks and not allow_leaks:
            raise UserError(
                f"{report.leaks[0].message} Train anyway with --allow-leaks; "
                f"dolmen check {report.task} {self.data} shows all"
            )

    def _resumed(self) -> AnyTask:
        """Open the run folder again, with the data as they were."""
        saved = folder_of.read_json(self.folder / run_folder.CONFIG)
        needed = {"task", "asked", "config", "command", "processor_at_start"}
        if not isinstance(saved, dict) or not needed <= saved.keys():
            raise UserError(
                f"{self.folder / run_folder.CONFIG} is damaged or of another version (it lacks what a training goes on "
                "from); train anew with another --out"
            )
        if saved["task"] != self.task_class.name:
            raise UserError(
                f"{self.folder} is a run of {saved['task']}, not of {self.task_class.name}; resume it with: "
                f"{saved['command']} --resume"
            )
        asked = self.asked.model_dump(exclude_unset=True)
        for key, value in asked.items():
            before = saved["config"].get(key)
            if value != before and key in self.asked.model_fields_set and saved["asked"].get(key) != value:
                raise UserError(
                    f"{self.folder} was started with {key} = {before!r}, not {value!r}; resume it with the same choices"
                )
        config = self.task_class.Config.model_validate(saved["config"])
        prepared = self._prepare(config, progress=self.display.progress)
        # processor.json may be the calibrated one, if the disk was full when the weights were to be written
        known = (saved["processor_at_start"], folder_of.read_json(self.folder / run_folder.CHECK))
        if (prepared.processor.to_json(), json.loads(prepared.report.model_dump_json())) != known:
            raise UserError(
                f"the data {self.data} have changed since {self.folder} was started; train anew with another --out"
            )
        return self.task_class.from_prepared(prepared)

    def _seconds_before(self) -> float:
        return float(checkpoint.read_state(self.folder)["state"]["seconds"])

    def _reserve(self, task: AnyTask) -> float:
        """Seconds that are kept for what comes after the training: evaluation in fp32, the report."""
        if task.config.minutes is None:
            return 0.0
        evaluation_s = sum(evaluation_seconds(task, d) for s, d in task.datasets.items() if s != "train")
        return float(min(evaluation_s + 8.0, 0.25 * task.config.minutes * 60))

    def _command(self) -> str:
        flags = []
        for key, value in self.asked.model_dump(exclude_defaults=True).items():
            flag = "--" + key.replace("_", "-")
            flags += [flag if value else "--no-" + flag[2:]] if isinstance(value, bool) else [flag, str(value)]
        words = ["dolmen", "train", self.task_class.name, self.data, "--out", str(self.folder), *flags]
        return shlex.join(words)

    def _write(self, run: Run, evaluations: dict[str, Evaluation]) -> None:
        """Everything that makes the folder a finished run; the weights come last."""
        from safetensors.torch import save

        task, folder = run.task, self.folder
        write_json(folder / run_folder.PROCESSOR, task.processor.to_json())
        write_json(folder / run_folder.EVALUATION, {s: e.to_json() for s, e in evaluations.items()})
        run.write_report(evaluations, task.datasets)
        weights = {k: v.detach().cpu().contiguous() for k, v in run.model.state_dict().items()}
        write_whole(folder / run_folder.WEIGHTS, save(weights))
        shutil.rmtree(folder / run_folder.CHECKPOINT, ignore_errors=True)


def with_calibration(evaluation: Evaluation, calibrated: Calibrated[Any]) -> Evaluation:
    """The evaluation on validation, with the figures of what was fitted there."""
    metrics, tables = evaluation.metrics | dict(calibrated.metrics), evaluation.tables | dict(calibrated.tables)
    return replace(evaluation, metrics=metrics, tables=tables)


def _tensorboard_writer() -> Any:
    """TensorBoard's class that writes event files.

    Raises:
        UserError: it is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "--tensorboard needs the tensorboard library; type: pip install 'dolmen[tensorboard]'"
        ) from None
    return SummaryWriter


def _tensorboard(writer: Any, metrics: Mapping[str, Metric]) -> Callable[[dict[str, Any]], None]:
    """A listener that writes TensorBoard event files; what the metrics mean stands under "Text"."""
    writer.add_text(
        "metrics", "\n".join(table(["metric", "meaning"], ([m.title, m.meaning] for m in metrics.values())))
    )

    def listen(record: dict[str, Any]) -> None:
        if record["event"] == "look":
            for name, value in record["val"].items():
                title = metrics[name].title if name in metrics else name
                writer.add_scalar(f"val/{title}", value, record["step"])
            for name, value in record["grad_norms"].items():
                writer.add_scalar(f"gradient/{name}", value, record["step"])
        elif record["event"] == "step":
            for name, value in record.items():
                if isinstance(value, float) and name != "progress":
                    writer.add_scalar(f"train/{name}", value, record["step"])

    return listen
