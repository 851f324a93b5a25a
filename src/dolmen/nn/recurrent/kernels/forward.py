"""The plain unit, the LSTM and the GRU over a whole sequence.

A call computes a slice of the batch from the first step to the last, so that threads never wait for each other
between steps. The inputs' part of the gates is one matrix product over all steps beforehand (torch does it); in here
remain the product with the state and the arithmetic of the gates.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numba import carray, cfunc, njit

from dolmen.nn.recurrent.cells import GATES, SAVED, Cell
from dolmen.nn.recurrent.kernels.arithmetic import (
    CFUNC_OPTIONS,
    SIGNATURE,
    STAMP,
    cube,
    flags,
    moments,
    pointer,
    sigmoid,
    take_turn,
    tanh,
    vector,
)
from dolmen.nn.recurrent.kernels.products import OPTIONS, PANEL, from_halves, multiply_add, multiply_add_pairs, to_pairs


class Forward(NamedTuple):
    """Numbers of a forward call, all int64; addresses of C-contiguous float32 unless stated."""

    turn: int = 0  # counts up: which slice the next thread takes
    slices: int = 1
    steps: int = 0  # T
    batch: int = 0  # B
    hidden: int = 0  # H
    panels: int = 0
    reverse: int = 0  # 1: from the last step to the first
    save: int = 0  # 1: fill ``saved``
    has_lengths: int = 0
    has_reset: int = 0
    zone: int = 0  # 0 none, 1 by masks, 2 by expectation
    inputs: int = 0  # (T, B, gates H): the input's part of the gates; bf16 with ``pairs``, unless there is layer norm
    bias: int = 0  # (gates H), and (H) of the state's part of the GRU's new gate
    weights: int = 0  # panels of (H, gates H)
    halves: int = 0  # (T or 1, B, ceil(H / 2)) uint32, with ``pairs``: filled, the states that steps start from in bf16
    keep_halves: int = 0  # 1: each step has a place of its own in ``halves``
    states: int = 0  # (T + 1, B, H): the initial state is in the first slot (reverse: the last); the others are filled
    cells: int = 0  # (T + 1, B, H): as ``states``, LSTM
    saved: int = 0  # (T, B, SAVED H)
    lengths: int = 0  # (B) int64
    reset: int = 0  # (T, B) uint8
    state_start: int = 0  # (H): the state after a reset
    cell_start: int = 0  # (H)
    raw: int = 0  # (T, B, gates H): the state's part of the gates before layer norm
    scale: int = 0  # (gates H): of layer norm
    cell_scale: int = 0  # (H)
    cell_shift: int = 0  # (H)
    keep_state: int = 0  # (T, B, H) uint8: units that zoneout holds
    keep_cell: int = 0  # (T, B, H) uint8
    rates: int = 0  # (2): zoneout's rates of state and cell


F = Forward(*range(len(Forward._fields)))
"""Where each number is."""


@functools.cache
def forward(cell: Cell, layer_norm: bool, pairs: bool) -> int:
    """Compile (or fetch from the disk) a forward function for ``Forward``'s numbers; return its address.

    Args:
        cell: which.
        layer_norm: of the state's part of the gates, and of the LSTM's cell before its tanh.
        pairs: products in bf16 with fp32 sums.
    """
    lstm, gru, relu = cell == "lstm", cell == "gru", cell == "rnn_relu"
    gates, saves = GATES[cell], SAVED[cell]
    inputs_are_halves = pairs and not layer_norm
    apart = gru or layer_norm  # the inputs' part does not simply begin the sum
    stamp = STAMP  # in the closure: part of the key under which the compiled function is kept

    @cfunc(SIGNATURE, **CFUNC_OPTIONS)
    def work(d):
        while len(stamp) > 0:  # until there are no slices left
            turn = take_turn(d)
            if turn >= d[F.slices]:
                return
            slices, steps, batch, h = d[F.slices], d[F.steps], d[F.batch], d[F.hidden]
            start, end = batch * turn // slices, batch * (turn + 1) // slices
            m, n, k, width = end - start, gates * h, h, d[F.panels] * PANEL
            reverse, save, zone = d[F.reverse], d[F.save] != 0, d[F.zone]
            has_lengths, has_reset = d[F.has_lengths] != 0, d[F.has_reset] != 0
            bias = vector(d[F.bias], n + h)
            states, cells = cube(d[F.states], steps + 1, batch, h), cube(d[F.cells], steps + 1, batch, h)
            saved, raw = cube(d[F.saved], steps, batch, saves * h), cube(d[F.raw], steps, batch, n)
            lengths = carray(pointer(d[F.lengths]), (batch,), np.int64)
            reset = carray(pointer(d[F.reset]), (steps, batch), np.uint8)
            state_start, cell_start = vector(d[F.state_start], h), vector(d[F.cell_start], h)
            scale = vector(d[F.scale], n)
            cell_scale, cell_shift = vector(d[F.cell_scale], h), vector(d[F.cell_shift], h)
            keep_state, keep_cell = flags(d[F.keep_state], steps, batch, h), flags(d[F.keep_cell], steps, batch, h)
            rates = vector(d[F.rates], 2)

            sums = np.zeros((m, width), np.float32)
            even = k + k % 2
            before = np.zeros((m, even), np.float32)  # the states that this step starts from
            cells_before = np.zeros((m, h), np.float32)
            into = np.zeros((m if apart else 0, n), np.float32)
            source = steps if reverse else 0
            for i in range(m):
                before[i, :h] = states[source, start + i]
                if lstm:
                    cells_before[i] = cells[source, start + i]

            for step in range(steps):
                t = steps - 1 - step if reverse else step
                target = t if reverse else t + 1
                for i in range(m):
                    b, row = start + i, sums[i]
                    if has_reset and reset[t, b]:
                        before[i, :h] = state_start
                        if lstm:
                            cells_before[i] = cell_start
                    x = into[i] if apart else row
                    if inputs_are_halves:
                        half_inputs = carray(pointer(d[F.inputs]), (steps, batch, n), np.uint16)
                        from_halves(half_inputs[t, b], x.view(np.uint32), n)
                        for j in range(n):
                            x[j] += bias[j]
                    else:
                        inputs = cube(d[F.inputs], steps, batch, n)[t, b]
                        for j in range(n):
                            x[j] = inputs[j] + bias[j]
                    if layer_norm:
                        for j in range(n):
                            row[j] = 0
                    elif gru:
                        for j in range(2 * h):
                            row[j] = x[j]
                        for j in range(h):
                            row[2 * h + j] = bias[n + j]
                if pairs:
                    place = (t * batch if d[F.keep_halves] else 0) + start
                    halves = carray(pointer(d[F.halves] + 2 * place * even), (m, even // 2), np.uint32)
                    for i in range(m):
                        to_pairs(before[i], before[i].view(np.uint32), halves[i], even)
                    panels = carray(pointer(d[F.weights]), (d[F.panels], even // 2, PANEL), np.uint32)
                    multiply_add_pairs(halves.reshape(-1), even // 2, panels, sums)
                else:
                    panels32 = cube(d[F.weights], d[F.panels], k, PANEL)
                    multiply_add(before.reshape(-1), even, panels32, sums)
                for i in range(m):
                    b, row, old, out = start + i, sums[i], before[i], states[target, start + i]
                    if has_lengths and t >= lengths[b]:  # the state waits
                        for j in range(h):
                            out[j] = old[j]
                        if lstm:
                            cells[target, b] = cells_before[i]
                        continue
                    x = into[i] if apart else row
                    if layer_norm:
                        if save:
                            raw[t, b] = row[:n]
                        mean, inverse = moments(row, n)
                        own = 2 * h if gru else n
                        for j in range(n):
                            row[j] = (row[j] - mean) * inverse * scale[j]
                        for j in range(own):
                            row[j] += x[j]
                        if gru:
                            for j in range(h):
                                row[own + j] += bias[n + j]
                    if lstm:
                        lstm_forward(
                            row, old, out, cells_before[i], cells[target, b], saved[t, b], save, h, layer_norm,
                            cell_scale, cell_shift, zone, keep_cell[t, b], rates[1],
                        )  # fmt: skip
                    elif gru:
                        gru_forward(row, x, old, out, saved[t, b], save, h)
                    elif relu:
                        for j in range(h):
                            out[j] = max(row[j], np.float32(0)) if row[j] == row[j] else row[j]
                    else:
                        for j in range(h):
                            out[j] = tanh(row[j])
                    if save and not (lstm or gru):
                        saved[t, b] = out
                    if zone == 1:
                        keep = keep_state[t, b]
                        for j in range(h):
                            out[j] = old[j] if keep[j] else out[j]
                    elif zone == 2:
                        for j in range(h):
                            out[j] += rates[0] * (old[j] - out[j])
                    for j in range(h):
                        old[j] = out[j]

    return int(work.address)


@njit(inline="always", **OPTIONS)
def gru_forward(row, x, old, out, saved, save, h):
    """The gates of one row: ``row`` holds reset and update whole, and the state's part of the new gate."""
    reset, update, part, new_x = row[:h], row[h : 2 * h], row[2 * h : 3 * h], x[2 * h :]
    if save:
        kept_r, kept_z, kept_n, kept_part = saved[:h], saved[h : 2 * h], saved[2 * h : 3 * h], saved[3 * h :]
        for j in range(h):
            r, z, part_j = sigmoid(reset[j]), sigmoid(update[j]), part[j]
            new = tanh(new_x[j] + r * part_j)
            out[j] = new + z * (old[j] - new)
            kept_r[j], kept_z[j], kept_n[j], kept_part[j] = r, z, new, part_j
    else:
        for j in range(h):
            new = tanh(new_x[j] + sigmoid(reset[j]) * part[j])
            out[j] = new + sigmoid(update[j]) * (old[j] - new)


