"""How well a text is predicted: perplexity and bits per character, with bootstrap intervals over stretches of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.metrics.bootstrap import resampled_sums
from dolmen.metrics.shared import shared
from dolmen.types import Metric

METRICS = {
    "perplexity": Metric("perplexity", "how many tokens it hesitates between, on average: e to the loss", better="min"),
    "bits_per_character": Metric(
        "bits per character", "bits that a character takes when the model compresses the text", better="min"
    ),
    **shared("loss"),
    "loss_in_windows": Metric(
        "loss in windows", "the loss where each window begins with an empty memory", better="min"
    ),
}


def metrics(nll: NDArray[Any], tokens_per_character: float) -> dict[str, float]:
    """The figures of a text.

    Args:
        nll: (N, W) negative log-likelihood of each token in nats, nan where there is none.
        tokens_per_character: how many tokens a character has, to bring different vocabularies to one scale.

    Returns:
        ``loss`` (nats a token), ``perplexity``, ``bits_per_character``.
    """
    loss = float(np.nanmean(nll, dtype=np.float64))
    return {
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_character": loss / math.log(2) * tokens_per_character,
        "loss": loss,
    }


def intervals(nll: NDArray[Any], tokens_per_character: float, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % intervals of ``metrics``: windows are drawn anew, since neighbouring tokens depend on each other."""
    sums, counts = resampled_sums(np.stack([np.nansum(nll, 1, dtype=np.float64), np.isfinite(nll).sum(1)], 1), seed).T
    losses = sums / np.maximum(counts, 1)
    low, high = (float(v) for v in np.quantile(losses, (0.025, 0.975)))
    scale = tokens_per_character / math.log(2)
    return {
        "perplexity": (math.exp(min(low, 700.0)), math.exp(min(high, 700.0))),
        "bits_per_character": (low * scale, high * scale),
        "loss": (low, high),
    }
