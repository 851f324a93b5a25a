"""The gradients of ``forward``: of the gates before their activations, of the initial state, of layer norm's input.

The gradients of inputs and weights are matrix products over all steps, which torch does afterwards.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numba import carray, cfunc, njit

from dolmen.nn.recurrent.cells import GATES, SAVED, Cell
from dolmen.nn.recurrent.kernels.arithmetic import (
    CFUNC_OPTIONS,
    ONE,
    SIGNATURE,
    STAMP,
    cube,
    flags,
    moments,
    pointer,
    take_turn,
    tanh,
    vector,
)
from dolmen.nn.recurrent.kernels.products import OPTIONS, PANEL, multiply_add, multiply_add_pairs, to_pairs

GRADS: dict[str, int] = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 4}
"""Blocks of the gradient before the activations; the GRU's new gate has one for the input's part (first) and one for
the state's part (last)."""


class Backward(NamedTuple):
    """Numbers of a backward call; what has the same name as in ``Forward`` is the same."""

    turn: int = 0
    slices: int = 1
    steps: int = 0
    batch: int = 0
    hidden: int = 0
    panels: int = 0
    reverse: int = 0
    has_lengths: int = 0
    has_reset: int = 0
    zone: int = 0
    d_outputs: int = 0  # (T, B, H)
    d_state: int = 0  # (B, H): of the last state; becomes that of the initial one
    d_cell: int = 0  # (B, H)
    weights: int = 0  # panels of (gates H, H)
    states: int = 0
    cells: int = 0
    saved: int = 0
    lengths: int = 0
    reset: int = 0
    state_start: int = 0
    cell_start: int = 0
    raw: int = 0
    scale: int = 0
    cell_scale: int = 0
    cell_shift: int = 0
    keep_state: int = 0
    keep_cell: int = 0
    rates: int = 0
    d_gates: int = 0  # (T, B, GRADS H): filled; with ``pairs``, unless there is layer norm, bf16, and of an even width
    d_sums: int = 0  # (slices, sum of ``sizes_of_sums`` H): added up
    d_raw: int = 0  # (T, B, gates H): filled, with layer norm
    d_state_start: int = 0  # (B, H): added up
    d_cell_start: int = 0  # (B, H)


B = Backward(*range(len(Backward._fields)))
"""Where each number is."""


def sizes_of_sums(cell: str, layer_norm: bool) -> tuple[int, ...]:
    """How many H wide the gradients that are summed over steps and batch are: bias; scale, cell_scale, cell_shift."""
    return (GRADS[cell], GATES[cell], 1, 1) if layer_norm else (GRADS[cell],)


