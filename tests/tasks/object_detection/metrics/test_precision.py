"""How good boxes are: against hand-made cases, and our own matching against faster-coco-eval."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.predictions import Boxes
from dolmen.tasks.object_detection.metrics import precision as detection
from dolmen.tasks.object_detection.metrics.matching import IGNORED, NOTHING, match, weighted_precision
from dolmen.tasks.object_detection.metrics.precision import Truth

NAMES = ("cat", "dog", "owl")
A, B, C = (0, 0, 10, 10), (100, 0, 110, 10), (0, 100, 10, 110)
Row = tuple[Any, ...]


def boxes(*rows: Row) -> Boxes:
    """(label, score, box) each."""
    return Boxes(
        (200, 200),
        NAMES,
        np.array([r[2] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[1] for r in rows], np.float32),
        np.array([r[0] for r in rows], np.int64),
    )


def objects(*rows: Row) -> Truth:
    """(label, box) or (label, box, "crowd") each."""
    return Truth(
        np.array([r[1] for r in rows], np.float64).reshape(-1, 4),
        np.array([r[0] for r in rows], np.int64),
        np.array([len(r) > 2 for r in rows], np.bool_),
    )


def moved(box: tuple[int, ...], by: float) -> tuple[float, ...]:
    """Along x; of a box of 10 x 10, by 10/3 leaves an overlap of 0.5, by 5 of 1/3."""
    return box[0] + by, box[1], box[2] + by, box[3]


def random_pictures(num: int, num_classes: int = 3, seed: int = 0) -> tuple[list[Boxes], list[Truth]]:
    """Boxes about the true ones, of coarse places and scores, so that there are ties; one in ten a crowd."""
    rng = np.random.default_rng(seed)
    predicted, truth = [], []
    for _ in range(num):
        m = int(rng.integers(0, 7))
        corner, size = rng.integers(0, 40, (m, 2)) * 4, rng.integers(1, 30, (m, 2)) * 4
        whole, labels = np.concatenate([corner, corner + size], 1), rng.integers(0, num_classes, m)
        truth.append(Truth(whole.astype(np.float64), labels, rng.random(m) < 0.1))
        d = int(rng.integers(0, 12)) if m else 0
        near = rng.integers(0, max(m, 1), d)
        place = (whole[near] + rng.integers(-2, 3, (d, 4)) * [[0, 0, 4, 4]]).astype(np.float32)
        place[:, 2:] = np.maximum(place[:, 2:], place[:, :2] + 1)
        predicted_labels = np.where(rng.random(d) < 0.8, labels[near], rng.integers(0, num_classes, d))
        predicted.append(
            Boxes((200, 200), NAMES, place, (rng.integers(0, 21, d) / 20).astype(np.float32), predicted_labels)
        )
    return predicted, truth


# ---- average precision

CASES: list[tuple[str, list[Boxes], list[Truth], dict[str, float]]] = [
    ("all found", [boxes((0, 0.9, A), (1, 0.8, B))], [objects((0, A), (1, B))],
     {"map": 1, "map_50": 1, "recall_100": 1}),
    ("one of two found", [boxes((0, 0.9, A))], [objects((0, A), (0, B))], {"map": 51 / 101, "recall_100": 0.5}),
    ("a false one before", [boxes((0, 0.9, C), (0, 0.8, A))], [objects((0, A))], {"map": 0.5, "recall_100": 1}),
    ("a false one after", [boxes((0, 0.7, C), (0, 0.8, A))], [objects((0, A))], {"map": 1}),
    ("overlap of 0.6", [boxes((0, 0.9, moved(A, 2.5)))], [objects((0, A))], {"map": 0.3, "map_50": 1, "map_75": 0}),
    ("a class without objects does not count", [boxes((0, 0.9, A), (2, 0.9, B))], [objects((0, A))], {"map": 1}),
    ("a class that is never found does", [boxes((0, 0.9, A))], [objects((0, A), (1, B))], {"map": 0.5}),
    ("a crowd is neither", [boxes((0, 0.9, B), (0, 0.9, moved(B, 1)), (0, 0.8, A))],
     [objects((0, A), (0, (90, 0, 130, 30), "crowd"))], {"map": 1}),
    ("a duplicate is wrong", [boxes((0, 0.9, A), (0, 0.8, A), (0, 0.7, B))], [objects((0, A), (0, B))],
     {"map": (51 + 50 * 2 / 3) / 101}),
    ("small and large", [boxes((0, 0.9, A))], [objects((0, A), (0, (0, 0, 150, 150)))],
     {"map_small": 1, "map_large": 0}),
    ("nothing found", [boxes()], [objects((0, A))], {"map": 0, "map_50": 0, "recall_100": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("predicted", "truth", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_average_precision(
    predicted: list[Boxes], truth: list[Truth], expected: dict[str, float], capfd: pytest.CaptureFixture[str]
) -> None:
    values, per_class = detection.average_precision(predicted, truth, 3)
    assert {k: values[k] for k in expected} == pytest.approx(expected)
    assert detection.quick(predicted, truth, 3) == pytest.approx({k: values[k] for k in ("map", "map_50")})
    have = {int(k) for k in truth[0].labels[~truth[0].crowd]}
    assert [v is not None for v in per_class["ap"]] == [k in have for k in range(3)]
    assert per_class["num"] == [int((truth[0].labels[~truth[0].crowd] == k).sum()) for k in range(3)]
    assert capfd.readouterr() == ("", "")


def test_sizes_without_objects_are_left_out() -> None:
    values, _ = detection.average_precision([boxes()], [objects((0, A))], 3)
    assert set(values) == {"map", "map_50", "map_75", "map_small", "recall_100"}


@pytest.mark.parametrize("truth", [objects(), objects((0, A, "crowd"))])
def test_no_object_at_all(truth: Truth) -> None:
    for predicted in (boxes(), boxes((0, 0.9, A))):
        assert detection.average_precision([predicted], [truth], 3) == (
            {}, {"ap": [None] * 3, "ap_50": [None] * 3, "num": [0] * 3},
        )  # fmt: skip
        assert detection.quick([predicted], [truth], 3) == {"map": 0.0, "map_50": 0.0}
        assert detection.intervals([predicted], [truth], 3, np.zeros(1, np.int64)) == {}
        assert detection.fit_thresholds([predicted], [truth], 3) == (0.5, 0.5, 0.5)
        assert detection.proposal_recall([np.zeros((0, 4))], [truth]) == {}
        values, tables = detection.evaluation_tables([predicted], [truth], NAMES, ())
        assert values == {}
        json.dumps(tables, allow_nan=False)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20))
def test_our_matching_equals_the_library(seed: int, num: int) -> None:
    predicted, truth = random_pictures(num, 3, seed)
    values, per_class = detection.average_precision(predicted, truth, 3)
    ours = weighted_precision(match(predicted, truth, 3), np.ones((num, 1)))[:, :, 0]
    for k in range(3):
        if per_class["ap"][k] is None:
            assert np.isnan(ours[k]).all()
        else:
            assert ours[k].mean() == pytest.approx(per_class["ap"][k], abs=1e-9)
            assert ours[k, 0] == pytest.approx(per_class["ap_50"][k], abs=1e-9)
    if values:
        assert detection.quick(predicted, truth, 3) == pytest.approx(
            {k: values[k] for k in ("map", "map_50")}, abs=1e-9
        )


def test_of_many_boxes_the_hundred_surest_count() -> None:
    rows = [(0, 1 - i / 1000, moved(C, 20 + i)) for i in range(100)]
    values, _ = detection.average_precision([boxes(*rows, (0, 0.1, A))], [objects((0, A))], 1)
    assert values["map"] == 0
    assert detection.quick([boxes(*rows, (0, 0.1, A))], [objects((0, A))], 1)["map"] == 0
    assert detection.quick([boxes(*rows[:99], (0, 0.1, A))], [objects((0, A))], 1)["map"] == pytest.approx(0.01)


def test_matching() -> None:
    predicted = boxes(
        (0, 0.6, moved(A, 2)), (0, 0.9, moved(A, 3)), (0, 0.5, B), (0, 0.4, (60, 60, 70, 70)), (1, 1.0, B)
    )
    truth = objects((0, A), (0, (50, 50, 90, 90), "crowd"), (1, B))
    matches = match([boxes(), predicted], [objects(), truth], 2, [0.5])
    assert matches.rows.tolist() == [1, 0, 2, 3, 4]  # by class, then score
    assert matches.taken[:, 0].tolist() == [0, NOTHING, NOTHING, IGNORED, 2]  # the surer one, not the better one
    assert matches.num_objects().tolist() == [1, 1]


def test_weights_are_pictures_that_come_again() -> None:
    predicted, truth = random_pictures(12)
    drawn = np.random.default_rng(3).integers(0, 12, 12)
    weights = np.bincount(drawn, minlength=12)[:, None].astype(np.float64)
    again = np.sort(drawn)
    ours = weighted_precision(match(predicted, truth, 3), weights)[:, :, 0]
    expected, _ = detection.average_precision([predicted[i] for i in again], [truth[i] for i in again], 3)
    assert np.nanmean(np.nanmean(ours, 1)) == pytest.approx(expected["map"], abs=0.02)  # ties aside


def test_weights_of_distinct_scores_are_exactly_pictures_that_come_again() -> None:
    rng = np.random.default_rng(5)
    predicted, truth = random_pictures(12)
    predicted = [
        Boxes(f.size, f.names, f.boxes_xyxy, rng.random(len(f)).astype(np.float32), f.labels) for f in predicted
    ]
    again = np.sort(rng.integers(0, 12, 12))
    weights = np.bincount(again, minlength=12)[:, None].astype(np.float64)
    ours = weighted_precision(match(predicted, truth, 3), weights)[:, :, 0]
    expected, _ = detection.average_precision([predicted[i] for i in again], [truth[i] for i in again], 3)
    assert np.nanmean(np.nanmean(ours, 1)) == pytest.approx(expected["map"], abs=1e-9)


# ---- intervals


def test_intervals_hold_the_value_and_come_again() -> None:
    predicted, truth = random_pictures(60)
    groups = np.arange(60)
    bounds = detection.intervals(predicted, truth, 3, groups)
    values = detection.quick(predicted, truth, 3)
    for name, (low, high) in bounds.items():
        assert 0 <= low < values[name] < high <= 1
    assert detection.intervals(predicted, truth, 3, groups) == bounds
    assert detection.intervals(predicted, truth, 3, groups, seed=1) != bounds
    few = detection.intervals(predicted, truth, 3, groups // 12)
    assert few != bounds


def test_intervals_of_one_group_have_no_width() -> None:
    predicted, truth = random_pictures(10)
    value = detection.quick(predicted, truth, 3)["map"]
    assert detection.intervals(predicted, truth, 3, np.zeros(10, np.int64))["map"] == pytest.approx((value, value))


# ---- thresholds


def test_thresholds_have_the_best_f1() -> None:
    rows = [(0, 0.9, A), (0, 0.8, B), (0, 0.7, C), (0, 0.4, moved(C, 50)), (0, 0.3, moved(C, 70))]
    predicted = [boxes(*rows)] * 2
    truth = [objects((0, A), (0, B), (0, C))] * 2
    own, *others = detection.fit_thresholds(predicted, truth, 3)
    assert own == pytest.approx(0.55)  # half-way
    assert others == [own, own]  # dogs and owls there are none
    point, each = detection.at_thresholds(predicted, truth, (own, *others))
    assert point == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert each[1] == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_a_rare_class_takes_the_threshold_of_all() -> None:
    cats = [boxes((0, 0.9, A), (0, 0.5, B), (1, 0.1, C))] * 3
    truth = [objects((0, A), (0, B))] * 2 + [objects((0, A), (0, B), (1, C))]
    thresholds = detection.fit_thresholds(cats, truth, 2)
    assert thresholds[0] == pytest.approx(0.5)
    assert thresholds[1] == pytest.approx(0.3)  # of all: between the cats and the false dogs


def test_thresholds_are_compared_as_float32() -> None:
    low, high = np.nextafter(np.float32(0.7), np.float32(0)), np.float32(0.7)
    predicted = [boxes((0, high, A), (0, high, B), (0, low, C))] * 3
    truth = [objects((0, A), (0, B))] * 3
    thresholds = detection.fit_thresholds(predicted, truth, 1)
    assert detection.at_thresholds(predicted, truth, thresholds)[0]["precision"] == 1.0


def test_at_thresholds() -> None:
    predicted = [boxes((0, 0.9, A), (0, 0.6, C), (0, 0.2, B), (1, 0.3, C), (0, 0.8, (60, 60, 70, 70)))]
    truth = [objects((0, A), (0, B), (1, C), (0, (50, 50, 90, 90), "crowd"))]
    point, each = detection.at_thresholds(predicted, truth, (0.5, 0.3, 0.5))
    assert point == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3})
    assert each[0] == pytest.approx({"precision": 0.5, "recall": 0.5, "f1": 0.5})
    assert each[1] == pytest.approx({"precision": 1.0, "recall": 1.0, "f1": 1.0})
    assert each[2] == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_the_curve_goes_through_the_operating_point() -> None:
    predicted, truth = random_pictures(40)
    curves = detection.precision_recall(predicted, truth, 3)
    for k, curve in enumerate(curves):
        for i in range(0, len(curve["score"]), 5):
            _, each = detection.at_thresholds(predicted, truth, [curve["score"][i]] * 3)
            assert each[k]["recall"] == pytest.approx(curve["recall"][i], abs=1e-4)
            assert each[k]["precision"] == pytest.approx(curve["precision"][i], abs=1e-4)
    assert [len(c["recall"]) for c in detection.precision_recall(predicted, truth, 3, max_points=7)] == [7, 7, 7]
    assert detection.precision_recall([boxes()], [objects((0, A))], 1) == [{"recall": [], "precision": [], "score": []}]


def test_proposal_recall() -> None:
    truth = [objects((0, A), (1, B), (2, C)), objects((0, A, "crowd")), objects((0, A))]
    proposals = [np.array([moved(A, 1), moved(B, 3)]), np.zeros((0, 4)), np.zeros((0, 4))]
    assert detection.proposal_recall(proposals, truth) == {"rpn_recall_50": 0.5, "rpn_recall_70": 0.25}


# ---- what goes wrong

MISTAKES: list[tuple[str, Row | None]] = [
    ("right", (0, 0.9, moved(A, 1))),
    ("classification", (1, 0.9, moved(A, 1))),
    ("localisation", (0, 0.9, moved(A, 5))),
    ("both", (1, 0.9, moved(A, 5))),
    ("background", (0, 0.9, C)),
    ("background", (0, 0.9, moved(A, 9))),  # overlap of 0.05
    ("missed", None),
    ("missed", (0, 0.4, A)),  # below the threshold
]


@pytest.mark.parametrize(("mistake", "row"), MISTAKES)
def test_each_mistake_has_one_kind(mistake: str, row: Row | None) -> None:
    mistakes = detection.errors([boxes(*([row] if row else []))], [objects((0, A))], 3, (0.5, 0.5, 0.5))
    expected = dict.fromkeys(mistakes["counts"], 0)
    if mistake != "right":
        expected[mistake] = 1
    if mistake in ("both", "background"):
        expected["missed"] = 1  # nothing came near, or not as what it is
    assert mistakes["counts"] == expected
    assert mistakes["right"] == (mistake == "right")
    assert mistakes["undetected"] == (mistake != "right")
    assert {k: sum(r[k] for r in mistakes["per_class"]) for k in expected} == expected


def test_mistakes_of_a_picture() -> None:
    predicted = boxes(
        (0, 0.3, A),  # below the threshold
        (0, 0.9, A),
        (0, 0.8, moved(A, 1)),  # a duplicate
        (2, 0.7, B),  # a dog said to be an owl
        (1, 0.6, (60, 60, 70, 70)),  # in the crowd
    )
    truth = objects((0, A), (1, B), (2, C), (1, (50, 50, 90, 90), "crowd"))
    mistakes = detection.errors([boxes(), predicted], [objects(), truth], 3, (0.5, 0.5, 0.5))
    assert mistakes["counts"] == {
        "classification": 1, "localisation": 0, "both": 0, "duplicate": 1, "background": 0, "missed": 1,
    }  # fmt: skip
    assert mistakes["confused"] == [{"true": 1, "said": 2, "num": 1}]
    wrong = [[2, "duplicate", 0], [3, "classification", 1]]
    assert mistakes["worst"] == [{"picture": 1, "wrong": wrong, "missed": [2]}]
    assert (mistakes["right"], mistakes["undetected"]) == (1, 2)


def test_kinds_add_up() -> None:
    predicted, truth = random_pictures(50)
    mistakes = detection.errors(predicted, truth, 3, (0.3, 0.5, 0.2))
    point, _ = detection.at_thresholds(predicted, truth, (0.3, 0.5, 0.2))
    wrong = sum(n for mistake, n in mistakes["counts"].items() if mistake != "missed")
    num = sum(int((~t.crowd).sum()) for t in truth)
    assert point["precision"] == pytest.approx(mistakes["right"] / (mistakes["right"] + wrong))
    assert point["recall"] == pytest.approx(mistakes["right"] / num)
    assert mistakes["undetected"] == num - mistakes["right"] >= mistakes["counts"]["missed"]
    assert len(mistakes["worst"]) == 12


def test_tables_are_what_the_report_reads() -> None:
    predicted, truth = random_pictures(30)
    values, tables = detection.evaluation_tables(predicted, truth, NAMES, (0.3, 0.3, 0.3))
    assert list(values)[:3] == ["map", "map_50", "map_75"]
    assert {"precision", "recall", "f1"} < set(values)
    assert set(tables) == {"classes", "per_class", "curves", "operating_point", "sizes", "errors"}
    assert set(tables["per_class"][0]) == {"class", "num", "ap", "ap_50", "precision", "recall", "f1", "threshold"}
    assert sum(s["num"] for s in tables["sizes"]) == sum(r["num"] for r in tables["per_class"])
    total = sum(s["num"] * s["recall"] for s in tables["sizes"])
    assert total == pytest.approx(tables["errors"]["right"])
    json.dumps(tables, allow_nan=False)
