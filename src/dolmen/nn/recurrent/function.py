"""One direction of one recurrent layer as one differentiable operation, on the compiled cells.

The products with all inputs, and the gradients of the weights, are one matrix product each over all steps; what is
left between the steps is compiled (``kernels``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dolmen.nn.fp32 import quick_products, quickly
from dolmen.nn.recurrent.cells import GATES, SAVED, Cell
from dolmen.nn.recurrent.kernels import products, team
from dolmen.nn.recurrent.kernels.backward import GRADS, Backward, backward, sizes_of_sums
from dolmen.nn.recurrent.kernels.forward import Forward, forward
from dolmen.nn.recurrent.state import for_kernels, named_gates

_NAMES = (
    "x", "state", "memory", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "state_start", "cell_start",
    "scale_hh", "cell_scale", "cell_shift", "lengths", "reset", "keep_state", "keep_cell",
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """The settings of one direction of a layer.

    Attributes:
        cell: which.
        reverse: from the last step to the first.
        layer_norm: of the state's part of the gates and of the LSTM's cell.
        zoneout: rates of state and cell; in training the masks decide.
        pairs: products in bf16, sums, state and gates in fp32.
        gates: the activated gates are wanted.
    """

    cell: Cell
    reverse: bool = False
    layer_norm: bool = False
    zoneout: tuple[float, float] = (0.0, 0.0)
    pairs: bool = False
    gates: bool = False


def run_layer(layer: Layer, **tensors: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run a layer over a sequence.

    Args:
        layer: which, and how.
        tensors: on the CPU, float32 unless stated; None where there is none:
            x (T, B, I), or (T, B, gates H) with weight_ih None: the input's part, without any bias;
            state, memory (B, H); weight_ih (gates H, I); weight_hh (gates H, H); bias_ih, bias_hh (gates H);
            state_start, cell_start (H): after a reset; scale_hh (gates H), cell_scale, cell_shift (H): of layer norm;
            lengths (B) int64; reset (T, B) uint8; keep_state, keep_cell (T, B, H) uint8: what zoneout holds.

    Returns:
        (T + 1, B, H) states, the initial one first (``reverse``: last); the same of the LSTM's cells, else an empty
        tensor; (T, B, ...) activated gates if asked for.
    """
    states, kept_cells, gates = _Recurrence.apply(layer, *(tensors.get(name) for name in _NAMES))
    return states, kept_cells, gates


