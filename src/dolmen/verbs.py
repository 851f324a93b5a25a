"""The verbs, as functions: what the command line does, a program can do with the same words."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dolmen import run as folder_of
from dolmen import run_folder
from dolmen.catalogue import TASKS, TaskEntry, load_task
from dolmen.choices import validated
from dolmen.display import Display
from dolmen.files import read_journal, write_json
from dolmen.run import Run
from dolmen.runtime.bundle import SUFFIX, Bundle, is_bundle, load_bundle
from dolmen.runtime.model import Model
from dolmen.types import CheckReport, Evaluation, Prediction, UserError

if TYPE_CHECKING:
    from dolmen.tasks.config import TaskConfig
    from dolmen.tasks.task import AnyTask, Dataset

__all__ = [
    "Run",
    "bench",
    "check",
    "convert",
    "doctor",
    "evaluate",
    "explain",
    "export",
    "load",
    "predict",
    "runs",
    "sample",
    "serve",
    "tasks",
    "train",
    "watch",
]

DEFAULT_MINUTES = 10.0


def make_config(task: type[AnyTask], choices: dict[str, Any], file: str | Path | None = None) -> TaskConfig:
    """Make a task's configuration from a JSON file and choices that win over it.

    Raises:
        UserError: a key is unknown or a value is not allowed.
    """
    values: dict[str, Any] = {}
    if file is not None:
        values = _read_choices(Path(file))
    given = {k: v for k, v in choices.items() if v is not None}
    if given.keys() & {"minutes", "epochs"}:  # one budget given here takes the place of the file's, whichever it is
        values = {k: v for k, v in values.items() if k not in {"minutes", "epochs"}}
    values |= given
    return validated(task.Config, values, task.name, f"dolmen train {task.name} --help")


def _read_choices(file: Path) -> dict[str, Any]:
    """The choices in a JSON file; the ``config.json`` of a run serves as well."""
    example = '{"minutes": 10}'
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}; name a JSON file such as {example}") from None
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}); write choices as in {example}") from None
    if isinstance(values, dict):
        values = values.get("config", values)
    if not isinstance(values, dict):
        raise UserError(f"{file} holds no JSON object; write choices as in {example}")
    return values


# ---- check


def check(
    task: str,
    data: str | Path,
    *,
    labels: bool = False,
    fetch: bool = False,
    quiet: bool = True,
    **choices: Any,
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
    task_class = load_task(task)
    with Display(quiet) as display:
        config = make_config(task_class, choices)
        prepared = task_class.prepare(config, str(data), fetch=fetch, progress=display.progress, open_model=load)
        report = prepared.report
        if labels:
            from dolmen.engine.labels import find_suspect_labels

            report.require_usable()
            seconds = (prepared.config.minutes or 3.0) * 60
            finding = find_suspect_labels(task_class.from_prepared(prepared), seconds, display.say)
            report = report.model_copy(update={"findings": (*report.findings, finding)})
    return report


def convert(task: str, data: str | Path, form: str, out: str | Path, *, quiet: bool = True) -> list[str]:
    """Write data in another format of the same task.

    Args:
        task: its name.
        data: a path.
        form: the name of the format; ``dolmen check TASK --help`` lists them.
        out: a new or empty folder.
        quiet: show no progress.

    Returns:
        What was mended, left out or lost, a sentence each.
    """
    task_class = load_task(task)
    with Display(quiet) as display:
        return task_class.convert(str(data), form, Path(out), display.progress)


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
    task_class = load_task(task)
    asked = make_config(task_class, choices, config)
    if asked.minutes is not None and asked.epochs is not None:
        raise UserError("minutes and epochs are two budgets; give one of them")
    if asked.minutes is None and asked.epochs is None and not resume:
        asked = asked.model_copy(update={"minutes": DEFAULT_MINUTES})
    if resume and out is None:
        raise UserError("--resume needs the run to go on with; add --out RUN")
    folder = Path(out) if out is not None else folder_of.next_folder(task, str(data))
    from dolmen.engine import distributed
    from dolmen.training import Trainer, require_folder

    with distributed.processes(), Display(quiet or distributed.rank() > 0) as display:
        folder = distributed.same(folder)
        require_folder(folder, resume)
        trainer = Trainer(task_class, str(data), folder, asked, started, display, load)
        return trainer.train(resume=resume, fetch=fetch, allow_leaks=allow_leaks, tensorboard=tensorboard)


# ---- use


def load(path: str | Path, threads: int | None = None) -> Run | Bundle:
    """Open a finished run, or a bundle; a bundle needs no torch.

    Args:
        path: a run folder, a bundle's folder, or a ``.dolmen`` file.
        threads: CPU threads that compute; None for all.

    Raises:
        UserError: it is neither, its training has not ended, or a file of it is damaged or was changed.
    """
    bundled = is_bundle(Path(path)) or Path(path).suffix == SUFFIX
    model = load_bundle(Path(path), threads) if bundled else folder_of.load(path, threads)
    model.predictor.open_model = lambda other: load(other, threads)
    return model


def _opened(run: Run | str | Path, verb: str) -> Run:
    """A run, for what a bundle can't do."""
    opened = load(run) if isinstance(run, str | Path) else run
    if not isinstance(opened, Run):
        raise UserError(f"{opened.path} is a bundle, and {verb} needs the run that it was made of; name that")
    return opened


