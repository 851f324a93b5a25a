"""A network as it is exported: named arrays in, named arrays out, on torch now and in ONNX later."""

from __future__ import annotations

import itertools
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
        high: integers are below it.
        low: integers are not below it.
        up_to: a dimension whose size integers may reach: those are lengths.
    """

    dtype: str
    shape: tuple[int | str, ...]
    high: int = 256
    low: int = 0
    up_to: str = ""


@dataclass(frozen=True)
class Graph:
    """A part of a model that is arithmetic on arrays: what a run predicts by, and what ``export`` writes.

    Of a graph with states the first input is what is read, step by step; inputs that are neither that nor a state are
    the same in each step. The dimension along which examples lie is called "batch".

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
    """A graph that torch computes."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.inputs, self.states = graph, graph.inputs, graph.states
        tensors = itertools.chain(graph.module.parameters(), graph.module.buffers())
        self.device = next((t.device for t in tensors), torch.device("cpu"))

    def __call__(self, inputs: Arrays) -> Arrays:
        """A batch of inputs to outputs with the same leading axis."""
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[k])).to(self.device) for k in self.graph.inputs]
        with torch.inference_mode():
            outputs = self.graph.module(*tensors)
        results: tuple[Tensor, ...] = (outputs,) if isinstance(outputs, Tensor) else outputs
        return {k: v.float().cpu().numpy() for k, v in zip(self.graph.outputs, results, strict=True)}

    def steps(self, start: Arrays | None = None) -> Any:
        """One stream, a ``Steps`` of the runtime.

        Args:
            start: states to begin from and inputs that are the same in each step, by name, of a batch of 1. A state
                that is not given begins as zeros.
        """
        if not self.graph.states:
            raise TypeError(f"{type(self.graph.module).__name__} has no state to go on from")
        return self.graph.steps() if self.graph.steps and not start else GraphSteps(self, start or {})


class GraphSteps:
    """One stream through a graph: its first input is read, and its first output is given.

    Raises:
        ValueError: an input that is the same in each step is missing, or the start is of several streams.
    """

    def __init__(self, network: TorchNetwork, start: Arrays) -> None:
        self.network, graph = network, network.graph
        self.input, *others = graph.inputs
        self.output = next(name for name in graph.outputs if name not in graph.states)
        constants = [name for name in others if name not in graph.states.values()]
        if missing := [name for name in constants if name not in start]:
            raise ValueError(f"a stream of this network needs {', '.join(missing)} to start with")
        for name, values in start.items():
            if (num_streams := values.shape[graph.inputs[name].shape.index("batch")]) != 1:
                raise ValueError(f"these steps are of one stream, and the start is of {num_streams}")
        self.constants = {name: start[name] for name in constants}
        self.start = {
            name: np.ascontiguousarray(start[name], np.float32)
            if name in start
            else np.zeros([d if isinstance(d, int) else 1 for d in graph.inputs[name].shape], np.float32)
            for name in graph.states.values()
        }
        self._state: Arrays = {}
        self.reset()

    def read(self, steps: NDArray[Any]) -> NDArray[np.float32]:
        """Take in T steps; (T, V) outputs."""
        outputs = self.network({self.input: steps[None], **self.constants, **self._state})
        self._state = {name: outputs[output] for output, name in self.network.graph.states.items()}
        first: NDArray[np.float32] = outputs[self.output][0]
        return first

    def reset(self) -> None:
        """Begin anew, from the state at the start."""
        self.state = self.start

    @property
    def state(self) -> Arrays:
        """A copy of the state, by name."""
        return {name: values.copy() for name, values in self._state.items()}

    @state.setter
    def state(self, state: Arrays) -> None:
        self._state = {name: state[name].copy() for name in self.start}