@functools.cache
def backward(cell: Cell, layer_norm: bool, pairs: bool) -> int:
    """Compile (or fetch from the disk) a backward function for ``Backward``'s numbers; return its address."""
    lstm, gru, relu = cell == "lstm", cell == "gru", cell == "rnn_relu"
    gates, saves, blocks, sums = GATES[cell], SAVED[cell], GRADS[cell], sum(sizes_of_sums(cell, layer_norm))
    in_halves = pairs and not layer_norm  # what the products that follow need
    stamp = STAMP  # in the closure: part of the key under which the compiled function is kept

    @cfunc(SIGNATURE, **CFUNC_OPTIONS)
    def work(d):
        while len(stamp) > 0:  # until there are no slices left
            turn = take_turn(d)
            if turn >= d[B.slices]:
                return
            slices, steps, batch, h = d[B.slices], d[B.steps], d[B.batch], d[B.hidden]
            start, end = batch * turn // slices, batch * (turn + 1) // slices
            m, n, width = end - start, gates * h, d[B.panels] * PANEL
            reverse, zone = d[B.reverse], d[B.zone]
            has_lengths, has_reset = d[B.has_lengths] != 0, d[B.has_reset] != 0
            d_outputs = cube(d[B.d_outputs], steps, batch, h)
            d_state, d_cell = cube(d[B.d_state], 1, batch, h)[0], cube(d[B.d_cell], 1, batch, h)[0]
            states, cells = cube(d[B.states], steps + 1, batch, h), cube(d[B.cells], steps + 1, batch, h)
            saved, raw = cube(d[B.saved], steps, batch, saves * h), cube(d[B.raw], steps, batch, n)
            lengths = carray(pointer(d[B.lengths]), (batch,), np.int64)
            reset = carray(pointer(d[B.reset]), (steps, batch), np.uint8)
            state_start, cell_start = vector(d[B.state_start], h), vector(d[B.cell_start], h)
            scale = vector(d[B.scale], n)
            cell_scale, cell_shift = vector(d[B.cell_scale], h), vector(d[B.cell_shift], h)
            keep_state, keep_cell = flags(d[B.keep_state], steps, batch, h), flags(d[B.keep_cell], steps, batch, h)
            rates = vector(d[B.rates], 2)
            d_gates, d_raw = cube(d[B.d_gates], steps, batch, blocks * h), cube(d[B.d_raw], steps, batch, n)
            wide = (blocks * h + 1) // 2
            half_gates = carray(pointer(d[B.d_gates]), (steps, batch, wide), np.uint32)
            d_sums = cube(d[B.d_sums], 1, slices, sums * h)[0, turn]
            d_state_start = cube(d[B.d_state_start], 1, batch, h)[0]
            d_cell_start = cube(d[B.d_cell_start], 1, batch, h)[0]

            even = n + n % 2
            first = (blocks - gates) * h  # the state's part of the gates begins here
            back = np.zeros((m, width), np.float32)  # gradient of the state that comes from the step after
            factors = np.zeros((m, even), np.float32)
            halves = np.zeros((m, even // 2), np.uint32)
            total = np.zeros(h, np.float32)
            whole = np.zeros(2 * wide, np.float32)  # one row of the gates' gradient
            sums_now = np.zeros(sums * h, np.float32)  # of one step
            bias_now, scale_now = sums_now[: blocks * h], sums_now[blocks * h :]
            cell_scale_now, cell_shift_now = scale_now[n:], scale_now[n + h :]
            d_normed = np.zeros(h if layer_norm else 0, np.float32)
            for i in range(m):
                back[i, :h] = d_state[start + i]

            for step in range(steps):
                t = step if reverse else steps - 1 - step
                target, source = (t, t + 1) if reverse else (t + 1, t)
                sums_now[:] = 0
                for i in range(m):
                    b, row = start + i, back[i]
                    seen = d_outputs[t, b]
                    if has_lengths and t >= lengths[b]:
                        for j in range(h):
                            row[j] += seen[j]
                        if in_halves:
                            half_gates[t, b] = 0
                        else:
                            d_gates[t, b] = 0
                        factors[i] = 0
                        halves[i] = 0
                        if layer_norm:
                            d_raw[t, b] = 0
                        continue
                    fresh = has_reset and reset[t, b]
                    old = state_start if fresh else states[source, b]
                    g = whole if in_halves else d_gates[t, b]
                    for j in range(h):
                        total[j] = row[j] + seen[j]
                        row[j] = 0
                    if zone == 1:
                        keep = keep_state[t, b]
                        for j in range(h):
                            row[j] = total[j] if keep[j] else np.float32(0)
                            total[j] = np.float32(0) if keep[j] else total[j]
                    elif zone == 2:
                        for j in range(h):
                            row[j] = total[j] * rates[0]
                            total[j] *= ONE - rates[0]
                    if lstm:
                        lstm_backward(
                            total, d_cell[b], saved[t, b], cell_start if fresh else cells[source, b], cells[target, b],
                            g, h, layer_norm, cell_scale, cell_shift, d_normed, cell_scale_now, cell_shift_now, zone,
                            keep_cell[t, b], rates[1],
                        )  # fmt: skip
                    elif gru:
                        gru_backward(total, row, saved[t, b], old, g, h)
                    else:
                        out = states[target, b]
                        if zone:
                            out = saved[t, b]
                        for j in range(h):
                            if relu:
                                g[j] = total[j] if out[j] > 0 else np.float32(0)
                            else:
                                g[j] = total[j] * (ONE - out[j] * out[j])
                    for j in range(blocks * h):
                        bias_now[j] += g[j]
                    if layer_norm:
                        normalise_backward(g[first:], raw[t, b], scale, d_raw[t, b], scale_now, n)
                        for j in range(n):
                            factors[i, j] = d_raw[t, b, j]
                    elif not in_halves or first:
                        for j in range(n):
                            factors[i, j] = g[first + j]
                    if in_halves:
                        to_pairs(whole, whole.view(np.uint32), half_gates[t, b], 2 * wide)
                        if not first:
                            halves[i] = half_gates[t, b]
                    if pairs and (layer_norm or first):
                        to_pairs(factors[i], factors[i].view(np.uint32), halves[i], even)
                for j in range(sums * h):
                    d_sums[j] += sums_now[j]
                if pairs:
                    panels = carray(pointer(d[B.weights]), (d[B.panels], even // 2, PANEL), np.uint32)
                    multiply_add_pairs(halves.reshape(-1), even // 2, panels, back)
                else:
                    panels32 = cube(d[B.weights], d[B.panels], n, PANEL)
                    multiply_add(factors.reshape(-1), even, panels32, back)
                if has_reset:
                    for i in range(m):
                        b = start + i
                        if reset[t, b]:
                            for j in range(h):
                                d_state_start[b, j] += back[i, j]
                                back[i, j] = 0
                            if lstm:
                                for j in range(h):
                                    d_cell_start[b, j] += d_cell[b, j]
                                    d_cell[b, j] = 0
            for i in range(m):
                for j in range(h):
                    d_state[start + i, j] = back[i, j]

    return int(work.address)


@njit(inline="always", **OPTIONS)
def gru_backward(total, row, saved, old, g, h):
    """From the gradient of one row's new state to that of its gates and of the state before."""
    kept_r, kept_z, kept_n, kept_part = saved[:h], saved[h : 2 * h], saved[2 * h : 3 * h], saved[3 * h :]
    g_new, g_reset, g_update, g_part = g[:h], g[h : 2 * h], g[2 * h : 3 * h], g[3 * h :]
    for j in range(h):
        d, r, z, new = total[j], kept_r[j], kept_z[j], kept_n[j]
        d_new = d * (ONE - z) * (ONE - new * new)
        g_update[j] = d * (old[j] - new) * z * (ONE - z)
        g_reset[j] = d_new * kept_part[j] * r * (ONE - r)
        g_new[j] = d_new
        g_part[j] = d_new * r
        row[j] += d * z


@njit(inline="always", **OPTIONS)
def lstm_backward(
    total, d_cell, saved, cell_before, cell, g, h, layer_norm, cell_scale, cell_shift, d_normed, d_scale, d_shift,
    zone, keep, rate,
):  # fmt: skip
    """From the gradient of one row's new state and cell to that of its gates and of the cell before."""
    into, forget, new, outward = saved[:h], saved[h : 2 * h], saved[2 * h : 3 * h], saved[3 * h :]
    g_into, g_forget, g_new, g_outward = g[:h], g[h : 2 * h], g[2 * h : 3 * h], g[3 * h :]
    if layer_norm:
        mean, inverse = moments(cell, h)
        for j in range(h):
            squashed = tanh((cell[j] - mean) * inverse * cell_scale[j] + cell_shift[j])
            o = outward[j]
            g_outward[j] = total[j] * squashed * o * (ONE - o)
            d_normed[j] = total[j] * o * (ONE - squashed * squashed)
        normalise_backward(d_normed, cell, cell_scale, total, d_scale, h)
        for j in range(h):
            d_shift[j] += d_normed[j]
    else:
        for j in range(h):
            squashed, o = tanh(cell[j]), outward[j]
            g_outward[j] = total[j] * squashed * o * (ONE - o)
            total[j] = total[j] * o * (ONE - squashed * squashed)
    for j in range(h):
        total[j] += d_cell[j]
        d_cell[j] = 0
    if zone == 1:
        for j in range(h):
            d_cell[j] = total[j] if keep[j] else np.float32(0)
            total[j] = np.float32(0) if keep[j] else total[j]
    elif zone == 2:
        for j in range(h):
            d_cell[j] = total[j] * rate
            total[j] *= ONE - rate
    for j in range(h):
        d, i, f, n = total[j], into[j], forget[j], new[j]
        g_into[j] = d * n * i * (ONE - i)
        g_forget[j] = d * cell_before[j] * f * (ONE - f)
        g_new[j] = d * i * (ONE - n * n)
        d_cell[j] += d * f


@njit(inline="always", **OPTIONS)
def normalise_backward(d, x, scale, out, d_scale, n):
    """The gradient before layer norm, from the one after it; that of its scale is added up."""
    mean, inverse = moments(x, n)
    along, across = np.float32(0), np.float32(0)
    for j in range(n):
        g = d[j] * scale[j]
        along += g
        across += g * (x[j] - mean) * inverse
    along, across = along / np.float32(n), across / np.float32(n)
    for j in range(n):
        out[j] = inverse * (d[j] * scale[j] - along - (x[j] - mean) * inverse * across)
    for j in range(n):
        d_scale[j] += d[j] * (x[j] - mean) * inverse
