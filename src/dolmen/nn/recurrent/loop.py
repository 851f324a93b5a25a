"""The recurrent cells written out step by step in torch operations: the definition that every quicker path must equal.

It runs anywhere, in any precision, and can be differentiated as often as wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def step(
    cell: str, into: Tensor, state: Tensor, memory: Tensor | None, weight: Tensor, *,
    bias: Tensor | None = None, scale: Tensor | None = None,
    cell_scale: Tensor | None = None, cell_shift: Tensor | None = None,
    keep: tuple[Tensor | float, Tensor | float] = (0.0, 0.0), projection: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:  # fmt: skip
    """One step of a cell.

    Args:
        cell: "rnn_tanh", "rnn_relu", "lstm" or "gru".
        into: (B, gates H) the input's part of the gates, its bias included.
        state: (B, P) output of the step before; P is H where nothing projects it.
        memory: (B, H) of the LSTM, or of a GRU whose state is projected: what it was before that.
        weight: (gates H, P).
        bias: (gates H) of the state's part.
        scale: (gates H): the state's part is layer-normalised and multiplied by it.
        cell_scale: (H) of the layer norm of the LSTM's memory before its tanh.
        cell_shift: (H) of the same.
        keep: shares of state and memory that zoneout holds: (B, H) of 0 and 1, or a rate.
        projection: (P, H).

    Returns:
        (B, P) state, (B, H) memory, and the activated gates by name, each (B, H).
    """
    back = F.linear(state, weight)
    if scale is not None:
        back = F.layer_norm(back, back.shape[-1:], scale)
    if bias is not None:
        back = back + bias
    gates: dict[str, Tensor]
    if cell == "lstm":
        assert memory is not None
        i, f, g, o = (into + back).chunk(4, -1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        memory = keep[1] * memory + (1 - keep[1]) * (f * memory + i * g)
        normalised = memory if cell_scale is None else F.layer_norm(memory, memory.shape[-1:], cell_scale, cell_shift)
        new, gates = o * normalised.tanh(), {"input": i, "forget": f, "cell": g, "output": o}
    elif cell == "gru":
        (xr, xz, xn), (hr, hz, hn) = into.chunk(3, -1), back.chunk(3, -1)
        r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
        n = (xn + r * hn).tanh()
        new, gates = n + z * ((state if memory is None else memory) - n), {"reset": r, "update": z, "new": n}
        if memory is not None:
            memory = new = keep[1] * memory + (1 - keep[1]) * new
    else:
        new = (into + back).relu() if cell == "rnn_relu" else (into + back).tanh()
        gates = {"new": new}
    if projection is not None:
        new = F.linear(new, projection)
    return keep[0] * state + (1 - keep[0]) * new, memory, gates


def mogrify(x: Tensor, state: Tensor, rounds: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Let the input and the state gate each other in turn, before a step (Melis et al., 2020).

    Args:
        x: (B, I).
        state: (B, H).
        rounds: (I, H) for those in which the state gates the input (the first, the third), else (H, I).
    """
    for number, weight in enumerate(rounds):
        if number % 2:
            state = 2 * F.linear(x, weight).sigmoid() * state
        else:
            x = 2 * F.linear(state, weight).sigmoid() * x
    return x, state


def run(
    cell: str, into: Tensor, state: Tensor, memory: Tensor | None, weight: Tensor, *,
    reverse: bool = False, lengths: Tensor | None = None, reset: Tensor | None = None,
    state_start: Tensor | None = None, cell_start: Tensor | None = None,
    keep: tuple[Tensor | float, Tensor | float] = (0.0, 0.0),
    enter: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None, **parts: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None, dict[str, Tensor]]:  # fmt: skip
    """A whole sequence.

    Args:
        cell: as in ``step``.
        into: (T, B, gates H); with ``enter`` what that takes.
        state: as in ``step``.
        memory: as in ``step``.
        weight: as in ``step``.
        reverse: from the last step to the first.
        lengths: (B); behind them the state waits.
        reset: (T, B) bool: the state starts anew before these steps.
        state_start: (P) the state after a reset; zeros if not given.
        cell_start: (H) the memory after a reset; zeros if not given.
        keep: (T, B, H) of 0 and 1, or rates.
        enter: makes of what enters at a step, and of the state, the input's part of the gates and the state that
            the step takes; None where they are given.
        **parts: ``bias``, ``scale``, ``cell_scale``, ``cell_shift`` and ``projection`` as in ``step``.

    Returns:
        (T, B, P) states after each step, (B, P) the last one, (B, H) the last memory, gates (T, B, H) by name.
    """
    if torch.compiler.is_exporting():
        return _run_in_graph(cell, into, state, memory, weight, reverse, lengths, keep, enter, parts)
    steps, outputs, step_gates = len(into), [], []
    for t in range(steps - 1, -1, -1) if reverse else range(steps):
        if reset is not None:
            at = reset[t][:, None]
            state = torch.where(at, torch.zeros_like(state) if state_start is None else state_start, state)
            if memory is not None:
                memory = torch.where(at, torch.zeros_like(memory) if cell_start is None else cell_start, memory)
        now = tuple(k[t] if isinstance(k, Tensor) else k for k in keep)
        entering, taken = (into[t], state) if enter is None else enter(into[t], state)
        new, kept, gates = step(cell, entering, taken, memory, weight, keep=(now[0], now[1]), **parts)
        if lengths is not None:
            waits = (t >= lengths)[:, None]
            new = torch.where(waits, state, new)
            kept = None if kept is None or memory is None else torch.where(waits, memory, kept)
        state, memory = new, kept
        outputs.append(state)
        step_gates.append(gates)
    if reverse:
        outputs.reverse()
        step_gates.reverse()
    stacked = {k: torch.stack([g[k] for g in step_gates]) for k in step_gates[0]}
    return torch.stack(outputs), state, memory, stacked


def _run_in_graph(
    cell: str, into: Tensor, state: Tensor, memory: Tensor | None, weight: Tensor, reverse: bool,
    lengths: Tensor | None, keep: tuple[Any, Any], enter: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None,
    parts: Mapping[str, Tensor | None],
) -> tuple[Tensor, Tensor, Tensor | None, dict[str, Tensor]]:  # fmt: skip
    """``run`` as one operator with the step inside (ONNX's Scan), so that a graph takes sequences of any length."""
    from torch._higher_order_ops.scan import scan

    def forward(carried: tuple[Tensor, ...], now: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, ...], Tensor]:
        x, t = now
        state, memory = carried[0], carried[1] if len(carried) > 1 else None
        entering, taken = (x, state) if enter is None else enter(x, state)
        new, kept, _ = step(cell, entering, taken, memory, weight, keep=keep, **parts)
        if lengths is not None:
            waits = (t >= lengths)[:, None]
            new = torch.where(waits, state, new)
            kept = None if kept is None or memory is None else torch.where(waits, memory, kept)
        return (new,) if kept is None else (new, kept), new.clone()

    start = (state,) if memory is None else (state, memory)
    last, out = scan(forward, start, (into, torch.arange(into.shape[0], device=into.device)), dim=0, reverse=reverse)
    return out, last[0], last[1] if memory is not None else None, {}
