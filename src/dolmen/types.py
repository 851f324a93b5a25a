"""What flows between the rooms of the house: examples, batches, predictions, findings, evaluations, errors.

Nothing here imports anything of ours, and nothing here imports torch: the same types are used in training,
in prediction, by the server and on a device that has only numpy.

An *example* is one thing a person brought, as named numpy arrays: ``{"images": (H, W, C) uint8}``.
A *batch* is the same names with a leading batch axis; during training the values are torch tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, with_config

Example = dict[str, NDArray[Any]]
Arrays = dict[str, NDArray[Any]]


class UserError(ValueError):
    """A person's arguments or data are wrong: one sentence says what was found, what was expected, what to type.

    The command line prints the sentence and leaves with status 2; it never shows a traceback for this.
    """


class MachineError(RuntimeError):
    """The work failed through no fault of the arguments (disk full, loss diverged): one sentence, status 1."""


class Prediction(Protocol):
    """One answer to one input.

    ``to_json`` returns a ``TypedDict`` with the decorator ``described``, each field with a ``Field(description=...)``.
    By it the server describes its replies, and a type checker compares it with what is built.
    """

    def to_json(self) -> Mapping[str, Any]:
        """Return the answer as plain JSON values."""
        ...


described = with_config(ConfigDict(extra="forbid"))
"""Decorates the ``TypedDict`` of a prediction's JSON: nothing is sent that it does not describe."""


class Skipped(BaseModel):
    """A file that is in the data and is not used, with the reason in a few words."""

    model_config = ConfigDict(frozen=True)

    name: str
    reason: str


class Finding(BaseModel):
    """One thing that ``check`` noticed.

    Attributes:
        code: short stable name, e.g. ``exact-duplicates-across-splits``.
        level: ``leak`` makes ``train`` refuse (until told ``--allow-leaks``), ``error`` makes it stop, ``warning``
            is shown, ``info`` is written down.
        message: one sentence for a person: what was found, and what to do.
        count: how many there are in all.
        items: the first ones, by name (at most 20 are kept; of suspect labels all), each a file name, a pair
            "a = b", or for a label "name: labelled a, looks like b".
    """

    model_config = ConfigDict(frozen=True)

    code: str
    level: Literal["leak", "error", "warning", "info"]
    message: str
    count: int = 0
    items: tuple[str, ...] = ()


class CheckReport(BaseModel):
    """What is in the data, what is wrong with it, what would leak. The same type for every task.

    Attributes:
        num_files: everything that the source holds; always ``num_used + len(skipped)``.
        num_used: examples that training or evaluation will see.
        skipped: every other file, with its reason.
        counts: ``{split: {class: number}}`` of the used examples (splits as they will be used).
        summary: a few named facts, e.g. ``{"picture size": "32 x 32 (all)"}``.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    source: str
    num_files: int
    num_used: int
    skipped: tuple[Skipped, ...] = ()
    counts: dict[str, dict[str, int]] = {}
    summary: dict[str, str] = {}
    findings: tuple[Finding, ...] = ()

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """The findings for which training refuses."""
        return tuple(f for f in self.findings if f.level == "leak")

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make training impossible."""
        return tuple(f for f in self.findings if f.level == "error")

    def require_usable(self) -> None:
        """Refuse data that can't be trained on.

        Raises:
            UserError: the first of ``errors``, as errors are written: in lower case (but for the name of the data) and
                without a full stop.
        """
        if not self.errors:
            return
        sentence = self.errors[0].message.removesuffix(".")
        if not sentence.startswith(self.source):
            sentence = sentence[:1].lower() + sentence[1:]
        raise UserError(sentence)


@dataclass(frozen=True)
class Metric:
    """A metric that a task reports: what people call it and what it means.

    Attributes:
        title: its name in prose, "WER".
        meaning: in a few words, without a capital at the beginning and a full stop at the end.
        percent: it is a share, and shown in percent.
        better: whether more or less of it is better.
    """

    title: str
    meaning: str
    percent: bool = False
    better: Literal["max", "min"] = "max"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good a model is on a data set.

    Attributes:
        metrics: name (the field's, snake case) to number.
        intervals: metric name to its 95 % interval.
        tables: small JSON-able extras, e.g. ``{"confusion": [[...]], "per_class": [...]}``.
        arrays: per-example arrays that the report draws from (``labels (N,)``, ``probabilities (N, K)``,
            ``indices (N,)`` into the data set).
        predictions: what was predicted for each example, where the report shows it and it took long to compute.
    """

    task: str
    num_examples: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict, repr=False)
    predictions: Sequence[Prediction] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``evaluate --json`` prints (without what there is of each example)."""
        return {
            "task": self.task,
            "num_examples": self.num_examples,
            "metrics": self.metrics,
            "intervals": {k: list(v) for k, v in self.intervals.items()},
            **self.tables,
        }


@dataclass(frozen=True)
class Section:
    """A part of the report that only this task has.

    Attributes:
        title: heading.
        html: trusted HTML, self-contained (pictures as data URIs).
        lead: one or two sentences under the heading: what is to be seen here.
    """

    title: str
    html: str
    lead: str = ""
