"""Muon, and the learning-rate schedules as functions of progress 0..1. SGD and AdamW are torch's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dolmen.nn.fp32 import dtype_of_products

Schedule = Callable[[float], float]
"""From progress (0 at the first step, 1 at the end of the budget) to a multiplier of the learning rate."""


def linear(warmup: float = 0.1, final: float = 0.0) -> Schedule:
    """Rise in a straight line over the share ``warmup`` of the budget, then fall in a straight line to ``final``."""

    def at(progress: float) -> float:
        if progress < warmup:
            return max(progress / warmup, 0.01)
        return 1 + (final - 1) * (progress - warmup) / (1 - warmup)

    return at


def cosine(warmup: float = 0.1, final: float = 0.0) -> Schedule:
    """Rise in a straight line over the share ``warmup`` of the budget, then fall along half a cosine to ``final``."""

    def at(progress: float) -> float:
        if progress < warmup:
            return max(progress / warmup, 0.01)
        return final + (1 - final) * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2

    return at


def orthogonalise(gradient: Tensor, steps: int = 3) -> Tensor:
    """Bring all singular values of a matrix near 1 by a quintic Newton-Schulz iteration (Jordan et al., 2024).

    Under autocast all of it is done in its precision: errors of a hundredth mean nothing to a direction.

    Args:
        gradient: (rows, columns).
        steps: 3 bring them to about 0.7..1.2, which is enough for an update direction.

    Returns:
        (rows, columns), in the input's dtype.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = (gradient / (gradient.norm() + 1e-7)).to(dtype_of_products(gradient))
    if wide := x.shape[0] > x.shape[1]:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if wide else x).to(gradient.dtype)


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov momentum whose update of each matrix is orthogonalised.

    A convolution's weight (O, I, k, k) is treated as the matrix (O, I k k). With ``renormalise`` each one is scaled
    back to the norm sqrt(O) before its update, which is right where batch norm follows and makes the learning rate
    mean the same for all layers (cifar10-airbench, 2024). Without it, the update of a matrix with more rows than
    columns is scaled by the root of their ratio, so that the rate means the same for all shapes (Jordan et al., 2024).

    Args:
        params: parameters with two axes or more.
        lr: learning rate.
        momentum: of the gradient average, 0..1.
        weight_decay: decoupled; multiplied by lr.
        renormalise: keep each weight at the norm sqrt(O).
        steps: Newton-Schulz steps.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.1,
        momentum: float = 0.6,
        weight_decay: float = 0.0,
        renormalise: bool = True,
        steps: int = 3,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "renormalise": renormalise,
            "steps": steps,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                average = state["momentum"].mul_(group["momentum"]).add_(p.grad)
                direction = p.grad.add(average, alpha=group["momentum"])
                matrix, scale = direction.reshape(len(p), -1), 1.0
                update = orthogonalise(matrix, group["steps"]).view_as(p)
                if group["renormalise"]:
                    p.mul_(len(p) ** 0.5 / (p.norm() + 1e-7))
                else:
                    scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                if group["weight_decay"]:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * scale)
        return loss


def classifier_optimizers(
    model: nn.Module,
    *,
    lr: float | None = None,
    weight_decay: float | None = None,
    pretrained: bool = False,
    outputs: Iterable[nn.Module] = (),
) -> tuple[torch.optim.Optimizer, ...]:
    """The optimisers for a convolutional classifier.

    From scratch: Muon for the filter banks, Nesterov SGD for biases, norms and the fully connected layer.
    From published weights: AdamW with smaller rates for earlier layers; the trunk stays still for the first tenth of
    the budget, until the new head gives it sensible gradients.

    Args:
        model: the network.
        lr: of the filter banks (default 0.1), or of the head when pretrained (default 1e-3).
        weight_decay: decoupled, of weights with two axes or more; not of biases and norms.
        pretrained: whether the trunk holds published weights.
        outputs: convolutions that no norm follows, so that the size of their filters means something: they are trained
            like fully connected layers.
    """
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if pretrained:
        return (torch.optim.AdamW(_layerwise(trained, lr or 1e-3, 0.05 if weight_decay is None else weight_decay)),)
    last = {id(p) for module in outputs for p in module.parameters()}
    # depthwise filters are no matrices
    filters = [p for _, p in trained if p.ndim == 4 and p.shape[1] > 1 and id(p) not in last]
    depthwise = [p for _, p in trained if p.ndim == 4 and p.shape[1] == 1]
    dense = [p for _, p in trained if p.ndim > 1 and (p.ndim != 4 or id(p) in last)]
    vectors = [p for _, p in trained if p.ndim < 2]
    rate = lr or 0.1
    decay = 0.0 if weight_decay is None else weight_decay
    groups = [
        {"params": vectors, "lr": rate * 0.2, "weight_decay": 0.0},
        {"params": dense + depthwise, "lr": rate * 0.2, "weight_decay": decay},
    ]
    sgd = torch.optim.SGD([g for g in groups if g["params"]], lr=rate, momentum=0.85, nesterov=True)
    return (Muon(filters, lr=rate, weight_decay=decay), sgd) if filters else (sgd,)


def recurrent_optimizers(
    model: nn.Module, layers: nn.Module, *, lr: float, matrices: float, weight_decay: float, memory: float = 0.999
) -> tuple[torch.optim.Optimizer, ...]:
    """The optimisers for a network around recurrent layers.

    Muon for the weights of the layers: turning all directions of a gate's weights alike takes fewer steps (measured on
    tinyshakespeare with 512 units: 1.54 nats after 1,024 steps, AdamW alone 1.58 after 1,689). AdamW for the rest.

    Args:
        model: the network.
        layers: its recurrent layers.
        lr: of AdamW.
        matrices: of Muon, in multiples of ``lr``.
        weight_decay: decoupled, of weights with two axes or more.
        memory: AdamW's second beta.
    """
    recurrent = [p for n, p in layers.named_parameters() if n.startswith("weight_")]
    taken = {id(p) for p in recurrent}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    muon = Muon(recurrent, lr=matrices * lr, momentum=0.9, weight_decay=weight_decay, renormalise=False)
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
    ]
    # In one pass over the weights. It goes by their places in memory, which filters and their averages may not share.
    fused = max(p.ndim for p in others) <= 2
    return muon, torch.optim.AdamW(groups, lr=lr, betas=(0.9, memory), fused=fused)


def _layerwise(trained: list[tuple[str, nn.Parameter]], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups a layer, with weight decay and without: the rate falls by 0.9 a layer, counted from the head."""
    layers = list(dict.fromkeys(n.rpartition(".")[0] for n, _ in trained))
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, p in trained:
        layer, decays = name.rpartition(".")[0], p.ndim >= 2
        depth = len(layers) - 1 - layers.index(layer)
        group = groups.setdefault(
            (layer, decays),
            {
                "params": [],
                "lr": lr * max(0.9**depth, 0.01),
                "weight_decay": weight_decay if decays else 0.0,
                "starts_at": 0.0 if depth == 0 else 0.1,
            },
        )
        group["params"].append(p)
    return list(groups.values())
