"""report.html and card.md from a hand-made run folder."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from report.run_folder import NASTY, class_names, evaluation, run_folder

from dolmen.report.card import Licence, write_card
from dolmen.report.page import write_report
from dolmen.report.run_files import RunFiles
from dolmen.report.tables import numbers
from dolmen.tasks.image_classification.report import sections
from dolmen.types import MachineError, Section


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


def parsed(path: Path) -> tuple[str, Tags]:
    tags = Tags()
    tags.feed(path.read_text("utf-8"))
    return " ".join(" ".join(tags.words).replace("\u00a0", " ").split()), tags


def task_sections(num_classes: int = 3) -> list[Section]:
    found = evaluation(num_classes)
    return sections(
        {"test": found}, classes=class_names(num_classes), picture=lambda s, i: np.zeros((8, 8, 3), np.uint8),
        name=lambda s, i: NASTY, cam=lambda s, i, c: np.zeros((len(i), 8, 8)), temperature=1.0, sanity=0.1,
        filters=np.ones((4, 3, 3, 3)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = run_folder(tmp_path_factory.mktemp("runs") / "photos-1")
    return write_report(folder, task_sections())


def test_it_says_what_the_run_is(report: Path) -> None:
    text, _ = parsed(report)
    accuracy = f"{100 * evaluation(3).metrics['accuracy']:.1f}".removesuffix(".0")
    for words in (
        f"photos-1: accuracy {accuracy} %",
        "accuracy , 95 % interval 70 to 90 % on 60 examples of the test split, which was never used in training",
        "examples train 41, test 20",
        "classes 3: class 0, class 1, $a|<b>$",
        "input 48 × 32 pixels in colour",
        "model fast, 1.23 M parameters",
        "training 2 min, 6.0 epochs, 36 steps",
        "machine AMD EPYC, 2 threads",
        "Accuracy on validation was 20 % at the first look, 91.1 % after three quarters of the training and "
        "93.3 % at "
        "its end.",
        "fp32, as asked",
        "62 files in photos: 60 used, 2 skipped.",
        "warning 2 pictures are alike.",
        f"{NASTY} truncated",
        "dolmen train image-classification photos --minutes 2",
        "bf16 yes",
        "This file is complete: it loads nothing and runs no script.",
    ):
        assert words in text


def test_it_is_one_safe_file(report: Path) -> None:
    _, page = parsed(report)
    assert report.stat().st_size < 3e6
    assert [p.name for p in report.parent.iterdir() if p.name.startswith(".")] == []
    allowed = {"title", "p", "h1", "h2", "h3", "meta", "table", "img", "svg", "text", "tr", "td", "th", "figure"}
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "b>"}
    assert allowed <= names
    for tag, attributes in page.tags:
        assert not [a for a in attributes if a.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            if attributes.get(name):
                assert str(attributes[name]).startswith(("data:image/", "#")), tag
        if tag == "img":
            assert attributes.get("alt")
    assert "url(http" not in report.read_text("utf-8")


def test_the_table_of_contents_leads_somewhere(report: Path) -> None:
    _, page = parsed(report)
    targets = [str(a["href"])[1:] for tag, a in page.tags if tag == "a"]
    ids = [a["id"] for tag, a in page.tags if tag == "section"]
    assert targets == ids
    assert len(set(ids)) == len(ids)
    assert {"training", "gradient-flow", "data", "reproduce"} <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_missing_files_cost_only_their_part(tmp_path: Path) -> None:
    text, _ = parsed(write_report(tmp_path, [Section("Own part", "<p>words</p>")]))
    assert "Own part words How to reproduce" in text


@pytest.mark.parametrize("looks", [1, 2, 70])
def test_short_and_long_trainings(tmp_path: Path, looks: int) -> None:
    text, _ = parsed(write_report(run_folder(tmp_path, looks=looks), []))
    assert "Training" in text
    assert ("Gradient flow" in text) == (looks > 1)


def test_the_task_names_the_headline(tmp_path: Path) -> None:
    file = run_folder(tmp_path) / "description.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"headline": "auroc"}))
    text, _ = parsed(write_report(tmp_path, []))
    assert "0.930 AUROC on 60 examples" in text


def test_a_run_of_an_older_version_has_no_description(tmp_path: Path) -> None:
    (run_folder(tmp_path) / "description.json").unlink()
    text, _ = parsed(write_report(tmp_path, []))
    assert "macro f1 0.800" in text  # by its own name
    accuracy = f"{evaluation(3).metrics['accuracy']:.3f}"
    assert f"{accuracy} accuracy , 95 % interval 0.700 to 0.900 on 60 examples" in text
    card = write_card(tmp_path, licences=[]).read_text("utf-8")
    assert "| macro f1 | 0.800 |  |  |" in card
    assert "## Intended use and limits\n\n- It was measured on data like" in card.replace("\n\n\n", "\n\n")


def test_all_numbers_have_both_splits_intervals_and_meanings(tmp_path: Path) -> None:
    section = numbers(RunFiles(run_folder(tmp_path)))
    assert section.title == "All numbers"
    text = " ".join(re.sub(r"<[^>]+>", " ", section.html).replace("\u00a0", " ").split())
    accuracy = evaluation(3).metrics["accuracy"]
    shown = f"{100 * accuracy:.1f}".removesuffix(".0") + " %"
    assert text.startswith(f"metric test val accuracy share of examples decided rightly {shown} 70 to 90 % {shown}")
    assert "AUROC chance that a positive example ranks above a negative one 0.930 0.930" in text
    assert "test: 60 examples, val: 60 examples" in section.lead


def test_epochs_are_counted_from_steps(tmp_path: Path) -> None:
    assert RunFiles(run_folder(tmp_path)).epochs() == [0.5 * (i + 1) for i in range(12)]


@pytest.mark.parametrize("write", [lambda f: write_report(f, []), lambda f: write_card(f, licences=[])])
def test_a_place_that_can_not_be_written(tmp_path: Path, write: object) -> None:
    folder = run_folder(tmp_path)
    for name in ("report.html", "card.md"):
        (folder / name).mkdir()
    with pytest.raises(
        MachineError, match=r"(report\.html|card\.md) \(0.0 MB\) can't be written: Is a directory; make room, or choose"
    ):
        write(folder)  # type: ignore[operator]
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_the_card(tmp_path: Path) -> None:
    ledger = [
        Licence(what="code", name="Dolmen", licence="Apache-2.0", source="https://example.org/dolmen"),
        Licence(what="data", name="a|b", licence="not stated", source="photos"),
    ]
    path = write_card(run_folder(tmp_path / "photos-1"), licences=ledger)
    text = path.read_text("utf-8").replace("\u00a0", " ")
    assert path.name == "card.md"
    headings = re.findall(r"^#+ .*$", text, re.MULTILINE)
    assert headings == [
        "# photos-1", "## Intended use and limits", "## Data", "## Training", "## Metrics", "## Calibration",
        "## Licences", "## How to use it",
    ]  # fmt: skip
    for words in (
        "(95 % interval 70 to 90 %), on 60 examples of the test split, which was never used in training.",
        "It tells class 0, class 1, $a\\|\\<b\\>$ apart.\nIt has no other answer.",
        "Decisions about people (medical, legal, hiring, policing) need a person who can overrule it.",
        "It is not a medical device and was not tested as one.",
        "Source: `photos` (62 files, 60 used, 2 skipped)",
        "| $a\\|\\<b\\>$ | 1 | 0 |",
        "| all | 41 | 20 |",
        "- warning: 2 pictures are alike.",
        "| AUROC | 0.930 |  | chance that a positive example ranks above a negative one |",
        "Probabilities are calibrated with a temperature of 1.40, fitted on validation; the expected "
        "calibration error "
        "is 0.050 (0.090 without it). The loss (mean negative log-likelihood) is 0.500 with this temperature and 0.750 "
        "without it.",
        "| code | Dolmen | Apache-2.0 | https://example.org/dolmen |",
        "| data | a\\|b | not stated | photos |",
        "Made by `dolmen train image-classification photos --minutes 2`.",
        "run = dolmen.load('photos-1')",
    ):
        assert words in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1


def test_the_card_tells_the_operating_point(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, num_classes=2)
    found = evaluation(2, point=True)
    (folder / "evaluation.json").write_text(json.dumps({"test": found.to_json()}))
    text = write_card(folder, licences=[]).read_text("utf-8").replace("\u00a0", " ")
    assert (
        "It decides for $a\\|\\<b\\>$ from a probability of 0.600 on, a threshold chosen on validation for a "
        "specificity of 90 %; here that gives a sensitivity of" in text
    )


def test_where_a_training_diverged_is_in_report_and_card(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", looks=8)
    lines = (folder / "metrics.jsonl").read_text().splitlines()[:-1]
    message = "training diverged, the loss became nan at step 13; it went on from step 9 with 1/4 of the learning rate"
    setback = {"event": "diverged", "step": 13, "back_to": 9, "rate": 0.25, "message": message}
    again = json.loads(lines[4]) | {"loss": 0.123}
    written = [*lines[:5], json.dumps(setback), json.dumps(again), *lines[5:]]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in written))
    run = RunFiles(folder)
    assert [r["step"] for r in run.validations] == [3, 6, 9, 12, 15, 18, 21, 24]
    assert run.validations[3]["loss"] == 0.123
    assert run.setbacks == [setback]
    text, _ = parsed(write_report(folder, []))
    assert "T" + message[1:] in text
    assert f"- T{message[1:]}" in write_card(folder, licences=[]).read_text()
