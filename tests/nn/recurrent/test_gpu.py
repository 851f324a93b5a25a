"""The fused steps of a GPU: their numbers by Triton's interpreter, and that they compile for a GPU, without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dolmen.nn.recurrent import GRU, LSTM, RNN
from dolmen.nn.recurrent.layers import Recurrent

triton = pytest.importorskip("triton", reason="Triton comes with torch for CUDA")

HALVES = ("into", "raw", "before", "through", "d_into", "d_part", "d_raw")
FLAGS = ("keep_state", "keep_cell", "reset")


@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "gru", "lstm"])
def test_fused_steps_equal_their_definition(cell: str) -> None:
    script = Path(__file__).with_name("interpreted_steps.py")
    done = subprocess.run(
        [sys.executable, script, cell], capture_output=True, text=True, check=False,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )  # fmt: skip
    assert done.stdout == "4 equal\n", done.stderr


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm"])
def test_fused_steps_compile_for_a_gpu(cell: str, norm: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from dolmen.nn.recurrent.kernels.gpu import backward_step, forward_step

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    chosen: dict[str, Any] = {
        "unit": cell, "norm": norm, "masks": True, "padded": True, "resets": True, "save": True, "reverse": True,
        "block": 512,
    }  # fmt: skip

    def kind(name: str) -> str:
        if name in chosen:
            return "constexpr"
        whole = {"t": "i32", "following": "i32", "h": "i32", "rate_state": "fp32", "rate_cell": "fp32"}
        return whole.get(name) or (
            "*bf16" if name in HALVES else "*u8" if name in FLAGS else "*i64" if name == "lengths" else "*fp32"
        )

    for kernel in (forward_step, backward_step):
        names = [p.name for p in kernel.params]
        constants = {k: v for k, v in chosen.items() if k in names}
        source = ASTSource(kernel, {name: kind(name) for name in names}, constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        assert compiled.asm["cubin"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("layer_class", [RNN, GRU, LSTM])
def test_fused_layers_equal_the_loop_on_a_gpu(layer_class: type[Recurrent]) -> None:
    torch.manual_seed(0)
    layer = layer_class(
        20, 50, 2, bidirectional=True, layer_norm=True, learn_state=True, zoneout=0.2, device="cuda"
    ).eval()
    x = torch.randn(9, 4, 20, device="cuda")
    assert layer.explain(device="cuda").startswith("fused")

    def run() -> list[torch.Tensor]:
        layer.zero_grad()
        y, state = layer(x, lengths=[9, 3, 7, 1])
        (y.square().sum() + sum(s.sum() for s in state if s is not None)).backward()
        return [y, *(s for s in state if s is not None), *(p.grad for p in layer.parameters() if p.grad is not None)]

    fused = run()
    layer.compiled = False
    for got, want in zip(fused, run(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
