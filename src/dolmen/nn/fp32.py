"""The precision of matrix products: autocast's, or fp32 at twice the speed where that costs no accuracy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def dtype_of_products(factor: Tensor) -> torch.dtype:
    """The dtype of a product with this factor: autocast's where it is on, else the factor's own."""
    device = factor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else factor.dtype


@contextmanager
def quick_products() -> Iterator[None]:
    """Let torch's fp32 products on the CPU take oneDNN's kernels, if they are exact here.

    Allowed to round to bf16, oneDNN runs an AVX-512 fp32 kernel where there are no bf16 matrix units: twice the speed
    of MKL on AMD, with full accuracy. With AMX it may really round, so it is tried first.
    """
    backend = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = backend.fp32_precision
    if are_exact():
        backend.fp32_precision = "bf16"
    try:
        yield
    finally:
        backend.fp32_precision = before


def quickly(function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """``function(*tensors)`` with quick products in its forward and in its backward pass."""
    return _Quickly.apply(function, *tensors)  # type: ignore[no-any-return]


class _Quickly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
        training = any(ctx.needs_input_grad)
        with quick_products(), torch.set_grad_enabled(training):
            inputs = [t.detach().requires_grad_(t.requires_grad) for t in tensors] if training else tensors
            outputs = function(*inputs)
        if training:
            ctx.inputs, ctx.outputs = inputs, outputs
        return tuple(o.detach() for o in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the quick recurrent layers have no second derivative; build the layer with compiled=False for that"
            )
        wanted = [t for t in ctx.inputs if t.requires_grad]
        with quick_products():
            input_gradients = iter(torch.autograd.grad(ctx.outputs, wanted, gradients, allow_unused=True))
        return None, *(next(input_gradients) if t.requires_grad else None for t in ctx.inputs)


@functools.cache
def are_exact() -> bool:
    """Whether the quick products are fp32 here: tried on one with a known answer, once a process."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    backend = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = backend.fp32_precision
    backend.fp32_precision = "bf16"
    try:
        error = ((a @ b).double() - exact).abs().max() / exact.abs().max()
    finally:
        backend.fp32_precision = before
    return float(error) < 1e-5
