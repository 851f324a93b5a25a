"""CTC against the enumeration of all paths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from tasks.speech_recognition.processors.ctc_paths import all_sums, collapsed, distributions, path_log

from dolmen.tasks.speech_recognition.processors.ctc import force_align, greedy, log_probability, text_of, words_of

PIECES = ("", "\u2581", "a", "b")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("t", "v"), [(1, 3), (4, 3), (5, 4), (6, 3)])
def test_the_probability_of_units_is_that_of_all_their_paths(t: int, v: int, seed: int) -> None:
    logp = distributions(t, v, seed)
    sums = all_sums(logp)
    assert np.logaddexp.reduce(list(sums.values())) == pytest.approx(0, abs=1e-5)
    for units, log in sums.items():
        assert log_probability(logp, units) == pytest.approx(log, abs=1e-5)


def test_what_needs_more_frames_than_there_are() -> None:
    logp = distributions(3, 3)
    assert log_probability(logp, (1, 1, 1)) == -np.inf
    assert log_probability(logp[:2], (1, 1)) == -np.inf  # a blank has to stand between
    assert log_probability(logp[:0], ()) == 0
    assert log_probability(logp[:0], (1,)) == -np.inf
    for units, needed in (((1, 1, 1), 5), ((1, 2, 1, 2), 4)):
        with pytest.raises(ValueError, match=f"{len(units)} units need {needed} frames or more, not 3"):
            force_align(logp, units)


@pytest.mark.parametrize("units", [(0,), (3,), (1, -1)])
def test_units_that_there_are_not(units: tuple[int, ...]) -> None:
    for function in (log_probability, force_align):
        with pytest.raises(ValueError, match="units must be 1 to 2"):
            function(distributions(4, 3), units)


@pytest.mark.parametrize("seed", range(6))
def test_the_alignment_is_the_best_of_all_paths(seed: int) -> None:
    logp = distributions(6, 3, seed)
    paths: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {}
    for path in itertools.product(range(3), repeat=6):
        key, log = collapsed(path), path_log(logp, path)
        if key not in paths or log > paths[key][0]:
            paths[key] = log, path
    assert greedy(logp) in paths
    for units, (_, path) in paths.items():
        first, last, confidence = force_align(logp, units)
        groups = [list(g) for _, g in itertools.groupby(enumerate(path), key=lambda item: item[1])]
        groups = [g for g in groups if g[0][1]]
        assert first.tolist() == [g[0][0] for g in groups]
        assert last.tolist() == [g[-1][0] for g in groups]
        np.testing.assert_allclose(confidence, [np.mean([np.exp(logp[t, u]) for t, u in g]) for g in groups], 1e-5)


def test_units_without_any_probability() -> None:
    logp = np.log(np.array([[0.5, 0.5, 1e-300]] * 3))
    logp[:, 2] = -np.inf
    with pytest.raises(ValueError, match="the units have probability 0"):
        force_align(logp, (2,))


@pytest.mark.parametrize(
    ("path", "units"),
    [((0, 0), ()), ((1, 1, 0, 1), (1, 1)), ((1, 1, 2, 2), (1, 2)), ((0, 3, 3, 0), (3,)), ((), ())],
)
def test_greedy_merges_repeats_and_drops_blanks(path: tuple[int, ...], units: tuple[int, ...]) -> None:
    logp = np.full((len(path), 4), -5.0)
    logp[range(len(path)), path] = -0.01
    assert greedy(logp) == units


def confident_steps(*path: int) -> NDArray[np.float64]:
    """Each step is sure by nine tenths."""
    logp = np.full((len(path), 4), np.log(0.1 / 3))
    logp[range(len(path)), path] = np.log(0.9)
    return logp


def test_words_have_times_and_the_confidence_of_their_least_sure_unit() -> None:
    logp = confident_steps(0, 2, 2, 3, 0, 1, 0, 3, 0)  # "ab", a space, "b"
    logp[3] = np.log([0.2, 0.05, 0.05, 0.7])
    words = words_of(logp, (2, 3, 1, 3), PIECES)
    assert [(text, first, last) for text, first, last, _ in words] == [("ab", 1, 3), ("b", 7, 7)]
    assert [confidence for *_, confidence in words] == pytest.approx([0.7, 0.9])
    assert text_of((1, 2, 3, 1, 1, 3), PIECES) == "ab b"
    assert words_of(logp, (), PIECES) == []
    assert words_of(confident_steps(0, 0), (), PIECES) == []


def test_pieces_of_words() -> None:
    pieces = ("", "\u2581no", "\u2581", "r", "th\u2581a")
    logp = np.log(np.full((6, 5), 0.2))
    words = words_of(logp, (1, 3, 4, 1), pieces)
    assert [text for text, *_ in words] == ["northa".replace("a", ""), "a", "no"]
    assert text_of((1, 3, 4, 1), pieces) == "north a no"
