"""A network as it leaves the house: named arrays in, named arrays out, on torch now and in ONNX later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dolmen.types import Arrays


@dataclass(frozen=True)
class Input:
    """An input of a graph.

    Attributes:
        dtype: numpy's name.
        shape: a number where it is fixed, else the name of the dimension; dimensions of one name are equal.
        most: integers are below it.
        least: integers are not below it.
        up_to: a dimension whose size integers may reach: those are lengths.
    """

    dtype: str
    shape: tuple[int | str, ...]
    most: int = 256
    least: int = 0
    up_to: str = ""


@dataclass(frozen=True)
class Graph:
    """The part of a model that is arithmetic on arrays: what a run predicts by, and what ``export`` writes.

    Attributes:
        module: takes the inputs in their order, gives the outputs in theirs.
        inputs: by name.
        outputs: names.
        states: output name by the input that it becomes at the next call; shapes are theirs.
        steps: a stream on torch that is quicker than calling the module; None where there is no state.
    """

    module: nn.Module
    inputs: Mapping[str, Input]
    outputs: tuple[str, ...]
    states: Mapping[str, str] = field(default_factory=dict)
    steps: Callable[[], Any] | None = None


class TorchNetwork:
    """A graph, worked off by torch."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.device = next(graph.module.parameters()).device

    def __call__(self, inputs: Arrays) -> Arrays:
        """A batch of inputs to outputs with the same leading axis."""
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[k])).to(self.device) for k in self.graph.inputs]
        with torch.inference_mode():
            found = self.graph.module(*tensors)
        several: tuple[Tensor, ...] = (found,) if isinstance(found, Tensor) else found
        return {k: v.float().cpu().numpy() for k, v in zip(self.graph.outputs, several, strict=True)}

    def steps(self) -> Any:
        """A new stream; see ``Steps``."""
        if self.graph.steps is None:
            raise TypeError(f"{type(self.graph.module).__name__} has no state to go on from")
        return self.graph.steps()
