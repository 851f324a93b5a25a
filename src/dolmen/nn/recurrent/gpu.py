"""One direction of one recurrent layer on a GPU as one differentiable operation, for what cuDNN has not.

A step is one matrix product and one kernel (``kernels.gpu``); the gradients of the weights are one product over all
steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from dolmen.nn.fp32 import dtype_of_products
from dolmen.nn.recurrent.cells import GATES, SAVED
from dolmen.nn.recurrent.kernels.gpu import backward_step, forward_step
from dolmen.nn.recurrent.state import for_kernels, named_gates

_NAMES = (
    "into", "state", "memory", "weight_hh", "bias_hh", "scale_hh", "cell_scale", "cell_shift", "state_start",
    "cell_start", "lengths", "reset", "keep_state", "keep_cell",
)  # fmt: skip


def run_fused(
    cell: str, into: Tensor, w: Mapping[str, Tensor | None], state: Tensor, memory: Tensor | None, reverse: bool,
    lengths: Tensor | None, reset: Tensor | None, starts: tuple[Tensor | None, Tensor | None],
    keep: tuple[Tensor | float, Tensor | float], return_gates: bool,
) -> tuple[Tensor, Tensor, Tensor | None, dict[str, Tensor]]:  # fmt: skip
    """Run a layer over a sequence; arguments and results as in ``loop.run``.

    Products are in the precision of autocast, or else of ``into``; sums, states and gates in fp32.
    """
    products, dtype = dtype_of_products(into), into.dtype
    given, rates = for_kernels(w, state, memory, starts, reset, keep)
    given |= {"into": into if w["scale_hh"] is not None else into.to(products), "lengths": lengths}
    states, cells, saved = _Fused.apply(cell, reverse, rates, return_gates, products, *(given[k] for k in _NAMES))
    out, last = (states[:-1], 0) if reverse else (states[1:], -1)
    gates = named_gates(cell, saved, states.shape[-1]) if return_gates else {}
    return out.to(dtype), states[last], cells[last] if memory is not None else None, gates


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, cell: str, reverse: bool, rates: tuple[float, float], gates: bool, products: torch.dtype,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        a = dict(zip(_NAMES, tensors, strict=True))
        into, weight, state = a["into"], a["weight_hh"], a["state"]
        assert into is not None
        assert weight is not None
        assert state is not None
        with torch.autocast(into.device.type, enabled=False):
            into = into.contiguous()
            (steps, batch), h = into.shape[:2], weight.shape[1]
            training = any(ctx.needs_input_grad)
            by = weight.detach().to(products).T
            order = range(steps - 1, -1, -1) if reverse else range(steps)
            held = {k: None if a[k] is None else a[k].detach().contiguous() for k in _NAMES[4:]}  # type: ignore[union-attr]
            zeros = state.new_zeros(GATES[cell] * h)
            for name in ("bias_hh", *(("state_start", "cell_start") if held["reset"] is not None else ())):
                held[name] = zeros if held[name] is None else held[name]
            states = state.new_empty(steps + 1, batch, h)
            cells = state.new_empty((steps + 1, batch, h) if cell == "lstm" else (1,))
            states[-1 if reverse else 0] = state
            if cell == "lstm":
                assert a["memory"] is not None
                cells[-1 if reverse else 0] = a["memory"]
            save = training or gates
            saved = state.new_empty((steps, batch, SAVED[cell] * h) if save else (1,))
            raw, before = torch.empty_like(into, dtype=products), into.new_empty(steps, batch, h, dtype=products)
            first = state
            if held["reset"] is not None:
                assert held["state_start"] is not None
                first = torch.where(held["reset"][order[0]][:, None] != 0, held["state_start"][:h], state)
            before[order[0]] = first
            run = _options(cell, held, reverse, h)
            for t in order:
                torch.mm(before[t], by, out=raw[t])
                following = t + order.step if 0 <= t + order.step < steps else -1
                forward_step[(batch,)](
                    into, raw, states, cells, before, saved, held["bias_hh"], *_given(held, states), t, following, h,
                    *rates, save=save, **run,
                )  # fmt: skip
        if training:
            ctx.cell, ctx.reverse, ctx.rates, ctx.held = cell, reverse, rates, held
            ctx.save_for_backward(into, weight, raw, states, cells, before, saved)
            ctx.mark_non_differentiable(saved)
            ctx.set_materialize_grads(False)
        return states, cells, saved

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the fused recurrent layers have no second derivative; build the layer with compiled=False for that"
            )
        into, weight, raw, states, cells, before, saved = ctx.saved_tensors
        cell, reverse, held = ctx.cell, ctx.reverse, ctx.held
        with torch.autocast(into.device.type, enabled=False):
            (steps, batch), h, lstm = into.shape[:2], weight.shape[1], cell == "lstm"
            norm, width = held["scale_hh"] is not None, GATES[cell] * weight.shape[1]
            order = range(steps) if reverse else range(steps - 1, -1, -1)
            d_states = torch.zeros_like(states) if gradients[0] is None else gradients[0].contiguous()
            first, last = (-1, 0) if reverse else (0, -1)
            d_last = states.new_zeros((batch, h) if lstm else (1,))
            if lstm and gradients[1] is not None:
                d_last.copy_(gradients[1][last])  # only the last memory is handed out
            direct, through = torch.empty_like(before, dtype=torch.float32), torch.empty_like(before)
            d_cells = torch.empty_like(direct) if lstm else direct
            d_shown = torch.empty_like(direct) if lstm and norm else direct
            d_into = torch.empty_like(into)
            d_part = torch.empty_like(into) if cell == "gru" else d_into
            d_raw = torch.empty_like(raw) if norm else d_part
            by = weight.detach().to(raw.dtype)
            run = _options(cell, held, reverse, h)
            following = -1
            for t in order:
                backward_step[(batch,)](
                    raw, states, cells, saved, *_given(held, states), d_states, direct, through, d_last, d_cells,
                    d_into, d_part, d_raw, d_shown, t, following, h, *ctx.rates, **run,
                )  # fmt: skip
                torch.mm(d_raw[t], by, out=through[t])
                following = t
            d_before = direct + through
            begins = None if held["reset"] is None else held["reset"][:, :, None] != 0

            def from_start(d: Tensor, given: Tensor | None) -> Tensor:
                """The gradient of the initial state, from those of what the steps start from."""
                d = d[order[-1]] if begins is None else d[order[-1]].masked_fill(begins[order[-1]], 0)
                return d if given is None else d + given[first]

            def from_resets(d: Tensor) -> Tensor | None:
                return None if begins is None else (d * begins).sum((0, 1))

            flat, parts = d_raw.view(-1, width), d_part.view(-1, width).float()
            out: dict[str, Tensor | None] = dict.fromkeys(_NAMES)
            out |= {
                "into": d_into,
                "state": from_start(d_before, d_states),
                "state_start": from_resets(d_before),
                "weight_hh": torch.mm(flat.T, before.view(-1, h)).to(weight.dtype),
                "bias_hh": parts.sum(0),
            }
            if lstm:
                out |= {"memory": from_start(d_cells, gradients[1]), "cell_start": from_resets(d_cells)}
            if norm:
                out["scale_hh"] = (parts * F.layer_norm(raw.float(), (width,)).view(-1, width)).sum(0)
                if lstm:
                    after = cells[:-1] if reverse else cells[1:]
                    out["cell_scale"] = (d_shown * F.layer_norm(after, (h,))).sum((0, 1))
                    out["cell_shift"] = d_shown.sum((0, 1))
        need = dict(zip(_NAMES, ctx.needs_input_grad[5:], strict=True))
        return None, None, None, None, None, *(out[name] if need[name] else None for name in _NAMES)


def _given(held: Mapping[str, Tensor | None], unread: Tensor) -> list[Tensor]:
    """The tensors of a kernel from ``scale`` to ``cell_start``; for a missing one, one that it never reads."""
    names = (
        "scale_hh", "cell_scale", "cell_shift", "keep_state", "keep_cell", "lengths", "reset", "state_start",
        "cell_start",
    )  # fmt: skip
    return [unread if (tensor := held[name]) is None else tensor for name in names]


def _options(cell: str, held: Mapping[str, Tensor | None], reverse: bool, h: int) -> dict[str, Any]:
    """The constants that the kernels are compiled for."""
    block = triton.next_power_of_2(h)
    return {
        "unit": cell, "norm": held["scale_hh"] is not None, "masks": held["keep_state"] is not None,
        "padded": held["lengths"] is not None, "resets": held["reset"] is not None, "reverse": reverse,
        "block": block, "num_warps": min(8, max(1, block // 128)),
    }  # fmt: skip
