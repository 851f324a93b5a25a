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


def sections_by_title(
    num_classes: int = 3,
    predicted: list[Boxes] | None = None,
    objects: list[metrics.Truth] | None = None,
    proposals: tuple[float, float] | None = None,
    pixels: tuple[int, ...] = (100, 120, 3),
) -> dict[str, Section]:
    """The sections by title; of a picture with one right box, one of a wrong class, one on nothing and one missed."""
    names = class_names(num_classes)
    last = num_classes - 1
    if predicted is None:
        predicted = [
            boxes(names, (0, 0.999, A), (last, 0.8, B), (0, 0.7, (80, 50, 110, 90)), (0, 0.2, C)),
            boxes(names),
        ]
        objects = [truth((0, A), (0, B), (last, C)), truth()]
    assert objects is not None
    values, tables = metrics.evaluation_tables(predicted, objects, names, (0.5,) * num_classes)
    if proposals:
        values |= {"rpn_recall_50": proposals[0], "rpn_recall_70": proposals[1]}
    evaluation = Evaluation("object-detection", len(predicted), values, {}, tables)
    report_sections = sections(
        {"val": evaluation, "test": evaluation},
        names=names,
        picture=lambda split, i: np.full(pixels, 90, np.uint8),
        name=lambda split, i: f"{split}/{i}{NASTY}",
        predicted={"test": predicted, "val": predicted},
        truth={"test": [(t.boxes_xyxy, t.labels, t.crowd) for t in objects]},
    )
    return {s.title: s for s in report_sections}


def text(section: Section) -> str:
    plain = re.sub(r"<svg.*?</svg>", " ", section.html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", plain).replace("\u00a0", " ").split())


def images(section: Section) -> list[Image.Image]:
    encoded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', section.html)
    return [Image.open(io.BytesIO(base64.b64decode(f))) for f in encoded]


def test_what_there_is() -> None:
    usual = [
        "Class by class (test)",
        "Precision and recall (test)",
        "What goes wrong (test)",
        "Most mistaken (test)",
        "Small and large objects (test)",
    ]
    assert list(sections_by_title()) == usual
    assert list(sections_by_title(proposals=(0.95, 0.8))) == [*usual, "Does it look in the right places? (test)"]


def test_numbers_are_explained() -> None:
    explained = " ".join(f"{metric.title} {metric.meaning}" for metric in METRICS.values())
    for words in ("mAP@0.75", "mAP of small objects", "recall@100", "proposal recall@0.7", "precision share of what"):
        assert words in explained


def test_class_by_class() -> None:
    section = sections_by_title()["Class by class (test)"]
    assert "class 0 2 objects, from 0.50 on 0.505 0.505 50 % 50 %" in text(section)
    assert "class 1 0 objects, from 0.50 on – – – –" in text(section)
    assert section.lead.endswith("Weakest: $a|<b>$, with an AP of 0.000 on 1 object.")
    assert "<b>$" not in section.html


def test_of_many_classes_the_weakest_are_shown() -> None:
    names = class_names(30)
    predicted = [boxes(names, *((k, 0.9, A) for k in range(29))) for _ in range(6)]
    objects = [truth(*((k, A) for k in range(30) if k < 28 or i == 0)) for i in range(6)]
    by_title = sections_by_title(30, predicted, objects)
    assert "The 10 weakest of those with 5 objects or more:" in text(by_title["Class by class (test)"])
    assert "All 30 classes" in text(by_title["Class by class (test)"])
    curves = by_title["Precision and recall (test)"]
    assert curves.html.count("<svg") == 12
    assert "6 more classes" in text(curves)
    assert "Drawn are the 12 most frequent of 30 classes." in curves.lead


def test_what_goes_wrong() -> None:
    section = sections_by_title()["What goes wrong (test)"]
    assert section.lead == (
        "At the thresholds it finds 1 of 3 objects, and 2 of the boxes that it reports are wrong. Each mistake is "
        "counted once, under one kind (after TIDE, Bolya et al., 2020). 2 objects not found; 1 of them had a box of a "
        "wrong class or place, counted there."
    )
    words = text(section)
    for kind in ("Missed", "Background", "Classification"):
        assert re.search(rf"{kind}: .* 1 ", words + " ")
    assert "Duplicate" not in words
    assert words.endswith("true said times class 0 $a|&lt;b&gt;$ 1")
    assert set(MISTAKES) == set(ALL_MISTAKES)


def test_the_most_mistaken_pictures() -> None:
    section = sections_by_title()["Most mistaken (test)"]
    words = text(section)
    assert words.startswith(
        "missed: 1 $a|&lt;b&gt;$ ✗ $a|&lt;b&gt;$ 0.80: is class 0 ✗ class 0 0.70: nothing there test/0"
    )
    assert "0.99" not in words  # what is right is not named
    assert "<img src=x" not in section.html
    (picture,) = images(section)
    assert picture.size == (SIDE_PX, round(SIDE_PX * 100 / 120))
    orange = np.abs(np.asarray(picture).astype(int) - [242, 142, 43]).sum(2) < 60
    assert orange.any()


@pytest.mark.parametrize("pixels", [(50, 60, 3), (50, 60, 1)])
def test_boxes_fit_a_smaller_copy_of_the_picture(pixels: tuple[int, ...]) -> None:
    whole, small = (np.asarray(images(sections_by_title(pixels=p)["Most mistaken (test)"])[0]).astype(int) for p in
                    ((100, 120, 3), pixels))  # fmt: skip
    assert np.abs(whole - small).mean() < 2


def test_sizes_and_proposals() -> None:
    by_title = sections_by_title(proposals=(0.95, 0.8))
    assert text(by_title["Small and large objects (test)"]).startswith(
        "size objects mAP found small under 32 × 32 pixels 3"
    )
    section = by_title["Does it look in the right places? (test)"]
    assert "95\u00a0% are covered by half" in section.lead
    assert "second stage that lets it go" in section.lead
    little = sections_by_title(proposals=(0.5, 0.2))["Does it look in the right places? (test)"]
    assert "That is little" in little.lead


def test_no_mistakes() -> None:
    names = class_names(2)
    by_title = sections_by_title(2, [boxes(names, (0, 1.0, A))], [truth((0, A))])
    assert by_title["Most mistaken (test)"].lead == "There is no mistake."
    assert text(by_title["What goes wrong (test)"]) == ""


def test_no_objects() -> None:
    names = class_names(2)
    assert list(sections_by_title(2, [boxes(names, (0, 1.0, A))], [truth()])) == []
    assert list(sections_by_title(2, [], [])) == []


def test_nothing_found() -> None:
    names = class_names(2)
    by_title = sections_by_title(2, [boxes(names)], [truth((0, A))])
    assert "missed: 1 class 0" in text(by_title["Most mistaken (test)"])
    assert "it finds 0 of 1 object, and 0 of the boxes" in by_title["What goes wrong (test)"].lead


def test_it_fits_the_page(tmp_path: Path) -> None:
    report = write_report(run_folder(tmp_path / "run"), list(sections_by_title(proposals=(0.9, 0.5)).values()))
    html = report.read_text("utf-8")
    assert "Most mistaken (test)" in html
    assert "onerror=alert(1)>" not in re.sub(r"&lt;.*?&gt;", "", html)
