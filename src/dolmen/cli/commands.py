"""The command line. ``dolmen --help`` and ``dolmen tasks`` answer without importing torch.

Exit status: 0 done, 1 the work failed, 2 the person's arguments or data were wrong, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dolmen import __version__
from dolmen.catalogue import TASKS, load_task
from dolmen.cli.arguments import VERBS, add_choices, choices, parser, print_json, task_argument
from dolmen.cli.use import export, predict, serve, watch
from dolmen.report.description import Description, read_description
from dolmen.run_folder import REPORT
from dolmen.types import MachineError, UserError
from dolmen.wording import did_you_mean

USES = {"predict": predict, "export": export, "watch": watch, "serve": serve}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()  # here, so that a reader who has left is noticed here
        return status
    except UserError as error:
        return _fail(str(error), 2)
    except MachineError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt as error:
        return _fail(str(error) or "stopped", 130)
    except BrokenPipeError:  # the reader of our output has left, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), 1)


def _fail(sentence: str, status: int) -> int:
    print(f"dolmen: {sentence}", file=sys.stderr)
    return status


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(_help())
        return 0
    if arguments[0] in {"-V", "--version"}:
        print(f"dolmen {__version__}")
        return 0
    verb, *arguments_of_verb = arguments
    if verb not in VERBS:
        raise UserError(f"there is no verb {verb!r}; {did_you_mean(verb, VERBS)}dolmen --help lists them")
    command: Callable[[list[str]], int] = globals().get(f"_{verb}") or USES[verb]
    return command(arguments_of_verb)


def _help() -> str:
    lines = [
        f"dolmen {__version__}: your own data in, a small CNN or RNN out; trained, measured, explained",
        "",
        *(f"  dolmen {verb:<9}{text}" for verb, text in VERBS.items()),
        "",
        "Start:   dolmen sample image-classification pictures",
        "         dolmen train image-classification pictures --minutes 1",
        "Each verb has --help; check, evaluate, predict, bench, tasks, runs and doctor have --json.",
    ]
    return "\n".join(lines)


# ---- verbs


def _check(arguments: list[str]) -> int:
    task = task_argument("check", arguments)
    task_class = load_task(task)
    config = task_class.Config
    words = parser("check", task)
    words.add_argument("data", help="a path or the name of a public set")
    words.add_argument("--labels", action="store_true", help="also look for labels that look wrong (takes --minutes)")
    words.add_argument("--fetch", action="store_true", help="download a named public set if it is not here yet")
    words.add_argument("--json", action="store_true", help="one JSON object instead of text")
    if task_class.convert_formats:
        words.add_argument(
            "--convert", choices=task_class.convert_formats, help="write the data in this format to --out, mended"
        )
        words.add_argument("--out", metavar="FOLDER", help="a new or empty folder for --convert")
    add_choices(words, config)
    given = words.read(arguments[1:])
    if task_class.convert_formats and (given.convert or given.out):
        return _convert(task, given)
    from dolmen import verbs
    from dolmen.data.report_text import report_text

    report = verbs.check(
        task, given.data, labels=given.labels, fetch=given.fetch, quiet=given.json, **choices(given, config)
    )
    if given.json:
        print_json(report.model_dump())
    else:
        print(report_text(report))
    return 2 if report.errors or report.leaks else 0


def _convert(task: str, given: argparse.Namespace) -> int:
    if not given.convert or not given.out:
        raise UserError("--convert FORMAT and --out FOLDER go together; give both, or none")
    from dolmen import verbs

    notes = verbs.convert(task, given.data, given.convert, given.out, quiet=given.json)
    if given.json:
        print_json({"out": given.out, "notes": notes})
    else:
        print("\n".join((*notes, f"wrote {given.out}; next: dolmen check {task} {given.out}")))
    return 0


def _train(arguments: list[str]) -> int:
    task = task_argument("train", arguments)
    config = load_task(task).Config
    words = parser("train", task)
    words.add_argument("data", help="a path or the name of a public set")
    words.add_argument("--out", metavar="RUN", help="the run's folder (default: runs/TASK-DATA-N)")
    words.add_argument("--resume", action="store_true", help="go on with the unfinished training in --out")
    words.add_argument("--config", metavar="FILE", help="JSON file with choices; flags win over it")
    words.add_argument("--fetch", action="store_true", help="download a named public set if it is not here yet")
    words.add_argument("--allow-leaks", action="store_true", help="train although examples leak between splits")
    words.add_argument("--tensorboard", action="store_true", help="also write TensorBoard event files")
    words.add_argument("--quiet", action="store_true", help="show nothing while training")
    add_choices(words, config)
    given = words.read(arguments[1:])
    from dolmen import verbs

    run = verbs.train(
        task,
        given.data,
        given.out,
        resume=given.resume,
        fetch=given.fetch,
        allow_leaks=given.allow_leaks,
        tensorboard=given.tensorboard,
        config=given.config,
        quiet=given.quiet,
        **choices(given, config),
    )
    if int(os.environ.get("RANK", "0")) == 0:
        print(_outcome(run.path, run.evaluation))
    return 0


def _outcome(path: Path, evaluations: dict[str, Any]) -> str:
    """What is printed when a training has ended: the metrics of each split, the report, and what to type next."""
    lines, description = [], read_description(path)
    for split, evaluation in evaluations.items():
        name = {"val": "validation", "test": "test"}.get(split, split)
        lines.append(f"{name} ({evaluation['num_examples']:,} examples): {_figures(evaluation, description)}")
    lines += [f"report: {path / REPORT}", f"use it: dolmen predict {path} INPUT..."]
    return "\n".join(lines)


def _figures(evaluation: dict[str, Any], description: Description) -> str:
    parts = []
    for name, value in evaluation["metrics"].items():
        interval = evaluation["intervals"].get(name)
        title = description.metric(name).title
        parts.append(f"{title} {value:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""))
    return "  ".join(parts[:6])


def _evaluate(arguments: list[str]) -> int:
    words = parser("evaluate")
    words.add_argument("run", help="a run folder")
    words.add_argument("data", help="a path or the name of a public set")
    words.add_argument("--split", help="train, val or test (default: test, else val, else everything)")
    words.add_argument("--report", metavar="DIR", help="also write a report of this evaluation into a new folder")
    words.add_argument("--fetch", action="store_true", help="download a named public set if it is not here yet")
    words.add_argument("--json", action="store_true", help="one JSON object instead of text")
    given = words.read(arguments)
    from dolmen import verbs

    evaluation = verbs.evaluate(
        given.run, given.data, split=given.split, fetch=given.fetch, report=given.report, quiet=given.json
    )
    if given.json:
        print_json(evaluation.to_json())
        return 0
    seen = evaluation.tables["num_seen_in_training"]
    print(
        f"{evaluation.num_examples:,} examples of {given.data}" + (f" ({seen:,} were used in training)" if seen else "")
    )
    description = read_description(Path(given.run))
    for name, value in evaluation.metrics.items():
        metric, interval = description.metric(name), evaluation.intervals.get(name)
        bounds = f"95 % [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""
        print(f"  {metric.title:<22}{value:10.4f}   {bounds:<24}{metric.meaning}".rstrip())
    return 0


def _explain(arguments: list[str]) -> int:
    words = parser("explain")
    words.add_argument("run", help="a run folder")
    words.add_argument("input", help="what predict takes: a file, or a text")
    words.add_argument("--out", required=True, metavar="PICTURE.png", help="where to write the picture")
    words.add_argument("--json", action="store_true", help="one JSON object instead of text")
    given = words.read(arguments)
    from dolmen import verbs

    facts = verbs.explain(given.run, given.input, given.out)
    if given.json:
        print_json(facts)
    else:
        for name, value in facts.items():
            rows = value if isinstance(value, list) and all(isinstance(v, dict) for v in value) else None
            print(f"{name}:" if rows else f"{name}: {value}")
            for row in rows or ():
                print("  " + "  ".join(f"{k} {v}" for k, v in row.items()))
    return 0


def _sample(arguments: list[str]) -> int:
    task = task_argument("sample", arguments)
    words = parser("sample", task)
    words.add_argument("folder", help="a new or empty folder")
    given = words.read(arguments[1:])
    from dolmen import verbs

    folder = verbs.sample(task, given.folder)
    print(f"wrote a sample to {folder}; next: dolmen train {task} {folder} --minutes 1")
    return 0


def _bench(arguments: list[str]) -> int:
    words = parser("bench")
    words.add_argument("model", metavar="RUN|BUNDLE", help="a run folder, or what dolmen export wrote")
    words.add_argument("--seconds", type=float, default=3.0, help="how long each measurement takes (default 3)")
    words.add_argument("--json", action="store_true", help="one JSON object instead of text")
    given = words.read(arguments)
    from dolmen import verbs

    figures = verbs.bench(given.model, seconds=given.seconds)
    if given.json:
        print_json(figures)
    else:
        for name, value in figures.items():
            print(f"  {name:<34}{value}")
    return 0


def _tasks(arguments: list[str]) -> int:
    words = parser("tasks")
    words.add_argument("--json", action="store_true", help="one JSON object instead of text")
    given = words.read(arguments)
    if given.json:
        print_json(
            {
                n: {"pillar": e.pillar, "brings": e.brings, "headline": e.headline, "works": e.works}
                for n, e in TASKS.items()
            }
        )
        return 0
    print(f"{'':<7}{'task':<22}{'pillar':<11}{'you bring':<60}measured by")
    for name, entry in TASKS.items():
        works = "works" if entry.works else "soon"
        print(f"{works:<7}{name:<22}{entry.pillar:<11}{entry.brings:<60}{entry.headline}")
    return 0


def _runs(arguments: list[str]) -> int:
    words = parser("runs")
    words.add_argument("folders", nargs="*", default=["runs"], help="a folder of runs (default: runs), or some runs")
    words.add_argument("--json", action="store_true", help="JSON Lines, one object a run")
    given = words.read(arguments)
    from dolmen import verbs

    lines = [line for folder in given.folders for line in verbs.runs(folder)]
    if given.json:
        for line in lines:
            print_json(line)
        return 0
    if not lines:
        print("no runs here yet; dolmen train makes one")
        return 0
    width = max(len(line["path"]) for line in lines) + 2
    print(f"{'run':<{width}}{'minutes':>8}  outcome")
    for line in lines:
        print(f"{line['path']:<{width}}{line['minutes']:8.1f}  {_state(line)}")
    if len(given.folders) > 1:
        print(_differences(lines))
    return 0


def _state(line: dict[str, Any]) -> str:
    if line["finished"]:
        return f"{line['split']}: {_figures(line, read_description(Path(line['path'])))}"
    if "damaged" in line:
        return f"damaged: {line['damaged']}"
    if "progress" in line:
        return f"unfinished, {100 * line['progress']:.0f} % done; resume it with --resume"
    return "unfinished"


def _differences(lines: list[dict[str, Any]]) -> str:
    """The choices in which runs differ, a row each."""
    keys = dict.fromkeys(k for line in lines for k in line["config"])
    rows = []
    for key in keys:
        values = [str(line["config"].get(key)) for line in lines]
        if len(set(values)) > 1:
            rows.append(f"  {key:<20}" + "".join(f"{v:<20}" for v in values))
    return "\n".join(["", "different choices:", *rows]) if rows else "\nthe same choices"


def _doctor(arguments: list[str]) -> int:
    words = parser("doctor")
    words.add_argument("--json", action="store_true", help="JSON Lines, one object a finding")
    given = words.read(arguments)
    from dolmen import verbs

    findings = verbs.doctor()
    for finding in findings:
        if given.json:
            print_json(finding)
        else:
            fix = f"\n{'':<9}fix: {finding['fix']}" if finding["fix"] else ""
            print(f"{finding['state']:<9}{finding['what']:<22}{finding['detail']}{fix}")
    return 1 if any(f["state"] == "broken" for f in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
