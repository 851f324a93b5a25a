"""The verbs, as functions: what the command line does, a program can do with the same words."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dolmen import run as folder_of
from dolmen.display import Display
from dolmen.tasks import TASKS, TaskEntry, load_task
from dolmen.types import CheckReport, Evaluation, MachineError, Prediction, UserError

if TYPE_CHECKING:
    from torch import nn

    from dolmen.tasks.task import Task, TaskConfig

DEFAULT_MINUTES = 10.0


def make_config(task: type[Task[Any]], choices: dict[str, Any], file: str | Path | None = None) -> TaskConfig:
    """Make a task's configuration from a JSON file and choices that win over it.

    Raises:
        UserError: a key is unknown or a value is not allowed.
    """
    values: dict[str, Any] = {}
    if file is not None:
        values = folder_of.read_json(Path(file)) if Path(file).exists() else _missing(f"there is no file {file}")
        if not isinstance(values, dict):
            raise UserError(f"{file} holds no JSON object; write one, such as {{\"minutes\": 10}}")
        values = values.get("config", values)  # the config.json of a run serves as well
    values |= {k: v for k, v in choices.items() if v is not None}
    try:
        return task.Config.model_validate(values)
    except ValidationError as error:
        raise UserError(_explain_invalid(error, task)) from None


def _missing(sentence: str) -> Any:
    raise UserError(sentence)


def _explain_invalid(error: ValidationError, task: type[Task[Any]]) -> str:
    """The first mistake as a sentence."""
    import difflib

    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, task.Config.model_fields, 1)
        return (
            f"{task.name} has no choice {key!r}"
            + (f"; did you mean {close[0]!r}?" if close else ";")
            + f" dolmen train {task.name} --help lists them"
        )
    said = first["msg"][0].lower() + first["msg"][1:]
    return f"{key} = {first['input']!r} is not possible: {said}"


# ---- check


def check(
    task: str, data: str | Path, *, labels: bool = False, fetch: bool = False, quiet: bool = True, **choices: Any
) -> CheckReport:
    """Say what is in the data, what is wrong with it, and what would leak from one split into another.

    Args:
        task: its name.
        data: a path or the name of a public set.
        labels: also look for labels that look wrong, by training on parts of the data (takes ``minutes``, default 3).
        fetch: download a named public set if it is not here yet.
        quiet: show no progress.
        choices: of the task's configuration.
    """
    from dolmen.engine import hardware

    hardware.keep_memory()
    kind = load_task(task)
    with Display(quiet) as display:
        made = kind(make_config(kind, choices))
        report = made.prepare(str(data), fetch=fetch, progress=display.progress)
        if labels:
            from dolmen.engine.labels import find_suspect_labels

            if report.errors:
                raise UserError(report.errors[0].message)
            minutes = made.config.minutes or 3.0
            finding = find_suspect_labels(made, minutes * 60, display.say)
            report = report.model_copy(update={"findings": (*report.findings, finding)})
    return report


# ---- train


def train(
    task: str,
    data: str | Path,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    fetch: bool = False,
    allow_leaks: bool = False,
    tensorboard: bool = False,
    config: str | Path | None = None,
    quiet: bool = True,
    **choices: Any,
) -> Run:
    """Train a network on a person's data and write a run folder.

    Args:
        task: its name.
        data: a path or the name of a public set.
        out: the run's folder; ``runs/<task>-<data>-<n>`` if not given.
        resume: go on with the unfinished training in ``out``.
        fetch: download a named public set if it is not here yet.
        allow_leaks: train although examples leak from one split into another.
        tensorboard: also write event files into ``out/tensorboard``.
        config: a JSON file with choices; those given here win.
        quiet: show nothing on standard error.
        choices: of the task's configuration, e.g. ``minutes=10``.

    Raises:
        UserError: the arguments or the data are wrong.
        MachineError: the disk is full, or the training diverged.
    """
    started = time.monotonic()
    from dolmen.engine import hardware

    hardware.keep_memory()
    kind = load_task(task)
    asked = make_config(kind, choices, config)
    if asked.minutes is not None and asked.epochs is not None:
        raise UserError("minutes and epochs are two budgets; give one of them")
    if asked.minutes is None and asked.epochs is None:
        asked = asked.model_copy(update={"minutes": DEFAULT_MINUTES})
    if resume and out is None:
        raise UserError("--resume needs the run to go on with; add --out RUN")
    folder = Path(out) if out is not None else folder_of.next_folder(task, str(data))
    from dolmen.engine import distributed

    with distributed.processes(), Display(quiet or distributed.rank() > 0) as display:
        folder = distributed.same(folder)
        _require_folder(folder, resume)
        trainer = _Trainer(kind, str(data), folder, asked, started, display)
        return trainer.train(resume=resume, fetch=fetch, allow_leaks=allow_leaks, tensorboard=tensorboard)


def _require_folder(folder: Path, resume: bool) -> None:
    if resume:
        if not folder_of.is_run(folder):
            raise UserError(f"{folder} is no run to go on with; leave --resume out to train anew")
        if (folder / folder_of.WEIGHTS).is_file():
            raise UserError(f"the training of {folder} has ended; there is nothing to resume")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already; choose another --out, or add --resume to go on with it")


class _Trainer:
    """The steps of ``train``, in order."""

    def __init__(
        self, kind: type[Task[Any]], data: str, folder: Path, asked: TaskConfig, started: float, display: Display
    ) -> None:
        self.kind, self.data, self.folder, self.asked = kind, data, folder, asked
        self.started, self.display = started, display

    def train(self, *, resume: bool, fetch: bool, allow_leaks: bool, tensorboard: bool) -> Run:
        """Prepare, fit, measure, write."""
        from dolmen.engine import distributed
        from dolmen.engine.evaluate import gather_outputs
        from dolmen.engine.train import fit

        task, report = self._resumed() if resume else self._prepared(fetch, allow_leaks)
        spent = self._seconds_before() if resume else 0.0
        reserve = self._reserve(task)

        def seconds_left() -> float:
            assert task.config.minutes is not None
            return float(task.config.minutes * 60 - spent - (time.monotonic() - self.started) - reserve)

        listeners = [self.display.record]
        if tensorboard and distributed.rank() == 0:
            listeners.append(_tensorboard(self.folder))
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
        task.calibrate(outputs["val"], task.datasets["val"])
        evaluations = {s: task.evaluate(o, task.datasets[s]) for s, o in outputs.items()}
        run = Run(self.folder, task, model)
        if distributed.rank() == 0:
            self._write(run, evaluations)
        distributed.barrier()
        del report
        return run

    def _prepared(self, fetch: bool, allow_leaks: bool) -> tuple[Task[Any], CheckReport]:
        """Read and check the data, decide what was left open, open the run folder."""
        from dolmen.engine import distributed, hardware
        from dolmen.engine.planner import MachineBudget

        budget = None if self.asked.minutes is None else MachineBudget(0.85 * self.asked.minutes * 60)
        task = self.kind(self.asked)
        if distributed.rank() == 0:
            report = task.prepare(self.data, fetch=fetch, budget=budget, progress=self.display.progress)
        config = distributed.same(task.config if distributed.rank() == 0 else None)
        if distributed.rank() > 0:  # what process 0 decoded is in the cache, and what it decided is in its config
            task = self.kind(config)
            report = task.prepare(self.data)
        self._refuse(report, allow_leaks)
        if distributed.rank() == 0:
            folder_of.write_json(
                self.folder / folder_of.CONFIG,
                {
                    "task": task.name,
                    "dolmen": hardware.describe()["dolmen"],
                    "data": self.data,
                    "command": self._command(),
                    "asked": self.asked.model_dump(exclude_unset=True),
                    "config": task.config.model_dump(),
                },
            )
            folder_of.write_json(self.folder / folder_of.PROCESSOR, task.processor.to_json())
            folder_of.write_json(self.folder / folder_of.ENVIRONMENT, hardware.describe())
            folder_of.write_json(self.folder / folder_of.CHECK, report.model_dump())
        distributed.barrier()
        return task, report

    def _refuse(self, report: CheckReport, allow_leaks: bool) -> None:
        for finding in report.findings:
            if finding.level == "warning":
                self.display.say(f"  warning: {finding.message}")
        if report.errors:
            raise UserError(report.errors[0].message)
        if report.leaks and not allow_leaks:
            raise UserError(
                f"{report.leaks[0].message} Train anyway with --allow-leaks; "
                f"dolmen check {report.task} {self.data} shows all"
            )

    def _resumed(self) -> tuple[Task[Any], CheckReport]:
        """Open the run folder again, with the data as they were."""
        saved = folder_of.read_json(self.folder / folder_of.CONFIG)
        if saved["task"] != self.kind.name:
            raise UserError(f"{self.folder} is a run of {saved['task']}, not of {self.kind.name}")
        asked = self.asked.model_dump(exclude_unset=True)
        for key, value in asked.items():
            before = saved["config"].get(key)
            if value != before and key in self.asked.model_fields_set and saved["asked"].get(key) != value:
                raise UserError(
                    f"{self.folder} was started with {key} = {before!r}, not {value!r}; resume it with the same choices"
                )
        task = self.kind(self.kind.Config.model_validate(saved["config"]))
        report = task.prepare(self.data, progress=self.display.progress)
        if task.processor.to_json() != folder_of.read_json(self.folder / folder_of.PROCESSOR) or json.loads(
            report.model_dump_json()
        ) != folder_of.read_json(self.folder / folder_of.CHECK):
            raise UserError(f"the data {self.data} have changed since {self.folder} was started; train anew")
        return task, report

    def _seconds_before(self) -> float:
        from dolmen.engine import checkpoint

        return float(checkpoint.read_state(self.folder)["state"]["seconds"])

    def _reserve(self, task: Task[Any]) -> float:
        """Seconds kept for what comes after the training: evaluation in fp32, the report."""
        if task.config.minutes is None:
            return 0.0
        from dolmen.engine.planner import evaluation_seconds

        later = sum(evaluation_seconds(task, d) for s, d in task.datasets.items() if s != "train")
        return min(later + 8.0, 0.25 * task.config.minutes * 60)

    def _command(self) -> str:
        flags = []
        for key, value in self.asked.model_dump(exclude_defaults=True).items():
            flag = "--" + key.replace("_", "-")
            flags += [flag if value else "--no-" + flag[2:]] if isinstance(value, bool) else [flag, str(value)]
        words = ["dolmen", "train", self.kind.name, self.data, "--out", str(self.folder), *flags]
        return shlex.join(words)

    def _write(self, run: Run, evaluations: dict[str, Evaluation]) -> None:
        """Everything that makes the folder a finished run; the weights come last."""
        from safetensors.torch import save

        task, folder = run.task, self.folder
        folder_of.write_json(folder / folder_of.PROCESSOR, task.processor.to_json())
        folder_of.write_json(folder / folder_of.EVALUATION, {s: e.to_json() for s, e in evaluations.items()})
        run.write_report(evaluations)
        weights = {k: v.detach().cpu().contiguous() for k, v in run.model.state_dict().items()}
        folder_of.write_bytes(folder / folder_of.WEIGHTS, save(weights))
        shutil.rmtree(folder / folder_of.CHECKPOINT, ignore_errors=True)


def _tensorboard(folder: Path) -> Any:
    """A listener that writes TensorBoard event files."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard needs the tensorboard library; type: pip install 'dolmen[tensorboard]'") from None
    writer = SummaryWriter(str(folder / "tensorboard"))

    def listen(record: dict[str, Any]) -> None:
        if record["event"] == "look":
            for name, value in record["val"].items():
                writer.add_scalar(f"val/{name}", value, record["step"])
            for name, value in record["grad_norms"].items():
                writer.add_scalar(f"gradient/{name}", value, record["step"])
        elif record["event"] == "step":
            for name, value in record.items():
                if isinstance(value, float) and name != "progress":
                    writer.add_scalar(f"train/{name}", value, record["step"])

    return listen


