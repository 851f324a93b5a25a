"""Every figure against scikit-learn, or by hand; degenerate data give figures or nothing, never a warning."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sk

from dolmen.metrics import classification as ours


def made_up(num: int = 300, k: int = 3, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits that know something of the labels, with ties, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, num)
    logits = rng.normal(size=(num, k)) + 1.2 * np.eye(k)[labels]
    return logits.round(1), labels


# ---- AUROC


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_auroc_is_scikit_learns_with_ties_and_weights(decimals: int) -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(200) < 0.3
    scores = (rng.normal(size=200) + positive).round(decimals)
    assert ours.auroc(scores, positive) == pytest.approx([sk.roc_auc_score(positive, scores)])
    weights = rng.integers(0, 4, (5, 200)).astype(float)
    expected = [sk.roc_auc_score(positive, scores, sample_weight=w) for w in weights]
    assert ours.auroc(scores, positive, weights) == pytest.approx(expected)


def test_auroc_of_constant_and_perfect_scores() -> None:
    positive = np.array([True, False, True, False])
    assert ours.auroc(np.zeros(4), positive).tolist() == [0.5]
    assert ours.auroc(positive.astype(float), positive).tolist() == [1.0]
    assert ours.auroc(1.0 - positive, positive).tolist() == [0.0]


@pytest.mark.parametrize("k", [2, 3, 7])
def test_mean_auroc_is_scikit_learns_macro_one_against_the_rest(k: int) -> None:
    logits, labels = made_up(k=k)
    p = ours.softmax(logits)
    expected = sk.roc_auc_score(labels, p[:, 1]) if k == 2 else sk.roc_auc_score(labels, p, multi_class="ovr")
    assert ours.mean_auroc(p, labels) == pytest.approx([expected])


def test_mean_auroc_leaves_out_classes_that_are_not_there() -> None:
    logits, labels = made_up(k=4)
    some = labels < 3
    p, labels = ours.softmax(logits)[some], labels[some]
    expected = np.mean([sk.roc_auc_score(labels == c, p[:, c]) for c in range(3)])
    assert ours.mean_auroc(p, labels) == pytest.approx([expected])


# ---- the figures


def test_decisions_by_a_threshold_change_what_depends_on_decisions() -> None:
    logits, labels = made_up(k=2)
    p = ours.softmax(logits)
    decided = (p[:, 1] >= 0.3).astype(np.int64)
    plain, found = ours.metrics(logits, labels, 1.0), ours.metrics(logits, labels, 1.0, decided)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, decided)) != plain["accuracy"]
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, decided))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(labels, decided, average="macro"))
    assert {k: found[k] for k in ("auroc", "loss", "brier", "ece")} == {
        k: plain[k] for k in ("auroc", "loss", "brier", "ece")
    }
    low, high = ours.intervals(p, labels, np.arange(len(p)), decided=decided)["accuracy"]
    assert low < found["accuracy"] < high


@pytest.mark.parametrize("k", [2, 3, 8])
def test_figures_are_scikit_learns(k: int) -> None:
    logits, labels = made_up(k=k)
    logits += np.random.default_rng(1).normal(scale=1e-3, size=logits.shape)  # which of equals is in the top 5 is open
    found = ours.metrics(logits, labels, 1.5)
    p = ours.softmax(logits, 1.5)
    decided = p.argmax(1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, decided))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, decided))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(labels, decided, average="macro"))
    assert found["loss"] == pytest.approx(sk.log_loss(labels, p))
    assert found["brier"] == pytest.approx(np.square(p - np.eye(k)[labels]).sum(1).mean())
    if k == 2:  # scikit-learn's Brier score of two classes counts one of them
        assert found["brier"] == pytest.approx(2 * sk.brier_score_loss(labels, p[:, 1]))
    assert ("top_5_accuracy" in found) == (k > 5)
    if k > 5:
        assert found["top_5_accuracy"] == pytest.approx(sk.top_k_accuracy_score(labels, p, k=5))
    quick = ours.quick_metrics(logits, labels)
    assert quick["calibrated_loss"] <= quick["loss"] + 1e-9
    del quick["calibrated_loss"]
    assert quick == pytest.approx({"loss": sk.log_loss(labels, ours.softmax(logits)), "accuracy": found["accuracy"]})


def test_softmax_bears_large_logits() -> None:
    p = ours.softmax(np.array([[1e4, -1e4], [-1e4, -1e4]]))
    assert p.tolist() == [[1, 0], [0.5, 0.5]]
    assert ours.log_loss(np.array([[1e4, -1e4]]), np.array([1])) == pytest.approx(2e4)


def test_per_class_is_scikit_learns_report() -> None:
    logits, labels = made_up()
    decided = logits.argmax(1)
    found = ours.per_class(decided, labels, ("a", "b", "c"))
    assert found["confusion"] == sk.confusion_matrix(labels, decided).tolist()
    precision, recall, f1, num = sk.precision_recall_fscore_support(labels, decided)
    for c, row in enumerate(found["per_class"]):
        assert row == {
            "class": "abc"[c],
            "num": num[c],
            "precision": pytest.approx(precision[c]),
            "recall": pytest.approx(recall[c]),
            "f1": pytest.approx(f1[c]),
        }


# ---- calibration


def test_calibration_error_by_hand() -> None:
    # two bins: 0.6 twice, right once; 0.9 twice, right twice
    p = np.array([[0.6, 0.4], [0.4, 0.6], [0.9, 0.1], [0.1, 0.9]])
    labels = np.array([0, 0, 0, 1])
    error, bins = ours.calibration(p, labels, num_bins=10)
    assert error == pytest.approx((2 * abs(0.6 - 0.5) + 2 * abs(0.9 - 1)) / 4)
    assert bins == [
        {"confidence": pytest.approx(0.6), "accuracy": 0.5, "num": 2},
        {"confidence": pytest.approx(0.9), "accuracy": 1.0, "num": 2},
    ]
    certain, bins = ours.calibration(np.array([[1.0, 0.0]]), np.array([0]))
    assert (certain, len(bins)) == (0.0, 1)


@pytest.mark.parametrize("known", [0.25, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(known: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 4)) * 2
    labels = (rng.random(len(logits))[:, None] > ours.softmax(logits).cumsum(1)).sum(1)
    found = ours.fit_temperature(logits * known, labels)
    assert found == pytest.approx(known, rel=0.05)
    assert ours.calibration(ours.softmax(logits * known, found), labels)[0] < 0.02


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("num", [4, 8, 100, 10_000])
@pytest.mark.parametrize("margin", [1.0, 5.0, 100.0])
def test_n_right_answers_make_as_sure_as_n_right_answers_can(num: int, margin: float, num_classes: int) -> None:
    """However far apart the logits are, and up to the bounds: N + 1 of N + 2, the rule of succession."""
    labels = np.arange(num) % num_classes
    logits = np.eye(num_classes)[labels] * margin
    temperature = ours.fit_temperature(logits, labels)
    wanted = margin / math.log((num + 1) * (num_classes - 1))
    assert temperature == pytest.approx(min(max(wanted, 1 / 20), 20), rel=0.01)
    if 1 / 20 < wanted < 20:
        assert ours.softmax(logits, temperature).max(1) == pytest.approx((num + 1) / (num + 2), abs=0.01 / num)
    assert 0 < ours.log_loss(logits, labels, temperature) < 2 / num


def test_the_prior_vanishes_with_the_number_of_examples() -> None:
    """Mostly right answers: what is fitted nears the likeliest temperature as 1 / N."""
    logits = np.array([[3.0, 0.0]] * 9 + [[0.0, 3.0]])
    likeliest = 3 / math.log(9)
    found = [ours.fit_temperature(np.tile(logits, (n, 1)), np.zeros(10 * n, np.int64)) for n in (1, 10, 100, 1000)]
    apart = [t - likeliest for t in found]
    assert all(0 <= b < a / 5 for a, b in itertools.pairwise(apart))
    assert apart[-1] < 0.002


def test_the_temperature_stays_within_bounds_for_hopeless_logits() -> None:
    logits, labels = np.eye(2)[[0, 1, 0, 1]] * 5, np.array([0, 1, 0, 1])
    assert 10 < ours.fit_temperature(logits, 1 - labels) <= 20
    assert math.isfinite(ours.fit_temperature(np.ones((3, 1)), np.zeros(3, np.int64)))  # one class


# ---- operating point


@pytest.mark.parametrize("decimals", [1, 8])
@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.9, 0.95, 0.999])
def test_the_threshold_has_at_least_the_specificity_that_was_asked_for(wanted: float, decimals: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        positive = rng.random(97) < 0.4
        scores = (rng.random(97) * 0.7 + 0.3 * positive).round(decimals)
        threshold = ours.fit_threshold(scores, positive, wanted)
        assert (scores[~positive] < threshold).mean() >= wanted
        if decimals == 8:  # without ties, no smaller threshold would do
            below = np.sort(scores[~positive])
            smaller = below[below < threshold][-1]
            assert (scores[~positive] < smaller).mean() < wanted


def test_a_threshold_from_one_negative() -> None:
    threshold = ours.fit_threshold(np.array([0.4, 0.9]), np.array([False, True]), 0.9)
    assert 0.4 < threshold < 0.41


# ---- intervals


def test_intervals_hold_the_point_repeat_and_narrow_with_more_data() -> None:
    widths = []
    for num in (100, 1600):
        logits, labels = made_up(num)
        p, groups = ours.softmax(logits), np.arange(num)
        bounds = ours.intervals(p, labels, groups)
        assert bounds == ours.intervals(p, labels, groups)
        assert bounds != ours.intervals(p, labels, groups, seed=1)
        points = ours.metrics(logits, labels, 1.0)
        assert set(bounds) == {"accuracy", "balanced_accuracy", "auroc"}
        for name, (low, high) in bounds.items():
            assert 0 <= low < points[name] < high <= 1, name
        widths.append(np.array([high - low for low, high in bounds.values()]))
    assert (widths[0] / widths[1] > 3).all()  # sixteen times the data: a quarter of the width


def test_accuracy_interval_is_about_the_normal_one() -> None:
    logits, labels = made_up(1000)
    p = ours.softmax(logits)
    low, high = ours.intervals(p, labels, np.arange(1000))["accuracy"]
    share = float((p.argmax(1) == labels).mean())
    expected = 2 * 1.96 * math.sqrt(share * (1 - share) / 1000)
    assert high - low == pytest.approx(expected, rel=0.1)


def test_pictures_of_one_group_count_together() -> None:
    """Each example five times: five times the rows, no more knowledge."""
    logits, labels = made_up(120)
    once = ours.intervals(ours.softmax(logits), labels, np.arange(120))
    five, five_labels = ours.softmax(np.repeat(logits, 5, 0)), np.repeat(labels, 5)
    grouped = ours.intervals(five, five_labels, np.repeat(np.arange(120) * 7, 5))
    alone = ours.intervals(five, five_labels, np.arange(600))
    for name in once:
        width = {k: v[name][1] - v[name][0] for k, v in (("once", once), ("grouped", grouped), ("alone", alone))}
        assert width["grouped"] == pytest.approx(width["once"], rel=0.05)
        assert width["alone"] < 0.6 * width["grouped"]


@pytest.mark.parametrize(
    ("successes", "total", "expected"),
    [
        (0, 0, (0, 1)),
        (0, 10, (0, 0.2775)),
        (10, 10, (0.7225, 1)),
        (5, 10, (0.2366, 0.7634)),
        (81, 100, (0.7222, 0.8749)),
    ],
)
def test_wilson_interval(successes: int, total: int, expected: tuple[float, float]) -> None:
    assert ours.wilson(successes, total) == pytest.approx(expected, abs=1e-4)


def test_wilson_interval_holds_its_proportion_to_the_last_bit() -> None:
    for total in range(1, 500):
        assert ours.wilson(0, total)[0] == 0
        assert ours.wilson(total, total)[1] == 1


# ---- data that say little


@pytest.mark.parametrize(
    ("logits", "labels", "missing"),
    [
        pytest.param([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]], [0, 0, 0], {"auroc"}, id="one class present"),
        pytest.param([[0.3, -0.2, 0.1]], [2], {"auroc"}, id="one example"),
        pytest.param([[1e4, 0.0], [0.0, 1e4]], [0, 1], set(), id="perfect"),
        pytest.param([[1e4, 0.0], [0.0, 1e4]], [1, 0], set(), id="perfectly wrong"),
        pytest.param([[0.0, 0.0, 0.0]] * 4, [0, 1, 2, 0], set(), id="all the same"),
    ],
)
def test_degenerate_data_give_what_can_be_said(logits: list[list[float]], labels: list[int], missing: set[str]) -> None:
    z, y = np.array(logits), np.array(labels)
    p = ours.softmax(z)
    names = {"accuracy", "balanced_accuracy", "macro_f1", "auroc", "loss", "brier", "ece"}
    found = ours.metrics(z, y, 1.0)
    assert set(found) == names - missing
    assert all(math.isfinite(v) for v in found.values())
    bounds = ours.intervals(p, y, np.arange(len(y)))
    assert set(bounds) == {"accuracy", "balanced_accuracy", "auroc"} - missing
    for name, (low, high) in bounds.items():
        assert 0 <= low <= found[name] <= high <= 1
    assert math.isfinite(ours.fit_temperature(z, y))
    if len(y) > 1 and found["accuracy"] in (0, 1):  # a few examples never make certain
        assert bounds["accuracy"][1] - bounds["accuracy"][0] > 0.1
    table = ours.per_class(p.argmax(1), y, tuple("abc"[: z.shape[1]]))
    assert sum(map(sum, table["confusion"])) == len(y)
    assert all(math.isfinite(row[k]) for row in table["per_class"] for k in ("precision", "recall", "f1"))
