"""The state of recurrent layers, and checks of what they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dolmen.nn.recurrent.cells import GATES, LayerSettings


class State(NamedTuple):
    """The state that a recurrent layer carries from step to step. An LSTM's unpacks like torch's ``(h, c)``.

    Attributes:
        hidden: (L, B, P), L being layers times directions, P the projected or hidden size.
        cell: (L, B, H) of an LSTM, or of a GRU with ``proj_size``; else None.
    """

    hidden: Tensor
    cell: Tensor | None = None

    def detach(self) -> State:
        """The state cut from the graph, for back-propagation through a limited number of steps."""
        return State(self.hidden.detach(), None if self.cell is None else self.cell.detach())

    def select(self, rows: Tensor | Sequence[int]) -> State:
        """The state of some sequences of the batch, in that order: for beam search, or when sequences end."""
        index = torch.as_tensor(rows, device=self.hidden.device)
        return State(self.hidden[:, index], None if self.cell is None else self.cell[:, index])

    def to(self, *args: Any, **kwargs: Any) -> State:
        """The state on another device or in another precision, as ``Tensor.to``."""
        return State(self.hidden.to(*args, **kwargs), None if self.cell is None else self.cell.to(*args, **kwargs))


def for_kernels(
    weights: Mapping[str, Tensor | None], state: Tensor, memory: Tensor | None,
    starts: tuple[Tensor | None, Tensor | None], reset: Tensor | None, keep: tuple[Tensor | float, Tensor | float],
) -> tuple[dict[str, Tensor | None], tuple[float, float]]:  # fmt: skip
    """The tensors that kernels take, which know float32 and uint8 only; arguments as in ``loop.run``.

    Returns:
        By name: the weights, "state", "memory", "state_start" and "cell_start" in float32, "reset" and zoneout's masks
        "keep_state" and "keep_cell" in uint8; and zoneout's rates, 0 where a mask decides.

    Raises:
        ValueError: they lie on several devices.
    """
    masks = [k if isinstance(k, Tensor) else None for k in keep]
    rates = [0.0 if isinstance(k, Tensor) else float(k) for k in keep]
    numbers = {**weights, "state": state, "memory": memory, "state_start": starts[0], "cell_start": starts[1]}
    flags = {"reset": reset, "keep_state": masks[0], "keep_cell": None if memory is None else masks[1]}
    devices = {v.device for v in (*numbers.values(), *flags.values()) if v is not None}
    if len(devices) > 1:
        places = ", ".join(sorted(map(str, devices)))
        raise ValueError(f"weights, states and masks lie on {places}; bring them together")
    tensors = in_float32(numbers) | {k: None if v is None else v.to(torch.uint8) for k, v in flags.items()}
    return tensors, (rates[0], rates[1])


def in_float32(tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    """The tensors by name, in float32."""
    return {k: None if v is None else v.float() for k, v in tensors.items()}


def parameter_shapes(layer: LayerSettings, number: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters of layer ``number``, by torch's names without it, in the order of their first values."""
    rows, out = GATES[layer.cell] * layer.hidden_size, layer.output_size
    size = layer.input_size if number == 0 else out * layer.num_directions
    shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, size), "weight_hh": (rows, out)}
    if layer.bias:
        shapes["bias_ih"] = shapes["bias_hh"] = (rows,)
    if layer.proj_size:
        shapes["weight_hr"] = (out, layer.hidden_size)
    for turn in range(layer.mogrifier):
        shapes[f"mogrifier_{turn}"] = (out, size) if turn % 2 else (size, out)
    if layer.layer_norm:
        shapes["scale_ih"] = shapes["scale_hh"] = (rows,)
        if layer.cell == "lstm":
            shapes["cell_scale"] = shapes["cell_shift"] = (layer.hidden_size,)
    return shapes


def checked_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the tensor if it has this shape.

    Raises:
        ValueError: it has another shape; ours and torch's kernels would read what lies behind it.
    """
    if tensor.shape != shape:
        raise ValueError(f"{name} has the shape {tuple(tensor.shape)}; it has to be {shape}")
    return tensor


def checked_state(layer: LayerSettings, parts: Any, batch: int) -> State:
    """A state for so many sequences, from whatever form it comes in.

    Raises:
        ValueError: a part of it has another shape, is missing, or is too much.
    """
    state: State = State(parts) if isinstance(parts, Tensor) else State(*parts)
    count = layer.num_layers * layer.num_directions
    checked_shape("the state", state.hidden, (count, batch, layer.output_size))
    if layer.has_memory != (state.cell is not None):
        raise ValueError(f"this layer's state has {'a' if layer.has_memory else 'no'} cell besides the hidden part")
    if state.cell is not None:
        checked_shape("the state's cell", state.cell, (count, batch, layer.hidden_size))
    return state


def checked_lengths(lengths: Any, steps: int, batch: int, device: torch.device) -> Tensor:
    """(B) int64.

    Raises:
        ValueError: they are not from 1 to the number of steps, one for each sequence.
    """
    values = torch.as_tensor(lengths, dtype=torch.int64, device=device)
    known = not torch.compiler.is_exporting()  # while a graph is written, no values are there yet
    if values.shape != (batch,) or (known and bool(((values < 1) | (values > steps)).any())):
        raise ValueError(f"lengths have to be {batch} numbers from 1 to {steps}")
    return values


def with_batch(state: Any) -> State | None:
    """The state of one sequence, (L, H), as that of a batch of one."""
    if state is None:
        return None
    hidden, cell = (state, None) if isinstance(state, Tensor) else state
    return State(hidden[:, None], None if cell is None else cell[:, None])


def named_gates(cell: str, gates: Tensor, size: int) -> dict[str, Tensor]:
    """Gates by name, each (T, B, H), that lie side by side in (T, B, ...); what is behind them has no name."""
    names = {"lstm": ("input", "forget", "cell", "output"), "gru": ("reset", "update", "new")}.get(cell, ("new",))
    return dict(zip(names, torch.split(gates, size, -1), strict=False))
