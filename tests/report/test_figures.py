"""Charts are inline SVG with the page's colours; what they look like was judged by eye."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from report.run_folder import class_names, evaluation

from dolmen.report import figures, pictures

BINS = [{"confidence": 0.9, "accuracy": 0.8, "num": 30}, {"confidence": 0.5, "accuracy": 0.0, "num": 0}]
POINT = {"sensitivity": 0.8, "specificity": 0.9, "threshold": 0.4}
CHARTS = {
    "one look": lambda: figures.curve([1.0], {"validation": [0.5]}, title="Accuracy", best=0, percent=True),
    "no number": lambda: figures.curve([1, 2], {"a": [np.nan, np.nan], "b": [1, 2]}, title="Loss", seconds=[1, 2]),
    "flow": lambda: figures.gradient_flow([1, 2], [{"a": 0.1}, {"a": 0.01, "b": 0.0}]),
    "dead flow": lambda: figures.gradient_flow([1, 2], [{"a": 0.0}, {"a": 0.0}]),
    "deep flow": lambda: figures.gradient_flow([1, 2], [{f"layer{i}": 0.1 for i in range(200)}] * 2),
    "reliability": lambda: figures.reliability(BINS, 0.1, 0.2),
    "roc": lambda: figures.roc(np.array([0.1, 0.4, 0.8]), np.array([False, True, True]), POINT, 1.0),
    "roc of one side": lambda: figures.roc(np.array([0.1, 0.4]), np.array([True, True]), None, np.nan),
    "CJK": lambda: figures.confusion(np.eye(2, dtype=int), ["肺炎", "正常"]),
} | {
    f"confusion of {k}": lambda k=k: figures.confusion(
        np.array(evaluation(k, 3 * k).tables["confusion"]), class_names(k)
    )
    for k in (2, 10, 30, 100)
}


@pytest.mark.parametrize("name", CHARTS)
def test_charts_are_whole_small_and_told_in_words(name: str) -> None:
    before = dict(mpl.rcParams)
    chart = CHARTS[name]()
    assert dict(mpl.rcParams) == before
    root = ET.fromstring(chart)
    svg = root if root.tag.endswith("svg") else root[0]
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"]
    assert len(chart) < 120_000
    for colour in figures.COLOURS.values():
        assert chart.count(colour) == chart.count(f", {colour})"), "every colour is the page's own"
    assert "<text" in chart
    assert "mathdefault" not in chart


def test_matplotlib_comes_late_and_pyplot_never() -> None:
    code = (
        "import sys; from dolmen.report import card, explanation, figures, page;"
        "from dolmen.tasks.image_classification import report;"
        "early = 'matplotlib' in sys.modules or 'torch' in sys.modules;"
        "figures.curve([1, 2], {'a': [1, 2]}, title='Loss', seconds=[1, 2]);"
        "sys.exit(early or 'torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ids_of_two_charts_on_a_page_differ() -> None:
    charts = [CHARTS["reliability"](), CHARTS["reliability"]()]
    ids = [{e.attrib["id"] for e in ET.fromstring(c).iter() if "id" in e.attrib} for c in charts]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_roc_points() -> None:
    x, y = figures.roc_points(np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, True, False, False]))
    assert x.tolist() == [0, 0, 0.5, 1]
    assert y.tolist() == [0, 0.5, 1, 1]


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 12, 3), (200, 100, 3)])
def test_overlay_keeps_the_proportions(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    cam = np.zeros(shape[:2])
    cam[: shape[0] // 2] = 1
    shown = pictures.overlay(picture, cam, 96)
    assert max(shown.shape) == 96
    assert shown.dtype == np.uint8
    colourful = np.ptp(shown.astype(int), axis=2)
    assert colourful[:20].mean() > colourful[-20:].mean() + 40  # heat is where the map is hot
    assert pictures.data_uri(shown).startswith("data:image/jpeg;base64,")


def test_filter_tiles_show_zero_as_mid_grey() -> None:
    filters = np.zeros((20, 3, 2, 2))
    filters[0, 0, 0, 0] = 2.0
    tiles = pictures.filter_tiles(filters, scale=3, columns=8)
    assert tiles.shape == (3 * 6 + 2 * 4, 8 * 6 + 7 * 4, 4)
    assert tiles[0, 0].tolist() == [255, 128, 128, 255]
    assert tiles[5, 5].tolist() == [128, 128, 128, 255]
    assert tiles[0, 7, 3] == 0  # gaps are transparent
    assert pictures.filter_tiles(np.ones((2, 1, 3, 3))).shape[2] == 4
