"""The gate: an exported graph has to give what the network gave, or nothing is written."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from dolmen.exporting.graphs import example
from dolmen.nn.torch_network import Graph
from dolmen.runtime.network import Network
from dolmen.tasks.task import AnyTask, Dataset
from dolmen.types import Arrays

TOLERANCE = 1e-4
"""Of fp32, on outputs as large as 1; of larger ones a share of the largest."""
SIZES, BATCHES = (1, 7, 40), (1, 5)
MOST_EXAMPLES, MOST_TOKENS = 2000, 50_000
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
            sizes = dict.fromkeys(names, size) | {"batch": batch}
            inputs = example(graph.inputs, sizes, seed=size + batch)
            inputs |= {name: np.tanh(inputs[name]) for name in graph.states.values()}  # what states look like
            told, found = reference(inputs), candidate(inputs)
            of = " x ".join(f"{name} {n}" for name, n in sizes.items())
            rows.append({"what": of, "difference": _apart(told, found, inputs)})
            if graph.states and size > 1:
                rows.append(
                    {
                        "what": f"{of}, in chunks",
                        "difference": _apart(told, in_chunks(graph, candidate, inputs), inputs),
                    }
                )
    return rows


def in_chunks(graph: Graph, network: Network, inputs: Arrays) -> Arrays:
    """The outputs of a stream that is fed in three parts, the state going from one to the next."""
    states = {name: inputs[name] for name in graph.states.values()}
    fed = [name for name in graph.inputs if name not in states]
    parts: dict[str, list[Any]] = {}
    length = inputs[fed[0]].shape[1]
    cuts = sorted({0, 1, length // 2, length})
    for start, stop in itertools.pairwise(cuts):
        found = network({**{name: np.ascontiguousarray(inputs[name][:, start:stop]) for name in fed}, **states})
        states = {name: found[output] for output, name in graph.states.items()}
        for name in graph.outputs:
            parts.setdefault(name, []).append(found[name])
    return {k: v[-1] if k in graph.states else np.concatenate(v, 1) for k, v in parts.items()}


def _apart(told: Arrays, found: Arrays, inputs: Arrays) -> float:
    """The largest difference; that behind the end of a sequence means nothing."""
    worst = 0.0
    for name, reference in told.items():
        apart = np.abs(found[name].astype(np.float64) - reference) / max(1.0, float(np.abs(reference).max()))
        if "lengths" in inputs:
            apart = apart[np.arange(apart.shape[1]) < inputs["lengths"][:, None]]
        worst = max(worst, float(apart.max()) if np.isfinite(apart).all() else float("inf"))
    return worst


def few_of(task: AnyTask, dataset: Dataset) -> Dataset:
    """What the metric is measured on: all of it, or as much as takes a minute or so."""
    tokens = task.tokens_each(dataset)
    most = max(1, MOST_TOKENS // tokens) if tokens else MOST_EXAMPLES
    if len(dataset) <= most:
        return dataset
    if tokens:
        return dataset.subset(np.arange(most))
    return dataset.subset(np.sort(np.random.default_rng(0).permutation(len(dataset))[:most]))


def measure(task: AnyTask, network: Network, dataset: Dataset) -> Mapping[str, float]:
    """The task's metrics by this network."""
    parts: dict[str, list[Any]] = {}
    step = len(dataset) if task.tokens_each(dataset) else 64  # what follows one another is computed at once
    for start in range(0, len(dataset), step):
        rows = np.arange(start, min(start + step, len(dataset)))
        batch = {k: v.numpy() for k, v in dataset.batch(rows).items()}
        for name, value in task.network_outputs(network, batch).items():
            parts.setdefault(name, []).append(value)
    outputs = {k: np.concatenate(v) for k, v in parts.items()}
    return task.evaluate(outputs, dataset, intervals=False).metrics
