"""Sections of the report on token classification, and the picture that explains one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dolmen.tasks.token_classification import report as page
from dolmen.tasks.token_classification.data.dataset import TaggedDataset
from dolmen.tasks.token_classification.predictions import Spans
from dolmen.tasks.token_classification.processor import TagProcessor
from dolmen.types import Evaluation, Example, Section


def sections(
    processor: TagProcessor, dataset: TaggedDataset, evaluations: dict[str, Evaluation], split: str
) -> list[Section]:
    """The report's sections; the mistakes are those on ``dataset``, which is that of ``split``."""
    arrays, cuts, labels = evaluations[split].arrays, dataset.starts[1:-1], processor.labels
    predicted, gold = (
        [[labels[i] for i in path] for path in np.split(arrays[name], cuts)] for name in ("predicted", "gold")
    )
    return page.sections(evaluations, split, [s.words for s in dataset.sentences], gold, predicted, processor.kind)


def explain(
    processor: TagProcessor,
    answer: Spans,
    example: Example,
    emissions: Callable[[dict[str, Tensor]], NDArray[Any]],
    out: Path,
) -> dict[str, Any]:
    """Write a picture of which words each tag rests on.

    Args:
        processor: decodes.
        answer: the prediction.
        example: the encoded sentence.
        emissions: from a batch of sentences to (M, K).
        out: a .png file to write.

    Returns:
        The sentence and its spans.
    """
    page.explanation(out, answer, _effects(processor, answer, example, emissions))
    return {"input": answer.text, "spans": answer.to_json()["spans"], "picture": str(out)}


def _effects(
    processor: TagProcessor,
    answer: Spans,
    example: Example,
    emissions: Callable[[dict[str, Tensor]], NDArray[Any]],
) -> NDArray[np.float64]:
    """(T, T) how much the probability of the tag in row i falls when word j is hidden."""
    length = len(answer.tags)
    num = min(length, page.MAX_EXPLAINED_WORDS)
    copies = {k: np.repeat(v[None], num + 1, 0) for k, v in example.items()}
    for j in range(num):
        for values in copies.values():
            values[j + 1, j] = 0
    batch = {k: torch.from_numpy(v) for k, v in copies.items()} | {"lengths": torch.full((num + 1,), length)}
    scores = emissions(batch).reshape(num + 1, length, -1).astype(np.float64) / processor.temperature
    tags = [processor.labels.index(t) for t in answer.tags[:num]]
    probabilities = np.array(
        [processor.chain.read(e).marginals()[np.arange(num), tags] for e in scores]
    )  # (num + 1, num)
    return np.asarray((probabilities[:1] - probabilities[1:]).T, np.float64)
