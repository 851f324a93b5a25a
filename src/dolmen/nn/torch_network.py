"""A network as it leaves the house: named arrays in, named arrays out, on torch now and in ONNX later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
        steps: a stream on torch that is quicker than calling the module step by step; None where there is none.
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
        if not self.graph.states:
            raise TypeError(f"{type(self.graph.module).__name__} has no state to go on from")
        return self.graph.steps() if self.graph.steps else GraphSteps(self)


class GraphSteps:
    """A stream through a graph whose first input is what is read and whose first output is what is made of it."""

    def __init__(self, network: TorchNetwork) -> None:
        self.network, graph = network, network.graph
        self.input = next(name for name in graph.inputs if name not in graph.states.values())
        self.output = next(name for name in graph.outputs if name not in graph.states)
        self._state: Arrays = {}
        self.reset()

    def read(self, steps: NDArray[Any]) -> NDArray[np.float32]:
        """Take in T steps; (T, V) outputs."""
        found = self.network({self.input: steps[None], **self._state})
        self._state = {name: found[output] for output, name in self.network.graph.states.items()}
        made: NDArray[np.float32] = found[self.output][0]
        return made

    def reset(self) -> None:
        """Begin anew, from a state of zeros."""
        inputs = self.network.graph.inputs
        shapes = {
            n: [d if isinstance(d, int) else 1 for d in inputs[n].shape] for n in self.network.graph.states.values()
        }
        self._state = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    @property
    def state(self) -> Arrays:
        """A copy of the state, by name."""
        return {name: values.copy() for name, values in self._state.items()}

    @state.setter
    def state(self, state: Arrays) -> None:
        self._state = {name: state[name].copy() for name in self._state}
