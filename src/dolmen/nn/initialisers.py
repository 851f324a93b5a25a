"""Weights to start recurrent layers from that keep gradients alive over many steps."""

from __future__ import annotations

import torch
from torch import nn

from dolmen.nn.recurrent.layers import Recurrent


@torch.no_grad()
def initialise(
    layer: Recurrent, *, orthogonal: bool = True, forget_bias: float = 1.0, longest: int | None = None
) -> Recurrent:
    """Set the weights of a recurrent layer.

    Args:
        layer: changed in place, and returned.
        orthogonal: weights from state to state are orthogonal, gate by gate (Saxe et al., 2014), those from the input
            uniform after Glorot & Bengio (2010); biases 0.
        forget_bias: of the LSTM's forget gate (Jozefowicz et al., 2015).
        longest: steps of the longest dependency; the forget gate (LSTM) or the update gate (GRU) gets chrono biases
            instead (Tallec & Ollivier, 2018): units forget after 1 to so many steps.
    """
    h = layer.hidden_size
    for name, p in layer.named_parameters():
        gates: tuple[torch.Tensor, ...] = (p,) if name.startswith("weight_hr") else torch.split(p, h)
        if orthogonal and name.startswith("weight"):
            for gate in gates:
                (nn.init.xavier_uniform_ if name.startswith("weight_ih") else nn.init.orthogonal_)(gate)
        elif name.startswith("bias"):
            if orthogonal:
                nn.init.zeros_(p)
            if not name.startswith("bias_ih"):
                continue
            gate = p[h : 2 * h]  # the LSTM's forget gate, the GRU's update gate
            if longest is not None and layer.cell in ("lstm", "gru"):
                gate.copy_(torch.empty_like(gate).uniform_(1, max(1, longest - 1)).log_())
                if layer.cell == "lstm":
                    p[:h] = -gate
            elif layer.cell == "lstm":
                nn.init.constant_(gate, forget_bias)
    return layer
