"""The recogniser's part of the report, as text that a person reads; what it looks like was judged by eye."""

from __future__ import annotations

import base64
import io
import re
import wave
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.run_folder import NASTY, run_folder

from dolmen.metrics.alarms import alarm_curve, threshold_for
from dolmen.report.numbers import metric_text
from dolmen.report.page import write_report
from dolmen.tasks.speech_recognition.metrics import METRICS, evaluate
from dolmen.tasks.speech_recognition.predictions import Word
from dolmen.tasks.speech_recognition.report import sections as speech
from dolmen.tasks.speech_recognition.report.pictures import (
    MAX_DRAWN_S,
    MAX_ROWS,
    Utterance,
    alarms,
    fair_cut,
    label_lines,
    likely_units,
    posteriorgram,
    rate_bars,
    spikes,
    unit_text,
    wav_uri,
)
from dolmen.tasks.speech_recognition.report.sections import aligned, sections
from dolmen.types import Evaluation, Section

UNITS = ("", "▁five", "▁nine", "▁one", "$<b>$")
SAID = ["five nine", "nine one", "nine", "one", "one one one"]
HEARD = ["nine nine", "five one", "five", "one", "one one one"]


def distributions(steps: list[int], num_units: int = len(UNITS), sure: float = 0.9) -> np.ndarray:
    """(T, V) log-probabilities in which the given unit of each step is the likeliest."""
    p = np.full((len(steps), num_units), (1 - sure) / (num_units - 1))
    p[np.arange(len(steps)), steps] = sure
    return np.log(p).astype(np.float32)


def utterance(split: str = "test", i: int = 0, **changed: Any) -> Utterance:
    values: dict[str, Any] = {
        "name": f"{split}/{i}{NASTY}", "confidence": 0.875, "duration_s": 1.2, "speaker": f"speaker {i}",
        "words": (Word("nine", 0.2, 0.3, 0.9), Word("nine", 0.6, 0.7, 0.9)),
        "samples": np.sin(np.arange(9600) / 20).astype(np.float32), "rate": 8000,
        "features": np.random.default_rng(i).normal(size=(118, 40)).astype(np.float32), "hop_s": 0.01,
        "logp": distributions([0] * 5 + [2, 2] + [0] * 8 + [1] + [0] * 14), "step_s": 0.04,
    }  # fmt: skip
    return Utterance(**values | changed)


def evaluation(references: list[str] = SAID, hypotheses: list[str] = HEARD, **more: Any) -> Evaluation:
    return evaluate("speech-recognition", references, hypotheses, **more)


def rendered(evaluated: Evaluation | None = None, **changed: Any) -> dict[str, Section]:
    evaluated = evaluation() if evaluated is None else evaluated
    parts = sections(
        {"val": evaluated, "test": evaluated}, utterance_of=lambda s, i: utterance(s, i, **changed), units=UNITS
    )
    return {s.title: s for s in parts}


