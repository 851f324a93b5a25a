"""One direction of one recurrent layer as a single operator, so that a graph keeps it whole.

A loop over steps can't be written into a graph of any length, and what exporters make of torch's own layers freezes
their shapes. ``export`` turns this operator into ONNX's RNN, LSTM or GRU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dolmen.nn.recurrent.torch_layers import run_torch


@torch.library.custom_op("dolmen::recurrence", mutates_args=())
def recurrence(
    x: Tensor,
    state: Tensor,
    memory: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    lengths: Tensor | None,
    cell: str,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(T, B, I), (B, H) and (B, H) to outputs (T, B, H), the last state and the last memory (of an LSTM, else (0,))."""
    weights = {
        "weight_ih": weight_ih,
        "weight_hh": weight_hh,
        "bias_ih": bias_ih,
        "bias_hh": bias_hh,
        "weight_hr": None,
    }
    out, last, kept = run_torch(cell, x, weights, state, memory, reverse, lengths, training=False)
    return out.contiguous(), last.clone(), x.new_zeros(0) if kept is None else kept.clone()


@recurrence.register_fake
def _(x: Tensor, state: Tensor, memory: Tensor | None, *unused: Any) -> tuple[Tensor, Tensor, Tensor]:
    del unused
    out = x.new_empty(x.shape[0], x.shape[1], state.shape[1])
    return out, torch.empty_like(state), x.new_empty(0) if memory is None else torch.empty_like(memory)


def run_in_graph(
    cell: str, x: Tensor, weights: Mapping[str, Tensor | None], state: Tensor, memory: Tensor | None, reverse: bool,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None, dict[str, Tensor]]:  # fmt: skip
    """Run a layer over a sequence while a graph is written; arguments and results as in ``run_torch``."""
    into, back = weights["weight_ih"], weights["weight_hh"]
    assert into is not None
    assert back is not None
    zeros = back.new_zeros(len(back))
    biases = [zeros if (b := weights[name]) is None else b for name in ("bias_ih", "bias_hh")]
    out, last, kept = recurrence(x, state, memory, into, back, biases[0], biases[1], lengths, cell, reverse)
    return out, last, None if memory is None else kept, {}