# ---- use


class Run:
    """A trained model with everything around it.

    Attributes:
        path: the run folder.
        task: with its configuration and fitted processor.
        model: the network, in evaluation mode.
    """

    def __init__(self, path: Path, task: Task[Any], model: nn.Module) -> None:
        self.path, self.task, self.model = path, task, model.eval()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, task={self.task.name!r})"

    @property
    def evaluation(self) -> dict[str, Any]:
        """What training measured in the end, by split: ``{"val": {...}, "test": {...}}``."""
        values: dict[str, Any] = folder_of.read_json(self.path / folder_of.EVALUATION)
        return values

    def predict(self, inputs: Any) -> Any:
        """Predict one input, or a list of them.

        Args:
            inputs: what the task takes (for pictures: a path, the bytes of a file, an array, a PIL image), or a list.

        Returns:
            One prediction, or a list of as many.

        Raises:
            UserError: an input can't be read.
        """
        many = isinstance(inputs, (list, tuple))
        results = []
        for _, prediction in self.stream(inputs if many else [inputs]):
            if isinstance(prediction, UserError):
                raise prediction
            results.append(prediction)
        return results if many else results[0]

    def stream(self, inputs: Iterable[Any], *, batch_size: int = 64) -> Iterator[tuple[Any, Prediction | UserError]]:
        """Yield ``(input, prediction)`` with flat memory; an input that can't be read gives its error."""
        return self.task.predict(self.model, inputs, batch_size=batch_size)

    def evaluate(self, data: str | Path, *, split: str | None = None, fetch: bool = False) -> Evaluation:
        """Measure the model on labelled data; see ``dolmen.evaluate``."""
        return evaluate(self, data, split=split, fetch=fetch)

    def explain(self, raw: Any, out: str | Path) -> dict[str, Any]:
        """Write a picture that shows why the model answers as it does."""
        return self.task.explain(self.model, raw, Path(out))

    def write_report(self, evaluations: dict[str, Evaluation]) -> None:
        """Write ``report.html`` and ``card.md``."""
        from dolmen.report.card import write_card
        from dolmen.report.page import write_report

        sections = self.task.sections(self.model, evaluations)
        write_report(self.path, sections)
        write_card(self.path, licences=self.task.licences())