def predict(model: Model | str | Path, inputs: Any, **options: Any) -> Any:
    """Predict one input, or a list of them, by a run or a bundle; with the options of ``Model.predict``."""
    return (model if isinstance(model, Model) else load(model)).predict(inputs, **options)


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
    if report is not None and Path(report).exists() and (not Path(report).is_dir() or any(Path(report).iterdir())):
        raise UserError(f"{report} exists already; choose another --report")
    run = _opened(run, "evaluate")
    with Display(quiet) as display:
        evaluation, dataset = run.measure(data, split=split, fetch=fetch, progress=display.progress)
    if report is not None:
        _report_elsewhere(run, evaluation, dataset, Path(report), str(data))
    return evaluation


def _report_elsewhere(run: Run, evaluation: Evaluation, dataset: Dataset, folder: Path, data: str) -> None:
    """A report of one evaluation, in a folder of its own, whole or not at all; the run's is left as it is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        copy = Path(name) / folder.name
        copy.mkdir()
        for file in (
            run_folder.CONFIG,
            run_folder.PROCESSOR,
            run_folder.ENVIRONMENT,
            run_folder.METRICS,
            run_folder.CHECK,
        ):
            shutil.copyfile(run.path / file, copy / file)
        config = folder_of.read_json(copy / run_folder.CONFIG)
        write_json(copy / run_folder.CONFIG, config | {"evaluated_on": data})
        write_json(copy / run_folder.EVALUATION, {"test": evaluation.to_json()})
        Run(copy, run.task, run.model).write_report({"test": evaluation}, {"test": dataset})
        copy.replace(folder)  # over an empty folder, too


def explain(run: Run | str | Path, raw: Any, out: str | Path) -> dict[str, Any]:
    """Write a picture to ``out`` that shows why the model answers as it does for one input.

    Returns:
        JSON-able facts that go with the picture.
    """
    return _opened(run, "explain").explain(raw, out)


def export(
    run: Run | str | Path,
    out: str | Path | None = None,
    *,
    int8: bool = False,
    opset: int | None = None,
    data: str | Path | None = None,
    quiet: bool = True,
) -> Path:
    """Write a bundle: an ONNX graph with everything around it, which needs no torch.

    Before anything is written, the graph's outputs are compared with the run's, and the task's metric is measured anew
    on the run's validation data.

    Args:
        run: a run or its folder.
        out: a new folder, or a file that ends in ``.dolmen``; the run's name with that ending if not given.
        int8: store weights on eight bits; convolutions also compute on eight.
        opset: of ONNX (default 20).
        data: where the run's data are now; where they were if not given.
        quiet: show nothing.

    Returns:
        Where the bundle is.

    Raises:
        UserError: the arguments are wrong, or the run's data are not there.
        MachineError: the graph does not give what the run gives; nothing is written.
    """
    run = _opened(run, "export")
    for library in ("onnx", "onnxscript"):
        if importlib.util.find_spec(library) is None:
            raise UserError(f"export needs {library} here; type: pip install 'dolmen[train]'")
    from dolmen.exporting.bundle import export as write

    place = Path(out) if out is not None else run.path.with_name(f"{run.path.name}.dolmen")
    with Display(quiet) as display:
        write(
            run, place, int8=int8, opset=opset, data=None if data is None else str(data), say=display.say,
            progress=display.progress,
        )  # fmt: skip
    return place


def watch(model: Model | str | Path, source: str | Path, **options: Any) -> Iterator[Prediction]:
    """Predict a live source, as it comes.

    Args:
        model: a run, a bundle, or where one is.
        source: ``-`` for standard input, or what the task knows besides: a video, a folder of pictures. For pieces
            that you have yourself, use ``model.stream()``.
        options: what ``dolmen watch MODEL --help`` lists.

    Raises:
        UserError: the model or the source can't be read.
    """
    return (model if isinstance(model, Model) else load(model)).watch(source, **options)


def serve(models: Sequence[str | Path], *, threads: int | None = None, **options: Any) -> None:
    """Serve runs and bundles over HTTP and WebSocket, with a page to try them, until stopped.

    Args:
        models: where they are; each under its file's or folder's name, or under one of your own: ``NAME=PATH``.
        threads: CPU threads that compute, for each model; None for all.
        options: of ``dolmen.runtime.server.serve.serve``: host, port, token, max_batch, max_wait_ms, queue, timeout_s,
            max_bytes, reload.

    Raises:
        UserError: a model can't be opened, the address can't be had, or the extra ``serve`` is missing.
    """
    for library in ("fastapi", "uvicorn", "httptools", "prometheus_client", "python_multipart", "websockets"):
        if importlib.util.find_spec(library) is None:
            raise UserError(f"serve needs {library.replace('_', '-')} here; type: pip install 'dolmen[serve]'")
    from dolmen.runtime.server.serve import named
    from dolmen.runtime.server.serve import serve as run_server

    run_server(named([str(m) for m in models]), open_model=lambda path: load(path, threads), **options)


# ---- data, speed, and what there is


def sample(task: str, folder: str | Path) -> Path:
    """Write a small data set in the task's own format, to see what one looks like."""
    load_task(task).sample(Path(folder))
    return Path(folder)


