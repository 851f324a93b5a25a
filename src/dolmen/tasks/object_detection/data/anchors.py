"""Anchors that fit the data: the sizes of objects grouped by k-means, and the map of a detector for each group."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STRIDES = (8, 16, 32)
CELLS_PER_OBJECT = 5.0
"""An object is looked for on the map on which it is about so many cells wide."""
MAX_SAMPLE_BOXES = 20_000
"""Boxes that the anchors are fitted to, a random sample where there are more."""
Shapes = tuple[tuple[tuple[float, float], ...], ...]


def fit_anchors(sizes: NDArray[np.float64], num_shapes: int = 6, seed: int = 0) -> Shapes:
    """Group the sizes of boxes, and give each group to a map.

    The distance of two sizes is one minus the IoU of boxes that have them and the same centre (Redmon & Farhadi,
    2017). Every map gets at least one anchor.

    Args:
        sizes: (M, 2) widths and heights in pixels of the network's input, all > 0.
        num_shapes: number of groups, over all maps.
        seed: of the sample, where there are very many boxes.

    Returns:
        For each stride (8, 16, 32) the (width, height) of its anchors, smallest first.
    """
    if len(sizes) > MAX_SAMPLE_BOXES:
        sizes = sizes[np.random.default_rng(seed).permutation(len(sizes))[:MAX_SAMPLE_BOXES]]
    sizes = sizes[np.argsort(sizes.prod(1), kind="stable")]
    groups = sizes[((np.arange(num_shapes) + 0.5) / num_shapes * len(sizes)).astype(np.int64)]
    for _ in range(100):
        nearest = size_iou(sizes, groups).argmax(1)
        moved = groups.copy()
        for i in range(num_shapes):
            if (nearest == i).any():
                moved[i] = np.median(sizes[nearest == i], 0)
        if np.allclose(moved, groups):
            break
        groups = moved
    groups = np.unique(np.round(groups, 1), axis=0)
    levels = np.abs(np.log2(np.sqrt(groups.prod(1))[:, None] / (CELLS_PER_OBJECT * np.array(STRIDES)))).argmin(1)
    anchors = []
    for level, stride in enumerate(STRIDES):
        shapes = groups[levels == level]
        if not len(shapes):  # nothing of that size: one of the map's own size, with the usual shape
            usual_shape = np.median(groups / np.sqrt(groups.prod(1))[:, None], 0)
            shapes = usual_shape[None] * CELLS_PER_OBJECT * stride
        shapes = shapes[np.argsort(shapes.prod(1), kind="stable")]
        anchors.append(tuple((round(float(w), 1), round(float(h), 1)) for w, h in shapes))
    return tuple(anchors)


def size_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, K) IoU of boxes of sizes (N, 2) and (K, 2) with the same centre."""
    shared = np.minimum(a[:, None], b[None]).prod(2)
    return np.asarray(shared / (a.prod(1)[:, None] + b.prod(1)[None] - shared))
