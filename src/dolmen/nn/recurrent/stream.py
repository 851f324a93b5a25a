"""Streams, step by step: numbers in, numbers out, the state inside; nothing is allocated from step to step."""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dolmen.nn.recurrent.cells import LayerSettings
from dolmen.nn.recurrent.state import State, checked_state, in_float32


class SteppedLayer(LayerSettings, Protocol):
    """A recurrent layer as a stream runs it; ``Recurrent`` explains the methods."""

    training: bool

    def path(self, *, extras: bool) -> tuple[str, str]:
        """Which path a call takes, and why."""

    def weights(self, layer: int) -> dict[str, Any]:
        """The parameters of a layer by torch's names."""

    def initial_state(self, batch: int) -> State:
        """The state before the first step."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The output of a step, and the state after it."""

    def train(self, mode: bool) -> object:
        """Switch to training or to evaluation."""


class Stepper:
    """A stack of recurrent layers that goes on by one step a call. Made by ``Recurrent.stepper``.

    It holds a copy of the weights as they were at that moment, and the state; no gradient, no dropout.

    Attributes:
        outputs: (B, P) float32, what the last step gave; the next step overwrites it.
    """

    def __init__(self, layer: SteppedLayer, batch: int) -> None:
        self.layer, self.batch, self.shape = layer, batch, (batch, layer.input_size)
        self.tensors: list[Tensor] = []
        self.call: Any = None
        # Asked for what only the compiled cells can do; their single step knows no residuals.
        if layer.path(extras=True)[0] == "compiled" and not layer.residual:
            self._compile()
        else:
            self.outputs = np.zeros((batch, layer.output_size), np.float32)
        self.reset()

    def _compile(self) -> None:
        from dolmen.nn.recurrent.function import joined_bias, pack_columns
        from dolmen.nn.recurrent.kernels import team
        from dolmen.nn.recurrent.kernels.products import PANEL
        from dolmen.nn.recurrent.kernels.stream import Step, StepLayer, step

        layer, h, batch = self.layer, self.layer.hidden_size, self.batch
        weights = layer.weights(0)
        panels = len(pack_columns(weights["weight_hh"], pairs=False))
        self.states = torch.zeros(layer.num_layers, batch, h)
        self.cells = torch.zeros(layer.num_layers if layer.cell == "lstm" else 0, batch, h)
        self.inputs = torch.zeros(batch, layer.input_size)
        numbers = [
            *Step(
                layers=layer.num_layers,
                batch=batch,
                hidden=h,
                panels=panels,
                layer_norm=int(layer.layer_norm),
                rates=self._keep(torch.tensor(layer.zoneout)),
            )
        ]
        for i in range(layer.num_layers):
            w: dict[str, Any] = in_float32(layer.weights(i))
            rows = len(w["weight_hh"])
            into, own = joined_bias(w, h, gru=layer.cell == "gru")
            back = torch.zeros(rows)
            back[rows - h :] = own
            x = self.inputs if i == 0 else self.states[i - 1]
            numbers += StepLayer(
                size=x.shape[1],
                x=x.data_ptr(),
                weight_ih=self._keep(pack_columns(w["weight_ih"], pairs=False)),
                weight_hh=self._keep(pack_columns(w["weight_hh"], pairs=False)),
                bias=self._keep(into),
                own_bias=self._keep(back),
                scale_ih=self._keep(w["scale_ih"]),
                scale_hh=self._keep(w["scale_hh"]),
                cell_scale=self._keep(w["cell_scale"]),
                cell_shift=self._keep(w["cell_shift"]),
                state=self.states[i].data_ptr(),
                cell=self.cells[i].data_ptr() if layer.cell == "lstm" else 0,
                into=self._keep(torch.zeros(batch, panels * PANEL)),
                back=self._keep(torch.zeros(batch, panels * PANEL)),
                fresh=self._keep(torch.zeros(2, h)),
            )
        self.numbers = (ctypes.c_int64 * len(numbers))(*numbers)
        self.place = ctypes.addressof(self.numbers)
        self.call = team.function(step(layer.cell))
        self.values: NDArray[np.float32] = self.inputs.numpy()
        self.outputs = self.states[-1].numpy()

    def _keep(self, tensor: Tensor | None) -> int:
        """The address of a tensor that lives as long as this object."""
        if tensor is None:
            return 0
        self.tensors.append(tensor.detach().float().contiguous().clone())
        return self.tensors[-1].data_ptr()

    def reset(self) -> None:
        """Begin anew: the state before the first step."""
        self.state = self.layer.initial_state(self.batch)

    @property
    def state(self) -> State:
        """A copy of the state; set it to go on from there."""
        if self.call is None:
            return self._state
        return State(self.states.clone(), self.cells.clone() if self.layer.cell == "lstm" else None)

    @state.setter
    def state(self, state: State) -> None:
        state = checked_state(self.layer, state, self.batch)
        if self.call is None:
            self._state = state.detach()
            return
        self.states.copy_(state.hidden.detach())
        if state.cell is not None:
            self.cells.copy_(state.cell.detach())

    def step(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Go on by one step.

        Args:
            x: (B, input_size).

        Returns:
            ``outputs``, (B, P); copy it to keep it.

        Raises:
            ValueError: ``x`` has another shape.
        """
        if np.shape(x) != self.shape:
            raise ValueError(f"the input has the shape {np.shape(x)}; it has to be {self.shape}")
        if self.call is not None:
            self.values[...] = x
            self.numbers[0] = 0
            self.call(self.place)
            return self.outputs
        layer = self.layer
        training = layer.training
        layer.train(False)
        try:
            with torch.inference_mode():
                y, self._state = layer.step(torch.as_tensor(np.asarray(x)), self._state)
        finally:
            layer.train(training)
        self.outputs[...] = y.float().numpy()
        return self.outputs
