"""Automatic gain control: the recent level is subtracted, so that a quiet voice looks like a loud one. numpy only.

The gain control looks back only, so that a stream gives what the whole recording gives, to the bit.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Floats = NDArray[np.float32]
NATS_PER_DB = float(np.log(10) / 10)
"""A decibel, in nats of energy."""
SOFT_PERCENTILE, BELOW_SOFT_NATS = 5, 20 * NATS_PER_DB
"""The level is never more than so many nats below this percentile of the recordings' peaks."""


class Level(BaseModel):
    """A level that goes up with the loudest band of a frame at once, and comes down slowly.

    Attributes:
        least: nats of energy; it is never lower, so that silence stays silence.
        span: so many nats below it, sound is cut off.
        release: nats that it comes down by from frame to frame.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    least: float = 60 * NATS_PER_DB
    span: float = Field(40 * NATS_PER_DB, gt=0)
    release: float = Field(0.1 * NATS_PER_DB, ge=0)

    @classmethod
    def fitted(cls, peaks: NDArray[np.floating]) -> Level:
        """A level that is never much below the softest recordings.

        Args:
            peaks: (N,) nats of energy of the loudest band in each of them.
        """
        return (
            cls(least=round(float(np.percentile(peaks, SOFT_PERCENTILE)) - BELOW_SOFT_NATS, 5)) if len(peaks) else cls()
        )

    def relative(self, features: Floats, last: float) -> tuple[Floats, float]:
        """Frames by how far they are below the level.

        Args:
            features: (T, F) nats of energy.
            last: the level before them; ``least`` at the beginning.

        Returns:
            (T, F) from ``-span`` to 0, and the level after them.
        """
        if not len(features):
            return features, last
        loudest: list[float] = features.max(1).tolist()
        levels = itertools.accumulate(loudest, lambda level, e: max(e, level - self.release, self.least), initial=last)
        levels_after = np.fromiter(itertools.islice(levels, 1, None), np.float64, len(loudest))
        relative = np.maximum(features - levels_after[:, None].astype(np.float32), np.float32(-self.span))
        return relative, float(levels_after[-1])
