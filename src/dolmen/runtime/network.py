"""A trained network as prediction sees it: named arrays in, named arrays out, whatever computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from dolmen.types import Arrays

MODEL = "model"
"""The name of the network of a task that has only one."""
BATCH = "batch"
"""The dimension along which examples, or streams, lie side by side."""


@dataclass(frozen=True)
class ArraySpec:
    """An input or an output of a network.

    Attributes:
        dtype: numpy's name.
        shape: a number where it is fixed, else the name of the dimension; dimensions of one name are equal.
    """

    dtype: str
    shape: tuple[int | str, ...]


class InputSpec(Protocol):
    """What a network says of an input; an ``ArraySpec`` is one."""

    @property
    def dtype(self) -> str:
        """Numpy's name of its type."""
        ...

    @property
    def shape(self) -> tuple[int | str, ...]:
        """A number where it is fixed, else the name of the dimension."""
        ...


class Steps(Protocol):
    """A recurrent network that goes on step by step; what it has read so far is its state."""

    @property
    def state(self) -> Arrays:
        """A copy of the state, by name; set it to go on from there."""
        ...

    @state.setter
    def state(self, state: Arrays) -> None: ...

    def reset(self) -> None:
        """Begin anew: the state before the first step."""
        ...

    def read(self, steps: NDArray[Any]) -> NDArray[np.float32]:
        """Take in T steps, (T,) tokens or (T, S, F) frames; (T, V) outputs, which the next call may overwrite."""
        ...


class Network(Protocol):
    """Named arrays in, named arrays out.

    Attributes:
        inputs: by name. Of a network with a state the first is what is read; those that are neither that nor a state
            are the same in each step.
        states: output by the input that it becomes at the next call; empty for a network without a state.
    """

    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        """By name, in their order."""
        ...

    @property
    def states(self) -> Mapping[str, str]:
        """Output by the input that it becomes at the next call."""
        ...

    def __call__(self, inputs: Arrays) -> Arrays:
        """A batch of inputs to outputs with the same leading axis."""
        ...

    def steps(self, start: Arrays | None = None) -> Steps:
        """Begin one stream; only for a network that has a state.

        Args:
            start: states to begin from and inputs that are the same in each step, by name, of a batch of 1. A state
                that is not given begins as zeros.
        """
        ...


class Streams:
    """Several streams side by side through a network with a state: a batch that is decoded, or a search's beams.

    ``streams[rows]`` selects, reorders, repeats or splits them; ``stack`` puts them stacked. What they hold is never
    changed in place, so that selected streams share it.

    Args:
        network: with a state.
        start: states to begin from and inputs that are the same in each step (an encoder's memory and its lengths),
            by name. A state that is not given begins as zeros.
        num_streams: how many, where ``start`` does not tell.

    Attributes:
        state: what was read so far, by name.
        constants: the inputs that are the same in each step.

    Raises:
        ValueError: an input that is the same in each step is missing, or an array has not the shape of its input.
    """

    def __init__(self, network: Network, start: Arrays | None = None, num_streams: int = 1) -> None:
        self.network, start = network, start or {}
        self.input, *_ = network.inputs
        sizes = {BATCH: num_streams, **sizes_of(network.inputs, start)}
        self.state, self.constants = begin(network.inputs, network.states, start, sizes)
        self.origins = np.arange(sizes[BATCH])  # whose constants each stream has

    def __len__(self) -> int:
        return len(self.origins)

    def read(self, steps: NDArray[Any]) -> Arrays:
        """Take in T steps of each stream, (B, T) tokens or (B, T, ...); (B, T, ...) by output, without the states."""
        steps = np.ascontiguousarray(steps, self.network.inputs[self.input].dtype)
        outputs = dict(self.network({self.input: steps, **self.constants, **self.state}))
        self.state = {name: outputs.pop(output) for output, name in self.network.states.items()}
        return outputs

    def __getitem__(self, rows: slice | Sequence[int] | NDArray[np.integer[Any]]) -> Self:
        """The streams of these rows, in this order; a row may come several times."""
        index = np.arange(len(self))[rows]
        selected = self._empty()
        selected.origins = self.origins[index]
        selected.state = self._rows(self.state, index)
        # Beams that change places within their sentence keep its memory: it need not be copied at each step.
        same = np.array_equal(selected.origins, self.origins)
        selected.constants = self.constants if same else self._rows(self.constants, index)
        return selected

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """All streams of ``parts``, of one network, in their order; dimensions that differ are filled up with zeros."""
        first = parts[0]
        stacked = first._empty()
        starts = np.cumsum([0, *(len(part) for part in parts)])
        stacked.origins = np.concatenate([part.origins + n for part, n in zip(parts, starts, strict=False)])
        stacked.state = {k: first._joined(k, [part.state[k] for part in parts]) for k in first.state}
        stacked.constants = {k: first._joined(k, [part.constants[k] for part in parts]) for k in first.constants}
        return stacked

    def _empty(self) -> Self:
        other = type(self).__new__(type(self))
        other.network, other.input = self.network, self.input
        return other

    def _axis(self, name: str) -> int:
        return self.network.inputs[name].shape.index(BATCH)

    def _rows(self, arrays: Arrays, index: NDArray[Any]) -> Arrays:
        return {k: np.ascontiguousarray(np.take(v, index, self._axis(k))) for k, v in arrays.items()}

    def _joined(self, name: str, arrays: list[NDArray[Any]]) -> NDArray[Any]:
        axis = self._axis(name)
        largest = np.max([a.shape for a in arrays], 0)
        filled = []
        for a in arrays:
            missing = [(0, 0 if at == axis else int(largest[at]) - n) for at, n in enumerate(a.shape)]
            filled.append(np.pad(a, missing))
        return np.concatenate(filled, axis)


def sizes_of(inputs: Mapping[str, InputSpec], arrays: Arrays) -> dict[str, int]:
    """The sizes of the named dimensions of some inputs.

    Raises:
        ValueError: an array is of no input, or has not the shape of its input; or two dimensions of one name differ.
    """
    sizes: dict[str, int] = {}
    for name, values in arrays.items():
        if name not in inputs:
            raise ValueError(f"{name} is no input of this network; it takes {', '.join(inputs)}")
        shape = inputs[name].shape
        fits = values.ndim == len(shape) and all(
            n == (sizes.setdefault(d, n) if isinstance(d, str) else d) for d, n in zip(shape, values.shape, strict=True)
        )
        if not fits:
            raise ValueError(f"{name} is {values.shape}, and the network takes {shape} with {sizes}")
    return sizes


def begin(
    inputs: Mapping[str, InputSpec], states: Mapping[str, str], start: Arrays, sizes: Mapping[str, int]
) -> tuple[Arrays, Arrays]:
    """The states before the first step, and the inputs that are the same in each step.

    Args:
        inputs: of the network.
        states: of the network.
        start: what is handed in; other states are zeros.
        sizes: of named dimensions.

    Raises:
        ValueError: an input that is the same in each step is missing.
    """
    sequence, *others = inputs
    constants = [name for name in others if name not in states.values()]
    if missing := [name for name in constants if name not in start]:
        raise ValueError(f"a stream of this network needs {', '.join(missing)} to start with")
    if sequence in start:
        raise ValueError(f"{sequence} is read step by step, and is nothing to start with")
    state = {
        name: np.ascontiguousarray(start[name], np.float32)
        if name in start
        else np.zeros([sizes.get(d, 1) if isinstance(d, str) else d for d in inputs[name].shape], np.float32)
        for name in states.values()
    }
    return state, {name: np.ascontiguousarray(start[name], inputs[name].dtype) for name in constants}
