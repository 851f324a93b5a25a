"""The verbs that use a model: predict, export, watch, serve."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dolmen.catalogue import load_predictor, load_task
from dolmen.cli.arguments import Parser, add_choices, choices, count, parser, print_json
from dolmen.files import write_whole
from dolmen.predictions import Text
from dolmen.runtime.options import NoOptions
from dolmen.runtime.predictor import Predictor
from dolmen.types import UserError


def predict(arguments: list[str]) -> int:
    """Print a model's predictions of new inputs."""
    given = _read_with_options(_predict_parser, arguments)
    from dolmen import verbs

    model = verbs.load(given.model, threads=given.threads)
    options = choices(given, model.predictor.Options)
    drawings = _new_drawings_folder(given.draw) if getattr(given, "draw", None) else None
    failed = 0
    for raw, prediction in model.predict_each(model.predictor.expand(given.inputs), **options):
        if isinstance(prediction, UserError):
            failed += 1
            print(f"dolmen: {prediction}", file=sys.stderr)
            if given.json:
                print_json({"input": str(raw), "error": str(prediction)})
            continue
        if drawings is not None:
            from dolmen.processors.images.drawing import as_png

            pixels = model.predictor.draw(raw, prediction)
            write_whole(_free_picture_path(drawings, Path(raw).stem), as_png(pixels), otherwise="choose another --draw")
        if given.json:
            print_json({"input": str(raw), **prediction.to_json()})
        elif isinstance(prediction, Text):  # as it comes
            print(prediction.prompt, end="", flush=True)
            for piece in prediction.pieces:
                print(piece, end="", flush=True)
            print()
        else:
            print(f"{raw}: {model.predictor.format_answer(prediction)}")
    return 2 if failed else 0


def _new_drawings_folder(name: str) -> Path:
    """A folder that is not there yet, or empty."""
    path = Path(name)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise UserError(f"{name} is there already, and not an empty folder; name a new one with --draw")
    return path


def _free_picture_path(folder: Path, stem: str) -> Path:
    """A name for a picture that no other has: pictures of two folders may be called alike."""
    names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
    return next(path for name in names if not (path := folder / f"{name}.png").exists())


def _predict_parser(predictor: type[Predictor[Any]] | None) -> Parser:
    words = parser("predict")
    words.add_argument("model", metavar="RUN|BUNDLE", help="a run folder, or what dolmen export wrote")
    words.add_argument("inputs", nargs="+", help=(predictor or Predictor).inputs_help)
    words.add_argument("--threads", type=count, help="CPU threads that compute (default: all)")
    words.add_argument("--json", action="store_true", help="JSON Lines, one object an input")
    if predictor is not None and predictor.draws:
        words.add_argument(
            "--draw", metavar="FOLDER", help="a new folder for the pictures, with what was found drawn in"
        )
    add_choices(words, predictor.Options if predictor else NoOptions)
    return words


def _watch_parser(predictor: type[Predictor[Any]] | None) -> Parser:
    words = parser("watch")
    words.add_argument("model", metavar="RUN|BUNDLE", help="a run folder, or what dolmen export wrote")
    words.add_argument("source", help=(predictor or Predictor).source_help)
    words.add_argument("--threads", type=count, help="CPU threads that compute (default: all)")
    words.add_argument("--json", action="store_true", help="JSON Lines, one object a prediction")
    add_choices(words, predictor.Watching if predictor else NoOptions)
    return words


def _read_with_options(
    parser_for: Callable[[type[Predictor[Any]] | None], Parser], arguments: list[str]
) -> argparse.Namespace:
    """Arguments of a verb that takes a model and the options of its task.

    Which word names the model depends on which flags take a value, and that is known only with the model. So each word
    that names one is a candidate, and the parser with its options has the last word on what stands where.

    Args:
        parser_for: the verb's parser, with the options of this predictor; None where no model is named.
        arguments: what follows the verb.

    Raises:
        UserError: something is missing, unknown or not possible.
    """
    words = [word for word in arguments if word not in {"-h", "--help"}]  # a trial must not print the help
    fallback = None
    for word in dict.fromkeys(words):
        predictor = _predictor_named(Path(word))
        if predictor is None:
            continue
        candidate = parser_for(predictor)
        fallback = fallback or candidate
        with contextlib.suppress(UserError):
            if candidate.parse_known_args(words)[0].model == word:
                return candidate.read(arguments)
    fallback = fallback or parser_for(None)
    given = fallback.read(arguments)
    if _predictor_named(Path(given.model)) is not None:
        fallback.error(f"{given.model} has not all of the flags before it")
    return given


