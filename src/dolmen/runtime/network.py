"""A trained network as prediction sees it: named arrays in, named arrays out, whatever works it off."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dolmen.types import Arrays


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
    """See the module."""

    def __call__(self, inputs: Arrays) -> Arrays:
        """A batch of inputs to outputs with the same leading axis."""
        ...

    def steps(self) -> Steps:
        """A new stream, of networks that have a state."""
        ...
