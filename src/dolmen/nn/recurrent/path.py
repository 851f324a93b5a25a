"""Which way a recurrent layer goes: kernels of ours for CPU or GPU, torch's own, or step by step; and why."""

from __future__ import annotations

import functools
import importlib.util

import torch

from dolmen.nn.recurrent.cells import LayerSettings

PRECISIONS = (torch.float32, torch.bfloat16)
"""Those of inputs that our kernels take."""


def choose_path(
    layer: LayerSettings, *, device: str, dtype: torch.dtype, extras: bool, lengths: bool
) -> tuple[str, str]:
    """The path of a call, and why; arguments and results as of ``Recurrent.path``."""
    plain = not (layer.layer_norm or any(layer.zoneout) or extras)
    if torch.compiler.is_exporting():
        if plain and not layer.mogrifier and not layer.proj_size:
            return "graph", "ONNX has a node for this cell"
        return "loop", "ONNX has no node for this cell; its steps become the body of a Scan"
    if layer.mogrifier:
        return "loop", "the mogrifier's rounds have no kernel"
    if layer.proj_size and not (plain and layer.cell == "lstm" and device != "cpu"):
        return "loop", "a projection of the state has no kernel"
    if device != "cpu" and plain:
        return "torch", "torch's own kernels have this cell"
    if not layer.compiled:
        return "loop", "compiled=False; it can be differentiated any number of times"
    if dtype not in PRECISIONS:
        return "loop", f"the compiled cells know float32 and bfloat16, not {dtype}"
    if device != "cpu":
        missing = "torch's own kernels have no layer norm, zoneout, resets or visible gates"
        if device != "cuda" or not has_triton():
            return "loop", f"{missing}, and ours for a GPU need CUDA and Triton"
        return "fused", f"{missing}; ours do all but the product of a step in one"
    if why := not_compiled():
        return ("torch" if plain else "loop"), why
    half = dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    if layer.cell == "lstm" and plain and not lengths and has_onednn():
        if not torch.is_grad_enabled():
            return "torch", "without a gradient oneDNN's LSTM is the quickest (benchmarks/recurrent.py)"
        if not half:
            return "torch", "in fp32 oneDNN's LSTM is the quickest (benchmarks/recurrent.py)"
    return "compiled", "one compiled kernel over all steps"


def has_onednn() -> bool:
    """Whether torch has oneDNN's kernels here."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed, as it is with torch for CUDA."""
    return importlib.util.find_spec("triton") is not None


@functools.cache
def not_compiled() -> str:
    """Why there are no compiled cells here; empty if there are."""
    if importlib.util.find_spec("numba") is None:
        return "Numba is not installed: pip install numba makes this layer quicker"
    return ""
