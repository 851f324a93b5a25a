"""The level that a voice is taken relative to."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from dolmen.tasks.speech_recognition.processors.level import NATS_PER_DB, Level


def frames(n: int = 50, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(15, 22, (n, 6)).astype(np.float32)


def test_loud_and_soft_look_alike() -> None:
    level, loud = Level(), frames()
    whole = level.relative(loud, level.least)[0]
    np.testing.assert_allclose(level.relative(loud - 1, level.least)[0], whole, atol=1e-5)
    assert whole.max() == 0
    assert whole.min() > -9


def test_it_goes_up_at_once_and_comes_down_slowly() -> None:
    level = Level(least=10.0, span=8.0, release=0.5)
    heard = np.array([[12.0, 9.0], [20.0, 11.0], [12.0, 3.0], [12.0, 19.5], [0.0, 0.0]], np.float32)
    relative, last = level.relative(heard, level.least)
    np.testing.assert_allclose(relative, [[0, -3], [0, -8], [-7.5, -8], [-7.5, 0], [-8, -8]], atol=1e-5)
    assert last == pytest.approx(19.0)


def test_silence_stays_silence() -> None:
    level = Level(least=10.0, span=8.0, release=1.0)
    relative, last = level.relative(np.full((30, 2), 3.0, np.float32), 15.0)
    assert last == 10.0
    np.testing.assert_array_equal(relative[-1], -7)


def test_pieces_give_the_whole_to_the_bit() -> None:
    level, heard = Level(), frames()
    whole, end = level.relative(heard, level.least)
    for cuts in itertools.combinations(range(0, 51, 7), 2):
        last, parts = level.least, []
        for start, stop in itertools.pairwise((0, *cuts, 50)):
            part, last = level.relative(heard[start:stop], last)
            parts.append(part)
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        assert last == end


def test_it_fits_the_softest_recordings() -> None:
    peaks = np.array([22.0] * 95 + [18.0] * 5)
    assert 18.0 - 10 * NATS_PER_DB < Level.fitted(peaks).least < 22.0 - 10 * NATS_PER_DB
    assert Level.fitted(np.zeros(0)) == Level()
