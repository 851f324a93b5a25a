"""One step of a recurrent cell on a GPU, forward and backward, in Triton: all that is not a matrix product.

A program computes one row of the batch: layer norm, gates, the cell, zoneout, resets and waiting behind the end of a
sequence in one launch, where torch would take about twenty. Sums and states are fp32, whatever the products are in.
Triton's interpreter runs the same kernels on a CPU (``TRITON_INTERPRET=1``), which is how they are tested.
"""

from __future__ import annotations

import triton
import triton.language as tl

EPSILON = tl.constexpr(1e-5)
"""What layer norm adds to the variance, as torch does."""


@triton.jit
def _tanh(x):
    # 2 / (1 + exp(-2 x)) - 1 would lose all digits of a small x; this is exact at both ends.
    small = x * (1 - x * x * (1.0 / 3))
    e = tl.exp(-2 * tl.abs(x))
    large = (1 - e) / (1 + e)
    return tl.where(tl.abs(x) < 0.01, small, tl.where(x < 0, -large, large))


@triton.jit
def _load(pointer, at, inside):
    return tl.load(pointer + at, inside, other=0).to(tl.float32)


@triton.jit
def _held(mask, rate, at, inside, masks: tl.constexpr):
    """The share of each unit that zoneout holds."""
    return _load(mask, at, inside) if masks else tl.zeros_like(at).to(tl.float32) + rate


@triton.jit
def _row_moments(x, inside, n):
    mean = tl.sum(x) / n
    apart = tl.where(inside, x - mean, 0)
    return mean, 1 / tl.sqrt(tl.sum(apart * apart) / n + EPSILON)


@triton.jit
def _gate_moments(raw, j, inside, h, gates: tl.constexpr):
    """Mean and inverse deviation of all gates of a row."""
    total = 0.0
    for gate in tl.static_range(gates):
        total += tl.sum(_load(raw, gate * h + j, inside))
    mean = total / (gates * h)
    squares = 0.0
    for gate in tl.static_range(gates):
        apart = tl.where(inside, _load(raw, gate * h + j, inside) - mean, 0)
        squares += tl.sum(apart * apart)
    return mean, 1 / tl.sqrt(squares / (gates * h) + EPSILON)


@triton.jit
def _part(raw, gate: tl.constexpr, j, inside, h, bias, scale, mean, inverse, norm: tl.constexpr):
    """The state's part of a gate."""
    value = _load(raw, gate * h + j, inside)
    if norm:
        value = (value - mean) * inverse * _load(scale, gate * h + j, inside)
    return value + _load(bias, gate * h + j, inside)


@triton.jit
def _places(t, h, reverse: tl.constexpr, block: tl.constexpr):
    """Where this program's row lies: its number, its columns, and the places of what step ``t`` reads and writes.

    Returns:
        row, rows, columns j and which are inside; the row's number at step ``t`` in (T, B), and in (T + 1, B, H) where
        the state that the step starts from lies, and that after it.
    """
    row, rows = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    j = tl.arange(0, block)
    here = t * rows + row
    start = (here + rows if reverse else here) * h + j
    end = (here if reverse else here + rows) * h + j
    return row, rows, j, j < h, here, start, end


@triton.jit
def _shown(cell, middle, width, cell_scale, cell_shift, j, inside):
    """The LSTM's memory behind its layer norm."""
    return (cell - middle) * width * _load(cell_scale, j, inside) + _load(cell_shift, j, inside)


