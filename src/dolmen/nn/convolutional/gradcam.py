"""Where a network looks: Grad-CAM, its check by weight randomisation, filters and feature maps.

Everything here works by forward hooks on a network as it is, in fp32 and evaluation mode, and leaves neither
hooks, gradients nor a changed mode behind.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dolmen.types import UserError

MIN_MAP_CELLS = 7
"""A heat map coarser than this many cells a side says little about where; an earlier layer is taken instead.

In pictures smaller than three times this, a third of their side is enough: in 8 x 8 pixels only the stem has
7 cells.
"""
REDRAWS = 3
"""Networks with re-drawn weights that the randomisation check compares with."""


class MapLayer(NamedTuple):
    """A module that gives a map: its name in ``named_modules`` and the map's height and width in cells."""

    name: str
    height: int
    width: int


def grad_cam(model: nn.Module, pixels: Tensor, classes: Tensor, layer: str | None = None) -> Tensor:
    """Return which places of each picture raised the score of a class (Selvaraju et al., ICCV 2017).

    The channels of one layer's map are added up, each weighted by the mean gradient of the class's logit with
    respect to it; what remains negative is cut off, the rest is enlarged to the picture and divided by its
    maximum.

    Shapes:
        pixels: (B, C, H, W) float, raw values 0..255; classes: (B,) int64; returns (B, H, W) float32 in 0..1
        on the device of ``pixels``. A picture in which nothing speaks for the class has a map of zeros.

    Args:
        model: gives (B, K) logits; not changed.
        pixels: the pictures.
        classes: for each picture the class that is asked about.
        layer: a module's name; None takes ``default_layer``.

    Raises:
        UserError: the network has no map with places, or none at ``layer``.
    """
    maps = _coarse_cam(model, pixels, classes, layer or default_layer(model, pixels))  # (B, h, w)
    full = F.interpolate(maps[:, None], size=pixels.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return (full / full.amax((1, 2), keepdim=True).clamp(min=1e-12)).clamp(0, 1)


def _coarse_cam(model: nn.Module, pixels: Tensor, classes: Tensor, layer: str) -> Tensor:
    """(B, h, w) at the layer's own resolution, not negative."""
    held: list[Tensor] = []

    def hold(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        # A leaf at this place: gradients are computed from here on only, also where earlier layers are
        # frozen. The network goes on with a copy, since an activation after it may work in place.
        held[:] = [output.detach().requires_grad_()]
        return held[0].clone()

    with _undisturbed(model), torch.inference_mode(False), torch.enable_grad():
        handle = _module(model, layer).register_forward_hook(hold)
        try:
            logits = model(pixels.detach().float().clone())
        finally:
            handle.remove()
        if not held or not _is_map(held[0], pixels):
            raise UserError(_no_such_map(model, pixels, layer))
        score = logits.gather(1, classes.detach().clone().view(-1, 1).to(logits.device)).sum()
        (gradient,) = torch.autograd.grad(score, held[0])
    weights = gradient.mean((2, 3), keepdim=True)  # (B, F, 1, 1)
    return (weights * held[0].detach()).sum(1).relu().float()


def randomisation_check(model: nn.Module, pixels: Tensor, classes: Tensor, layer: str | None = None) -> float:
    """How alike the maps are to those of networks with re-drawn weights (Adebayo et al., NeurIPS 2018).

    A map that explains what was learnt must change when everything learnt is thrown away. Near 0 is good; a
    map that only finds edges would give about 1. Two unrelated maps of 7 x 7 cells give 0.1 to 0.3 by chance.

    Args:
        model: trained; not changed (copies are randomised).
        pixels: (B, C, H, W) float, raw values 0..255.
        classes: (B,) int64.
        layer: as for ``grad_cam``.

    Returns:
        Mean absolute Spearman correlation, 0..1, over the pictures and three draws of new weights. Pictures
        with an empty map on either side count as 0.
    """
    layer = layer or default_layer(model, pixels)
    trained = _ranks(_coarse_cam(model, pixels, classes, layer).flatten(1))
    values = []
    with torch.inference_mode(False):  # a copy made in inference mode could not be differentiated
        pixels = pixels.clone()
        for seed in range(REDRAWS):
            other = copy.deepcopy(model)
            redraw_(other, pixels, seed)
            drawn = _ranks(_coarse_cam(other, pixels, classes, layer).flatten(1))
            values.append(_correlation(trained, drawn).abs())
    return float(torch.cat(values).mean())


@torch.no_grad()
def redraw_(model: nn.Module, pixels: Tensor, seed: int = 0) -> None:
    """Replace every parameter by normal noise of the same mean and spread, in place.

    The statistics of batch norm are those of ``pixels`` under the new weights; with the old ones most
    channels would be shifted out of sight, and the maps would be empty rather than random.
    """
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        spread = p.float().std(correction=0).cpu()
        p.copy_(p.float().mean().cpu() + spread * torch.randn(p.shape, generator=generator))

    def restart(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.modules.batchnorm._BatchNorm)
        if module.running_mean is not None and module.running_var is not None:
            axes = [i for i in range(args[0].ndim) if i != 1]
            module.running_mean.copy_(args[0].mean(axes))
            module.running_var.copy_(args[0].var(axes, correction=0))

    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    handles = [m.register_forward_pre_hook(restart) for m in norms]
    with _undisturbed(model), _removing(handles):
        model(pixels.float())


def first_filters(model: nn.Module) -> NDArray[np.float32] | None:
    """Return the filters of the first convolution, (O, C, k, k), or None where none is larger than 1 x 1."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            if max(module.kernel_size) == 1:
                return None
            weight: NDArray[np.float32] = module.weight.detach().float().cpu().numpy()
            return weight.copy()
    return None


def feature_maps(model: nn.Module, pixels: Tensor, max_channels: int = 8) -> dict[str, Tensor]:
    """Return what the network sees layer by layer.

    Args:
        model: not changed.
        pixels: (B, C, H, W) float, raw values 0..255.
        max_channels: of each layer the channels that differ most from place to place.

    Returns:
        Stage name to (B, n, h, w) float32, n <= ``max_channels``, in the order in which the network computes
        them: its ``stages`` where it has them (our networks do), else for each map size the outermost module
        that gives it.

    Raises:
        UserError: the network has no map with places.
    """
    stages = getattr(model, "stages", None)
    if isinstance(stages, nn.ModuleDict):
        wanted = {f"stages.{name}": name for name in stages}
    else:
        wanted = {layer.name: layer.name for layer in _outermost(map_layers(model, pixels))}
    maps: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            spread = output.float().flatten(2).std(2, correction=0).mean(0)  # (F,)
            maps[name] = output.float()[:, spread.argsort(descending=True)[:max_channels]].clone()

        return hook

    handles = [_module(model, layer).register_forward_hook(keep(name)) for layer, name in wanted.items()]
    with _undisturbed(model), torch.no_grad(), _removing(handles):
        model(pixels.float())
    return maps


def default_layer(model: nn.Module, pixels: Tensor) -> str:
    """Return the last layer whose map is at least 7 cells wide if there is one, else the last one.

    Of the modules that give a map of the same size the outermost is meant: a stage, not a convolution inside
    it.
    """
    layers = _outermost(map_layers(model, pixels))
    enough = min(MIN_MAP_CELLS, min(pixels.shape[2:]) / 3)
    return ([x for x in layers if min(x.height, x.width) >= enough] or layers)[-1].name


def map_layers(model: nn.Module, pixels: Tensor) -> list[MapLayer]:
    """Return every module that gives a (B, F, h, w) map of more than one cell, in the order of computation.

    Raises:
        UserError: the network does not keep such a map up to its head (a vision transformer, a plain MLP).
    """
    layers: list[MapLayer] = []
    picture = pixels[:1].float()

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if _is_map(output, picture) and output.shape[1] > picture.shape[1]:  # not the normalised picture itself
                layers.append(MapLayer(name, output.shape[2], output.shape[3]))

        return hook

    handles = [m.register_forward_hook(note(name)) for name, m in model.named_modules() if name]
    with _undisturbed(model), torch.no_grad(), _removing(handles):
        last = (getattr(model, "forward_features", None) or model)(picture)
    shape = tuple(last.shape) if isinstance(last, Tensor) else type(last).__name__
    if not layers or (hasattr(model, "forward_features") and not _is_map(last, picture, smallest=1)):
        raise UserError(
            f"this network ends in features of shape {shape}, not in a map (B, F, h, w) over the picture, so "
            "there is no place to point at: explain a convolutional network, for example one trained with "
            "--model resnet18"
        )
    return layers


def _outermost(layers: list[MapLayer]) -> list[MapLayer]:
    """For each map size the module that is nested least, the last of these; in the order of computation."""
    chosen: dict[tuple[int, int], MapLayer] = {}
    for layer in layers:
        before = chosen.get((layer.height, layer.width))
        if before is None or layer.name.count(".") <= before.name.count("."):
            chosen[layer.height, layer.width] = layer
    return [layer for layer in layers if layer is chosen[layer.height, layer.width]]


def _is_map(output: Any, pixels: Tensor, smallest: int = 2) -> bool:
    """Whether it is (B, F, h, w) with the picture's proportions; channels-last and attention maps are not."""
    if not isinstance(output, Tensor) or output.ndim != 4 or len(output) != len(pixels):
        return False
    (height, width), (h, w) = pixels.shape[2:], output.shape[2:]
    return min(h, w) >= smallest and h <= height and w <= width and abs(h - w * height / width) <= 1


def _module(model: nn.Module, layer: str) -> nn.Module:
    try:
        return model.get_submodule(layer)
    except AttributeError:
        names = ", ".join(name for name, _ in model.named_children())
        raise UserError(f"the network has no layer {layer!r}; its outermost ones are {names}") from None


def _no_such_map(model: nn.Module, pixels: Tensor, layer: str) -> str:
    names = ", ".join(x.name for x in _outermost(map_layers(model, pixels)))
    return f"the layer {layer!r} gives no map (B, F, h, w) over the picture; layers that give one: {names}"


def _ranks(values: Tensor) -> Tensor:
    """(B, N) -> (B, N) ranks; equal values share their mean rank."""
    ordered = values.sort(1).values.contiguous()
    values = values.contiguous()
    return (torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)).float() / 2


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Row-wise Pearson correlation of (B, N) and (B, N); 0 where one of them is constant."""
    return F.cosine_similarity(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True), dim=1)


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode in full precision; every module gets its own mode back."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    device = next(model.parameters()).device.type
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _removing(handles: list[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