def run_compiled(
    cell: str, x: Tensor, w: Mapping[str, Tensor | None], state: Tensor, memory: Tensor | None, reverse: bool,
    lengths: Tensor | None, reset: Tensor | None, starts: tuple[Tensor | None, Tensor | None],
    keep: tuple[Tensor | float, Tensor | float], return_gates: bool,
) -> tuple[Tensor, Tensor, Tensor | None, dict[str, Tensor]]:  # fmt: skip
    """``run_layer`` for a layer's parameters by name; arguments as in ``loop.run``.

    Under autocast, or with bfloat16 inputs, products are in bf16 where the machine multiplies it.

    Returns:
        (T, B, H) outputs in the input's precision, (B, H) last state, (B, H) last memory, gates by name.
    """
    half = torch.is_autocast_enabled("cpu") or x.dtype == torch.bfloat16
    given, rates = for_kernels(w, state, memory, starts, reset, keep)
    into, weight_ih, norm = x.float(), given["weight_ih"], w["scale_hh"] is not None
    if norm:
        assert weight_ih is not None
        (into,) = quickly(lambda *factors: (F.linear(*factors).float(),), into, weight_ih)
        into, given["weight_ih"] = F.layer_norm(into, into.shape[-1:], given["scale_ih"]), None
    layer = Layer(cell, reverse, norm, rates, half and products.HAS_BF16, return_gates)  # type: ignore[arg-type]
    states, cells, saved = run_layer(layer, x=into, lengths=lengths, **given)
    out, last = (states[:-1], 0) if reverse else (states[1:], -1)
    gates = named_gates(cell, saved, states.shape[-1]) if return_gates and saved is not None else {}
    return out.to(x.dtype), states[last], cells[last] if memory is not None else None, gates


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: Layer, *tensors: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        a = dict(zip(_NAMES, tensors, strict=True))
        x, w = a["x"], a["weight_hh"]
        assert x is not None
        assert w is not None
        assert a["state"] is not None
        with quick_products(), torch.autocast("cpu", enabled=False):
            (steps, batch), h = x.shape[:2], w.shape[1]
            gru, training = layer.cell == "gru", any(ctx.needs_input_grad)
            bias = torch.cat(joined_bias(a, h, gru))
            if layer.pairs and a["weight_ih"] is not None:
                x = x.to(torch.bfloat16, memory_format=torch.contiguous_format)
            inputs = (x if a["weight_ih"] is None else F.linear(x, a["weight_ih"].to(x.dtype))).contiguous()
            halves = torch.empty(
                (steps if training else 1, batch, h + h % 2) if layer.pairs else (0,), dtype=torch.bfloat16
            )
            states = torch.empty(steps + 1, batch, h)
            states[-1 if layer.reverse else 0] = a["state"]
            kept = torch.empty((steps + 1, batch, h) if layer.cell == "lstm" else (0,))
            if a["memory"] is not None:
                kept[-1 if layer.reverse else 0] = a["memory"]
            norm = layer.layer_norm
            # Of a plain unit without more, its new state is enough for the backward pass.
            simple = layer.cell.startswith("rnn") and not norm and _zone(layer, a) == 0
            save = layer.gates or (training and not simple)
            saved = torch.empty((steps, batch, SAVED[layer.cell] * h) if save else (0,))
            # What a padded step leaves empty is multiplied by a gradient of 0 later: it must not be NaN.
            made = torch.empty if a["lengths"] is None else torch.zeros
            raw = made(inputs.shape if norm and save else (0,))
            panels = pack_columns(w, layer.pairs)
            rates = torch.tensor(layer.zoneout)
            held = {k: _plain(a[k]) for k in _NAMES[7:]}
            if a["reset"] is not None:
                held |= {k: torch.zeros(h) for k in ("state_start", "cell_start") if held[k] is None}
            numbers = Forward(
                steps=steps,
                batch=batch,
                hidden=h,
                panels=len(panels),
                reverse=int(layer.reverse),
                save=int(save),
                has_lengths=int(a["lengths"] is not None),
                has_reset=int(a["reset"] is not None),
                zone=_zone(layer, a),
                inputs=inputs.data_ptr(),
                bias=bias.data_ptr(),
                weights=panels.data_ptr(),
                halves=halves.data_ptr(),
                keep_halves=int(training),
                states=states.data_ptr(),
                cells=kept.data_ptr(),
                saved=saved.data_ptr(),
                raw=raw.data_ptr(),
                rates=rates.data_ptr(),
                **_addresses(held, Forward),
            )
            team.run(forward(layer.cell, norm, layer.pairs), numbers, torch.get_num_threads())
        if training:
            ctx.layer, ctx.held = layer, held
            ctx.save_for_backward(x, *tensors[1:], states, kept, saved, raw, halves)
            ctx.mark_non_differentiable(saved)
            ctx.set_materialize_grads(False)
        return states, kept, saved

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        *tensors, states, kept, saved, raw, halves = ctx.saved_tensors
        layer: Layer = ctx.layer
        a = dict(zip(_NAMES, tensors, strict=True))
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the compiled recurrent layers have no second derivative; build the layer with compiled=False for that"
            )
        x, w, held = a["x"], a["weight_hh"], ctx.held
        with quick_products(), torch.autocast("cpu", enabled=False):
            (steps, batch), h = x.shape[:2], w.shape[1]
            lstm, gates, blocks = layer.cell == "lstm", GATES[layer.cell], GRADS[layer.cell]
            d_states, d_kept = gradients[0], gradients[1]
            d_states = torch.zeros(states.shape) if d_states is None else d_states.contiguous()
            first, last = (-1, 0) if layer.reverse else (0, -1)
            d_outputs = d_states[:-1] if layer.reverse else d_states[1:]
            d_state = torch.zeros(batch, h)
            d_cell = torch.zeros((batch, h) if lstm else (0,))
            if lstm and d_kept is not None:
                d_cell.copy_(d_kept[last])  # only the last cell is handed out
            norm, threads = layer.layer_norm, torch.get_num_threads()
            if layer.pairs and not norm:
                d_gates = torch.empty(steps, batch, blocks * h + blocks * h % 2, dtype=torch.bfloat16)
            else:
                d_gates = torch.empty(steps, batch, blocks * h)
            sums = [size * h for size in sizes_of_sums(layer.cell, norm)]
            d_sums = torch.zeros(threads, sum(sums))
            d_raw = torch.empty((steps, batch, gates * h) if norm else (0,))
            d_start = torch.zeros((2, batch, h) if a["reset"] is not None else (2, 0))
            panels = pack_rows(w, layer.pairs)
            rates = torch.tensor(layer.zoneout)
            numbers = Backward(
                steps=steps,
                batch=batch,
                hidden=h,
                panels=len(panels),
                reverse=int(layer.reverse),
                has_lengths=int(a["lengths"] is not None),
                has_reset=int(a["reset"] is not None),
                zone=_zone(layer, a),
                d_outputs=d_outputs.data_ptr(),
                d_state=d_state.data_ptr(),
                d_cell=d_cell.data_ptr(),
                weights=panels.data_ptr(),
                states=states.data_ptr(),
                cells=kept.data_ptr(),
                saved=saved.data_ptr(),
                raw=raw.data_ptr(),
                rates=rates.data_ptr(),
                d_gates=d_gates.data_ptr(),
                d_sums=d_sums.data_ptr(),
                d_raw=d_raw.data_ptr(),
                d_state_start=d_start[0].data_ptr(),
                d_cell_start=d_start[1].data_ptr(),
                **_addresses(held, Backward),
            )
            team.run(backward(layer.cell, norm, layer.pairs), numbers, threads)
            d_state += d_states[first]
            if lstm and d_kept is not None:
                d_cell += d_kept[first]

            flat = d_gates.view(steps * batch, -1)[:, : blocks * h]
            of_inputs, of_state = flat[:, : gates * h], flat[:, (blocks - gates) * h :]
            if layer.pairs:
                before = halves[:, :, :h]
            else:
                before = states[1:] if layer.reverse else states[:-1]
                if a["reset"] is not None:
                    start = torch.zeros(h) if a["state_start"] is None else a["state_start"]
                    before = torch.where(a["reset"][:, :, None] != 0, start, before)
            before = before.reshape(steps * batch, h)
            through = d_raw.view(steps * batch, -1) if norm else of_state
            of_bias, *of_norms = torch.split(d_sums.sum(0), sums)
            need = dict(zip(_NAMES, ctx.needs_input_grad[1:], strict=True))
            out: dict[str, Tensor | None] = dict.fromkeys(_NAMES)
            gru = layer.cell == "gru"
            if a["weight_ih"] is None:
                out["x"] = _rolled(of_inputs, h, gru, axis=1).reshape(x.shape)
            else:
                if need["x"]:
                    weight = _rolled(a["weight_ih"], -h, gru)
                    out["x"] = torch.mm(of_inputs, weight.to(flat.dtype)).float().view(x.shape)
                out["weight_ih"] = _rolled(_weight_gradient(of_inputs, x.reshape(steps * batch, -1)), h, gru)
            out["weight_hh"] = _weight_gradient(through.to(before.dtype), before)
            if need["bias_ih"] or need["bias_hh"]:
                out["bias_ih"] = _rolled(of_bias[: gates * h], h, gru)
                out["bias_hh"] = of_bias[(blocks - gates) * h :]
            out["state"], out["memory"] = d_state, d_cell if lstm else None
            if need["state_start"] and a["reset"] is not None:
                out["state_start"] = d_start[0].sum(0)
            if need["cell_start"] and a["reset"] is not None:
                out["cell_start"] = d_start[1].sum(0)
            out |= zip(("scale_hh", "cell_scale", "cell_shift"), of_norms, strict=False)  # none without layer norm
        return None, *(out[name] if need[name] else None for name in _NAMES)


