"""What the command line's verbs have in common: their list, how arguments are read, and how JSON is written."""

from __future__ import annotations

import argparse
import json
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from dolmen.catalogue import TASKS
from dolmen.types import UserError
from dolmen.wording import did_you_mean

if TYPE_CHECKING:
    from pydantic import BaseModel

VERBS = {
    "check": "TASK DATA               what is in the data, what is wrong with it, what would leak",
    "train": "TASK DATA [--minutes 10] [--out RUN] [--resume]",
    "evaluate": "RUN DATA                how good the model is on labelled data",
    "predict": "RUN|BUNDLE INPUT...     what the model says of new inputs",
    "explain": "RUN INPUT --out P.png   why it says so",
    "export": "RUN [--int8] [--out B]  an ONNX bundle that needs no PyTorch, compared with the run first",
    "watch": "RUN|BUNDLE SOURCE       what it says of a live source, as it comes: video, microphone, text",
    "serve": "RUN|BUNDLE...           an HTTP and WebSocket API, and a page to try them",
    "sample": "TASK DIR                a small data set in the task's own format",
    "bench": "RUN|BUNDLE              how fast it is on this machine",
    "tasks": "                        the jobs, and which of them work today",
    "runs": "[DIR | RUN RUN...]      list runs, or compare them",
    "doctor": "                        what this machine and installation lack, and the fix",
}


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises a ``UserError`` of one sentence for whatever is wrong."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise UserError(f"{message}; {self.prog} --help shows what can be given")

    def read(self, arguments: list[str]) -> argparse.Namespace:
        """Parse, and name the flag that was probably meant."""
        given, unknown = self.parse_known_args(arguments)
        if not unknown:
            return given
        word = unknown[0].partition("=")[0]
        flags = [s for a in self._actions for s in a.option_strings]
        completed = [flag for flag in flags if flag.startswith(word)][:1]
        if hint := did_you_mean(word, completed or flags, cutoff=0.0 if completed else 0.6):
            raise UserError(f"there is no flag {word}; {hint}{self.prog} --help lists the flags")
        return self.error(f"{unknown[0]} was not expected")


def parser(verb: str, usage: str = "") -> Parser:
    """The parser of what follows a verb."""
    return Parser(
        prog=f"dolmen {verb}{' ' + usage if usage else ''}",
        description=VERBS[verb].partition("  ")[2].strip() or None,
        allow_abbrev=False,
    )


def add_choices(parser: Parser, config: type[BaseModel]) -> None:
    """One flag for each field: ``--batch-size 64``, ``--flip`` and ``--no-flip`` for yes or no."""
    group = parser.add_argument_group("choices", "what is not given is found out from the data, budget and machine")
    for name, field in config.model_fields.items():
        flag, text = "--" + name.replace("_", "-"), (field.description or "").replace("%", "%%")
        value_types = _value_types(field.annotation)
        if typing.get_origin(field.annotation) is tuple:
            group.add_argument(flag, action="append", default=None, help=f"{text}; may be given several times")
            continue
        if bool in value_types:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
            continue
        literals = [t for t in value_types if typing.get_origin(t) is typing.Literal]
        allowed = [value for literal in literals for value in typing.get_args(literal)]
        metavar = "{" + ",".join(map(str, allowed)) + "}" if allowed else _metavar(value_types)
        group.add_argument(flag, metavar=metavar, default=None, help=text)


def _value_types(annotation: Any) -> set[Any]:
    """What values of an option may be: the alternatives of a union, without what is annotated to them."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    parts = typing.get_args(annotation) if union else (annotation,)
    return {p.__origin__ if typing.get_origin(p) is Annotated else p for p in parts}


def _metavar(value_types: set[Any]) -> str:
    names = {int: "N", float: "X", str: "NAME"}
    return next((names[t] for t in (float, int, str) if t in value_types), "VALUE")


def choices(parsed: argparse.Namespace, config: type[BaseModel]) -> dict[str, Any]:
    """The fields of a configuration that were given on the command line."""
    return {n: v for n in config.model_fields if (v := getattr(parsed, n)) is not None}


def task_argument(verb: str, arguments: list[str]) -> str:
    """The task's name, which decides what else can be given."""
    if not arguments or arguments[0].startswith("-"):
        if arguments and arguments[0] in {"-h", "--help"}:
            print(
                f"dolmen {verb} {VERBS[verb].strip()}\n\nName a task to see its choices, e.g.: "
                f"dolmen {verb} image-classification --help\nTasks: {', '.join(n for n, e in TASKS.items() if e.works)}"
            )
            raise SystemExit(0)
        folder = "digits/" if verb == "sample" else "photos/"
        raise UserError(f"dolmen {verb} needs a task first, e.g.: dolmen {verb} image-classification {folder}")
    return arguments[0]


def count(text: str) -> int:
    """A whole number from 1 on, for argparse.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return number


def print_json(value: Any) -> None:
    """Print a value as one line of JSON on standard output."""
    print(json.dumps(value, ensure_ascii=False))
