"""Matrix products inside compiled code: ``C += A @ B`` with B packed into panels, fp32 or bf16 with fp32 sums.

A tile of C stays in vector registers while a loop over K multiplies one column of A, spread over the lanes, by one
row of a panel of B. Numba has no vector types, so the tile is written as LLVM instructions. Sizes follow the machine:
16 lanes where there is AVX-512, 8 where there is AVX2, else 4.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# Sums may be reordered, but a NaN must stay a NaN: it is how a diverged training is noticed.
OPTIONS: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "arcp", "nsz", "afn"},
    "nogil": True,
    "boundscheck": False,
    "error_model": "numpy",
    "cache": True,
}


llvm.initialize_native_asmparser()  # for the instruction that LLVM has no name for


@functools.cache
def features() -> frozenset[str]:
    """What this processor can do, in LLVM's words."""
    return frozenset(name for name, there in llvm.get_host_cpu_features().items() if there)


LANES, ROWS, VECTORS = (16, 8, 3) if "avx512f" in features() else (8, 4, 2) if "avx2" in features() else (4, 8, 2)
"""Floats in a vector; rows of A and vectors of B in a tile. ROWS * VECTORS sums must fit into the registers."""
PANEL = LANES * VECTORS
HAS_BF16 = LANES == 16 and "avx512bf16" in features()
"""Whether there is an instruction that multiplies pairs of bf16 and adds them in fp32."""


def _tile(rows: int, pairs: bool) -> Any:
    """Make ``tile(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)`` for so many rows of A.

    ``pairs``: A and B are uint32 that hold two bf16 each, and k counts pairs.
    """

    @intrinsic
    def tile(typing_context, a, a_start, a_stride, b, b_start, c, c_start, c_stride, k):
        n = types.int64
        signature = types.void(a, n, n, b, n, c, n, n, n)

        def generate(context, builder, signature, values):
            i64, f32, i32 = ir.IntType(64), ir.FloatType(), ir.IntType(32)
            scalar = i32 if pairs else f32
            vector, sums = ir.VectorType(scalar, LANES), ir.VectorType(f32, LANES)
            zeros = ir.Constant(ir.VectorType(i32, LANES), [0] * LANES)

            def number(value: int) -> ir.Constant:
                return ir.Constant(i64, value)

            def start(index: int, at: Any, kind: Any) -> Any:
                array = context.make_array(signature.args[index])(context, builder, values[index])
                return builder.gep(builder.bitcast(array.data, kind.as_pointer()), [at])

            a, b, c = start(0, values[1], scalar), start(3, values[4], scalar), start(5, values[6], f32)
            a_stride, c_stride, k = values[2], values[7], values[8]
            a_rows = [builder.gep(a, [builder.mul(a_stride, number(i))]) for i in range(rows)]
            places = [
                [
                    builder.bitcast(
                        builder.gep(c, [builder.add(builder.mul(c_stride, number(i)), number(LANES * j))]),
                        sums.as_pointer(),
                    )
                    for j in range(VECTORS)
                ]
                for i in range(rows)
            ]
            first = [[builder.load(place, align=4) for place in row] for row in places]
            multiply_add = _dot_pairs(builder, sums, vector) if pairs else _fused(builder, sums)

            def accumulate(totals: list[list[Any]], at: Any) -> list[list[Any]]:
                """Add the products of one place of K."""
                b_row = builder.mul(at, number(PANEL))
                b_vectors = [
                    builder.load(
                        builder.bitcast(builder.gep(b, [builder.add(b_row, number(LANES * j))]), vector.as_pointer()),
                        align=4,
                    )
                    for j in range(VECTORS)
                ]
                out = []
                for i in range(rows):
                    value = builder.load(builder.gep(a_rows[i], [at]), align=4)
                    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(i32, 0))
                    spread = builder.shuffle_vector(one, one, zeros)
                    out.append([multiply_add(totals[i][j], spread, b_vectors[j]) for j in range(VECTORS)])
                return out

            def loop(chains: list[list[list[Any]]], start: Any, stop: Any) -> list[list[list[Any]]]:
                """Go from ``start`` to ``stop``; each turn takes one place of K for each set of sums."""
                before = builder.block
                body, after = builder.append_basic_block("products"), builder.append_basic_block("summed")
                builder.cbranch(builder.icmp_signed("<", start, stop), body, after)
                builder.position_at_end(body)
                index = builder.phi(i64)
                index.add_incoming(start, before)
                current = [[[builder.phi(sums) for _ in row] for row in chain] for chain in chains]
                new = [accumulate(chain, builder.add(index, number(u))) for u, chain in enumerate(current)]
                following = builder.add(index, number(len(chains)))
                index.add_incoming(following, body)
                builder.cbranch(builder.icmp_signed("<", following, stop), body, after)
                builder.position_at_end(after)
                found = [[[builder.phi(sums) for _ in row] for row in chain] for chain in chains]
                for u, i, j in itertools.product(range(len(chains)), range(rows), range(VECTORS)):
                    current[u][i][j].add_incoming(chains[u][i][j], before)
                    current[u][i][j].add_incoming(new[u][i][j], body)
                    found[u][i][j].add_incoming(chains[u][i][j], before)
                    found[u][i][j].add_incoming(new[u][i][j], body)
                return found

            # Few rows make few sums, and each would wait for its own last product: more sets of them, added at the end.
            sets = max(1, ROWS // (2 * rows))
            zero = ir.Constant(sums, [0.0] * LANES)
            more = [[[zero] * VECTORS for _ in range(rows)] for _ in range(sets - 1)]
            whole = builder.sub(k, builder.srem(k, number(sets)))
            chains = loop([first, *more], number(0), whole)
            total = chains[0]
            for chain in chains[1:]:
                total = [
                    [builder.fadd(x, y) for x, y in zip(*both, strict=True)] for both in zip(total, chain, strict=True)
                ]
            sum_out = loop([total], whole, k)[0] if sets > 1 else total
            for i in range(rows):
                for j in range(VECTORS):
                    builder.store(sum_out[i][j], places[i][j], align=4)
            return context.get_dummy_value()

        return signature, generate

    return tile


def _fused(builder: Any, sums: ir.VectorType) -> Any:
    name = f"llvm.fma.v{LANES}f32"
    fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(sums, [sums, sums, sums]), name)
    return lambda total, a, b: builder.call(fma, [a, b, total])


