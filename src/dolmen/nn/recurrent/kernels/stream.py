"""One step of a stack of layers, in place and without any allocation: for streams, where every microsecond counts."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numba import carray, cfunc, njit

from dolmen.nn.recurrent.cells import GATES, Cell
from dolmen.nn.recurrent.kernels.arithmetic import (
    CFUNC_OPTIONS,
    SIGNATURE,
    STAMP,
    cube,
    moments,
    pointer,
    take_turn,
    tanh,
    vector,
)
from dolmen.nn.recurrent.kernels.forward import gru_forward, lstm_forward
from dolmen.nn.recurrent.kernels.products import OPTIONS, PANEL, multiply_add


class Step(NamedTuple):
    """Numbers of a call, all int64, followed by one ``StepLayer`` for each layer."""

    turn: int = 0
    slices: int = 1
    layers: int = 1
    batch: int = 1
    hidden: int = 0  # H
    panels: int = 0  # of gates H columns
    layer_norm: int = 0
    rates: int = 0  # (2) float32: zoneout


class StepLayer(NamedTuple):
    """Addresses of C-contiguous float32 of one layer."""

    size: int = 0  # features of the input, no address
    x: int = 0  # (B, size)
    weight_ih: int = 0  # panels of (size, gates H)
    weight_hh: int = 0  # panels of (H, gates H)
    bias: int = 0  # (gates H): what joins the input's part
    own_bias: int = 0  # (gates H): what joins the state's part
    scale_ih: int = 0  # (gates H) of layer norm
    scale_hh: int = 0
    cell_scale: int = 0  # (H)
    cell_shift: int = 0
    state: int = 0  # (B, H): replaced
    cell: int = 0  # (B, H): replaced, LSTM
    into: int = 0  # (B, panels * PANEL): scratch
    back: int = 0  # the same
    fresh: int = 0  # (2, H): scratch


S, L = Step(*range(len(Step._fields))), StepLayer(*range(len(StepLayer._fields)))
_HEAD, _EACH = len(Step._fields), len(StepLayer._fields)


@functools.cache
def step(cell: Cell) -> int:
    """Compile (or fetch from the disk) the step of a cell; return its address."""
    lstm, gru, relu, gates = cell == "lstm", cell == "gru", cell == "rnn_relu", GATES[cell]
    stamp = STAMP  # in the closure: part of the key under which the compiled function is kept

    @cfunc(SIGNATURE, **CFUNC_OPTIONS)
    def work(d):
        while len(stamp) > 0:  # until there are no slices left
            turn = take_turn(d)
            if turn >= d[S.slices]:
                return
            batch, h, panels, layer_norm = d[S.batch], d[S.hidden], d[S.panels], d[S.layer_norm] != 0
            n, width = gates * h, panels * PANEL
            rates = vector(d[S.rates], 2)
            zone = 2 if rates[0] != 0 or rates[1] != 0 else 0
            for layer in range(d[S.layers]):
                at = _HEAD + layer * _EACH
                size = d[at + L.size]
                state, cells = cube(d[at + L.state], 1, batch, h)[0], cube(d[at + L.cell], 1, batch, h)[0]
                into, back = cube(d[at + L.into], 1, batch, width)[0], cube(d[at + L.back], 1, batch, width)[0]
                bias, own_bias = vector(d[at + L.bias], n), vector(d[at + L.own_bias], n)
                scale_ih, scale_hh = vector(d[at + L.scale_ih], n), vector(d[at + L.scale_hh], n)
                cell_scale, cell_shift = vector(d[at + L.cell_scale], h), vector(d[at + L.cell_shift], h)
                fresh = cube(d[at + L.fresh], 1, 2, h)[0]
                new, new_cell = fresh[0], fresh[1]
                into[:] = 0
                back[:] = 0
                multiply_add(
                    vector(d[at + L.x], batch * size), size, cube(d[at + L.weight_ih], panels, size, PANEL), into
                )
                multiply_add(vector(d[at + L.state], batch * h), h, cube(d[at + L.weight_hh], panels, h, PANEL), back)
                for b in range(batch):
                    x, row, old = into[b], back[b], state[b]
                    if layer_norm:
                        mean, inverse = moments(x, n)
                        for j in range(n):
                            x[j] = (x[j] - mean) * inverse * scale_ih[j]
                        mean, inverse = moments(row, n)
                        for j in range(n):
                            row[j] = (row[j] - mean) * inverse * scale_hh[j]
                    for j in range(n):
                        x[j] += bias[j]
                    for j in range(n):
                        row[j] += own_bias[j]
                    for j in range(2 * h if gru else n):
                        row[j] += x[j]
                    if lstm:
                        lstm_forward(
                            row, old, new, cells[b], new_cell, row, False, h, layer_norm, cell_scale, cell_shift, zone,
                            _no_mask(d[S.rates]), rates[1],
                        )  # fmt: skip
                    elif gru:
                        gru_forward(row, x, old, new, row, False, h)
                    elif relu:
                        for j in range(h):
                            new[j] = max(row[j], np.float32(0)) if row[j] == row[j] else row[j]
                    else:
                        for j in range(h):
                            new[j] = tanh(row[j])
                    for j in range(h):
                        old[j] = new[j] + rates[0] * (old[j] - new[j])

    return int(work.address)


@njit(inline="always", **OPTIONS)
def _no_mask(somewhere):
    """A mask for the type's sake: never read."""
    return carray(pointer(somewhere), (1,), np.uint8)
