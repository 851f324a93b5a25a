"""Words and characters counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dolmen.metrics.classification import wilson
from dolmen.tasks.speech_recognition import metrics as transcription
from dolmen.tasks.speech_recognition.metrics import (
    align,
    by_group,
    counts,
    evaluate,
    intervals,
    quartiles,
    rate_interval,
    rates,
)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words", "characters"),
    [
        ("one two three", "one two three", (3, 0, 0, 0), (13, 0, 0, 0)),
        ("one two three", "one too three", (2, 1, 0, 0), (12, 1, 0, 0)),
        ("one two three", "one three", (2, 0, 1, 0), (9, 0, 4, 0)),
        ("one three", "one two three", (2, 0, 0, 1), (9, 0, 0, 4)),
        ("one two", "six seven eight", (0, 2, 0, 1), None),
        ("", "", (0, 0, 0, 0), (0, 0, 0, 0)),
        ("", "hello you", (0, 0, 0, 2), (0, 0, 0, 9)),
        ("hello you", "", (0, 0, 2, 0), (0, 0, 9, 0)),
        ("  one\t two\n", "one\u00a0two", (2, 0, 0, 0), (7, 0, 0, 0)),
        ("今天天气", "今天天七", (0, 1, 0, 0), (3, 1, 0, 0)),
        ("a a a b", "a b", (2, 0, 2, 0), (3, 0, 4, 0)),
    ],
)
def test_counted_by_hand(
    reference: str, hypothesis: str, words: tuple[int, ...], characters: tuple[int, ...] | None
) -> None:
    assert counts([reference], [hypothesis]).tolist() == [list(words)]
    if characters is not None:
        assert counts([reference], [hypothesis], "characters").tolist() == [list(characters)]


def test_pairs() -> None:
    (pairs,) = align(["call me at nine please"], ["call at five please now"])
    assert pairs == [
        ("call", "call"), ("me", ""), ("at", "at"), ("nine", "five"), ("please", "please"), ("", "now"),
    ]  # fmt: skip


def test_no_utterance() -> None:
    assert counts([], []).shape == (0, 4)
    assert rates(counts([], [])) == {"wer": 0, "substitutions": 0, "deletions": 0, "insertions": 0}
    evaluation = evaluate("speech", [], [], speakers=[], durations_s=[], confidences=[])
    assert evaluation.num_examples == 0
    assert evaluation.intervals == {}
    assert evaluation.tables["worst"] == []


def test_many_utterances_come_in_order() -> None:
    references = [f"number {i}" for i in range(transcription.CHUNK_UTTERANCES * 2 + 7)]
    hypotheses = [text if i % 3 else "number" for i, text in enumerate(references)]
    counted = counts(references, hypotheses)
    assert np.array_equal(counted[:, transcription.DELETIONS], [int(i % 3 == 0) for i in range(len(references))])
    assert counted[:, transcription.HITS].sum() == 2 * len(references) - len(range(0, len(references), 3))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # 10 words said: 7 + 2 + 1; 2 substituted, 1 left out, 3 put in.
        ([(7, 2, 1, 0), (0, 0, 0, 3)], {"wer": 0.6, "substitutions": 0.2, "deletions": 0.1, "insertions": 0.3}),
        ([(1, 0, 0, 4)], {"wer": 4, "substitutions": 0, "deletions": 0, "insertions": 4}),
        ([(0, 0, 0, 3)], {"wer": 3, "substitutions": 0, "deletions": 0, "insertions": 3}),
    ],
)
def test_rates(rows: list[tuple[int, ...]], expected: dict[str, float]) -> None:
    assert rates(np.array(rows)) == pytest.approx(expected)


def test_metrics_are_over_all_words_not_the_mean_of_utterances() -> None:
    references, hypotheses = (
        ["one", "one two three four five six seven eight nine"],
        ["two", "one two three four five six seven"],
    )
    values = transcription.metrics(counts(references, hypotheses), counts(references, hypotheses, "characters"))
    assert values["wer"] == pytest.approx(3 / 10)
    assert values["deletions"] == pytest.approx(2 / 10)
    assert values["exact"] == 0


class TestIntervals:
    def test_they_hold_the_truth_about_as_often_as_they_say(self) -> None:
        rng = np.random.default_rng(0)
        inside = 0
        for seed in range(60):
            wrong = rng.binomial(5, 0.2, 80)
            interval = rate_interval(np.stack([5 - wrong, wrong, 0 * wrong, 0 * wrong], 1), seed)
            assert interval is not None
            inside += interval[0] <= 0.2 <= interval[1]
        assert 51 <= inside <= 60

    def test_no_mistake_is_no_proof(self) -> None:
        right = np.array([[3, 0, 0, 0]] * 20)
        assert rate_interval(right) == (0.0, wilson(0, 20)[1])
        assert 0.1 < wilson(0, 20)[1] < 0.2

    def test_one_utterance_says_nothing(self) -> None:
        assert rate_interval(np.array([[3, 1, 0, 0]])) is None
        one = np.array([[3, 1, 0, 0]])
        assert intervals(one, one) == {"exact": wilson(0, 1)}

    def test_the_same_seed_gives_the_same(self) -> None:
        mixed = np.array([[3, 1, 0, 0], [2, 0, 1, 0], [4, 0, 0, 1], [5, 0, 0, 0]])
        assert intervals(mixed, mixed, 3) == intervals(mixed, mixed, 3)


def evaluated(**more: Any) -> transcription.Evaluation:
    references = ["five nine", "nine one", "nine", "one", ""]
    hypotheses = ["nine nine", "five one", "five", "one", "one"]
    return evaluate("speech", references, hypotheses, **more)


class TestEvaluation:
    def test_numbers(self) -> None:
        evaluation = evaluated()
        assert evaluation.num_examples == 5
        assert evaluation.metrics["wer"] == pytest.approx(4 / 6)
        assert evaluation.metrics["substitutions"] == pytest.approx(3 / 6)
        assert evaluation.metrics["insertions"] == pytest.approx(1 / 6)
        assert evaluation.metrics["exact"] == 1 / 5
        assert evaluation.tables["unit"] == "words"
        assert evaluation.tables["errors"]["words"] == {"hits": 3, "substitutions": 3, "deletions": 0, "insertions": 1}
        assert evaluation.arrays["words"].shape == evaluation.arrays["characters"].shape == (5, 4)
        assert "speakers" not in evaluation.tables
        assert "calibration" not in evaluation.tables

    def test_confusions(self) -> None:
        table = evaluated().tables["confusions"]
        assert table["names"] == ["five", "nine", "one"]
        assert table["matrix"] == [[0, 1, 0, 0], [2, 1, 0, 0], [0, 0, 2, 0], [0, 0, 1, 0]]
        assert table["num_pairs"] == 3
        assert table["pairs"] == [
            {"said": "nine", "heard": "five", "num": 2, "of": 3},
            {"said": "", "heard": "one", "num": 1, "of": 3},
            {"said": "five", "heard": "nine", "num": 1, "of": 1},
        ]

    def test_left_out_words_stand_in_the_last_column(self) -> None:
        table = evaluate("speech", ["one two", "two"], ["one", "two"]).tables["confusions"]
        assert table["matrix"] == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
        assert table["pairs"] == [{"said": "two", "heard": "", "num": 1, "of": 2}]

    def test_a_large_vocabulary_has_no_matrix(self) -> None:
        references = [f"w{i}" for i in range(60)]
        table = evaluate("speech", references, [w + "x" for w in references]).tables["confusions"]
        assert "matrix" not in table
        assert table["num_pairs"] == 60
        assert len(table["pairs"]) == transcription.MAX_PAIRS

    def test_the_worst_come_first_and_of_equals_the_surest(self) -> None:
        sure = [[0.5, 0.5], [0.9, 0.9], [0.99], [0.2], [0.1]]
        worst = evaluated(confidences=sure).tables["worst"]
        # One wrong word each; characters: nine -> five has 2 mistakes, none -> one has 3.
        assert [w["utterance"] for w in worst] == [4, 2, 1, 0]
        assert worst[1] == {"utterance": 2, "errors": 1, "pairs": [("nine", "five")]}

    def test_speakers_and_durations(self) -> None:
        tables = evaluated(speakers=["a", "b", "a", "b", "b"], durations_s=[1.0, 2.0, 3.0, 4.0, 5.0]).tables
        assert tables["speakers"]["num_groups"] == 2
        first, second = tables["speakers"]["rows"]
        assert (first["group"], first["num"], first["said"], first["error_rate"]) == ("a", 2, 3, pytest.approx(2 / 3))
        assert (second["group"], second["num"], second["error_rate"]) == ("b", 3, pytest.approx(2 / 3))
        assert [r["group"] for r in tables["durations"]["rows"]] == [
            "1.00 to 2.00 s", "2.00 to 3.00 s", "3.00 to 4.00 s", "4.00 to 5.00 s",
        ]  # fmt: skip
        assert [r["num"] for r in tables["durations"]["rows"]] == [1, 1, 1, 2]

    def test_confidences(self) -> None:
        table = evaluated(confidences=[[0.5, 0.9], [0.5, 0.9], [0.5], [0.9], [0.5]]).tables["calibration"]
        assert [(b["num"], b["accuracy"]) for b in table["bins"]] == [(4, 0.0), (3, 1.0)]
        assert table["ece"] == pytest.approx((4 * 0.5 + 3 * 0.1) / 7)

    def test_a_confidence_for_each_word(self) -> None:
        with pytest.raises(AssertionError, match="a confidence for each word"):
            evaluated(confidences=[[0.5], [0.5], [0.5], [0.9], [0.5]])

    @pytest.mark.parametrize(
        ("texts", "unit"),
        [
            (["今天 天气 好", "OK 明天"], "characters"),
            (["วันนี้อากาศดี"], "characters"),
            (["hello 今"], "words"),
            (["여보세요 안녕"], "words"),
            ([""], "words"),
        ],
    )
    def test_scripts_without_spaces_are_compared_by_character(self, texts: list[str], unit: str) -> None:
        evaluation = evaluate("speech", texts, texts)
        assert evaluation.tables["unit"] == unit
        assert evaluation.metrics["wer"] == evaluation.metrics["cer"] == 0

    def test_characters_are_what_the_tables_are_about(self) -> None:
        evaluation = evaluate("speech", ["今天天气"], ["今天天七"])
        assert (evaluation.metrics["wer"], evaluation.metrics["cer"]) == (1, 0.25)
        assert evaluation.tables["confusions"]["pairs"] == [{"said": "气", "heard": "七", "num": 1, "of": 1}]
        assert evaluation.tables["worst"][0]["pairs"][-1] == ("气", "七")


def test_quartiles_of_equal_durations_are_one() -> None:
    assert quartiles(np.full(5, 1.0)) == (["1.00 s"] * 5, ["1.00 s"])
    assert quartiles(np.zeros(0)) == ([], [])
    which, names = quartiles(np.array([1.0, 1.0, 1.0, 1.0, 120.0]))
    assert names == ["1 to 120 s"]
    assert which == names * 5


def test_quarters_in_which_there_is_nothing_are_left_out() -> None:
    which, order = quartiles(np.array([6.0, 6.1]))
    assert len(order) == 4
    table = by_group(np.array([[1, 0, 0, 0], [0, 1, 0, 0]]), which, order)
    assert [row["num"] for row in table["rows"]] == [1, 1]


def test_groups_are_the_worst_of_many() -> None:
    table = by_group(np.array([[1, i % 2, 0, 0] for i in range(100)]), [f"speaker {i:02}" for i in range(100)])
    assert table["num_groups"] == 100
    assert [r["group"] for r in table["rows"][:2]] == ["speaker 01", "speaker 03"]
    assert len(table["rows"]) == transcription.MAX_GROUPS
    assert table["rows"][0]["interval"] is None