def text(section: Section) -> str:
    plain = re.sub(r"<svg.*?</svg>", " ", section.html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", plain).replace("\u00a0", " ").split())


def players(section: Section) -> list[wave.Wave_read]:
    files = re.findall(r'<audio[^>]* src="data:audio/wav;base64,([^"]+)"', section.html)
    return [wave.open(io.BytesIO(base64.b64decode(f))) for f in files]


def test_what_there_is() -> None:
    usual = [
        "Errors (test)",
        "Words that were mistaken (test)",
        "The worst utterances (test)",
    ]
    assert list(rendered()) == usual
    sure = [[0.9] * len(t.split()) for t in HEARD]
    evaluated = evaluation(speakers=["a", "a", "b", "b", "b"], durations_s=[1, 2, 3, 4, 5], confidences=sure)
    evaluated.tables["alarms"] = ALARMS
    more = ["By speaker (test)", "By duration (test)", "Can one believe its confidences? (test)"]
    assert list(rendered(evaluated)) == [*usual, *more, "False alarms and misses (test)"]
    assert "By speaker (test)" not in rendered(evaluation(speakers=["a"] * 5))
    assert list(rendered(evaluation([], []))) == []


def test_false_alarms_on_validation_are_shown_beside_a_test() -> None:
    chosen = evaluation()
    chosen.tables["alarms"] = ALARMS
    parts = sections({"val": chosen, "test": evaluation()}, utterance_of=utterance, units=UNITS)
    assert parts[-1].title == "False alarms and misses (val)"


def test_errors() -> None:
    section = rendered()["Errors (test)"]
    assert section.lead.replace("\u00a0", " ") == (
        "2 of 5 utterances are right to the word (40 %, 95 % interval 11.8 to 76.9 %). Mistakes are those of the "
        "alignment with the fewest; what is put in makes rates over 100 % possible."
    )
    assert re.search(r"WER of 9 words 33.3 % [\d.]+ to [\d.]+ % 3 33.3 % 0 0 % 0 0 % 6", text(section))
    assert "CER of 35 characters 17.1 %" in text(section)
    assert metric_text(METRICS["wer"], evaluation().metrics["wer"]) == "33.3\u00a0%"
    assert METRICS["wer"].meaning == "words taken for others, left out or put in, for each word that was said"


@pytest.mark.parametrize(
    ("references", "hypotheses", "advice"),
    [
        (["one"] * 9, [""] * 9, "Most are left out: is speech cut off"),
        ([""] * 9, ["one"] * 9, "Most are put in: noise is taken for speech"),
        (["one"] * 9, ["nine"] * 9, "rates over 100 % possible."),
    ],
)
def test_what_helps(references: list[str], hypotheses: list[str], advice: str) -> None:
    lead = rendered(evaluation(references, hypotheses))["Errors (test)"].lead
    assert advice in lead
    assert ("Most are" in lead) == advice.startswith("Most")


def test_a_threshold_leaves_words_out() -> None:
    table = {**alarm_curve(np.array([0.4]), 9, np.array([0.7]), 1.0), "num_said": 9, "hours": 1.0}
    evaluated = evaluation(["one"] * 9, [""] * 9)
    point = {"threshold": 0.987654, "misses": 1.0, "alarms_per_hour": 0.0}
    for chosen, advice in ((point, "words less sure than 0.988 always are: that is the threshold"), (None, "cut off")):
        evaluated.tables["alarms"] = {**table, "point": chosen}
        assert advice in rendered(evaluated)["Errors (test)"].lead


def test_confusions_of_few_words() -> None:
    section = rendered()["Words that were mistaken (test)"]
    assert section.lead == "“nine” taken for “five”, 2 times of 3: the most frequent mistake of 2 that differ."
    assert "said heard times how often it was said nine five 2 of 3 five nine 1 of 1" in text(section)
    labels = "".join(ET.fromstring(re.search(r"<svg.*?</svg>", section.html, re.DOTALL)[0]).itertext())
    for word in ("put in", "left out", "said", "heard"):
        assert word in labels


def test_confusions_of_many_words() -> None:
    references = [f"w{i}<b>" for i in range(50)]
    hypotheses = [*(w + "x" for w in references[1:]), ""]
    section = rendered(evaluation(references, hypotheses))["Words that were mistaken (test)"]
    assert "<svg" not in section.html
    assert "<b>" not in section.html
    assert section.html.startswith("<details open>")
    assert section.lead.endswith("of 50 that differ. The first 40 are in the table.")
    last = evaluation(["one two", "two"], ["one", "two"])
    assert rendered(last)["Words that were mistaken (test)"].lead == (
        "“two” left out, 1 time of 2: the most frequent mistake; there is no other."
    )


def test_no_mistake() -> None:
    parts = rendered(evaluation(SAID, SAID))
    assert parts["Words that were mistaken (test)"].lead == "There is none."
    assert parts["The worst utterances (test)"].lead == "There is no mistake."
    assert "WER of 9 words 0 % 0 to 43.4 %" in text(parts["Errors (test)"])


class TestWorst:
    def test_they_are_told_word_by_word_and_can_be_utterance(self) -> None:
        section = rendered()["The worst utterances (test)"]
        assert section.lead.startswith("The 3 utterances with the most mistakes")
        # Of one wrong word each, in the order in which they are.
        assert text(section).startswith(
            "said heard five nine nine nine 1 wrong word, 1.2 s, confidence 87.5 %, speaker 0 test/0"
        )
        assert '<span class="sub"><i>five</i><i>nine</i></span><span class="hit"><i>nine</i>' in section.html
        assert "<img src=x" not in section.html
        sounds = players(section)
        assert [s.getparams()[:4] for s in sounds] == [(1, 2, 8000, 9600)] * 3
        assert section.html.count("<svg") == 3

    def test_long_ones_are_cut_to_fit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(speech, "MAX_PLAYER_BYTES", 3 * 4 * 4000 * 2 // 3)
        section = rendered()["The worst utterances (test)"]
        assert [s.getnframes() for s in players(section)] == [4000] * 3
        assert "the player has the first 0.5 s" in text(section)

    def test_nothing_to_hear_or_see(self) -> None:
        section = rendered(samples=None, logp=None, features=None, speaker="")["The worst utterances (test)"]
        assert "<audio" not in section.html
        assert "<svg" not in section.html
        assert "confidence 87.5 % test/0" in text(section)
        assert "<svg" not in rendered(logp=np.zeros((0, 5)), features=None)["The worst utterances (test)"].html

    def test_scripts_without_spaces(self) -> None:
        parts = rendered(evaluation(["今天天气"], ["今天天七"]))
        section = parts["The worst utterances (test)"]
        assert '<div class="aligned letters">' in section.html
        assert "1 wrong character" in text(section)
        assert "Characters that were mistaken (test)" in parts

    def test_at_most_ten_are_asked_for(self) -> None:
        asked: list[int] = []
        evaluated = evaluation(["one"] * 30, ["nine"] * 30)

        def ask(split: str, i: int) -> Utterance:
            asked.append(i)
            return utterance(split, i)

        sections({"test": evaluated}, utterance_of=ask, units=UNITS)
        assert asked == list(range(speech.MAX_PLAYERS))


@pytest.mark.parametrize(
    ("pair", "html"),
    [
        (("a", "a"), '<span class="hit"><i>a</i><i>a</i></span>'),
        (("a", "<b>"), '<span class="sub"><i>a</i><i>&lt;b&gt;</i></span>'),
        (("a", ""), '<span class="del"><i>a</i><i>–</i></span>'),
        (("", "b"), '<span class="ins"><i>–</i><i>b</i></span>'),
    ],
)
def test_aligned(pair: tuple[str, str], html: str) -> None:
    assert html in aligned([pair])
    assert "… and 3 more" in aligned([pair] * (speech.MAX_SHOWN_WORDS + 3))


def test_groups() -> None:
    references = ["one two three"] * 40
    hypotheses = ["one two three"] * 30 + ["nine nine three"] * 10
    speakers = [NASTY if i >= 30 else f"speaker {i % 3}" for i in range(40)]
    section = rendered(evaluation(references, hypotheses, speakers=speakers))["By speaker (test)"]
    assert section.lead.replace("\u00a0", " ") == (
        "The line through a point is the 95 % interval, the dashed one the WER of all, 16.7 %. "
        f"Worse than chance would make them: {NASTY}; more training data like these help most."
    )
    assert NASTY not in section.html
    alike = rendered(evaluation(references, references, speakers=[f"s{i % 30:02}" for i in range(40)]))[
        "By speaker (test)"
    ].lead
    assert alike.endswith(
        "Drawn are the 20 worst of 30. No group is worse than all of them by more than chance makes it."
    )


@pytest.mark.parametrize(
    ("sure", "verdict"),
    [
        (0.95, "it is too sure of itself by 28.3 %: of 9 words that were heard, it was sure of 95 % in the mean, and"),
        (0.3, "it is too timid by 36.7 %: of 9 words"),
        (6 / 9, "it is neither too sure of itself nor too timid: of 9 words"),
    ],
)
def test_confidences(sure: float, verdict: str) -> None:
    evaluated = evaluation(confidences=[[sure] * len(t.split()) for t in HEARD])
    assert verdict in text(rendered(evaluated)["Can one believe its confidences? (test)"])


FOUND, FALSE = np.array([0.9, 0.5, 0.8]), np.array([0.6, 0.2])
ALARMS = {
    **alarm_curve(FOUND, 4, FALSE, 0.5), "num_said": 4, "hours": 0.5, "point": threshold_for(FOUND, 4, FALSE, 0.5, 2),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "lead"),
    [
        ({}, "With a threshold of 0.20 it misses 25 % and raises 2 false alarms an hour. That is little: "),
        ({"hours": 2.0, "point": None}, "4 words were said; false alarms are those in 2 hours of other sound."),
    ],
)
def test_false_alarms(changed: dict[str, Any], lead: str) -> None:
    evaluated = evaluation()
    evaluated.tables["alarms"] = ALARMS | changed
    section = rendered(evaluated)["False alarms and misses (test)"]
    assert lead in section.lead.replace("\u00a0", " ")
    assert ("threshold 0.20" in section.html) == (not changed)


# ---- pictures


def test_sound_comes_through() -> None:
    uri = wav_uri(np.array([0, 0.5, -1, 2.0, -2.0]), 16000)
    with wave.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:audio/wav;base64,")))) as file:
        assert file.getparams()[:4] == (1, 2, 16000, 5)
        values = np.frombuffer(file.readframes(5), "<i2")
    assert values.tolist() == [0, 16384, -32767, 32767, -32767]


@pytest.mark.parametrize(
    ("sizes", "budget", "cut"),
    [
        ([], 10, 0),
        ([3, 4], 10, 4),
        ([30, 40], 10, 5),
        ([2, 40], 10, 8),
        ([2, 3, 40, 50], 25, 10),
        ([5, 5], 10, 5),
        ([5, 5], 9, 4),
    ],
)
def test_a_fair_cut(sizes: list[int], budget: int, cut: int) -> None:
    assert fair_cut(sizes, budget) == cut
    assert sum(min(s, cut) for s in sizes) <= budget


def test_units_are_shown_in_the_order_in_which_they_come() -> None:
    logp = distributions([0, 3, 0, 1, 1, 0, 3])
    assert likely_units(logp).tolist() == [3, 1]
    assert spikes(logp) == [(1, 3), (3, 1), (6, 3)]
    assert spikes(distributions([0, 0])) == []
    assert len(likely_units(distributions(list(range(1, 40)), 40))) == MAX_ROWS
    assert [unit_text(u) for u in ("▁", "▁one", "e", "▁a▁")] == ["␣", "one", "e", "a▁"]


@pytest.mark.parametrize(
    ("spans", "most", "expected"),
    [
        ([], 2, []),
        ([(0, 1), (1, 2), (2, 3)], 2, [0, 0, 0]),
        ([(0, 2), (1, 3), (2, 4)], 2, [0, 1, 0]),
        ([(0, 9), (1, 9), (2, 9), (9, 10)], 2, [0, 1, None, 0]),
    ],
)
def test_labels_keep_apart(spans: list[tuple[float, float]], most: int, expected: list[int | None]) -> None:
    assert label_lines(spans, most) == expected


PICTURES = {
    "both": lambda: posteriorgram(utterance(), UNITS, [True, False]),
    "features only": lambda: posteriorgram(utterance(logp=None), UNITS),
    "units only": lambda: posteriorgram(utterance(features=None, words=()), UNITS),
    "nothing but blank": lambda: posteriorgram(utterance(logp=distributions([0] * 30, sure=0.99)), UNITS),
    "long": lambda: posteriorgram(utterance(duration_s=60.0, logp=distributions([1, 0] * 750)), UNITS),
    "silence": lambda: posteriorgram(utterance(features=np.full((118, 40), -15.9)), UNITS),
    "nasty units": lambda: posteriorgram(utterance(logp=distributions([0, 4, 0])), UNITS),
    "bars": lambda: rate_bars(group_rows([0.1, 1.4, 0.0]), "WER", 0.2),
    "right in all": lambda: rate_bars(group_rows([0.0, 0.0]), "WER", 0.0),
    "alarms": lambda: alarms(ALARMS, ALARMS["point"]),
    "no alarm": lambda: alarms(alarm_curve(FOUND, 3, FALSE[:0], 1.0), None),
}


def group_rows(rates: list[float]) -> list[dict[str, Any]]:
    return [
        {"group": f"$g{i}$<b>" * 9, "num": i + 1, "error_rate": r, "interval": (r / 2, r * 2) if i else None}
        for i, r in enumerate(rates)
    ]


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_whole_and_small(name: str) -> None:
    chart = PICTURES[name]()
    root = ET.fromstring(chart)
    svg = root if root.tag.endswith("svg") else root[0]
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"]
    assert len(chart) < 120_000


def test_a_picture_says_what_is_to_be_seen() -> None:
    chart = PICTURES["both"]()
    assert 'aria-label="2 units over 1.2 seconds: nine, five"' in chart
    assert "only blank" in PICTURES["nothing but blank"]()
    assert f"the first {MAX_DRAWN_S:g} of them" in PICTURES["long"]()
    # The word that is wrong is orange.
    words = re.findall(r"<text[^>]*fill: var\(--(\w+)[^>]*>nine</text>", chart)
    assert words[:1] == ["orange"]


def test_the_last_word_may_be_told_behind_the_recording() -> None:
    chart = posteriorgram(utterance(duration_s=0.2, logp=distributions([0] * 10 + [1] + [0])), UNITS)
    assert "over 0.5 seconds: five" in chart


def test_the_page_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    page = write_report(folder, list(rendered().values())).read_text("utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{1,30})', page)
    assert any(s.startswith("data:audio/wav") for s in sources)
    assert all(s.startswith(("data:", "#")) for s in sources)
    assert "<script" not in page
    assert ".aligned .sub" in page
