"""Suspect labels: flipped ones are found, right ones are left alone, wrong arguments are told."""

from __future__ import annotations

import numpy as np
import pytest

from dolmen.tasks.image_classification.data.labels import suspect_labels


def a_model(num: int, num_classes: int, strength: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True labels, and probabilities of a model that mostly sees them."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, num)
    logits = rng.normal(size=(num, num_classes))
    logits[np.arange(num), truth] += strength
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True), truth


@pytest.mark.parametrize("num_classes", [2, 5, 20])
def test_flipped_labels_are_found(num_classes):
    probabilities, truth = a_model(4000, num_classes, 6.0)
    rng = np.random.default_rng(1)
    flipped = rng.choice(4000, 200, replace=False)  # 5 %
    labels = truth.copy()
    labels[flipped] = (truth[flipped] + rng.integers(1, num_classes, 200)) % num_classes
    suspects = suspect_labels(probabilities, labels)
    found = np.isin(suspects, flipped)
    assert found.sum() >= 0.7 * 200
    assert found[:100].mean() >= 0.97  # the most suspicious first
    assert found.mean() >= 0.8


def test_right_labels_are_left_alone():
    probabilities, truth = a_model(2000, 5, 8.0)
    assert len(suspect_labels(probabilities, truth)) <= 10


def test_a_class_of_which_the_model_is_unsure_accuses_nobody():
    probabilities = np.array([[0.6, 0.4]] * 50 + [[0.55, 0.45]] * 50)
    labels = np.array([0] * 50 + [1] * 50)
    assert suspect_labels(probabilities, labels).tolist() == []


def test_the_order_is_by_margin():
    probabilities = np.array([[0.99, 0.01], [0.9, 0.1], [0.1, 0.9], [0.02, 0.98], [0.95, 0.05], [0.97, 0.03]])
    assert suspect_labels(probabilities, np.array([0, 0, 1, 1, 1, 1])).tolist() == [5, 4]


def test_a_class_without_examples_draws_nobody():
    assert suspect_labels(np.array([[0.4, 0.3, 0.3], [0.1, 0.2, 0.7]]), np.array([0, 1])).tolist() == []


def test_nothing_in_nothing_out():
    assert suspect_labels(np.zeros((0, 3)), np.zeros(0, np.int64)).tolist() == []


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (
            np.ones((3, 2)),
            np.zeros(2, int),
            "probabilities are (3, 2) and labels (2,), expected (N, K) and (N,).",
        ),
        (np.ones(3), np.zeros(3, int), "probabilities are (3,) and labels (3,), expected (N, K) and (N,)."),
        (np.ones((2, 2)), np.array([0, -1]), "label -1 is outside [0, 2): leave unlabelled examples out."),
        (np.ones((2, 2)), np.array([0, 2]), "label 2 is outside [0, 2): leave unlabelled examples out."),
        (
            np.array([[np.nan, 1.0]]),
            np.array([0]),
            "some probabilities are not numbers: the model that gave them diverged.",
        ),
    ],
)
def test_wrong_arguments(probabilities, labels, message):
    with pytest.raises(ValueError) as caught:
        suspect_labels(probabilities, labels)
    assert str(caught.value) == message