def load(path: str | Path) -> Run:
    """Open a finished run.

    Raises:
        UserError: it is no run, its training has not ended, or a file of it is damaged.
    """
    folder = Path(path)
    saved = folder_of.require_finished(folder)
    from dolmen.engine import hardware

    hardware.keep_memory()
    kind = load_task(saved.get("task", "?"))
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = kind.Config.model_validate(saved["config"])
        processor = kind.Processor.from_json(folder_of.read_json(folder / folder_of.PROCESSOR))
        task = kind(config.model_copy(update={"weights": "none"}) if "weights" in saved["config"] else config, processor)
        model = task.build_model()
        model.load_state_dict(load_file(folder / folder_of.WEIGHTS))
    except (SafetensorError, RuntimeError, KeyError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"the run {folder} is damaged or of another version ({first}); restore it, or train anew") from error
    task.config = config
    return Run(folder, task, model.to(hardware.device()))


def _opened(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else load(run)


def predict(run: Run | str | Path, inputs: Any) -> Any:
    """Predict one input, or a list of them; see ``Run.predict``."""
    return _opened(run).predict(inputs)


def evaluate(
    run: Run | str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    fetch: bool = False,
    report: str | Path | None = None,
    quiet: bool = True,
) -> Evaluation:
    """Measure a run on labelled data.

    Args:
        run: a run or its folder.
        data: a path or the name of a public set.
        split: "train", "val" or "test"; by default the test part, else the validation part, else everything.
        fetch: download a named public set if it is not here yet.
        report: also write a report of this evaluation to this folder.
        quiet: show no progress.
    """
    run = _opened(run)
    from dolmen.engine.evaluate import gather_outputs

    with Display(quiet) as display:
        dataset = run.task.open(str(data), split=split, fetch=fetch, progress=display.progress)
    evaluation = run.task.evaluate(gather_outputs(run.task, run.model, dataset), dataset)
    if report is not None:
        run.task.datasets = {"test": dataset}
        _report_elsewhere(run, evaluation, Path(report), str(data))
    return evaluation


def _report_elsewhere(run: Run, evaluation: Evaluation, folder: Path, data: str) -> None:
    """A report of one evaluation, in a folder of its own; the run's is left as it is."""
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} exists already; choose another --report")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (folder_of.CONFIG, folder_of.PROCESSOR, folder_of.ENVIRONMENT, folder_of.METRICS, folder_of.CHECK):
        shutil.copyfile(run.path / name, folder / name)
    config = folder_of.read_json(folder / folder_of.CONFIG)
    folder_of.write_json(folder / folder_of.CONFIG, config | {"evaluated_on": data})
    folder_of.write_json(folder / folder_of.EVALUATION, {"test": evaluation.to_json()})
    Run(folder, run.task, run.model).write_report({"test": evaluation})


