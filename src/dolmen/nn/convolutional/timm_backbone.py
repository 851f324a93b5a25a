"""Any backbone of the timm library as a classifier (extra ``dolmen[timm]``); its weights are optional."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from dolmen.nn.convolutional.blocks import Normalise
from dolmen.types import UserError
from dolmen.wording import did_you_mean


class TimmClassifier(nn.Module):
    """A timm backbone behind our normalisation."""

    def __init__(self, normalise: Normalise, backbone: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.backbone = backbone

    def forward_features(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) raw pixels -> the backbone's features, (B, F, h, w) for convolutional ones."""
        return self.backbone.forward_features(self.normalise(pixels))  # type: ignore[operator, no-any-return]

    def forward_head(self, features: Tensor) -> Tensor:
        """Features -> (B, num_classes) logits."""
        return self.backbone.forward_head(features)  # type: ignore[operator, no-any-return]

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) float, raw values 0..255 -> (B, num_classes) logits."""
        return self.forward_head(self.forward_features(pixels))


def timm_classifier(name: str, num_classes: int, normalise: Normalise, *, pretrained: bool) -> TimmClassifier:
    """Make a timm backbone.

    Args:
        name: as timm lists it, e.g. ``resnet18.a1_in1k``.
        num_classes: K.
        normalise: the first layer; with published weights it is set to what they were trained with.
        pretrained: load published weights; they are downloaded by timm, and their licence is printed.

    Raises:
        UserError: timm is not installed, has no such model, or the weights can't be had.
    """
    return TimmClassifier(normalise, _create(name, normalise, pretrained=pretrained, num_classes=num_classes))


def _create(name: str, normalise: Normalise, *, pretrained: bool, **options: Any) -> nn.Module:
    """A backbone; published weights set ``normalise`` and show their licence."""
    try:
        import timm
    except ImportError:
        raise UserError("timm: networks need the timm library; type: pip install 'dolmen[timm]'") from None
    base = name.split(".")[0]
    if not timm.is_model(base):
        hint = did_you_mean(base, timm.list_models(), max_choices=3)
        raise UserError(
            f"timm has no model {name!r}; {hint}{'Give' if hint else 'give'} timm:NAME with a name of timm's own list"
        )
    channels = normalise.mean.numel()
    try:
        backbone: nn.Module = timm.create_model(name, pretrained=pretrained, in_chans=channels, **options)
    except Exception as error:
        # timm and its hub client raise many types of error for one cause: the weights are not here.
        if not pretrained:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"timm can't make {name!r}: {reason}; give another timm:NAME") from error
        raise UserError(
            f"the published weights of timm:{name} can't be had ({type(error).__name__}); connect to the internet "
            "once, or train from scratch by leaving --weights out"
        ) from error
    if pretrained:
        facts: dict[str, Any] = backbone.pretrained_cfg  # type: ignore[assignment]
        with torch.no_grad():
            normalise.mean.copy_(_channels(facts["mean"], channels) * 255)
            normalise.std.copy_(_channels(facts["std"], channels) * 255)
        licence = facts.get("license") or "not stated: ask the authors before you ship"
        print(
            f"weights of timm:{name}: licence {licence}; from {facts.get('hf_hub_id') or facts.get('url')}",
            file=sys.stderr,
        )
    return backbone


def _channels(values: tuple[float, ...], channels: int) -> Tensor:
    """Per-channel statistics for a network that was made for colour; their mean for grey pictures."""
    stats = torch.tensor(values)
    return (stats if channels == len(values) else stats.mean().expand(channels)).view(1, -1, 1, 1)


class TimmTrunk(nn.Module):
    """The feature maps of a timm backbone."""

    def __init__(self, backbone: nn.Module, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.backbone, self.channels = backbone, channels

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) normalised -> a map (B, channels[i], H / stride, W / stride) a stride."""
        return list(self.backbone(x))


def timm_trunk(name: str, normalise: Normalise, strides: tuple[int, ...], *, pretrained: bool) -> TimmTrunk:
    """Make a timm backbone that gives its maps of these strides.

    Args:
        name: as timm lists it.
        normalise: the layer before it; with published weights it is set to what they were trained with.
        strides: of the maps.
        pretrained: load published weights.

    Raises:
        UserError: timm is not installed, has no such model, it has no such maps, or the weights can't be had.
    """
    backbone = _create(name, normalise, pretrained=pretrained, features_only=True)
    info: Any = backbone.feature_info
    index_by_stride = dict(zip(info.reduction(), range(len(info.reduction())), strict=True))
    if not all(s in index_by_stride for s in strides):
        raise UserError(
            f"timm:{name} has maps of the strides {', '.join(map(str, index_by_stride))}, and a detector needs "
            f"{', '.join(map(str, strides))}; give a convolutional network such as timm:mobilenetv3_small_050"
        )
    taps = [index_by_stride[s] for s in strides]
    channels = tuple(info.channels()[i] for i in taps)
    return TimmTrunk(_create(name, normalise, pretrained=pretrained, features_only=True, out_indices=taps), channels)
