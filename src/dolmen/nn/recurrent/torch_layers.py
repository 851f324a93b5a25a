"""One direction of one recurrent layer through torch's own kernels: cuDNN on a GPU, oneDNN for the LSTM on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dolmen.nn.fp32 import quickly

_RUN: dict[str, Callable[..., Any]] = {
    "lstm": torch.lstm,
    "gru": torch.gru,
    "rnn_tanh": torch.rnn_tanh,
    "rnn_relu": torch.rnn_relu,
}


def run_torch(
    cell: str, x: Tensor, weights: Mapping[str, Tensor | None], state: Tensor, memory: Tensor | None, reverse: bool,
    lengths: Tensor | None, training: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Run a layer over a sequence.

    Args:
        cell: "rnn_tanh", "rnn_relu", "lstm" or "gru".
        x: (T, B, I).
        weights: by torch's names: weight_ih, weight_hh, bias_ih, bias_hh, weight_hr; None where there is none.
        state: (B, P).
        memory: (B, H) of the LSTM.
        reverse: from the last step of each sequence to the first.
        lengths: (B) int64.
        training: the gradient will be needed.

    Returns:
        (T, B, P) outputs, (B, P) last state, (B, H) last memory.
    """
    flat = [w for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr") if (w := weights[k]) is not None]
    order = None
    if reverse:
        order = _backwards(len(x), x.shape[1], lengths, x.device)
        x = x.gather(0, order[:, :, None].expand_as(x))
    packed = None
    if lengths is not None:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False)
        state = state[packed.sorted_indices]
        memory = None if memory is None else memory[packed.sorted_indices]
    initial = [v[None].contiguous() for v in (state, memory) if v is not None]
    has_bias = weights["bias_ih"] is not None
    if packed is None:

        def through(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            start, own = tensors[: len(initial)], list(tensors[len(initial) :])
            outputs: tuple[Tensor, ...] = _RUN[cell](x, _start(start), own, has_bias, 1, 0.0, training, False, False)
            return outputs

        given = x, *initial, *flat
        half = x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
        # Quick products help the backward pass; one sequence alone would be slower with them.
        quick = x.device.type == "cpu" and not half and torch.is_grad_enabled() and x.shape[1] > 1
        out, *last = quickly(through, *given) if quick else through(*given)
    else:
        start = _start(initial)
        out, *last = _RUN[cell](packed.data, packed.batch_sizes, start, flat, has_bias, 1, 0.0, training, False)
        out, _ = nn.utils.rnn.pad_packed_sequence(packed._replace(data=out), total_length=len(x))
        last = [v[:, packed.unsorted_indices] for v in last]
    if order is not None:
        out = out.gather(0, order[:, :, None].expand_as(out))
    return out, last[0][0], last[1][0] if memory is not None else None


def _start(values: Sequence[Tensor]) -> Any:
    """The initial state as torch wants it: the LSTM's two in a pair, else the one."""
    return values[0] if len(values) == 1 else tuple(values)


def _backwards(steps: int, batch: int, lengths: Tensor | None, device: torch.device) -> Tensor:
    """(T, B) int64: each sequence backwards, what is behind its end left in place."""
    t = torch.arange(steps, device=device)[:, None].expand(steps, batch)
    if lengths is None:
        return t.flip(0)
    return torch.where(t < lengths, lengths - 1 - t, t)