def pack_columns(weight: Tensor, pairs: bool) -> Tensor:
    """Panels for ``state @ weight.T``; (N, K) -> (P, K, PANEL), or with pairs (P, ceil(K / 2), PANEL) of two bf16."""
    n, k = weight.shape
    padded = _padded(weight, -n % products.PANEL, k % 2 if pairs else 0)
    if pairs:
        padded = padded.bfloat16().view(torch.int32)
    return padded.view(-1, products.PANEL, padded.shape[1]).transpose(1, 2).contiguous()


def pack_rows(weight: Tensor, pairs: bool) -> Tensor:
    """Panels for ``gradient @ weight``; (K, N) -> as ``pack_columns``."""
    k, n = weight.shape
    padded = _padded(weight, k % 2 if pairs else 0, -n % products.PANEL)
    if not pairs:
        return padded.view(k, -1, products.PANEL).transpose(0, 1).contiguous()
    panels = padded.bfloat16().view((k + 1) // 2, 2, -1, products.PANEL).permute(2, 0, 3, 1).contiguous()
    return panels.view(torch.int32).squeeze(-1)


def _padded(weight: Tensor, rows: int, columns: int) -> Tensor:
    """Contiguous, with so many more rows and columns of zeros."""
    weight = weight.detach().contiguous()
    return F.pad(weight, (0, columns, 0, rows)) if rows or columns else weight


def _weight_gradient(gradient: Tensor, values: Tensor) -> Tensor:
    """(N, K) float32: ``gradient.T @ values`` of (T B, N) and (T B, K)."""
    return torch.mm(gradient.T, values).float()


def joined_bias(a: Mapping[str, Tensor | None], h: int, gru: bool) -> tuple[Tensor, Tensor]:
    """(gates H) the bias that joins the inputs' part, and (H) that of the state's part of the GRU's new gate."""
    into, back = a["bias_ih"], a["bias_hh"]
    if into is None or back is None:
        weight = a["weight_hh"]
        assert weight is not None
        return torch.zeros(len(weight)), torch.zeros(h)
    if not gru:
        return into + back, torch.zeros(h)
    joined = into.clone()
    joined[: 2 * h] += back[: 2 * h]
    return joined, back[2 * h :].contiguous()


def _rolled(values: Tensor, h: int, gru: bool, axis: int = 0) -> Tensor:
    """The GRU's gradients come in the order new, reset, update: bring them into torch's; with -h the other way."""
    return values.roll(-h, axis) if gru else values


def _zone(layer: Layer, a: dict[str, Tensor | None]) -> int:
    if a["keep_state"] is not None or a["keep_cell"] is not None:
        return 1
    return 2 if any(layer.zoneout) else 0


def _plain(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().contiguous()


def _addresses(held: dict[str, Tensor | None], kind: type[Forward] | type[Backward]) -> dict[str, int]:
    """Addresses of the optional tensors; where there is none, 0 (never read, but for the starts: zeros)."""
    names = {"scale_hh": "scale"}
    return {
        names.get(k, k): 0 if v is None else v.data_ptr() for k, v in held.items() if names.get(k, k) in kind._fields
    }