def bench(model: Model | str | Path, *, seconds: float = 3.0) -> dict[str, Any]:
    """Measure how fast a run or a bundle predicts here: latency of one input, throughput of batches, a step."""
    if not 0 <= seconds < math.inf:
        raise UserError(f"--seconds {seconds} is not possible; give a number of seconds, 0 or more")
    from dolmen.runtime.bench import measure

    return measure(model if isinstance(model, Model) else load(model), seconds)


def tasks() -> dict[str, TaskEntry]:
    """The jobs by name; those without a ``package`` do not work yet."""
    return dict(TASKS)


def runs(folder: str | Path = "runs") -> list[dict[str, Any]]:
    """The runs in a folder (a run itself counts): path, task, data, whether finished, headline figures.

    Raises:
        UserError: there is no such folder.
    """
    base = Path(folder)
    if not base.is_dir():
        raise UserError(f"there is no folder {base}; train something first, or name the folder that holds your runs")
    folders = [base] if folder_of.is_run(base) else sorted(p for p in base.iterdir() if folder_of.is_run(p))
    return [_summary(path) for path in folders]


def _summary(path: Path) -> dict[str, Any]:
    """One line of ``dolmen runs``."""
    line: dict[str, Any] = {"path": str(path), "task": "", "data": "", "finished": False, "config": {}, "minutes": 0.0}
    try:
        return line | _outcome(path)
    except (UserError, KeyError, TypeError) as error:  # one damaged run must not hide the others
        reason = str(error) if isinstance(error, UserError) else f"{path} holds unexpected values ({error})"
        return line | {"damaged": reason}


def _outcome(path: Path) -> dict[str, Any]:
    """What a run's files say of it."""
    saved = folder_of.read_json(path / run_folder.CONFIG)
    line: dict[str, Any] = {"task": saved["task"], "data": saved["data"], "config": dict(saved["config"])}
    validations = [r for r in read_journal(path / run_folder.METRICS) if r["event"] == "look"]
    line["minutes"] = round(validations[-1]["seconds"] / 60, 2) if validations else 0.0
    if (path / run_folder.WEIGHTS).is_file():
        line["finished"] = True
        evaluations = folder_of.read_json(path / run_folder.EVALUATION)
        line["split"] = "test" if "test" in evaluations else "val"
        evaluation = evaluations[line["split"]]
        line |= {"metrics": evaluation["metrics"], "intervals": evaluation["intervals"]}
    elif validations:
        line["progress"] = validations[-1]["progress"]
    return line


def doctor() -> list[dict[str, str]]:
    """What is right and wrong with this installation.

    Returns:
        Findings ``{"what", "state", "detail", "fix"}``; the state is ok, missing, slow or broken.
    """
    from dolmen.installation import examine

    return examine()
