"""What compiled recurrent functions share: memory by its address, activations, and how kernels are called and kept."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from dolmen.nn.recurrent.kernels.products import OPTIONS

CFUNC_OPTIONS: dict[str, Any] = {"nopython": True, **{k: v for k, v in OPTIONS.items() if k != "nogil"}}
STAMP = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()
"""Each kernel has it in its closure, so that the cache on disk never serves what another version compiled.

Besides, only numbers may be there: Numba finds a kernel by the hash of its pickled closure, and a compiled function is
pickled otherwise in each process, so that each would compile the kernel anew.
"""
SIGNATURE = types.void(types.CPointer(types.int64))
"""A kernel takes the address of its numbers. It computes slices of the batch, one at a time, until none is left."""


@intrinsic
def pointer(typing_context, address):
    """A 64-bit number as a pointer."""

    def generate(context, builder, signature, values):
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@intrinsic
def take_turn(typing_context, numbers):
    """The first number, which goes up by one for the next thread."""

    def generate(context, builder, signature, values):
        return builder.atomic_rmw("add", values[0], ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(types.CPointer(types.int64)), generate


@njit(inline="always", **OPTIONS)
def vector(address, n):
    """(n) float32 at an address."""
    return carray(pointer(address), (n,), np.float32)


@njit(inline="always", **OPTIONS)
def cube(address, a, b, c):
    """(a, b, c) float32 at an address."""
    return carray(pointer(address), (a, b, c), np.float32)


@njit(inline="always", **OPTIONS)
def flags(address, a, b, c):
    """(a, b, c) uint8 at an address."""
    return carray(pointer(address), (a, b, c), np.uint8)


ONE, HALF, EPS = np.float32(1), np.float32(0.5), np.float32(1e-5)
_LIMIT = np.float32(7.90531110763549805)  # beyond it tanh is 1 in fp32
# tanh(x) as an odd polynomial of degree 13 over an even one of degree 6: the coefficients that Eigen publishes (MPL 2).
_ODD = tuple(
    np.float32(v)
    for v in (
        4.89352455891786e-03,
        6.37261928875436e-04,
        1.48572235717979e-05,
        5.12229709037114e-08,
        -8.60467152213735e-11,
        2.00018790482477e-13,
        -2.76076847742355e-16,
    )
)
_EVEN = tuple(
    np.float32(v) for v in (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
)
_O1, _O3, _O5, _O7, _O9, _O11, _O13 = _ODD
_E0, _E2, _E4, _E6 = _EVEN


@njit(inline="always", **OPTIONS)
def tanh(x):
    """Within 4 units in the last place."""
    x = _LIMIT if x > _LIMIT else (-_LIMIT if x < -_LIMIT else x)  # a NaN passes
    y = x * x
    odd = ((((((_O13 * y + _O11) * y + _O9) * y + _O7) * y + _O5) * y + _O3) * y + _O1) * x
    return odd / (((_E6 * y + _E4) * y + _E2) * y + _E0)


@njit(inline="always", **OPTIONS)
def sigmoid(x):
    """Through ``tanh``."""
    return HALF * tanh(HALF * x) + HALF


@njit(inline="always", **OPTIONS)
def moments(row, n):
    """Mean and reciprocal standard deviation of the first n values."""
    total = np.float32(0)
    for j in range(n):
        total += row[j]
    mean = total / np.float32(n)
    square = np.float32(0)
    for j in range(n):
        square += (row[j] - mean) * (row[j] - mean)
    return mean, ONE / np.sqrt(square / np.float32(n) + EPS)