def _predictor_named(path: Path) -> type[Predictor[Any]] | None:
    """What predicts with this run or bundle; None if it is neither."""
    from dolmen import run
    from dolmen.runtime import bundle

    try:
        is_bundle, is_run = bundle.is_bundle(path), run.is_run(path)
    except OSError:  # the beginning of a text may be too long for a file's name
        return None
    if is_bundle:
        return load_predictor(bundle.bundle_task(path))
    return load_task(run.require_finished(path)["task"]).Predictor if is_run else None


def export(arguments: list[str]) -> int:
    """Export a run as a bundle."""
    words = parser("export")
    words.add_argument("run", help="a run folder")
    words.add_argument("--out", metavar="BUNDLE", help="a new folder, or a file NAME.dolmen (default: RUN.dolmen)")
    words.add_argument("--int8", action="store_true", help="weights on eight bits; convolutions compute on eight, too")
    words.add_argument("--opset", type=count, help="of ONNX (default 20)")
    words.add_argument("--data", help="where the run's data are now (default: where they were)")
    words.add_argument("--quiet", action="store_true", help="show nothing on the way")
    given = words.read(arguments)
    from dolmen import verbs

    out = verbs.export(given.run, given.out, int8=given.int8, opset=given.opset, data=given.data, quiet=given.quiet)
    print(f"use it: dolmen predict {out} INPUT...")
    return 0


def watch(arguments: list[str]) -> int:
    """Print the predictions of a live source, as they come."""
    given = _read_with_options(_watch_parser, arguments)
    from dolmen import verbs

    model = verbs.load(given.model, threads=given.threads)
    for prediction in model.watch(given.source, **choices(given, model.predictor.Watching)):
        if given.json:
            print_json(prediction.to_json())
        else:
            print(model.predictor.format_line(prediction))
        sys.stdout.flush()
    return 0


def serve(arguments: list[str]) -> int:
    """Serve models over HTTP, until stopped."""
    words = parser("serve")
    words.add_argument("models", nargs="+", metavar="RUN|BUNDLE", help="each under its own name, or as NAME=PATH")
    words.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine only)"
    )
    words.add_argument("--port", type=int, default=8000, help="0 takes any that is free (default 8000)")
    words.add_argument("--token", help="who asks must know it ($DOLMEN_TOKEN; default: nobody has to)")
    words.add_argument("--threads", type=count, help="CPU threads that compute, for each model (default: all)")
    words.add_argument("--max-batch", type=count, default=32, help="inputs that are computed together (default 32)")
    words.add_argument("--max-wait-ms", type=float, default=2.0, help="that the first of them waits (default 2)")
    words.add_argument("--queue", type=count, default=256, help="inputs that wait at most; then 429 (default 256)")
    words.add_argument("--timeout-s", type=float, default=30.0, help="for a request; then 503 (default 30)")
    words.add_argument("--max-mb", type=float, default=16.0, help="of a request (default 16)")
    words.add_argument("--no-reload", action="store_true", help="do not take over a model that is written anew")
    given = words.read(arguments)
    from dolmen import verbs

    verbs.serve(
        given.models, host=given.host, port=given.port, token=given.token or os.environ.get("DOLMEN_TOKEN") or None,
        threads=given.threads, max_batch=given.max_batch, max_wait_ms=given.max_wait_ms, queue=given.queue,
        timeout_s=given.timeout_s, max_bytes=int(given.max_mb * (1 << 20)), reload=not given.no_reload,
    )  # fmt: skip
    return 0
