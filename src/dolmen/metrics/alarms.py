"""How often words are missed, and how often heard where nobody said them, as the threshold moves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_POINTS = 200


def alarm_curve(
    hits: NDArray[np.floating[Any]], num_spoken: int, false: NDArray[np.floating[Any]], hours: float
) -> dict[str, list[float]]:
    """False alarms an hour against misses, for every threshold at which one of them changes.

    Args:
        hits: (M,) confidences of the words that were said and heard.
        num_spoken: words that were said; those that were not heard at any threshold are missed always.
        false: (K,) confidences of words that were heard and not said.
        hours: of sound in which ``false`` were heard.

    Returns:
        ``thresholds`` rising, ``misses`` (share of the words said whose confidence is below) and ``alarms_per_hour``
        (of those with at least this confidence); at most 200 points, first and last among them.

    Raises:
        ValueError: nothing was said, or in no time.
    """
    if num_spoken < max(1, len(hits)) or not hours > 0:
        raise ValueError(f"{len(hits)} of {num_spoken} words in {hours:g} hours are no basis for a curve")
    hits, false = np.sort(np.asarray(hits, np.float64)), np.sort(np.asarray(false, np.float64))
    thresholds = np.unique(np.concatenate([[0.0], hits, false, [np.nextafter(false[-1], np.inf) if len(false) else 0]]))
    misses = (num_spoken - len(hits) + np.searchsorted(hits, thresholds)) / num_spoken
    alarms = (len(false) - np.searchsorted(false, thresholds)) / hours
    keep = np.unique(np.linspace(0, len(thresholds) - 1, MAX_POINTS).round().astype(int))
    values = {"thresholds": thresholds, "misses": misses, "alarms_per_hour": alarms}
    return {name: v[keep].tolist() for name, v in values.items()}


def threshold_for(
    hits: NDArray[np.floating[Any]],
    num_spoken: int,
    false: NDArray[np.floating[Any]],
    hours: float,
    max_alarms_per_hour: float,
) -> dict[str, float]:
    """The lowest threshold that raises at most so many false alarms an hour, and what it costs.

    Args:
        hits: (M,) confidences of the words that were said and heard.
        num_spoken: words that were said.
        false: (K,) confidences of words that were heard and not said.
        hours: of sound in which ``false`` were heard.
        max_alarms_per_hour: false alarms an hour that are put up with.

    Returns:
        ``threshold`` from which on a word counts, ``misses`` and ``alarms_per_hour`` with it.
    """
    surest = np.sort(np.asarray(false, np.float64))[::-1]
    allowed = int(max_alarms_per_hour * hours + 1e-9)
    # Just above the surest of those that may not be heard: what equals the threshold counts.
    threshold = float(np.nextafter(surest[allowed], np.inf)) if allowed < len(surest) else 0.0
    return {
        "threshold": threshold,
        "misses": 1 - float((np.asarray(hits) >= threshold).sum()) / num_spoken,
        "alarms_per_hour": float((surest >= threshold).sum()) / hours,
    }
