from __future__ import annotations

import numpy as np

from dolmen.data.checks.clusters import contradictions, copies_across, copies_within, exact_duplicates


def test_exact_duplicates_are_clusters_in_order() -> None:
    digests = np.array([[3], [1], [1], [2], [1], [3]], np.uint8).repeat(16, axis=1)
    clusters = exact_duplicates(digests, np.arange(6))
    assert [c.tolist() for c in clusters] == [[0, 5], [1, 2, 4]]
    assert [c.tolist() for c in exact_duplicates(digests, np.array([5, 1, 0]))] == [[0, 5]]
    assert exact_duplicates(digests, np.array([], np.int64)) == []


def test_copies_across_and_within() -> None:
    clusters = [np.array([0, 2, 3]), np.array([1, 4])]
    splits = np.array(["train", "train", "test", "test", "train"])
    assert copies_across(clusters, splits, "test", "train") == [(2, 0), (3, 0)]
    assert copies_within(clusters, splits) == [(1, 4), (2, 3)]


def test_contradictions_name_the_first_that_differs() -> None:
    clusters = [np.array([0, 1, 2, 3]), np.array([4, 5])]
    assert contradictions(clusters, lambda i: "aabcdd"[i]) == [(0, 2)]