def _dot_pairs(builder: Any, sums: ir.VectorType, vector: ir.VectorType) -> Any:
    kind = ir.FunctionType(sums, [sums, vector, vector])
    instruction = ir.InlineAsm(kind, "vdpbf16ps $3, $2, $0", "=v,0,v,v")
    return lambda total, a, b: builder.call(instruction, [total, a, b])


_t1, _t2, _t3, _t4, _t5, _t6, _t7, _t8 = (_tile(n, False) for n in range(1, 9))
_p1, _p2, _p3, _p4, _p5, _p6, _p7, _p8 = (_tile(n, True) for n in range(1, 9))


@njit(inline="always", **OPTIONS)
def _tiles(m, a, a_start, a_stride, b, b_start, c, c_start, c_stride, k):
    if m == 8:
        _t8(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)
    elif m == 7:
        _t7(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)
    elif m == 6:
        _t6(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)
    elif m == 5:
        _t5(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)
    elif m == 4:
        _t4(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)
    elif m == 3:
        _t3(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)
    elif m == 2:
        _t2(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)
    else:
        _t1(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)


@njit(inline="always", **OPTIONS)
def _pair_tiles(m, a, a_start, a_stride, b, b_start, c, c_start, c_stride, k):
    if m == 8:
        _p8(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)
    elif m == 7:
        _p7(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)
    elif m == 6:
        _p6(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)
    elif m == 5:
        _p5(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)
    elif m == 4:
        _p4(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)
    elif m == 3:
        _p3(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)
    elif m == 2:
        _p2(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)
    else:
        _p1(a, a_start, a_stride, b, b_start, c, c_start, c_stride, k)


@njit(**OPTIONS)
def multiply_add(a, a_stride, panels, c):
    """``c += a @ b`` in fp32.

    Args:
        a: flat float32; row i begins at i * a_stride, and K values of it count.
        a_stride: floats from row to row.
        panels: (P, K, PANEL) float32: columns of B in panels, the last one filled up with zeros.
        c: (M, P * PANEL) float32.
    """
    count, k, _ = panels.shape
    m, width = c.shape
    flat_b, flat_c = panels.reshape(-1), c.reshape(-1)
    blocks = (m + ROWS - 1) // ROWS
    for p in range(count):
        done = 0
        for block in range(blocks):
            rows = (m - done + blocks - block - 1) // (blocks - block)  # as even as they go: no tile of one row
            _tiles(
                rows, a, done * a_stride, a_stride, flat_b, p * k * PANEL, flat_c, done * width + p * PANEL, width, k
            )
            done += rows


@njit(**OPTIONS)
def multiply_add_pairs(a, a_stride, panels, c):
    """``multiply_add`` on bf16: ``a`` and ``panels`` are uint32 that hold two values of K each; ``c`` is float32."""
    count, k, _ = panels.shape
    m, width = c.shape
    flat_b, flat_c = panels.reshape(-1), c.reshape(-1)
    blocks = (m + ROWS - 1) // ROWS
    for p in range(count):
        done = 0
        for block in range(blocks):
            rows = (m - done + blocks - block - 1) // (blocks - block)
            _pair_tiles(
                rows, a, done * a_stride, a_stride, flat_b, p * k * PANEL, flat_c, done * width + p * PANEL, width, k
            )
            done += rows


@njit(inline="always", **OPTIONS)
def to_pairs(values, bits, pairs, k):
    """Round k float32 (seen as ``bits``) to bf16, to nearest even, two in each uint32 of ``pairs``."""
    for j in range(k // 2):
        low, high = bits[2 * j], bits[2 * j + 1]
        low = (low + np.uint32(0x7FFF) + ((low >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        high = (high + np.uint32(0x7FFF) + ((high >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
        pairs[j] = low | high


@njit(inline="always", **OPTIONS)
def from_halves(halves, bits, n):
    """Widen n bf16 (seen as uint16) to float32 (seen as ``bits``)."""
    for j in range(n):
        bits[j] = np.uint32(halves[j]) << np.uint32(16)