def explain(run: Run | str | Path, raw: Any, out: str | Path) -> dict[str, Any]:
    """Write a picture to ``out`` that shows why the model answers as it does for one input.

    Returns:
        JSON-able facts that go with the picture.
    """
    return _opened(run).explain(raw, out)


# ---- the rest


def sample(task: str, folder: str | Path) -> Path:
    """Write a small data set in the task's own format, to see what one looks like."""
    load_task(task).sample(Path(folder))
    return Path(folder)


def bench(run: Run | str | Path, *, seconds: float = 3.0) -> dict[str, Any]:
    """Measure how fast a run predicts here: latency of one input, throughput of batches."""
    from dolmen.engine.bench import measure

    run = _opened(run)
    return measure(run.task, run.model, seconds)


def tasks() -> dict[str, TaskEntry]:
    """The jobs by name; those without a ``page`` do not work yet."""
    return dict(TASKS)


def runs(folder: str | Path = "runs") -> list[dict[str, Any]]:
    """The runs in a folder (a run itself counts): path, task, data, whether finished, headline figures.

    Raises:
        UserError: there is no such folder.
    """
    base = Path(folder)
    if not base.is_dir():
        raise UserError(f"there is no folder {base}; train something first, or name the folder that holds your runs")
    found = [base] if folder_of.is_run(base) else sorted(p for p in base.iterdir() if folder_of.is_run(p))
    return [_summary(path) for path in found]


def _summary(path: Path) -> dict[str, Any]:
    """One line of ``dolmen runs``."""
    saved = folder_of.read_json(path / folder_of.CONFIG)
    line: dict[str, Any] = {"path": str(path), "task": saved["task"], "data": saved["data"], "finished": False}
    line["config"] = saved["config"]
    looks = [r for r in folder_of.read_metrics(path) if r["event"] == "look"]
    line["minutes"] = round(looks[-1]["seconds"] / 60, 2) if looks else 0.0
    if (path / folder_of.WEIGHTS).is_file():
        line["finished"] = True
        evaluations = folder_of.read_json(path / folder_of.EVALUATION)
        line["split"] = "test" if "test" in evaluations else "val"
        chosen = evaluations[line["split"]]
        line |= {"metrics": chosen["metrics"], "intervals": chosen["intervals"]}
    elif looks:
        line["progress"] = looks[-1]["progress"]
    return line


def doctor() -> list[dict[str, str]]:
    """What is right and wrong with this installation: ``{"what", "state": "ok"|"missing"|"warning", "detail", "fix"}``."""
    from dolmen.doctor import examine

    return examine()
