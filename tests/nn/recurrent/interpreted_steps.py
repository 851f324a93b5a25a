"""The fused steps under Triton's interpreter against their definition; run by test_recurrent_gpu.py, alone.

The interpreter has to be chosen before anything imports Triton, so this is a process of its own.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from dolmen.nn.recurrent import loop as recurrent_loop
from dolmen.nn.recurrent.cells import GATES
from dolmen.nn.recurrent.gpu import run_fused

T, B, H = 4, 3, 6
CASES = [  # layer norm, zoneout, lengths, resets, reverse
    (True, "masks", True, True, True),
    (True, "rates", False, True, False),
    (False, "none", True, False, False),
    (False, "masks", False, True, True),
]


def compare(cell: str, norm: bool, zoneout: str, padded: bool, resets: bool, reverse: bool) -> None:
    torch.manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape).requires_grad_()

    n, lstm = GATES[cell] * H, cell == "lstm"
    into, state, memory = leaf(T, B, n), leaf(B, H), leaf(B, H) if lstm else None
    w = {
        "weight_hh": leaf(n, H), "bias_hh": leaf(n), "scale_hh": leaf(n) if norm else None,
        "cell_scale": leaf(H) if norm and lstm else None, "cell_shift": leaf(H) if norm and lstm else None,
    }  # fmt: skip
    lengths = torch.tensor([4, 1, 3]) if padded else None
    reset = torch.rand(T, B) < 0.4 if resets else None
    starts = leaf(H) if resets else None, leaf(H) if resets and lstm else None
    masks = torch.rand(2, T, B, H) < 0.3
    keep: Any = {"none": (0.0, 0.0), "rates": (0.2, 0.3), "masks": tuple(masks)}[zoneout]
    leaves = [v for v in (into, state, memory, *w.values(), *starts) if v is not None]

    def near(got: Tensor | None, want: Tensor | None, what: str) -> None:
        torch.testing.assert_close(got, want, rtol=1e-4, atol=3e-5, msg=lambda m: f"{what}: {m}")

    def differentiated(results: Any) -> tuple[Tensor, ...]:
        g = torch.Generator().manual_seed(1)
        parts = [v for v in results[:3] if v is not None]
        return torch.autograd.grad(sum((v * torch.randn(v.shape, generator=g)).sum() for v in parts), leaves)

    fused = run_fused(cell, into, w, state, memory, reverse, lengths, reset, starts, keep, return_gates=True)
    floats = tuple(k.float() if isinstance(k, Tensor) else k for k in keep)
    wanted = recurrent_loop.run(
        cell, into, state, memory, w["weight_hh"], reverse=reverse, lengths=lengths, reset=reset,
        state_start=starts[0], cell_start=starts[1], keep=floats, bias=w["bias_hh"], scale=w["scale_hh"],
        cell_scale=w["cell_scale"], cell_shift=w["cell_shift"],
    )  # fmt: skip
    for name, got, want in zip(("output", "state", "memory"), fused[:3], wanted[:3], strict=True):
        if want is not None:
            near(got, want, name)
    for name, want in wanted[3].items():
        near(fused[3][name], want, name)
    for number, (got, want) in enumerate(zip(differentiated(fused), differentiated(wanted), strict=True)):
        near(got, want, f"gradient {number}")


for case in CASES:
    try:
        compare(sys.argv[1], *case)
    except AssertionError as error:
        raise SystemExit(f"{sys.argv[1]} {case}: {error}") from None
print(f"{len(CASES)} equal")