@triton.jit(do_not_specialize=["t", "following"])
def forward_step(
    into, raw, states, cells, before, saved, bias, scale, cell_scale, cell_shift, keep_state, keep_cell, lengths, reset,
    state_start, cell_start, t, following, h, rate_state, rate_cell,
    unit: tl.constexpr, norm: tl.constexpr, masks: tl.constexpr, padded: tl.constexpr, resets: tl.constexpr,
    save: tl.constexpr, reverse: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Finish step ``t``, of which ``raw[t]``, the product of state and weights, is known.

    Pointers:
        into, raw: (T, B, gates H) the input's and the state's part of the gates.
        states, cells: (T + 1, B, H) float32, the initial one first (``reverse``: last); this step's result is written.
        before: (T, B, H) is written at ``following``: what that step starts from, as its product wants it.
        saved: (T, B, SAVED H) float32 is written with ``save``.
        bias, scale: (gates H) of the state's part; scale with ``norm``.
        cell_scale, cell_shift: (H) of the layer norm of the LSTM's memory.
        keep_state, keep_cell: (T, B, H) uint8, what zoneout holds, with ``masks``; else the two rates count.
        lengths: (B) int64, with ``padded``.
        reset: (T, B) uint8, with ``resets``: a sequence begins there, from state_start and cell_start (H).

    Numbers: the step ``t``; ``following``, the one that comes after it, below 0 if none does; ``h``, H; the rates of
    zoneout. What it is compiled for: the cell (``unit``), what it has, and ``block``, at least H.
    """
    row, rows, j, inside, here, start, end = _places(t, h, reverse, block)
    gates: tl.constexpr = 4 if unit == "lstm" else 3 if unit == "gru" else 1
    n = gates * h
    x, r_ = into + here * n, raw + here * n
    old = _load(states, start, inside)
    anew = False
    if resets:
        anew = tl.load(reset + here) != 0
        old = tl.where(anew, _load(state_start, j, inside), old)
    mean, inverse = 0.0, 1.0
    if norm:
        mean, inverse = _gate_moments(r_, j, inside, h, gates)
    part = _part(r_, 0, j, inside, h, bias, scale, mean, inverse, norm)
    if unit == "lstm":
        memory = _load(cells, start, inside)
        if resets:
            memory = tl.where(anew, _load(cell_start, j, inside), memory)
        i = tl.sigmoid(_load(x, j, inside) + part)
        f = tl.sigmoid(_load(x, h + j, inside) + _part(r_, 1, j, inside, h, bias, scale, mean, inverse, norm))
        g = _tanh(_load(x, 2 * h + j, inside) + _part(r_, 2, j, inside, h, bias, scale, mean, inverse, norm))
        o = tl.sigmoid(_load(x, 3 * h + j, inside) + _part(r_, 3, j, inside, h, bias, scale, mean, inverse, norm))
        k = _held(keep_cell, rate_cell, here * h + j, inside, masks)
        cell = k * memory + (1 - k) * (f * memory + i * g)
        if padded:
            cell = tl.where(t >= tl.load(lengths + row), memory, cell)
        tl.store(cells + end, cell, inside)
        shown = cell
        if norm:
            middle, width = _row_moments(cell, inside, h)
            shown = _shown(cell, middle, width, cell_scale, cell_shift, j, inside)
        new = o * _tanh(shown)
        if save:
            _store_four(saved + here * 4 * h, i, f, g, o, j, inside, h)
    elif unit == "gru":
        r = tl.sigmoid(_load(x, j, inside) + part)
        z = tl.sigmoid(_load(x, h + j, inside) + _part(r_, 1, j, inside, h, bias, scale, mean, inverse, norm))
        back = _part(r_, 2, j, inside, h, bias, scale, mean, inverse, norm)
        fresh = _tanh(_load(x, 2 * h + j, inside) + r * back)
        new = fresh + z * (old - fresh)
        if save:
            _store_four(saved + here * 4 * h, r, z, fresh, back, j, inside, h)
    else:
        total = _load(x, j, inside) + part
        new = tl.where(total < 0, 0, total) if unit == "rnn_relu" else _tanh(total)  # what is no number stays none
        if save:
            tl.store(saved + here * h + j, new, inside)
    k = _held(keep_state, rate_state, here * h + j, inside, masks)
    out = k * old + (1 - k) * new
    if padded:
        out = tl.where(t >= tl.load(lengths + row), old, out)
    tl.store(states + end, out, inside)
    there = following * rows + row
    if resets:
        anew = tl.load(reset + there, following >= 0, other=0) != 0
        out = tl.where(anew, _load(state_start, j, inside), out)
    tl.store(before + there * h + j, out, inside & (following >= 0))


@triton.jit
def _store_four(place, a, b, c, d, j, inside, h):
    tl.store(place + j, a, inside)
    tl.store(place + h + j, b, inside)
    tl.store(place + 2 * h + j, c, inside)
    tl.store(place + 3 * h + j, d, inside)


@triton.jit(do_not_specialize=["t", "following"])
def backward_step(
    raw, states, cells, saved, scale, cell_scale, cell_shift, keep_state, keep_cell, lengths, reset, state_start,
    cell_start, d_states, direct, through, d_last, d_cells, d_into, d_part, d_raw, d_shown, t, following, h,
    rate_state, rate_cell,
    unit: tl.constexpr, norm: tl.constexpr, masks: tl.constexpr, padded: tl.constexpr, resets: tl.constexpr,
    reverse: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """The gradients of step ``t``, all but the product with the weights. What isn't named is as in ``forward_step``.

    Pointers:
        d_states: (T + 1, B, H) from outside.
        direct, through: (T, B, H) of what steps start from, past their product (written at ``t``) and through it.
        d_last: (B, H) of the last memory.
        d_cells: (T, B, H) is written: of the memory that the step starts from.
        d_into: (T, B, gates H) is written: of the input's part.
        d_part: the same of the state's part behind its layer norm; the same place, but for the GRU.
        d_raw: and before it, with ``norm``.
        d_shown: (T, B, H) is written with ``norm``: of the LSTM's memory behind its layer norm.
    """
    row, rows, j, inside, here, start, end = _places(t, h, reverse, block)
    gates: tl.constexpr = 4 if unit == "lstm" else 3 if unit == "gru" else 1
    n = gates * h
    there = (following * rows + row) * h + j
    at = here * h + j
    last = following < 0
    goes_on = inside & (following >= 0)
    anew = False
    if resets:  # where a sequence begins, no gradient comes back
        goes_on = goes_on & (tl.load(reset + following * rows + row, following >= 0, other=0) == 0)
        anew = tl.load(reset + here) != 0
    d_out = _load(d_states, end, inside) + _load(direct, there, goes_on) + _load(through, there, goes_on)
    runs = 1.0
    if padded:
        runs = tl.where(t >= tl.load(lengths + row), 0.0, 1.0)
    k = _held(keep_state, rate_state, at, inside, masks) * runs + 1 - runs
    d_new = (1 - k) * d_out
    past = k * d_out
    if unit == "lstm":
        i = _load(saved + here * 4 * h, j, inside)
        f = _load(saved + here * 4 * h, h + j, inside)
        g = _load(saved + here * 4 * h, 2 * h + j, inside)
        o = _load(saved + here * 4 * h, 3 * h + j, inside)
        cell = _load(cells, end, inside)
        memory = _load(cells, start, inside)
        if resets:
            memory = tl.where(anew, _load(cell_start, j, inside), memory)
        shown, middle, width = cell, 0.0, 1.0
        if norm:
            middle, width = _row_moments(cell, inside, h)
            shown = _shown(cell, middle, width, cell_scale, cell_shift, j, inside)
        squashed = _tanh(shown)
        d_cell = d_new * o * (1 - squashed * squashed)
        if norm:
            tl.store(d_shown + at, d_cell, inside)
            d = d_cell * _load(cell_scale, j, inside)
            normed = tl.where(inside, (cell - middle) * width, 0)
            d_cell = (d - tl.sum(d) / h - normed * tl.sum(d * normed) / h) * width
        d_cell += _load(d_cells, there, goes_on) + _load(d_last, row * h + j, inside & last)
        k = _held(keep_cell, rate_cell, at, inside, masks) * runs + 1 - runs
        made = (1 - k) * d_cell
        tl.store(d_cells + at, k * d_cell + f * made, inside)
        _store_four(
            d_into + here * n, made * g * i * (1 - i), made * memory * f * (1 - f), made * i * (1 - g * g),
            d_new * squashed * o * (1 - o), j, inside, h,
        )  # fmt: skip
    elif unit == "gru":
        r = _load(saved + here * 4 * h, j, inside)
        z = _load(saved + here * 4 * h, h + j, inside)
        fresh = _load(saved + here * 4 * h, 2 * h + j, inside)
        back = _load(saved + here * 4 * h, 3 * h + j, inside)
        old = _load(states, start, inside)
        if resets:
            old = tl.where(anew, _load(state_start, j, inside), old)
        d_fresh = d_new * (1 - z) * (1 - fresh * fresh)
        d_r = d_fresh * back * r * (1 - r)
        d_z = d_new * (old - fresh) * z * (1 - z)
        past += d_new * z
        tl.store(d_into + here * n + j, d_r, inside)
        tl.store(d_into + here * n + h + j, d_z, inside)
        tl.store(d_into + here * n + 2 * h + j, d_fresh, inside)
        tl.store(d_part + here * n + j, d_r, inside)
        tl.store(d_part + here * n + h + j, d_z, inside)
        tl.store(d_part + here * n + 2 * h + j, d_fresh * r, inside)
    else:
        new = _load(saved + here * h, j, inside)
        d_total = tl.where(new > 0, d_new, 0) if unit == "rnn_relu" else d_new * (1 - new * new)
        tl.store(d_into + here * n + j, d_total, inside)
    tl.store(direct + at, past, inside)
    if norm:
        tl.debug_barrier()  # other threads of this program wrote what is read now
        r_, d_, out = raw + here * n, d_part + here * n, d_raw + here * n
        mean, inverse = _gate_moments(r_, j, inside, h, gates)
        along, total = 0.0, 0.0
        for gate in tl.static_range(gates):
            d = _load(d_, gate * h + j, inside) * _load(scale, gate * h + j, inside)
            normed = tl.where(inside, (_load(r_, gate * h + j, inside) - mean) * inverse, 0)
            along += tl.sum(d * normed)
            total += tl.sum(d)
        for gate in tl.static_range(gates):
            d = _load(d_, gate * h + j, inside) * _load(scale, gate * h + j, inside)
            normed = (_load(r_, gate * h + j, inside) - mean) * inverse
            tl.store(out + gate * h + j, (d - total / n - normed * along / n) * inverse, inside)
