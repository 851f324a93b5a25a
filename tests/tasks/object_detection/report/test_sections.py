"""The detector's part of the report, as text that a person reads."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report.run_folder import NASTY, class_names, run_folder

from dolmen.predictions import Boxes
from dolmen.report.page import write_report
from dolmen.tasks.object_detection.metrics import precision as metrics
from dolmen.tasks.object_detection.metrics.declared import METRICS
from dolmen.tasks.object_detection.metrics.errors import MISTAKES as ALL_MISTAKES
from dolmen.tasks.object_detection.report.sections import MISTAKES, SIDE_PX, sections
from dolmen.types import Evaluation, Section

A, B, C = (4, 4, 24, 24), (40, 10, 60, 30), (10, 60, 40, 90)


def boxes(names: tuple[str, ...], *rows: tuple[int, float, Any]) -> Boxes:
    return Boxes(
        (100, 120), names, np.array([r[2] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[1] for r in rows], np.float32), np.array([r[0] for r in rows], np.int64),
    )  # fmt: skip


def truth(*rows: tuple[int, Any]) -> metrics.Truth:
    places = np.array([r[1] for r in rows], np.float64).reshape(-1, 4)
    return metrics.Truth(places, np.array([r[0] for r in rows], np.int64), np.zeros(len(rows), np.bool_))


def made(
    num_classes: int = 3,
    found: list[Boxes] | None = None,
    there: list[metrics.Truth] | None = None,
    proposals: tuple[float, float] | None = None,
    pixels: tuple[int, ...] = (100, 120, 3),
) -> dict[str, Section]:
    """The sections by title; of a picture with one right box, one of a wrong class, one on nothing and one missed."""
    names = class_names(num_classes)
    last = num_classes - 1
    if found is None:
        found = [boxes(names, (0, 0.999, A), (last, 0.8, B), (0, 0.7, (80, 50, 110, 90)), (0, 0.2, C)), boxes(names)]
        there = [truth((0, A), (0, B), (last, C)), truth()]
    assert there is not None
    values, tables = metrics.evaluation_tables(found, there, names, (0.5,) * num_classes)
    if proposals:
        values |= {"rpn_recall_50": proposals[0], "rpn_recall_70": proposals[1]}
    evaluation = Evaluation("object-detection", len(found), values, {}, tables)
    shown = sections(
        {"val": evaluation, "test": evaluation},
        names=names,
        picture=lambda split, i: np.full(pixels, 90, np.uint8),
        name=lambda split, i: f"{split}/{i}{NASTY}",
        predicted={"test": found, "val": found},
        truth={"test": [(t.boxes_xyxy, t.labels, t.crowd) for t in there]},
    )
    return {s.title: s for s in shown}


def text(section: Section) -> str:
    plain = re.sub(r"<svg.*?</svg>", " ", section.html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", plain).replace("\u00a0", " ").split())


def images(section: Section) -> list[Image.Image]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', section.html)
    return [Image.open(io.BytesIO(base64.b64decode(f))) for f in found]


def test_what_there_is() -> None:
    usual = [
        "Class by class (test)",
        "Precision and recall (test)",
        "What goes wrong (test)",
        "Most mistaken (test)",
        "Small and large objects (test)",
    ]
    assert list(made()) == usual
    assert list(made(proposals=(0.95, 0.8))) == [*usual, "Does it look in the right places? (test)"]


def test_numbers_are_explained() -> None:
    explained = " ".join(f"{metric.title} {metric.meaning}" for metric in METRICS.values())
    for words in ("mAP@0.75", "mAP of small objects", "recall@100", "proposal recall@0.7", "precision share of what"):
        assert words in explained


def test_class_by_class() -> None:
    section = made()["Class by class (test)"]
    assert "class 0 2 objects, from 0.50 on 0.505 0.505 50 % 50 %" in text(section)
    assert "class 1 0 objects, from 0.50 on – – – –" in text(section)
    assert section.lead.endswith("Weakest: $a|<b>$, with an AP of 0.000 on 1 object.")
    assert "<b>$" not in section.html


def test_of_many_classes_the_weakest_are_shown() -> None:
    names = class_names(30)
    found = [boxes(names, *((k, 0.9, A) for k in range(29))) for _ in range(6)]
    there = [truth(*((k, A) for k in range(30) if k < 28 or i == 0)) for i in range(6)]
    shown = made(30, found, there)
    assert "The 10 weakest of those with 5 objects or more:" in text(shown["Class by class (test)"])
    assert "All 30 classes" in text(shown["Class by class (test)"])
    curves = shown["Precision and recall (test)"]
    assert curves.html.count("<svg") == 12
    assert "6 more classes" in text(curves)
    assert "Drawn are the 12 most frequent of 30 classes." in curves.lead


def test_what_goes_wrong() -> None:
    section = made()["What goes wrong (test)"]
    assert section.lead == (
        "At the thresholds it finds 1 of 3 objects, and 2 of the boxes that it reports are wrong. Each mistake is "
        "counted once, under one kind (after TIDE, Bolya et al., 2020). 2 objects not found; 1 of them had a box of a "
        "wrong class or place, counted there."
    )
    told = text(section)
    for kind in ("Missed", "Background", "Classification"):
        assert re.search(rf"{kind}: .* 1 ", told + " ")
    assert "Duplicate" not in told
    assert told.endswith("true said times class 0 $a|&lt;b&gt;$ 1")
    assert set(MISTAKES) == set(ALL_MISTAKES)


def test_the_most_mistaken_pictures() -> None:
    section = made()["Most mistaken (test)"]
    told = text(section)
    assert told.startswith(
        "missed: 1 $a|&lt;b&gt;$ ✗ $a|&lt;b&gt;$ 0.80: is class 0 ✗ class 0 0.70: nothing there test/0"
    )
    assert "0.99" not in told  # what is right is not named
    assert "<img src=x" not in section.html
    (picture,) = images(section)
    assert picture.size == (SIDE_PX, round(SIDE_PX * 100 / 120))
    orange = np.abs(np.asarray(picture).astype(int) - [242, 142, 43]).sum(2) < 60
    assert orange.any()


@pytest.mark.parametrize("pixels", [(50, 60, 3), (50, 60, 1)])
def test_boxes_fit_a_smaller_copy_of_the_picture(pixels: tuple[int, ...]) -> None:
    whole, small = (np.asarray(images(made(pixels=p)["Most mistaken (test)"])[0]).astype(int) for p in
                    ((100, 120, 3), pixels))  # fmt: skip
    assert np.abs(whole - small).mean() < 2


def test_sizes_and_proposals() -> None:
    shown = made(proposals=(0.95, 0.8))
    assert text(shown["Small and large objects (test)"]).startswith(
        "size objects mAP found small under 32 × 32 pixels 3"
    )
    section = shown["Does it look in the right places? (test)"]
    assert "95\u00a0% are covered by half" in section.lead
    assert "second stage that lets it go" in section.lead
    little = made(proposals=(0.5, 0.2))["Does it look in the right places? (test)"]
    assert "That is little" in little.lead


def test_no_mistakes() -> None:
    names = class_names(2)
    shown = made(2, [boxes(names, (0, 1.0, A))], [truth((0, A))])
    assert shown["Most mistaken (test)"].lead == "There is no mistake."
    assert text(shown["What goes wrong (test)"]) == ""


def test_no_objects() -> None:
    names = class_names(2)
    assert list(made(2, [boxes(names, (0, 1.0, A))], [truth()])) == []
    assert list(made(2, [], [])) == []


def test_nothing_found() -> None:
    names = class_names(2)
    shown = made(2, [boxes(names)], [truth((0, A))])
    assert "missed: 1 class 0" in text(shown["Most mistaken (test)"])
    assert "it finds 0 of 1 object, and 0 of the boxes" in shown["What goes wrong (test)"].lead


def test_it_fits_the_page(tmp_path: Path) -> None:
    report = write_report(run_folder(tmp_path / "run"), list(made(proposals=(0.9, 0.5)).values()))
    html = report.read_text("utf-8")
    assert "Most mistaken (test)" in html
    assert "onerror=alert(1)>" not in re.sub(r"&lt;.*?&gt;", "", html)