@njit(inline="always", **OPTIONS)
def lstm_forward(
    row, old, out, cell_before, cell, saved, save, h, layer_norm, cell_scale, cell_shift, zone, keep, rate
):
    """The gates of one row; ``cell_before`` becomes the new cell as well, ``row`` the activated gates."""
    into, forget, new, outward = row[:h], row[h : 2 * h], row[2 * h : 3 * h], row[3 * h : 4 * h]
    # Loops that write to one place each: in one, the compiler gave up on telling them apart, and so on vectors.
    for j in range(2 * h):
        row[j] = sigmoid(row[j])
    for j in range(h):
        new[j] = tanh(new[j])
    for j in range(h):
        outward[j] = sigmoid(outward[j])
    for j in range(h):
        cell[j] = forget[j] * cell_before[j] + into[j] * new[j]
    if zone == 1:
        for j in range(h):
            cell[j] = cell_before[j] if keep[j] else cell[j]
    elif zone == 2:
        for j in range(h):
            cell[j] += rate * (cell_before[j] - cell[j])
    for j in range(h):
        cell_before[j] = cell[j]
    if layer_norm:
        mean, inverse = moments(cell, h)
        for j in range(h):
            out[j] = outward[j] * tanh((cell[j] - mean) * inverse * cell_scale[j] + cell_shift[j])
    else:
        for j in range(h):
            out[j] = outward[j] * tanh(cell[j])
    if save:
        for j in range(4 * h):
            saved[j] = row[j]
