"""The gate: an exported graph has to give what the network gave, or nothing is written."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from dolmen.exporting.graphs import example
from dolmen.nn.torch_network import Graph
from dolmen.runtime.network import BATCH, Network
from dolmen.tasks.task import AnyTask, Dataset
from dolmen.types import Arrays

TOLERANCE = 1e-4
"""What fp32 may differ by, on outputs as large as 1; on larger ones a share of the largest."""
SIZES, BATCHES = (1, 7, 40), (1, 5)
MAX_EXAMPLES, MAX_TOKENS = 2000, 50_000
"""Validation examples, or tokens of text, that the task's metric is measured on."""


def differences(graph: Graph, reference: Network, candidate: Network) -> list[dict[str, Any]]:
    """Compare two networks on random inputs of three sizes and two batches, and of streams also part by part.

    Returns:
        A line for each: what was compared, and the largest difference.
    """
    rows: list[dict[str, Any]] = []
    names = [n for n in dict.fromkeys(d for i in graph.inputs.values() for d in i.shape) if isinstance(n, str)]
    for batch in BATCHES:
        for size in SIZES if len(names) > 1 else SIZES[:1]:
            # Equal sizes would hide dimensions that are taken for each other.
            sizes = {n: size + (at if size > 1 else 0) for at, n in enumerate(n for n in names if n != BATCH)}
            sizes[BATCH] = batch
            inputs = example(graph.inputs, sizes, seed=size + batch)
            inputs |= {name: np.tanh(inputs[name]) for name in graph.states.values()}  # what states look like
            expected, outputs = reference(inputs), candidate(inputs)
            what = " x ".join(f"{name} {sizes[name]}" for name in names)
            rows.append({"what": what, "difference": _largest_difference(graph, expected, outputs, inputs)})
            if graph.states and size > 1:
                outputs = in_chunks(graph, candidate, inputs)
                rows.append(
                    {"what": f"{what}, in chunks", "difference": _largest_difference(graph, expected, outputs, inputs)}
                )
    return rows


def in_chunks(graph: Graph, network: Network, inputs: Arrays) -> Arrays:
    """The outputs of a stream that is fed in three parts, the state going from one to the next."""
    states = {name: inputs[name] for name in graph.states.values()}
    sequence, *others = graph.inputs
    constants = {name: inputs[name] for name in others if name not in states}
    parts: dict[str, list[Any]] = {}
    length = inputs[sequence].shape[1]
    cuts = sorted({0, 1, length // 2, length})
    for start, stop in itertools.pairwise(cuts):
        outputs = network({sequence: np.ascontiguousarray(inputs[sequence][:, start:stop]), **constants, **states})
        states = {name: outputs[output] for output, name in graph.states.items()}
        for name in graph.outputs:
            parts.setdefault(name, []).append(outputs[name])
    return {k: v[-1] if k in graph.states else np.concatenate(v, 1) for k, v in parts.items()}


def _largest_difference(graph: Graph, expected: Arrays, outputs: Arrays, inputs: Arrays) -> float:
    """The largest difference between outputs; what is behind the end of a sequence means nothing."""
    sequence = next(iter(graph.inputs))
    has_lengths = "lengths" in inputs and graph.inputs["lengths"].up_to in graph.inputs[sequence].shape
    lengths = inputs["lengths"] if has_lengths else None
    worst = 0.0
    for name, reference in expected.items():
        difference = np.abs(outputs[name].astype(np.float64) - reference) / max(1.0, float(np.abs(reference).max()))
        # What goes along the sequence that has these lengths, and not a state at its end.
        if lengths is not None and difference.shape[:2] == inputs[sequence].shape[:2]:
            difference = difference[np.arange(difference.shape[1]) < lengths[:, None]]
        worst = max(worst, float(difference.max()) if np.isfinite(difference).all() else float("inf"))
    return worst


def measured_subset(task: AnyTask, dataset: Dataset) -> Dataset:
    """The part of a data set that the metric is measured on: all of it, or as much as takes a minute or so."""
    tokens = task.tokens_each(dataset)
    size = max(1, MAX_TOKENS // tokens) if tokens else MAX_EXAMPLES
    if len(dataset) <= size:
        return dataset
    if tokens:
        return dataset.subset(np.arange(size))
    return dataset.subset(np.sort(np.random.default_rng(0).permutation(len(dataset))[:size]))


def measure(task: AnyTask, networks: Mapping[str, Network], dataset: Dataset) -> Mapping[str, float]:
    """The task's metrics by these networks."""
    parts: dict[str, list[Any]] = {}
    step = len(dataset) if task.tokens_each(dataset) else 64  # what follows one another is computed at once
    for start in range(0, len(dataset), step):
        rows = np.arange(start, min(start + step, len(dataset)))
        batch = {k: v.numpy() for k, v in dataset.batch(rows).items()}
        for name, value in task.network_outputs(networks, batch).items():
            parts.setdefault(name, []).append(value)
    outputs = {k: np.concatenate(v) for k, v in parts.items()}
    return task.evaluate(outputs, dataset, intervals=False).metrics
