"""The recurrent cells, and the settings of a layer as its parts read them."""

from __future__ import annotations

from typing import Literal, Protocol

Cell = Literal["rnn_tanh", "rnn_relu", "lstm", "gru"]
GATES: dict[str, int] = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}
"""Gates a cell has; its weights have so many times the hidden size of rows, in torch's order."""
SAVED: dict[str, int] = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 4}
"""Blocks of H that the backward pass needs of each step: the plain unit's new state before zoneout, if there is any;
input, forget, cell and output gate; reset, update and new gate, and the state's part of the new gate."""


class LayerSettings(Protocol):
    """The settings of a recurrent layer; ``Recurrent`` explains them."""

    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    proj_size: int
    zoneout: tuple[float, float]
    layer_norm: bool
    residual: bool
    mogrifier: int
    compiled: bool

    @property
    def cell(self) -> str:
        """A key of ``GATES``."""

    @property
    def num_directions(self) -> int:
        """2 if bidirectional."""

    @property
    def output_size(self) -> int:
        """Features of a direction's output."""

    @property
    def has_memory(self) -> bool:
        """Whether the state has a cell."""
