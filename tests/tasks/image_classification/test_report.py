"""The classifier's part of the report, as text that a person reads."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest
from numpy.typing import NDArray
from report.run_folder import NASTY, class_names, evaluation

from dolmen.tasks.image_classification.report import GALLERY_SIZE, heat_map_text, sections
from dolmen.types import Evaluation, Section


class Reader(HTMLParser):
    """Text and tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def read(html: str) -> tuple[str, Reader]:
    reader = Reader()
    reader.feed(html)
    return " ".join(" ".join(reader.words).replace("\u00a0", " ").split()), reader


def made(
    num_classes: int = 3, *, found: Evaluation | None = None, asked: list[object] | None = None, **changes: object
) -> dict[str, Section]:
    """The sections by title."""

    def cam(split: str, indices: list[int], classes: list[int]) -> NDArray[np.float64]:
        if asked is not None:
            asked.append((split, indices, classes))
        return np.ones((len(indices), 8, 8)) * 0.5

    found = found or evaluation(num_classes, point=num_classes == 2)
    arguments = {
        "classes": class_names(num_classes),
        "picture": lambda split, i: np.full((8, 8, 1), i % 256, np.uint8),
        "name": lambda split, i: f"{split}/{i}{NASTY}",
        "cam": cam,
        "temperature": 1.4,
        "sanity": 0.12,
        "filters": np.ones((4, 3, 3, 3)),
    } | changes
    return {s.title: s for s in sections({"val": found, "test": found}, **arguments)}  # type: ignore[arg-type]


def test_what_there_is_for_many_classes() -> None:
    assert list(made(3)) == [
        "Class by class (test)",
        "What is taken for what (test)",
        "Can the probabilities be believed? (test)",
        "Most wrong (test)",
        "Most uncertain (test)",
        "What the first layer looks for",
    ]


def test_two_classes_have_an_operating_point() -> None:
    section = made(2)["ROC curve and operating point (test)"]
    text, _ = read(section.html)
    assert (
        "An example counts as $a|<b>$ from a probability of 0.600 on. That threshold was chosen on "
        "validation alone, "
        "as the one that leaves 90 % of the negatives alone there; nothing was chosen on test." in text
    )
    table = evaluation(2, point=True)
    labels, said = table.arrays["labels"], table.arrays["probabilities"][:, 1] >= 0.6
    assert f"Of 30 examples of $a|<b>$ it finds {(said & (labels == 1)).sum()} and misses" in text
    assert "of 30 others it raises" in text


def test_the_gallery_decides_by_the_threshold() -> None:
    asked: list[tuple[str, list[int], list[int]]] = []
    made(2, asked=asked)  # type: ignore[arg-type]
    found = evaluation(2, point=True)
    p, labels = found.arrays["probabilities"][:, 1], found.arrays["labels"]
    wrong, unsure = asked
    assert wrong[0] == "test"
    assert wrong[2] == [int(p[i] >= 0.6) for i in wrong[1]]
    assert all((p[i] >= 0.6) != labels[i] for i in wrong[1])
    distance = np.where(p >= 0.6, (p - 0.6) / 0.4, (0.6 - p) / 0.6)
    assert (np.diff(distance[wrong[1]]) <= 0).all()  # the surest mistakes first
    assert (np.diff(distance[unsure[1]]) >= 0).all()  # the closest first
    assert "Closest to the threshold, $a|<b>$ from 60\u00a0% on" in made(2)["Most uncertain (test)"].lead


def test_mistakes_are_shown_with_names_and_probabilities() -> None:
    found = evaluation(3)
    section = made(3)["Most wrong (test)"]
    p, labels = found.arrays["probabilities"], found.arrays["labels"]
    wrong = np.flatnonzero(p.argmax(1) != labels)
    text, page = read(section.html)
    assert section.lead.startswith(
        f"{len(wrong)} of 60 examples were decided wrongly; here those of which the model was surest. Some "
        "may be "
        "labelled wrongly: look at them first. Beside each picture: the places that spoke for the decided "
        "class "
        "(Grad-CAM). The maps depend on what was learnt"
    )
    figures = [tag for tag, _ in page.tags if tag == "figure"]
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(figures) == min(GALLERY_SIZE, len(wrong))
    assert len(images) == 2 * len(figures)
    assert all(a["alt"] and str(a["src"]).startswith("data:image/") for a in images)
    assert f"test/{wrong[0]}{NASTY}" in text
    assert "onerror" not in {name for _, attributes in page.tags for name in attributes}
    assert "true: " in text


def test_without_heat_maps_there_is_one_picture_each() -> None:
    section = made(3, cam=None, filters=None)["Most wrong (test)"]
    _, page = read(section.html)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("img") == tags.count("figure")
    assert "Grad-CAM" not in section.lead


def test_nothing_wrong() -> None:
    section = made(found=evaluation(3, perfect=True))["Most wrong (test)"]
    assert section.lead == "All 60 examples were decided rightly."
    assert section.html == ""


@pytest.mark.parametrize(
    ("sanity", "words"),
    [
        (None, "Beside each picture: the places that spoke for the decided class (Grad-CAM)."),
        (
            0.12,
            "Beside each picture: the places that spoke for the decided class (Grad-CAM). The maps depend "
            "on what was "
            "learnt: with re-drawn weights they are others (rank correlation 0.12; 0 is best, chance alone "
            "gives 0.1 to "
            "0.3).",
        ),
        (
            0.8,
            "Beside each picture: the places that spoke for the decided class (Grad-CAM). Be careful with "
            "these maps: a "
            "network with re-drawn weights gives similar ones (rank correlation 0.80; 0 is best), so they "
            "show the "
            "picture more than what was learnt.",
        ),
    ],
)
def test_the_sanity_check_in_words(sanity: float | None, words: str) -> None:
    assert heat_map_text(sanity) == words


@pytest.mark.parametrize(
    ("temperature", "words"),
    [
        (1.0, "it was well calibrated as it stood"),
        (1.5, "it was too sure of itself before"),
        (0.6, "it was too timid before"),
    ],
)
def test_calibration_in_words(temperature: float, words: str) -> None:
    section = made(3, temperature=temperature)["Can the probabilities be believed? (test)"]
    text, _ = read(section.html)
    assert f"The logits are divided by a temperature of {temperature:.2f} , fitted on validation: {words}." in text
    assert "is 0.050 ; without the temperature it would be 0.090." in text
    assert "The loss (mean negative log-likelihood) is 0.500 with this temperature and 0.750 without it." in text


def test_a_hundred_classes_stay_readable() -> None:
    section = made(100, found=evaluation(100, 300))["Class by class (test)"]
    text, page = read(section.html)
    assert text.startswith("The ten weakest:")
    assert "All 100 classes" in text
    assert sum(tag == "tr" for tag, _ in page.tags) == 11 + 101
    assert "Weakest: $a|<b>$, with an F1 of 75.1\u00a0% on 3 examples." in section.lead


def test_one_split_only() -> None:
    found = evaluation(3)
    only = sections(
        {"val": found}, classes=class_names(3), picture=lambda s, i: np.zeros((4, 4, 3), np.uint8),
        name=lambda s, i: "a.png", cam=None, temperature=1.0, sanity=None, filters=None,
    )  # fmt: skip
    assert only[0].title == "Class by class (val)"
